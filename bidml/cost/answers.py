"""Which answers cost more than they earn, exchange by exchange, on a log.

Once a request is scored its computing is spent; what an answer still costs is egress, and a fee where there is one. So
a bid is worth sending when its expected surplus is at least that: the skip threshold, in CPM 1000 times the cost of a
response. By the model, what is skipped earns less than sending it costs; what it would really have earned the log tells
within bounds (`bidml.replay`); both are reported. An exchange as a whole is worth listening to when its surplus pays
for computing every request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bidml.cost.compute import Prices
from bidml.errors import DataError
from bidml.pricing import WinCurve
from bidml.replay import Bounded, ReplayAuctions, expected_outcomes, replay
from bidml.units import IMPRESSIONS_PER_CPM

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExchangeCost:
    """One exchange in the log; money in `currency`, for the log's auctions together.

    `surplus` of all bids before costs; `compute` of all requests, `answers` of all bids. Of the bids with an expected
    surplus below `skip_below_cpm`: `n_skipped`, the cost `saved` by not sending them, `surplus_lost` as the log tells,
    and `surplus_lost_expected` by the model, which is at most `saved`.
    """

    exchange: str
    currency: str
    n_requests: int
    n_bids: int
    surplus: Bounded
    compute: float
    answers: float
    skip_below_cpm: float
    n_skipped: int
    saved: float
    surplus_lost: Bounded
    surplus_lost_expected: float

    @property
    def net(self) -> Bounded:
        """Surplus less computing and answers, skipping nothing."""
        cost = self.compute + self.answers
        middle = self.surplus.estimate
        return Bounded(
            self.surplus.lower - cost, None if middle is None else middle - cost, self.surplus.upper - cost
        )

    @property
    def gain(self) -> Bounded:
        """What skipping brings: the saved cost less the surplus lost."""
        lost = self.surplus_lost
        middle = None if lost.estimate is None else self.saved - lost.estimate
        return Bounded(self.saved - lost.upper, middle, self.saved - lost.lower)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "net": asdict(self.net), "gain": asdict(self.gain)}


def costs_by_exchange(
    auctions: ReplayAuctions,
    bid_cpm: npt.ArrayLike,
    curve: WinCurve,
    exchange: npt.ArrayLike,
    prices: Prices | Mapping[str, Prices],
    *,
    cpu_us: float,
    believed_cpm: npt.ArrayLike | None = None,
) -> list[ExchangeCost]:
    """Costs and skip thresholds of bidding `bid_cpm` (n,), 0.0 for no bid, in `auctions`; most requests first.

    What the bidder expects when it decides: `believed_cpm` (n,), the worth of a win (default: the auctions' value), and
    `curve` (one per auction, or one for all). The auctions' own value judges what skipping loses. `exchange` (n,):
    texts. `prices`: for all, or by exchange, in the auctions' currency. `cpu_us`: of one bid (`measure_compute`).
    Raises `DataError` for misaligned arrays and an exchange without prices.
    """
    bids = np.asarray(bid_cpm, dtype=np.float64)
    names = np.asarray(exchange, dtype=object)
    n = len(auctions)
    believed = auctions.value_cpm if believed_cpm is None else np.asarray(believed_cpm, dtype=np.float64)
    if not names.shape == bids.shape == believed.shape == (n,):
        raise DataError(
            f"one exchange, bid and belief per auction: ({n},)",
            value=(names.shape, bids.shape, believed.shape),
            remedy="align the arrays",
        )
    rate, price = expected_outcomes(auctions, bids, curve)
    expected_cpm = np.where(rate > 0.0, rate * (believed - price), 0.0)
    found = []
    for name in sorted(set(names.tolist()), key=str):
        rows = np.flatnonzero(names == name)
        found.append(
            _exchange(
                str(name), auctions[rows], bids[rows], curve if len(curve) == 1 else curve[rows],
                expected_cpm[rows], _prices_of(prices, str(name)), cpu_us,
            )
        )  # fmt: skip
    return sorted(found, key=lambda cost: (-cost.n_requests, cost.exchange))


def _exchange(
    name: str,
    auctions: ReplayAuctions,
    bids: Doubles,
    curve: WinCurve,
    expected_cpm: Doubles,
    prices: Prices,
    cpu_us: float,
) -> ExchangeCost:
    least_cpm = IMPRESSIONS_PER_CPM * prices.per_response
    sent = bids > 0.0
    skipped = sent & (expected_cpm < least_cpm)
    lost = Bounded(0.0, 0.0, 0.0)
    if skipped.any():
        lost = replay(np.where(skipped, bids, 0.0), auctions, curve=curve).surplus
    return ExchangeCost(
        exchange=name,
        currency=auctions.currency,
        n_requests=len(auctions),
        n_bids=int(sent.sum()),
        surplus=replay(bids, auctions, curve=curve).surplus,
        compute=len(auctions) * prices.per_request(cpu_us),
        answers=int(sent.sum()) * prices.per_response,
        skip_below_cpm=least_cpm,
        n_skipped=int(skipped.sum()),
        saved=int(skipped.sum()) * prices.per_response,
        surplus_lost=lost,
        surplus_lost_expected=float(expected_cpm[skipped].sum()) / IMPRESSIONS_PER_CPM,
    )


def _prices_of(prices: Prices | Mapping[str, Prices], name: str) -> Prices:
    if isinstance(prices, Prices):
        return prices
    if name not in prices:
        raise DataError("every exchange has prices", value=name, remedy="add it to the prices")
    return prices[name]
