"""Budgets on real auctions: campaigns 1458 and 2997 of iPinYou, replayed in time order.

Every auction has a true market price and the authors' pctr, so any bid's outcome is known. The first period tunes, the
second is replayed in 288 windows by one of two clocks. `auctions`: all windows have equally many, as in the design
experiment. `day`: how many fall into each window is the count of a real day of the 5-minute aggregates, and the
forecast is fitted to other days of that campaign, with their errors. Value is expected clicks, Σ pctr of won
impressions. The yardstick is the best multiplier in hindsight, constant over the day, stopped when the budget is spent.

Policies, all with the same hard stop: `linear` b = b0 · pctr with b0 tuned on the first period (the ORTB protocol's
LIN); `ortb` the non-linear bid of Zhang et al. (KDD 2014) with w(b) = b / (c + b), tuned alike; `static` the optimal
bid of the auction's type with a tuned multiplier; `pid` and `dual` the same bid with a controller that starts there.
`_x4`: it starts four times too high. `_late`: reports of spend come two windows late.

    python -m benchmarks.pacing_replay [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import minimize

from bidml.pacing import BudgetPacer, Controller, DualDescent, Pid, TrafficForecast
from bidml.pricing import WinCurve, first_price_optimum_cpm
from bidml.replay import affordable
from bidml.report import plots

Windows: TypeAlias = npt.NDArray[np.int64]
Doubles: TypeAlias = npt.NDArray[np.float64]
Bidder: TypeAlias = Callable[[Doubles], Doubles]  # values, CPM → bids, CPM; both (n,)

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
CAMPAIGNS: Final = (1458, 2997)
BUDGET_SHARES: Final = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
CLOCKS: Final = ("auctions", "day")
PACED: Final = ("pid", "dual", "pid_x4", "dual_x4", "pid_late", "dual_late")
POLICIES: Final = ("linear", "ortb", "static", *PACED)
LATE_WINDOWS: Final = 2
N_WINDOWS: Final = 288
CAP_CPM: Final = 3.01  # CNY; above every price of the data
_FEN_PER_CNY: Final = 100.0
_LOWEST, _HIGHEST = 1e-4, 1e4
_WRONG_START: Final = 4.0
# The campaign whose days of traffic are used: 2997 itself has no complete day in the aggregates.
_SHAPE_OF: Final = {1458: (1458, "2013-06-12"), 2997: (2259, "2013-10-22")}


@dataclass(frozen=True, slots=True, eq=False)
class Auctions:
    """n auctions in time order, (n,) each: pctr, clicks, true market price in CNY CPM."""

    pctr: Doubles
    clicked: npt.NDArray[np.int64]
    market_price_cpm: Doubles

    def __len__(self) -> int:
        return len(self.pctr)

    @property
    def full_cost(self) -> float:
        """CNY to win all at their market price: what budgets are a share of."""
        return float(self.market_price_cpm.sum()) / 1000.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One replay: money in CNY, `value` in expected clicks; `percent_of_best` of the hindsight multiplier's value."""

    campaign: int
    auction_type: int
    clock: str
    budget_share: float
    policy: str
    budget: float
    spend: float
    value: float
    clicks: int
    percent_of_best: float

    @property
    def utilisation(self) -> float:
        return self.spend / self.budget


def load_campaign(campaign: int, data: Path = DATA) -> tuple[Auctions, Auctions]:
    """The tuning period and the replayed one: 1458's train and test, the halves of 2997's test set."""
    table = pd.read_parquet(data / "ipinyou_auctions_1458_2997.parquet")
    table = table[table["campaign"] == campaign]
    if campaign == 1458:
        first, second = (table[table["split"] == split] for split in ("train", "test"))
    else:
        first, second = table.iloc[: len(table) // 2], table.iloc[len(table) // 2 :]
    return _auctions(first), _auctions(second)


def clock_of(
    clock: str, campaign: int, n_auctions: int, data: Path = DATA
) -> tuple[TrafficForecast, Windows]:
    """The forecast, in auctions, and where each window ends in the order of the auctions, (N_WINDOWS,)."""
    if clock == "auctions":
        ends = np.linspace(0.0, n_auctions, N_WINDOWS + 1)[1:]
        return TrafficForecast.flat(N_WINDOWS, n_auctions), np.rint(ends).astype(np.int64)
    table = pd.read_parquet(data / "ipinyou_5min_aggregates_train.parquet")
    shape_of, replayed = _SHAPE_OF[campaign]
    table = table[table["campaign"] == shape_of]
    time = table["datetime"]
    slot = (time.dt.hour * 60 + time.dt.minute) // 5
    days = table.assign(day=time.dt.date.astype(str), slot=slot).pivot_table(
        index="day", columns="slot", values="total_bids_cur", aggfunc="sum"
    )
    days = days.reindex(columns=range(N_WINDOWS)).fillna(0.0)
    today = days.loc[replayed].to_numpy(dtype=np.float64)
    others = days.drop(index=replayed)
    others = others[(others > 0.0).mean(axis=1) > 0.6]  # the first and last days are cut off
    forecast = TrafficForecast.fit(others.to_numpy().tolist())
    scaled = TrafficForecast(tuple(n * n_auctions / forecast.total for n in forecast.expected))
    return scaled, np.rint(np.cumsum(today) / today.sum() * n_auctions).astype(np.int64)


def replay_campaign(
    campaign: int, auction_type: int, data: Path = DATA, *, budget_shares: Sequence[float] = BUDGET_SHARES
) -> list[Outcome]:
    """All policies by all clocks at all budgets; `auction_type` is 1 or 2."""
    tuning, test = load_campaign(campaign, data)
    clocks = {clock: clock_of(clock, campaign, len(test), data) for clock in CLOCKS}
    curve = fit_log_logistic(tuning.market_price_cpm)
    best_bid = _first_price_bidder(curve) if auction_type == 1 else _linear_bidder
    static_bidders = {
        "static": best_bid,
        "linear": _linear_bidder,
        "ortb": _first_price_bidder(WinCurve(np.log(np.median(tuning.market_price_cpm)), 1.0)),
    }
    unit = value_unit(tuning)
    found: list[Outcome] = []
    for share in budget_shares:
        budget, tuned = share * test.full_cost, share * tuning.full_cost
        _, best = best_multiplier(test, best_bid, unit, budget, auction_type)

        def outcome(policy: str, clock: str, costs: Doubles, budget: float = budget, best: float = best,
                    share: float = share) -> Outcome:  # fmt: skip
            value, clicks = float(test.pctr[costs > 0.0].sum()), int(test.clicked[costs > 0.0].sum())
            spend, percent = float(costs.sum()), 100.0 * value / best
            return Outcome(
                campaign, auction_type, clock, share, policy, budget, spend, value, clicks, percent
            )

        start = 1.0
        for policy, bidder in static_bidders.items():
            tuned_multiplier, _ = best_multiplier(tuning, bidder, unit, tuned, auction_type)
            start = tuned_multiplier if policy == "static" else start
            bids = bidder(tuned_multiplier * unit * test.pctr)
            costs = costs_within(bids, test.market_price_cpm, budget, auction_type)
            found.extend(outcome(policy, clock, costs) for clock in CLOCKS)
        for clock, (forecast, ends) in clocks.items():
            for policy in PACED:
                pacer = BudgetPacer(budget, forecast, _controller(policy, start))
                late = LATE_WINDOWS if policy.endswith("_late") else 0
                costs, _ = paced_costs(test, best_bid, unit, pacer, ends, auction_type, late)
                found.append(outcome(policy, clock, costs))
    return found


def paced_day(campaign: int, budget_share: float, data: Path = DATA) -> Figure:
    """One first-price day under `dual`, four times too high at first: what was spent, and the multiplier."""
    tuning, test = load_campaign(campaign, data)
    forecast, ends = clock_of("day", campaign, len(test), data)
    bidder = _first_price_bidder(fit_log_logistic(tuning.market_price_cpm))
    unit, budget = value_unit(tuning), budget_share * test.full_cost
    start, _ = best_multiplier(tuning, bidder, unit, budget_share * tuning.full_cost, 1)
    pacer = BudgetPacer(budget, forecast, _controller("dual_x4", start))
    costs, multipliers = paced_costs(test, bidder, unit, pacer, ends, 1)
    return plots.pacing(
        np.arange(1, N_WINDOWS + 1) * 24.0 / N_WINDOWS,
        np.append(0.0, np.cumsum(costs))[ends],
        multipliers,
        budget=budget,
        currency="CNY",
        target=budget * ends / len(test),
    )


def paced_costs(
    auctions: Auctions,
    bidder: Bidder,
    unit: float,
    pacer: BudgetPacer,
    ends: Windows,
    auction_type: int,
    late: int = 0,
) -> tuple[Doubles, Doubles]:
    """What each won impression cost, CNY, 0 if lost, (n,), and the multiplier of each window, (N_WINDOWS,); reports
    reach the pacer `late` windows after the fact."""
    costs, multipliers = np.zeros(len(auctions)), np.zeros(len(ends))
    reports: list[tuple[int, float, int]] = []
    paid, begin = 0.0, 0
    for window, end in enumerate(ends):
        multipliers[window] = multiplier = pacer.begin(window)
        rows = slice(begin, int(end))
        if multiplier > 0.0 and end > begin:
            bids = bidder(multiplier * unit * auctions.pctr[rows])
            costs[rows] = costs_within(
                bids, auctions.market_price_cpm[rows], pacer.budget - paid, auction_type
            )
        spend = float(costs[rows].sum())
        paid += spend
        reports.append((window, spend, int(end) - begin))
        begin = int(end)
        if len(reports) > late:
            which, spent, n = reports.pop(0)
            pacer.report(which, spend=spent, n_auctions=n)
    return costs, multipliers


def costs_within(bids_cpm: Doubles, price_cpm: Doubles, left: float, auction_type: int) -> Doubles:
    """Costs, CNY, of these bids up to the first one that is not covered by what is left: a lease without overdraft."""
    bids_cpm = np.minimum(bids_cpm, CAP_CPM)
    wins = bids_cpm > price_cpm  # a tie loses
    costs = np.where(wins, price_cpm if auction_type == 2 else bids_cpm, 0.0) / 1000.0
    costs[affordable(bids_cpm / 1000.0, wins, costs, left) :] = 0.0
    return costs


def best_multiplier(
    auctions: Auctions, bidder: Bidder, unit: float, budget: float, auction_type: int
) -> tuple[float, float]:
    """The constant multiplier of the greatest value under the hard stop, and that value: three nested grids."""

    def value(multiplier: float) -> float:
        bids = bidder(multiplier * unit * auctions.pctr)
        costs = costs_within(bids, auctions.market_price_cpm, budget, auction_type)
        return float(auctions.pctr[costs > 0.0].sum())

    grid = np.geomspace(0.01, 100.0, 25)
    for _ in range(3):
        values = [value(m) for m in grid]
        best = int(np.argmax(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        multiplier, greatest = float(grid[best]), values[best]
        grid = np.geomspace(low, high, 13)
    return multiplier, greatest


def fit_log_logistic(price_cpm: Doubles) -> WinCurve:
    """The log-logistic curve of greatest likelihood for uncensored prices."""
    x = np.log(price_cpm)

    def loss(parameters: Doubles) -> float:
        m, ln_k = parameters
        z = np.exp(ln_k) * (x - m)
        return float(np.mean(np.logaddexp(0.0, z) + np.logaddexp(0.0, -z)) - ln_k)

    m, ln_k = minimize(loss, (float(np.median(x)), 0.0), method="Nelder-Mead").x
    return WinCurve(m, np.exp(ln_k))


def value_unit(auctions: Auctions) -> float:
    """CPM per unit of pctr at which the average value is the average price."""
    return float(auctions.market_price_cpm.mean() / auctions.pctr.mean())


def summary(outcomes: list[Outcome]) -> pd.DataFrame:
    """% of the best multiplier in hindsight by policy, and % of the budget that `dual` spent."""
    table = pd.DataFrame([{**asdict(o), "spent": 100.0 * o.utilisation} for o in outcomes])
    table["budget"] = "1/" + (1.0 / table["budget_share"]).round().astype(int).astype(str)
    rows = ["clock", "auction_type", "campaign", "budget_share", "budget"]
    best = table.pivot(index=rows, columns="policy", values="percent_of_best")[list(POLICIES)]
    spent = table.pivot(index=rows, columns="policy", values="spent")[["dual", "dual_late"]]
    found = pd.concat([best, spent.add_suffix(" spent")], axis=1)
    return found.sort_index(ascending=[True, False, True, True, True]).droplevel("budget_share").round(1)


def _controller(policy: str, start: float) -> Controller:
    start *= _WRONG_START if policy.endswith("_x4") else 1.0
    if policy.startswith("pid"):
        return Pid(start=start, lowest=_LOWEST, highest=_HIGHEST)
    return DualDescent(multiplier=start, lowest=_LOWEST, highest=_HIGHEST)


def _linear_bidder(values_cpm: Doubles) -> Doubles:
    return values_cpm


def _first_price_bidder(curve: WinCurve) -> Bidder:
    return lambda values_cpm: first_price_optimum_cpm(values_cpm, curve)


def _auctions(rows: pd.DataFrame) -> Auctions:
    price = np.maximum(rows["payprice"].to_numpy(dtype=np.float64), 0.5) / _FEN_PER_CNY
    return Auctions(rows["pctr"].to_numpy(dtype=np.float64), rows["click"].to_numpy(dtype=np.int64), price)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    arguments = parser.parse_args()
    outcomes = [
        outcome
        for auction_type in (2, 1)
        for campaign in CAMPAIGNS
        for outcome in replay_campaign(campaign, auction_type)
    ]
    print(summary(outcomes).to_string())
    print(summary(outcomes).groupby(["clock", "auction_type"]).agg(["mean", "min"]).round(1).T.to_string())
    if arguments.json:
        rows: list[dict[str, Any]] = [{**asdict(o), "utilisation": o.utilisation} for o in outcomes]
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
