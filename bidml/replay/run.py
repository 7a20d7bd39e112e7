"""A price function replayed on logged auctions, under a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bidml.errors import ConfigError, DataError
from bidml.fit.observations import Doubles
from bidml.pacing import BudgetPacer
from bidml.pricing import WinCurve
from bidml.replay.auctions import ReplayAuctions
from bidml.replay.budget import affordable
from bidml.replay.outcomes import Outcomes, outcomes
from bidml.replay.result import Bounded, ReplayResult
from bidml.units import IMPRESSIONS_PER_CPM

Bidder: TypeAlias = Callable[[slice, float], Doubles]
"""(which auctions, pacing multiplier) → their bids, CPM, 0.0 for none. `scorer_bidder` and `value_bidder` make one."""


class _View(Enum):
    """How an auction is taken that the log leaves open."""

    LOST = "lost"
    IMPUTED = "imputed"
    WON = "won"


def replay(
    bidder: Bidder | npt.ArrayLike,
    auctions: ReplayAuctions,
    *,
    curve: WinCurve | None = None,
    budget: float | None = None,
    pacer: BudgetPacer | None = None,
    window_ends: npt.ArrayLike | None = None,
) -> ReplayResult:
    """What `bidder` (or an array of bids, CPM, (n,)) would have won, paid and earned in `auctions`, in their order.

    `curve` (one per auction, or one for all) imputes what the log leaves open; without it there are bounds only. A
    curve that the policy was optimised on flatters it: use one fitted on other auctions. `budget`, in units of
    currency, ends the bidding (`affordable`). A `pacer`, not yet begun, sets the multiplier window by window and
    brings its budget; `window_ends` (n_windows,) says where each of its windows ends in the order of the auctions,
    default equally many in each. It is told the spend of a window when the window is over; it is not changed.
    Raises `DataError` for bids that are no bids, `ConfigError` for an impossible budget.
    """
    if len(auctions) == 0:
        raise DataError("a replay has auctions", value=0, remedy="take a longer log")
    if not callable(bidder):
        bids = np.asarray(bidder, dtype=np.float64)
        if pacer is not None:
            raise ConfigError("a pacer changes bids", value="an array of bids", remedy="pass a function")
        if bids.shape != (len(auctions),):
            raise DataError(
                f"one bid per auction: ({len(auctions)},)", value=bids.shape, remedy="align the bids"
            )
        bidder = lambda rows, multiplier: bids[rows]  # noqa: E731
    if pacer is not None:
        if budget is not None and budget != pacer.budget:
            raise ConfigError(
                "a pacer brings its budget", value=budget, remedy=f"leave it out: {pacer.budget}"
            )
        return _paced(bidder, auctions, curve, pacer, _ends(window_ends, len(auctions), pacer))
    if budget is not None and not 0.0 < budget < np.inf:
        raise ConfigError("a budget is above 0", value=budget, remedy="leave it out for none")
    found = outcomes(auctions, bidder(slice(0, len(auctions)), 1.0), curve)
    return _result(auctions, found, budget)


def _result(auctions: ReplayAuctions, found: Outcomes, budget: float | None) -> ReplayResult:
    n = len(auctions)
    wins = {view: _wins(found, view) for view in _View}
    costs = {view: _costs(found, wins[view], view) for view in _View}
    has_estimate = not (np.isnan(costs[_View.IMPUTED]).any())

    def end(view: _View) -> int:
        if budget is None:
            return n
        if view is _View.IMPUTED and not has_estimate:
            return n
        return affordable(found.bid_cpm, wins[view], costs[view], budget * IMPRESSIONS_PER_CPM)

    last, at, first = end(_View.LOST), end(_View.IMPUTED), end(_View.WON)

    def total(least: Doubles, estimate: Doubles, most: Doubles) -> Bounded:
        """Between `first` and `last` it is open whether there still was a budget."""
        lower = least[:first].sum() + np.minimum(least[first:last], 0.0).sum()
        upper = most[:first].sum() + np.maximum(most[first:last], 0.0).sum()
        middle = float(estimate[:at].sum()) if has_estimate else None
        return _bounded(float(lower), middle, float(upper))

    value = auctions.value_cpm / IMPRESSIONS_PER_CPM
    clicks = _clicks(auctions)
    spend = total(*(costs[view] / IMPRESSIONS_PER_CPM for view in _View))
    if budget is not None:
        spend = Bounded(spend.lower, spend.estimate, min(spend.upper, budget))
    bids = (found.bid_cpm > 0.0).astype(np.float64)
    return ReplayResult(
        currency=auctions.currency,
        n_auctions=n,
        n_unknown=int(np.count_nonzero(~found.known[:last])),
        bids=total(bids, bids, bids),
        wins=total(*(wins[view] for view in _View)),
        spend=spend,
        value=total(*(wins[view] * value for view in _View)),
        surplus=total(*_surpluses(auctions.value_cpm, found, wins[_View.IMPUTED])),
        clicks=total(*(wins[view] * clicks for view in _View)),
        clicks_seen=int(np.count_nonzero(found.sure[:first] & auctions.clicked[:first])),
        ended_at=Bounded(first, at if has_estimate else None, last),
        budget=budget,
        rigorous=True,
    )


def _wins(found: Outcomes, view: _View) -> Doubles:
    if view is _View.IMPUTED:
        return found.win_rate
    return (found.sure if view is _View.LOST else found.possible).astype(np.float64)


def _costs(found: Outcomes, wins: Doubles, view: _View) -> Doubles:
    """What the wins cost, CPM, (n,): least when open auctions are taken as lost, most when as won."""
    price = {
        _View.LOST: found.least_price_cpm,
        _View.IMPUTED: found.price_cpm,
        _View.WON: found.most_price_cpm,
    }[view]
    return np.where(wins == 0.0, 0.0, wins * price)


def _surpluses(value_cpm: Doubles, found: Outcomes, win_rate: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Least, imputed and greatest surplus of each auction, in currency, (n,)."""
    best, worst = value_cpm - found.least_price_cpm, value_cpm - found.most_price_cpm
    least = np.where(found.sure, worst, np.where(found.possible, np.minimum(worst, 0.0), 0.0))
    most = np.where(found.sure, best, np.where(found.possible, np.maximum(best, 0.0), 0.0))
    middle = np.where(win_rate == 0.0, 0.0, win_rate * (value_cpm - found.price_cpm))
    return least / IMPRESSIONS_PER_CPM, middle / IMPRESSIONS_PER_CPM, most / IMPRESSIONS_PER_CPM


def _clicks(auctions: ReplayAuctions) -> Doubles:
    """Clicks of an impression: seen where the log showed it, else expected."""
    return np.where(auctions.won, auctions.clicked.astype(np.float64), auctions.pctr)


def _bounded(lower: float, estimate: float | None, upper: float) -> Bounded:
    """Rounding must not put an estimate outside of bounds that it equals."""
    return Bounded(lower, None if estimate is None else min(max(estimate, lower), upper), upper)


@dataclass(slots=True)
class _Totals:
    """Sums of one scenario, money in currency."""

    n_bids: int = 0
    n_unknown: int = 0
    wins: float = 0.0
    spend: float = 0.0
    value: float = 0.0
    clicks: float = 0.0
    clicks_seen: int = 0
    ended_at: int = 0


def _paced(
    bidder: Bidder,
    auctions: ReplayAuctions,
    curve: WinCurve | None,
    pacer: BudgetPacer,
    ends: npt.NDArray[np.int64],
) -> ReplayResult:
    views = [view for view in _View if curve is not None or view is not _View.IMPUTED]
    by_view = {view: _scenario(bidder, auctions, curve, pacer, ends, view) for view in views}

    def bounded(name: str) -> Bounded:
        numbers = {view: float(getattr(totals, name)) for view, totals in by_view.items()}
        return Bounded(min(numbers.values()), numbers.get(_View.IMPUTED), max(numbers.values()))

    surplus = {view: totals.value - totals.spend for view, totals in by_view.items()}
    middle = by_view.get(_View.IMPUTED, by_view[_View.LOST])
    return ReplayResult(
        currency=auctions.currency,
        n_auctions=len(auctions),
        n_unknown=middle.n_unknown,
        bids=bounded("n_bids"),
        wins=bounded("wins"),
        spend=bounded("spend"),
        value=bounded("value"),
        surplus=Bounded(min(surplus.values()), surplus.get(_View.IMPUTED), max(surplus.values())),
        clicks=bounded("clicks"),
        clicks_seen=middle.clicks_seen,
        ended_at=bounded("ended_at"),
        budget=pacer.budget,
        rigorous=middle.n_unknown == 0,
    )


def _scenario(
    bidder: Bidder,
    auctions: ReplayAuctions,
    curve: WinCurve | None,
    pacer: BudgetPacer,
    ends: npt.NDArray[np.int64],
    view: _View,
) -> _Totals:
    """The day as the pacer would have lived it, had every open auction been as `view` says."""
    pacer = BudgetPacer.from_json(pacer.to_json())
    totals = _Totals(ended_at=len(auctions))
    begin = 0
    for window, end in enumerate(ends):
        rows = slice(begin, int(end))
        multiplier = pacer.begin(window)
        spend = 0.0
        if multiplier > 0.0 and end > begin:
            here = auctions[rows]
            found = outcomes(
                here, bidder(rows, multiplier), curve if curve is None or len(curve) == 1 else curve[rows]
            )
            wins = _wins(found, view)
            costs = _costs(found, wins, view)
            left = (pacer.budget - totals.spend) * IMPRESSIONS_PER_CPM
            n = affordable(found.bid_cpm, wins, costs, left)
            if n < len(here):
                totals.ended_at = min(totals.ended_at, begin + n)
            spend = min(float(costs[:n].sum()), left) / IMPRESSIONS_PER_CPM
            totals.n_bids += int(np.count_nonzero(found.bid_cpm[:n]))
            totals.n_unknown += int(np.count_nonzero(~found.known[:n]))
            totals.wins += float(wins[:n].sum())
            totals.spend += spend
            totals.value += float((wins * here.value_cpm)[:n].sum()) / IMPRESSIONS_PER_CPM
            totals.clicks += float((wins * _clicks(here))[:n].sum())
            totals.clicks_seen += int(np.count_nonzero(found.sure[:n] & here.clicked[:n]))
        pacer.report(window, spend=spend, n_auctions=int(end) - begin)
        begin = int(end)
    return totals


def _ends(window_ends: npt.ArrayLike | None, n_auctions: int, pacer: BudgetPacer) -> npt.NDArray[np.int64]:
    n_windows = pacer.forecast.n_windows
    if window_ends is None:
        return np.rint(np.linspace(0.0, n_auctions, n_windows + 1)[1:]).astype(np.int64)
    ends = np.asarray(window_ends, dtype=np.int64)
    steps = np.diff(ends, prepend=0)
    if ends.shape != (n_windows,) or (steps < 0).any() or ends[-1] != n_auctions:
        raise DataError(
            f"windows end in order, {n_windows} of them, the last after all {n_auctions} auctions",
            value=(ends.shape, ends[-1:].tolist()),
            remedy="count the auctions of each of the pacer's windows",
        )
    return ends
