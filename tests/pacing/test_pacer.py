"""Laws of pacing: the budget is never exceeded by more than the bound, and is spent where it buys most."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pacing_replay import clock_of
from bidml.errors import BidmlError, ConfigError, DataError
from bidml.pacing import (
    BudgetLedger,
    BudgetPacer,
    DualDescent,
    Pid,
    TargetCost,
    TrafficForecast,
    controller_from_json,
    min_pacing,
)

overspends = st.lists(st.floats(-1.0, 50.0), max_size=30)


@given(overspends=overspends, which=st.sampled_from(["dual", "pid"]), delay=st.integers(0, 10))
def test_a_multiplier_stays_within_its_bounds_and_survives_a_restart(overspends, which, delay):
    bounds = {"lowest": 0.1, "highest": 1.0}
    kept = DualDescent(0.5, **bounds) if which == "dual" else Pid(0.5, **bounds)
    for overspend in overspends:
        restarted = controller_from_json(json.loads(json.dumps(kept.to_json())))
        assert kept.observe(overspend, 100, delay=delay) == restarted.observe(overspend, 100, delay=delay)
        assert 0.1 <= kept.multiplier <= 1.0


@pytest.mark.parametrize("make", [DualDescent, Pid])
def test_overspend_lowers_the_multiplier_and_underspend_raises_it(make):
    assert make(0.5).observe(0.4, 500) < 0.5
    assert make(0.5).observe(-0.4, 500) > 0.5
    assert make(0.5).observe(0.0, 500) == pytest.approx(0.5)


def test_a_late_report_moves_the_dual_less():
    steps = [0.5 - DualDescent(0.5).observe(0.4, 10_000, delay=delay) for delay in (0, 1, 5)]
    assert steps == sorted(steps, reverse=True)
    assert steps[2] > 0.0


@given(counts=st.lists(st.lists(st.floats(0.0, 1e6), min_size=12, max_size=12), min_size=1, max_size=5))
def test_a_forecast_keeps_the_mean_volume_and_leaves_no_window_empty(counts):
    total = np.mean([sum(day) for day in counts])
    if total < 1e-3:
        return
    forecast = TrafficForecast.fit(counts, width=2)
    assert forecast.total == pytest.approx(1.02 * total, rel=1e-9)
    assert min(forecast.expected) > 0.0
    assert forecast == TrafficForecast.from_json(json.loads(json.dumps(forecast.to_json())))


def day_of_auctions(ends: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(values, market prices), (n,) each: currency per impression."""
    rng = np.random.default_rng(seed)
    n = int(ends[-1])
    return rng.lognormal(0.0, 0.7, n), rng.lognormal(-0.3, 0.8, n)


def run_day(
    values, prices, ends, pacer, *, late=0, restart_at=(), ledger=None
) -> tuple[np.ndarray, list[float]]:
    """Second-price auctions with a lease for each window; returns what each cost (n,), and the multipliers."""
    costs, multipliers, reports, begin = np.zeros(len(values)), [], [], 0
    ledger = ledger or BudgetLedger(pacer.budget)
    for window, end in enumerate(ends):
        if window in restart_at:
            pacer = BudgetPacer.from_json(json.loads(json.dumps(pacer.to_json())))
            ledger = BudgetLedger.from_json(json.loads(json.dumps(ledger.to_json())))
        multiplier = pacer.begin(window)
        multipliers.append(multiplier)
        lease = ledger.grant(ledger.available, now=float(window), seconds=1.0) if multiplier > 0.0 else None
        for row in range(begin, int(end)) if lease else ():
            bid = multiplier * values[row]
            if lease.commit(bid, now=window + 0.5):
                costs[row] = prices[row] if bid > prices[row] else 0.0
                lease.settle(bid, price=costs[row])
        if lease:
            ledger.close(lease)
        reports.append((window, costs[begin : int(end)].sum(), int(end) - begin))
        begin = int(end)
        if len(reports) > late:
            which, spend, n = reports.pop(0)
            pacer.report(which, spend=spend, n_auctions=n)
    return costs, multipliers


def best_static_value(values, prices, budget) -> float:
    def value(multiplier):
        costs = np.where(multiplier * values > prices, prices, 0.0)
        within = np.cumsum(costs) <= budget
        return values[(costs > 0.0) & within].sum()

    return max(value(m) for m in np.geomspace(0.05, 1.0, 200))


@pytest.fixture(scope="module", params=[1458, 2997])
def real_day(request, shared_data: Path) -> tuple[TrafficForecast, np.ndarray]:
    """A real day's windows of 20,000 auctions, and the forecast from other days."""
    return clock_of("day", request.param, 20_000, shared_data)


@pytest.mark.parametrize("late", [0, 3])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_day_with_real_traffic_buys_nearly_what_hindsight_would(real_day, late, share):
    forecast, ends = real_day
    values, prices = day_of_auctions(ends, seed=1)
    budget = share * prices[values > prices].sum()
    costs, _ = run_day(values, prices, ends, BudgetPacer(budget, forecast, DualDescent(0.5)), late=late)
    assert costs.sum() <= budget
    assert costs.sum() >= 0.9 * budget
    # what is lost is the error of the forecast: the next test
    assert values[costs > 0.0].sum() >= 0.91 * best_static_value(values, prices, budget)


def test_with_a_right_forecast_the_loss_is_below_two_percent(real_day):
    _, ends = real_day
    forecast = TrafficForecast(tuple(np.diff(ends, prepend=0.0) + 1e-6))
    values, prices = day_of_auctions(ends, seed=2)
    budget = 0.1 * prices[values > prices].sum()
    costs, _ = run_day(values, prices, ends, BudgetPacer(budget, forecast, DualDescent(0.5)))
    assert 0.97 * budget <= costs.sum() <= budget
    assert values[costs > 0.0].sum() >= 0.98 * best_static_value(values, prices, budget)


def test_a_restart_changes_nothing(real_day):
    forecast, ends = real_day
    values, prices = day_of_auctions(ends, seed=3)
    budget = 0.1 * prices[values > prices].sum()
    runs = [
        run_day(values, prices, ends, BudgetPacer(budget, forecast, DualDescent(0.5)), late=2, restart_at=at)
        for at in ((), (1, 50, 51, 200))
    ]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_an_ample_budget_does_not_raise_bids_above_value():
    ends = np.arange(100, 2_100, 100)
    values, prices = day_of_auctions(ends, seed=4)
    pacer = BudgetPacer(10.0 * prices.sum(), TrafficForecast.flat(20, 2_000), DualDescent(1.0))
    _, multipliers = run_day(values, prices, ends, pacer)
    assert set(multipliers) == {1.0}


def test_without_reports_bidding_stops_until_they_come():
    pacer = BudgetPacer(100.0, TrafficForecast.flat(50, 1_000), DualDescent(1.0), stale_after=3)
    assert [pacer.begin(window) > 0.0 for window in range(6)] == [True, True, True, True, False, False]
    for window in range(6):
        pacer.report(window, spend=1.0, n_auctions=20)
    assert pacer.begin(6) > 0.0


def test_a_spent_budget_stops_the_bidding():
    pacer = BudgetPacer(10.0, TrafficForecast.flat(5, 100), DualDescent(1.0))
    pacer.begin(0)
    pacer.report(0, spend=10.0, n_auctions=20)
    assert pacer.begin(1) == 0.0


def test_min_pacing_holds_budget_and_target_cost():
    """Value is target cost × results: whichever of budget and target binds, neither is broken by more than 3 %."""
    rng = np.random.default_rng(5)
    n_windows, n = 200, 150
    target = 2.0
    for budget_share, binding in ((0.2, "budget"), (10.0, "target")):
        p = rng.lognormal(-2.0, 0.8, (n_windows, n))
        price = rng.lognormal(-1.0, 0.6, (n_windows, n))
        budget = budget_share * price[p * target > price].sum()
        pacer = BudgetPacer(
            budget, TrafficForecast.flat(n_windows, n_windows * n), DualDescent(2.0, highest=20.0)
        )
        cost = TargetCost(target, DualDescent(2.0, highest=20.0))
        spend = results = 0.0
        seen = []
        for window in range(n_windows):
            multiplier = min_pacing(pacer.begin(window), cost.multiplier)
            won = multiplier * target * p[window] > price[window]
            paid, bought = price[window][won].sum(), p[window][won].sum()
            pacer.report(window, spend=paid, n_auctions=n)
            cost.report(spend=paid, results=bought, n_auctions=n)
            spend, results = spend + paid, results + bought
            seen.append(multiplier)
        assert spend <= 1.01 * budget
        assert spend <= 1.03 * target * results
        if binding == "budget":
            assert spend >= 0.97 * budget
        else:
            assert spend >= 0.95 * target * results
            assert np.mean(seen[50:]) > 1.0


def test_a_window_without_results_is_no_catastrophe():
    cost = TargetCost(1.0, DualDescent(1.0, highest=2.0), recent_spend=10.0)
    assert 0.5 < cost.report(spend=1.0, results=0.0, n_auctions=100) < 1.0
    assert TargetCost.from_json(json.loads(json.dumps(cost.to_json()))) == cost


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DualDescent(0.0),
        lambda: DualDescent(0.5, step_per_auction=0.0),
        lambda: Pid(2.0, highest=1.0),
        lambda: TrafficForecast((0.0, 0.0)),
        lambda: TrafficForecast((1.0, float("nan"))),
        lambda: TrafficForecast.fit([[1.0, 2.0], [1.0]]),
        lambda: BudgetPacer(0.0, TrafficForecast.flat(2, 10), DualDescent()),
        lambda: TargetCost(-1.0, DualDescent()),
        lambda: BudgetLedger(float("inf")),
        lambda: DualDescent().observe(float("nan"), 1),
        lambda: controller_from_json({"kind": "magic"}),
        lambda: controller_from_json({"kind": "pid", "speed": 1.0}),
        lambda: BudgetPacer.from_json({"budget": 1.0}),
        lambda: BudgetLedger.from_json({"budget": 1.0, "granted": 3}),
        lambda: TargetCost.from_json({}),
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises((ConfigError, DataError)) as caught:
        wrong()
    assert isinstance(caught.value, BidmlError)


def test_windows_begin_in_order_and_are_reported_once():
    pacer = BudgetPacer(1.0, TrafficForecast.flat(3, 10), DualDescent())
    pacer.begin(1)
    for call in (lambda: pacer.begin(1), lambda: pacer.begin(3)):
        with pytest.raises(DataError, match="begin in order"):
            call()
    with pytest.raises(DataError, match="at least 0"):
        pacer.report(1, spend=float("nan"), n_auctions=1)
    pacer.report(1, spend=0.0, n_auctions=0)
    with pytest.raises(DataError, match="reported once"):
        pacer.report(1, spend=0.0, n_auctions=1)


def test_pacing_needs_no_array_library():
    code = "import sys, bidml.pacing; print(sorted({'numpy', 'pandas', 'scipy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
