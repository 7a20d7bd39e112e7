"""Tables, curves and the HTML file: what they show is what the numbers say."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.certify import Certificate
from bidml.pricing import WinCurve
from bidml.report import Duel, ReportData, gain_curve, html_report, report_with_plots, tables_of
from bidml.report.curves import quantile_bins, wilson_interval
from bidml.report.summary import summary_of
from bidml.report.tables import markdown

SCORES = {
    "log_loss": 0.05,
    "normalized_entropy": 0.9,
    "calibration_ratio": 1.0,
    "calibration_low": 0.8,
    "calibration_high": 1.3,
    "auc": 0.7,
}
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
    "importance": {
        "judge": "known prices",
        "n_rows": 400,
        "features": {
            name: {"loss_cpm": loss, "loss_ci95_cpm": 0.1} for name, loss in (("os", 0.2), ("<app>", 0.9))
        },
    },
    "latency": {"n_calls": 1000, "bid(request, line)": {"p10": 0.9, "p50": 1.0, "p99": 2.0, "p99.9": 5.0}},
}


CHECK = {
    "name": "certificate", "passed": True, "value": 256.0, "bound": "all agree", "low": None, "high": None
}  # fmt: skip


def report_data(n: int = 1200) -> ReportData:
    rng = np.random.default_rng(0)
    bid = rng.lognormal(0.0, 0.5, n)
    test = pd.DataFrame(
        {
            "timestamp": pd.date_range("2026-11-01", periods=n, freq="h", tz="UTC"),
            "bid_cpm": bid,
            "won": rng.random(n) < 0.6,
            "clicked": rng.random(n) < 0.1,
            "price_cpm": bid,
            "exchange": rng.choice(["a<b>&", "$m^2$"], n),
        }
    )
    test["clicked"] &= test["won"]
    train = pd.concat([test] * 3, ignore_index=True)
    train["timestamp"] -= pd.Timedelta("50D")
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
        value_cpm=np.full(n, 2.0),
        bid_cpm=np.full(n, 1.0),
        train=train,
        psi={"os": 0.2, "<app>": 0.01},
        checks=[CHECK, CHECK | {"name": "calibration <all>", "passed": False, "low": 1.0, "high": 1.4}],
        duel=Duel(bid, 1.1 * bid, np.ones(n), rng.normal(1.0, 0.1, n)),
    )


@pytest.fixture(scope="module")
def drawn() -> tuple[str, dict[str, str]]:
    """A report with every part, and its plots."""
    return report_with_plots(report_data())


@pytest.fixture(scope="module")
def page(drawn: tuple[str, dict[str, str]]) -> str:
    return drawn[0]


@pytest.fixture(scope="module")
def files(drawn: tuple[str, dict[str, str]]) -> dict[str, str]:
    return drawn[1]


def test_the_report_is_self_contained_and_well_formed(page: str) -> None:
    """No network, no script, everything escaped, every element closed; every section has its figures."""
    text = page
    assert not loads_or_runs(text)
    assert "a &lt;title&gt; &amp; more" in text
    assert "&lt;why&gt;" in text
    sections = re.findall(r"<h2>(.*?)</h2>", text)
    for section in ("The gate", "Champion and challenger", "Clicks", "Winning", "Money", "Change over time"):
        assert section in sections
    assert text.count("<svg") == text.count("<figcaption>") == 15
    assert len(text) < 3_000_000
    _Balance().feed(text)


def loads_or_runs(text: str) -> list[str]:
    """What in an HTML file would fetch something or run something."""
    tags = r"<script|<iframe|<object|<embed|<img|@import|<link(?! rel=.icon. href=.data:,)"
    addresses = r"(?:src|srcset|href|action|data)\s*=\s*[\"'](?!#|data:)[^\"']*|url\((?!#)[^)]*\)"
    return re.findall(rf"{tags}|\son\w+\s*=|javascript:|{addresses}", text, re.IGNORECASE)


@pytest.mark.parametrize(
    "intruder",
    [
        '<script src="a.js"></script>', "<img src='https://x.test/p.gif'>", '<link rel="stylesheet" href="//x/s.css">',
        "<style>@import 'https://x.test/s.css';</style>", '<p style="background: url(http://x.test/b.png)">',
        '<p onclick="alert(1)">', '<a href="javascript:alert(1)">', '<svg><use xlink:href="https://x.test/i.svg#a"/></svg>',
    ],
)  # fmt: skip
def test_what_loads_or_runs_is_seen(page: str, intruder: str) -> None:
    """The check of self-containment catches each way out."""
    assert loads_or_runs(page.replace("</body>", intruder + "</body>"))


def test_colours_are_the_page_s_own(page: str) -> None:
    """No plot fixes a colour: dark pages redefine every one of them."""
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert set(re.findall(r"#[0-9a-fA-F]{6}\b", drawings)) == set()
    used = set(re.findall(r"var\((--c[0-9a-f]{6})\)", drawings))
    assert used
    for variable in used:
        assert page.count(f"{variable}:") == 2, "one value for light, one for dark"


def test_every_figure_is_a_file_that_stands_alone(files: dict[str, str]) -> None:
    """Names come from titles, one each; the colours are fixed, because no page gives them."""
    assert len(files) == 15
    assert {"reliability_of_pctr.svg", "win_rate_by_exchange.svg", "surplus_on_the_same_auctions.svg"} <= set(
        files
    )
    for text in files.values():
        assert ElementTree.fromstring(text)[0].attrib == {
            "width": "100%",
            "height": "100%",
            "fill": "#ffffff",
        }
        assert "var(" not in text


def test_the_summary_says_what_to_think() -> None:
    """A failed check, certain miscalibration and a model that knows nothing are bad; what may be chance is not."""
    data = report_data()

    def good(metrics: dict[str, Any], checks: Any = ()) -> dict[str, bool | None]:
        items = summary_of(metrics, data.certificate, data.quarantine, checks, "USD")
        return {item.name: item.good for item in items}

    assert good(METRICS) == {
        "Surplus": None,
        "Click calibration": True,
        "Win calibration": True,
        "Normalized entropy": True,
        "Certificate": True,
        "Rows set aside": None,
    }
    off = {"model": SCORES | {"calibration_low": 1.2, "normalized_entropy": 1.01}}
    low = {"model": SCORES | {"calibration_ratio": 0.7, "calibration_high": 0.8}}
    assert good({"ctr": low})["Click calibration"] is False
    assert good({"ctr": low, "win": low})["Click calibration"] is None
    assert good({"ctr": low, "win": low})["Win calibration"] is False
    found = good({"ctr": off, "win": off}, data.checks)
    assert [found[name] for name in ("Gate", "Click calibration", "Win calibration")] == [False] * 3
    assert found["Normalized entropy"] is False
    assert good({}, [CHECK])["Gate"] is True


def test_the_report_is_deterministic(page: str) -> None:
    """The same data gives the same bytes: of a report on winning alone, which has few figures."""
    data = replace(report_data(), duel=None, train=None, pctr=None)
    assert (first := html_report(data)) == html_report(data)
    assert 0 < first.count("<svg") < page.count("<svg")


def test_every_number_of_the_metrics_is_in_a_table() -> None:
    """One table per part, one row per contender."""
    tables = {table.title.split(":")[0].split(" ")[0]: table for table in tables_of(METRICS, currency="USD")}
    assert set(tables) == {"CTR", "Win", "Money", "Surplus", "Latency"}
    assert tables["CTR"].rows[0] == ("model", "0.050000", "0.9000", "1.0000", "0.7000")
    assert "50.0%" in tables["CTR"].note
    assert tables["Money"].rows[2][0] == "best constant shade (0.60)"
    assert [row[0] for row in tables["Surplus"].rows] == ["<app>", "os"]
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


@given(st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_a_weight_is_that_many_rows(n: int, seed: int) -> None:
    """Weighted bins have the means of the log in which each row is repeated by its weight."""
    rng = np.random.default_rng(seed)
    x, y, p = rng.integers(0, 4, n).astype(float), rng.random(n) < 0.4, rng.random(n)
    times = rng.integers(1, 6, n)
    bins = quantile_bins(x, y, p, n_bins=1, weight=times.astype(float))
    whole = quantile_bins(*(np.repeat(cells, times) for cells in (x, y, p)), n_bins=1)
    for name in ("x", "predicted", "observed"):
        np.testing.assert_allclose(getattr(bins, name), getattr(whole, name))
    assert (bins.high - bins.low >= whole.high - whole.low - 1e-12).all()
    score = rng.permutation(n).astype(float)
    curve = gain_curve(score, y, weight=times.astype(float))
    of_rows = gain_curve(np.repeat(score, times), np.repeat(y, times))
    np.testing.assert_allclose(curve.share, of_rows.share)
    np.testing.assert_allclose(curve.gain, of_rows.gain)


def test_the_wilson_interval_is_that_of_the_paper() -> None:
    """0 of 10: [0, z²/(n + z²)]; a half of 100: by hand."""
    low, high = wilson_interval(np.array([0.0, 0.5]), np.array([10, 100]))
    z2 = 1.959963984540054**2
    np.testing.assert_allclose(low[0], 0.0, atol=1e-15)
    np.testing.assert_allclose(high[0], z2 / (10 + z2))
    np.testing.assert_allclose([low[1], high[1]], [0.40383, 0.59617], atol=1e-5)


class _Balance(HTMLParser):
    VOID = frozenset({"meta", "link", "path", "use", "rect", "circle", "line", "br"})

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
