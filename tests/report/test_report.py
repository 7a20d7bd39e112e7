"""Tables, curves and the HTML file: what they show is what the numbers say."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.certify import Certificate
from bidml.pricing import WinCurve
from bidml.report import ReportData, html_report, plots, tables_of
from bidml.report.curves import quantile_bins, wilson_interval
from bidml.report.tables import markdown

SCORES = {"log_loss": 0.05, "normalized_entropy": 0.9, "calibration_ratio": 1.0, "auc": 0.7}
POLICY = {
    "surplus_cpm": 1.0,
    "surplus_ci95_cpm": 0.1,
    "of_oracle": 0.5,
    "win_rate": 0.2,
    "spend_cpm": 0.3,
    "mean_bid_cpm": 1.5,
}
METRICS = {
    "ctr": {"model": SCORES, "base rate": SCORES | {"log_loss": 0.06}, "truth": SCORES | {"log_loss": 0.04}},
    "win": {"model": SCORES, "base rate": SCORES},
    "money": {"oracle": POLICY, "bidml": POLICY, "best constant shade": POLICY | {"shade": 0.6}},
    "market": "known prices",
    "latency": {"n_calls": 1000, "bid(request, line)": {"p10": 0.9, "p50": 1.0, "p99": 2.0, "p99.9": 5.0}},
}


def report_data(n: int = 400) -> ReportData:
    rng = np.random.default_rng(0)
    bid = rng.lognormal(0.0, 0.5, n)
    test = pd.DataFrame(
        {"bid_cpm": bid, "won": rng.random(n) < 0.4, "clicked": rng.random(n) < 0.1, "exchange": "a<b>&"}
    )
    test["clicked"] &= test["won"]
    quarantine = {
        "n_rows": n,
        "n_quarantined": 3,
        "counts": {"price_above_bid": 3},
        "why": {"price_above_bid": "<why>"},
    }
    certificate = Certificate("ab" * 32, 256, {"the oracle": {"pctr": 0.0}, "bidml.score": {"pctr": 1e-16}})
    return ReportData(
        title="a <title> & more",
        currency="USD",
        metrics=METRICS,
        provenance={"note": "</pre><script>alert(1)</script>"},
        quarantine=quarantine,
        certificate=certificate,
        test=test,
        pctr=rng.beta(2.0, 30.0, n),
        curve=WinCurve(np.zeros(n), np.full(n, 2.0), 1.0),
    )


def test_the_report_is_self_contained_and_well_formed() -> None:
    """No network, no script, everything escaped, every element closed."""
    text = html_report(report_data())
    assert not re.search(r"<script|<link|<img|@import|(?:src|href)=.https?:", text, re.IGNORECASE)
    assert "a &lt;title&gt; &amp; more" in text
    assert "&lt;why&gt;" in text
    assert text.count("<svg") == 4
    assert len(text) < 3_000_000
    _Balance().feed(text)


def test_the_report_is_deterministic() -> None:
    """The same data gives the same bytes."""
    assert html_report(report_data()) == html_report(report_data())


def test_every_number_of_the_metrics_is_in_a_table() -> None:
    """One table per part, one row per contender."""
    tables = {table.title.split(":")[0].split(" ")[0]: table for table in tables_of(METRICS, currency="USD")}
    assert set(tables) == {"CTR", "Win", "Money", "Latency"}
    assert tables["CTR"].rows[0] == ("model", "0.050000", "0.9000", "1.0000", "0.7000")
    assert "50.0%" in tables["CTR"].note
    assert tables["Money"].rows[2][0] == "best constant shade (0.60)"
    assert tables["Latency"].rows == (("bid(request, line)", "0.90", "1.00", "2.00", "5.00"),)
    for table in tables.values():
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert markdown(table).count("\n| ") >= len(table.rows)


@given(st.integers(1, 60), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_bins_lose_nothing(n: int, n_bins: int, seed: int) -> None:
    """Counts, outcomes and predictions add up over the bins; bins are ordered; intervals hold the observed."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 12, n).astype(float)
    y = rng.random(n) < 0.3
    p = rng.random(n)
    bins = quantile_bins(x, y, p, n_bins=n_bins)
    assert bins.n.sum() == n
    np.testing.assert_allclose((bins.observed * bins.n).sum(), y.sum(), atol=1e-9)
    np.testing.assert_allclose((bins.predicted * bins.n).sum(), p.sum(), atol=1e-9)
    assert (np.diff(bins.x) > 0.0).all()
    assert ((bins.low <= bins.observed + 1e-12) & (bins.observed <= bins.high + 1e-12)).all()


def test_the_wilson_interval_is_that_of_the_paper() -> None:
    """0 of 10: [0, z²/(n + z²)]; a half of 100: by hand."""
    low, high = wilson_interval(np.array([0.0, 0.5]), np.array([10, 100]))
    z2 = 1.959963984540054**2
    np.testing.assert_allclose(low[0], 0.0, atol=1e-15)
    np.testing.assert_allclose(high[0], z2 / (10 + z2))
    np.testing.assert_allclose([low[1], high[1]], [0.40383, 0.59617], atol=1e-5)


def test_plots_draw_their_arguments() -> None:
    """The points are the bins, the bars the surplus, the histogram the factors."""
    data = report_data()
    assert data.pctr is not None
    clicked = data.test["clicked"].to_numpy()
    bins = quantile_bins(data.pctr, clicked, data.pctr, n_bins=8)
    axes = plots.reliability(bins).axes[0]
    positive = bins.observed > 0.0
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), bins.predicted[positive])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), bins.observed[positive])
    bars = plots.surplus_of_policies(METRICS["money"], currency="USD").axes[0].patches  # type: ignore[arg-type]
    assert [bar.get_width() for bar in bars] == [1.0, 1.0, 1.0]
    factors = plots.shading(np.array([0.5, 0.0, 1.0]), np.array([1.0, 1.0, 1.0])).axes[0].patches
    assert sum(bar.get_height() for bar in factors) == pytest.approx(1.0)


class _Balance(HTMLParser):
    VOID = frozenset({"meta", "path", "use", "rect", "circle", "line", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_an_interval_holds_what_was_observed() -> None:
    """At 0 of n and n of n, too, where rounding put its end beyond (and matplotlib refused to draw it)."""
    n = np.arange(1, 3000)
    for observed in (np.zeros(len(n)), np.ones(len(n)), 1.0 / n):
        low, high = wilson_interval(observed, n)
        assert (low <= observed).all()
        assert (observed <= high).all()
