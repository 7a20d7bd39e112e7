"""Every plot draws its arguments: points, bars and lines are the arrays, labels name quantity and unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bidml.features import Doubles
from bidml.report import gain_curve, log_bins, plots, quantile_bins
from bidml.report.plots.style import BLUE, GREEN, GREY, ORANGE, RED

RNG = np.random.default_rng(3)
P = RNG.beta(1.0, 60.0, 4000)
CLICKED = RNG.random(4000) < P


def axes_of(figure: Figure, n: int = 1) -> Axes:
    assert len(figure.axes) == n
    return figure.axes[0]


def line(axes: Axes, label: str) -> tuple[Doubles, Doubles]:
    """The data of the line with this label."""
    (found,) = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def spans(axes: Axes) -> Doubles:
    """Ends of all interval lines, (n, 2, 2): both ends as (x, y)."""
    found = [c for c in axes.collections if isinstance(c, LineCollection)]
    return np.concatenate([np.array(c.get_segments()) for c in found])


def test_reliability_shows_both_bins_with_their_intervals() -> None:
    """Points are observed rates, intervals Wilson's; a bin without an event has an interval and no point."""
    even, logs = quantile_bins(P, CLICKED, P), log_bins(P, CLICKED)
    axes = axes_of(plots.reliability(even, logs))
    assert (axes.get_xlabel(), axes.get_xscale(), axes.get_yscale()) == ("predicted pctr", "log", "log")
    for bins in (even, logs):
        x, y = line(axes, bins.kind)
        some = bins.observed > 0.0
        np.testing.assert_array_equal(x[some], bins.predicted[some])
        np.testing.assert_array_equal(y[some], bins.observed[some])
        assert np.isnan(y[~some]).all()
    np.testing.assert_array_equal(spans(axes)[:, 1, 1], np.concatenate([even.high, logs.high]))
    low, high = line(axes, "calibrated")
    np.testing.assert_array_equal(low, high)


def test_reliability_of_nothing_observed_is_still_drawn() -> None:
    """No event at all: intervals from 0, no point, no error."""
    axes = axes_of(plots.reliability(quantile_bins(P, np.zeros(4000, dtype=bool), P)))
    assert np.isnan(line(axes, "bins of equal size")[1]).all()


@given(st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_gain_rises_from_nothing_to_everything(n: int, seed: int) -> None:
    """The curve is the cumulative share of events by descending score; equal scores are one step."""
    rng = np.random.default_rng(seed)
    score, outcome = rng.integers(0, 5, n).astype(float), rng.random(n) < 0.4
    curve = gain_curve(score, outcome)
    assert (curve.share[0], curve.gain[0], curve.share[-1], curve.gain[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert (np.diff(curve.share) > 0.0).all()
    assert (np.diff(curve.gain) >= 0.0).all()
    if outcome.any():
        top = score == score.max()
        assert curve.share[1] == pytest.approx(top.mean())
        assert curve.gain[1] == pytest.approx(outcome[top].sum() / outcome.sum())


def test_gain_and_lift_are_of_the_same_bins() -> None:
    """The gain curve is drawn as computed; a bar of the lift is rate / base rate, highest scores first."""
    curve = gain_curve(P, CLICKED)
    axes = axes_of(plots.gain(curve))
    np.testing.assert_array_equal(line(axes, "model")[1], curve.gain)
    bins = quantile_bins(P, CLICKED, P, n_bins=10)
    axes = axes_of(plots.lift(bins))
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, bins.observed[::-1] / CLICKED.mean())
    np.testing.assert_allclose(line(axes, "predicted")[1], bins.predicted[::-1] / CLICKED.mean())


def test_log_bins_lose_only_small_bins() -> None:
    """Bins are of equal width in ln p; rows are missing only where a bin has fewer than `min_rows`."""
    bins = log_bins(P, CLICKED, per_decade=4, min_rows=1)
    assert bins.n.sum() == len(P)
    np.testing.assert_allclose((bins.observed * bins.n).sum(), CLICKED.sum())
    bin_of = np.floor(4.0 * np.log10(P)).astype(int)
    np.testing.assert_array_equal(bins.n, np.unique(bin_of, return_counts=True)[1])
    assert log_bins(P, CLICKED, min_rows=50).n.min() >= 50
    assert log_bins(np.zeros(3), np.zeros(3, dtype=bool)).n.size == 0


def test_a_segment_is_red_where_chance_does_not_explain_it() -> None:
    """Ratios with intervals around 1; an infinite end is cut at the axis, the first segment is on top."""
    ratio, low, high = np.array([1.0, 1.5, np.inf]), np.array([0.9, 1.2, 0.8]), np.array([1.1, 1.9, np.inf])
    figure = plots.calibration_by_segment(
        ["a", "b", "c"], ratio, low, high, n_events=np.array([9, 8, 0]), by="os"
    )
    axes = axes_of(figure)
    assert axes.get_title(loc="left") == "Calibration of pctr by os"
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a (9)", "b (8)", "c (0)"]
    colours = [to_hex(c) for c in axes.collections[0].get_colors()]
    assert colours == [BLUE, RED, BLUE]
    ends = spans(axes)
    np.testing.assert_array_equal(ends[:2, 0, 0], low[:2])
    assert ends[2, 1, 0] == axes.get_xlim()[1]


def test_the_landscape_draws_curves_truth_and_where_bids_were() -> None:
    """One line per model on the grid, the truth in ink; the histogram covers the bids inside the grid."""
    grid = np.geomspace(0.1, 10.0, 50)
    rates = grid / (1.0 + grid)
    axes = axes_of(
        plots.landscape(
            grid,
            {"fitted": rates, "Kaplan–Meier": rates**2},
            currency="EUR",
            truth=rates / 2,
            logged_bid_cpm=grid,
        )
    )
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("bid, EUR CPM", "P(win)")
    for name, y in (("fitted", rates), ("Kaplan–Meier", rates**2), ("truth", rates / 2)):
        np.testing.assert_array_equal(line(axes, name)[1], y)
    assert len(axes.patches) == 40


def test_win_rates_by_exchange_are_points_and_lines_of_one_colour() -> None:
    """Observed as points, predicted as a line, per exchange; the axis begins at 0."""
    bid = RNG.lognormal(0.0, 0.6, 3000)
    won = RNG.random(3000) < 0.4
    bins = {
        name: quantile_bins(bid[rows], won[rows], np.full(1500, 0.4), n_bins=6)
        for name, rows in (("adx", slice(0, 1500)), ("nimbus", slice(1500, 3000)))
    }
    axes = axes_of(plots.win_rate_by_exchange(bins, currency="USD"))
    for name, b in bins.items():
        np.testing.assert_array_equal(line(axes, name)[1], b.observed)
    assert sorted({drawn.get_color() for drawn in axes.lines}) == sorted({BLUE, ORANGE})
    assert axes.get_ylim()[0] == 0.0
    one = axes_of(plots.win_rate_by_bid(bins["adx"], currency="USD"))
    np.testing.assert_array_equal(line(one, "predicted")[1], bins["adx"].predicted)


def test_the_surplus_curve_marks_our_bid_on_the_curve() -> None:
    """The dot lies on the model's curve; floor, value and the oracle's bid are told in the legend; no bid, no dot."""
    grid = np.linspace(0.01, 2.0, 200)
    surplus = (1.5 - grid) * grid / (1.0 + grid)
    axes = axes_of(
        plots.surplus_curve(
            grid,
            surplus,
            chosen_cpm=0.58,
            value_cpm=1.5,
            floor_cpm=0.2,
            best_cpm=0.6,
            truth_cpm=surplus,
            currency="USD",
        )
    )
    x, y = line(axes, "our bid 0.58")
    assert (x[0], y[0]) == (0.58, pytest.approx(np.interp(0.58, grid, surplus)))
    assert axes.get_ylabel() == "expected surplus, USD CPM"
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert {"truth", "model", "below floor", "value 1.50", "oracle's bid 0.60", "our bid 0.58"} == labels
    none = axes_of(plots.surplus_curve(grid, surplus, chosen_cpm=0.0, value_cpm=1.5, currency="USD"))
    assert not [drawn for drawn in none.lines if str(drawn.get_label()).startswith("our bid")]


def test_shading_counts_bids_only() -> None:
    """Shares of the auctions with a bid add up to 1; the median is marked."""
    axes = axes_of(plots.shading(np.array([0.5, 0.0, 1.0, 0.5]), np.ones(4)))
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1.0)
    assert line(axes, "median 0.50")[0][0] == 0.5


def test_importance_is_sorted_and_grey_within_chance() -> None:
    """The most expensive feature is on top; what its interval does not tell from 0 is grey."""
    axes = axes_of(
        plots.importance_in_money(
            ["a", "b", "c"], np.array([0.1, 3.0, 1.0]), np.array([0.2, 1.0, 0.5]), currency="USD"
        )
    )
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "c", "b"]
    assert [bar.get_width() for bar in axes.patches] == [0.1, 1.0, 3.0]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [GREY, BLUE, BLUE]
    assert "USD per 1000 auctions" in axes.get_xlabel()


def test_champion_and_challenger_end_at_the_total_difference() -> None:
    """The line is the running sum; the band ends at ±1.96 σ √n; green, red and blue say better, worse, undecided."""
    old = np.ones(1000)
    for gain, colour in ((0.5, GREEN), (-0.5, RED), (0.0, BLUE)):
        new = old + gain + np.tile([-0.1, 0.1], 500)
        axes = axes_of(plots.champion_and_challenger(old, new, currency="USD"))
        drawn = axes.lines[0]
        assert drawn.get_color() == colour
        assert np.asarray(drawn.get_ydata())[-1] == pytest.approx(gain, abs=1e-9)
        band = next(c for c in axes.collections if isinstance(c, PolyCollection))
        top = band.get_paths()[0].vertices[:, 1].max()
        if gain >= 0.0:
            assert top == pytest.approx(gain + 1.96 * 0.1 * np.sqrt(1000) / 1000.0, abs=2e-3)
        assert axes.get_title(loc="right").startswith(f"lift {gain:+.1%}")


def test_compared_bids_are_ratios_where_both_bid() -> None:
    """A challenger that bids a tenth more everywhere has the median 1.1; lone bids are counted apart."""
    old = np.append(RNG.lognormal(0.0, 0.5, 500), [0.0, 1.0])
    new = 1.1 * old
    new[-2:] = [1.0, 0.0]
    axes = axes_of(plots.bids_compared(old, new, currency="USD"))
    np.testing.assert_allclose(line(axes, "median")[1], 1.1)
    assert axes.get_title(loc="right") == "only one bids: 1 / 1"
    axes_of(plots.bids_compared(np.zeros(3), np.ones(3), currency="USD"))


def test_estimates_are_drawn_with_the_truth() -> None:
    """Points and intervals in the given order from the top; the truth is a line with its value."""
    value, low, high = np.array([1.0, 2.0]), np.array([0.5, 1.8]), np.array([1.5, 2.2])
    axes = axes_of(
        plots.estimates(["ips", "dr"], value, low, high, what="surplus", unit="USD CPM", truth=1.9)
    )
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ips", "dr"]
    np.testing.assert_array_equal(np.asarray(axes.lines[0].get_xdata()), value)
    np.testing.assert_array_equal(spans(axes)[:, :, 0], np.stack([low, high], axis=1))
    assert line(axes, "truth 1.9")[0][0] == 1.9
    assert axes.get_xlabel() == "surplus, USD CPM"


def test_drift_draws_values_band_and_the_held_out_part() -> None:
    """Observed and predicted over UTC times, with units; the split is marked."""
    when = np.arange("2026-11-01", "2026-11-08", dtype="datetime64[D]")
    value = np.linspace(1.0, 2.0, 7)
    axes = axes_of(
        plots.drift(
            when, value, value - 0.5, value + 0.5, what="price paid", unit="USD CPM",
            predicted=value * 2, held_out_from=when[5],
        )
    )  # fmt: skip
    (observed,) = [drawn for drawn in axes.lines if drawn.get_label() == "observed"]
    np.testing.assert_array_equal(np.asarray(observed.get_ydata()), value)
    assert (axes.get_title(loc="left"), axes.get_ylabel()) == ("Price paid over time", "price paid, USD CPM")
    assert {"held out from here", "predicted"} <= {str(drawn.get_label()) for drawn in axes.lines}


def test_psi_is_coloured_by_its_bounds() -> None:
    """Below the first bound blue, above it orange, above the second red; the largest on top."""
    axes = axes_of(plots.psi(["a", "b", "c"], np.array([0.01, 0.5, 0.15])))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "c", "b"]
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == [BLUE, ORANGE, RED]


def test_latency_marks_its_percentiles() -> None:
    """All calls below the cut are in the histogram; p50 and p99 are those of the samples."""
    samples = RNG.lognormal(0.5, 0.2, 5000)
    axes = axes_of(plots.latency(samples))
    assert axes.get_xlabel() == "µs per call"
    p50, p99 = np.quantile(samples, [0.5, 0.99])
    assert line(axes, f"p50 {p50:.3g} µs")[0][0] == p50
    assert line(axes, f"p99 {p99:.3g} µs")[0][0] == p99
    assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1.0, abs=1e-3)
    two = axes_of(plots.latency({"ours": samples, "theirs": 9.0 * samples}))
    assert len([drawn for drawn in two.lines if str(drawn.get_label()).startswith("theirs: ")]) == 2


def test_pacing_shows_money_above_and_the_multiplier_below() -> None:
    """Two axes with one clock of 24 hours; the budget is in sight."""
    hour = np.arange(1.0, 25.0)
    spent, multiplier = np.linspace(1.0, 95.0, 24), np.linspace(1.0, 0.5, 24)
    figure = plots.pacing(hour, spent, multiplier, budget=100.0, currency="USD", target=spent)
    money, control = figure.axes
    np.testing.assert_array_equal(line(money, "spent")[1], np.append(0.0, spent))
    assert line(money, "budget 100")[1][0] == 100.0
    np.testing.assert_array_equal(np.asarray(control.lines[0].get_ydata())[1:], multiplier)
    assert (money.get_ylabel(), control.get_ylabel()) == ("spent, USD", "pacing multiplier")
    assert control.get_xlim() == (0.0, 24.0)


def test_no_plot_touches_the_global_state() -> None:
    """Nothing is registered with pyplot: a server that draws a thousand reports does not grow."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plots.shading(np.ones(3), np.ones(3))
    assert plt.get_fignums() == before == []
