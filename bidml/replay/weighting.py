"""How much each logged auction says about another policy: the parts of the off-policy estimators (off_policy.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bidml.contract import AuctionType
from bidml.errors import ConfigError, DataError
from bidml.fit.observations import Doubles
from bidml.pricing import WinCurve
from bidml.replay.auctions import ReplayAuctions
from bidml.replay.outcomes import expected_outcomes, outcomes

RARE_WIN_RATE: Final = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One policy: each auction's part in every estimator, CPM, (n,); `snips` is `scale` · Σ weighted / Σ weight."""

    dm: Doubles
    ips: Doubles
    dr: Doubles
    weighted: Doubles
    weight: Doubles
    scale: Doubles
    n_weighted: int
    uncovered: float

    @property
    def ess(self) -> float:
        """(Σw)² / Σw² (Kish 1965); of n equal weights it is n."""
        squares = float((self.weight**2).sum())
        return float(self.weight.sum()) ** 2 / squares if squares > 0.0 else 0.0


def by_landscape(
    auctions: ReplayAuctions, bid_cpm: npt.ArrayLike, curve: WinCurve, *, max_weight: float
) -> Side:
    bid = np.asarray(bid_cpm, dtype=np.float64)
    value = auctions.value_cpm
    rate, price = expected_outcomes(auctions, bid, curve)
    logged_rate = np.where(auctions.winnable, curve.win_rate(auctions.bid_cpm), 0.0)
    given = outcomes(auctions, bid, curve)  # knowing how the logged bid fared
    impossible = auctions.won & ~(logged_rate > 0.0)
    if impossible.any():
        raise DataError(
            "an auction that was won could be won by the landscape",
            value=f"{int(impossible.sum())} wins at a win rate of 0",
            remedy="fit the curve on such auctions",
        )
    weight = np.divide(rate, logged_rate, out=np.zeros(len(auctions)), where=auctions.won)
    reward = weight * (auctions.realised_value_cpm - np.where(rate > 0.0, price, 0.0))
    replayed = np.where(given.win_rate > 0.0, given.win_rate * (value - given.price_cpm), 0.0)
    wins = float(rate.sum())
    return Side(
        dm=np.where(rate > 0.0, rate * (value - price), 0.0),
        ips=reward,
        dr=replayed + np.minimum(weight, max_weight) * (auctions.realised_value_cpm - value),
        weighted=reward,
        weight=weight,
        scale=given.win_rate,
        n_weighted=int(auctions.won.sum()),
        uncovered=float(rate[logged_rate < RARE_WIN_RATE].sum()) / wins if wins > 0.0 else 0.0,
    )


def by_density(
    auctions: ReplayAuctions,
    bid_cpm: npt.ArrayLike,
    curve: WinCurve,
    density: Doubles,
    bandwidth: float | None,
) -> Side:
    bid, value = np.asarray(bid_cpm, dtype=np.float64), auctions.value_cpm
    rate, price = expected_outcomes(auctions, bid, curve)
    near_rate, near_price = expected_outcomes(auctions, auctions.bid_cpm, curve)
    bids = bid > 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.where(bids, np.log(bid / auctions.bid_cpm), np.inf)
        room = np.where(bids, np.log(bid / np.maximum(auctions.floor_cpm, 1e-300)), np.inf)
    h = _bandwidth(gap[bids], bandwidth)
    # floors cut the logged density off: the kernel is divided by its share above them
    weight = np.divide(
        _epanechnikov(gap / h),
        h * density * _epanechnikov_below(room / h),
        out=np.zeros(len(auctions)),
        where=bids & (bid >= auctions.floor_cpm),
    )
    first = auctions.auction_type == AuctionType.FIRST_PRICE
    paid = outcomes(auctions, auctions.bid_cpm, curve).price_cpm
    paid, near_price = (
        np.where(first, bid, paid),
        np.where(first, bid, near_price),
    )  # a rule, nothing to learn
    reward = np.where(auctions.won, auctions.realised_value_cpm - paid, 0.0)
    near = np.where(near_rate > 0.0, near_rate * (value - near_price), 0.0)
    model = np.where(rate > 0.0, rate * (value - price), 0.0)
    # auctions in which the policy makes no bid earn it just 0
    return Side(
        dm=model,
        ips=weight * reward,
        dr=model + weight * (reward - near),
        weighted=weight * reward,
        weight=weight,
        scale=bids.astype(np.float64),
        n_weighted=len(auctions),
        uncovered=0.0,
    )


def _bandwidth(gap: Doubles, asked: float | None) -> float:
    if asked is not None:
        if not 0.0 < asked < np.inf:
            raise ConfigError("a bandwidth is above 0, in ln CPM", value=asked, remedy="0.1 is usual")
        return asked
    if len(gap) < 2:
        return 0.2
    return float(np.clip(1.06 * gap.std() * len(gap) ** -0.2, 1e-3, 0.2))


def _epanechnikov(u: Doubles) -> Doubles:
    """¾ (1 − u²) on [−1, 1]."""
    inside = np.clip(u, -1.0, 1.0)
    return np.asarray(0.75 * (1.0 - inside * inside))


def _epanechnikov_below(u: Doubles) -> Doubles:
    """Its integral up to u; u ≥ 0 here."""
    inside = np.clip(u, -1.0, 1.0)
    return np.asarray(0.5 + 0.75 * (inside - inside**3 / 3.0))
