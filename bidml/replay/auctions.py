"""The auctions of a log as a replay needs them: what is known of the market price, what a win is worth, the rules."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import AuctionType
from bidml.errors import DataError
from bidml.fit.observations import Doubles, Flags, MarketPriceObservations
from bidml.log import price_loss, sample_weights
from bidml.pricing import value_cpm as value_of_click_cpm

_UNBOUNDED: frozenset[str] = frozenset({"upper_cpm"})


@dataclass(frozen=True, slots=True, eq=False)
class ReplayAuctions:
    """n auctions in time order, arrays (n,), prices CPM of `currency`.

    The market price M is the least bid that wins, floor aside: `lower_cpm` < M ≤ `upper_cpm`, or M = both where they
    are equal; 0 and inf say nothing. `winnable` is False where no price would have won (a loss for another reason).
    `value_cpm` is what a win is worth to the judge, `pctr` the click probability it is made of. `bid_cpm`, `won`,
    `clicked`: what the log's own bidder did; `realised_value_cpm`: what its wins turned out to be worth, 0 elsewhere.
    """

    lower_cpm: Doubles
    upper_cpm: Doubles
    winnable: Flags
    floor_cpm: Doubles
    auction_type: Doubles
    value_cpm: Doubles
    pctr: Doubles
    bid_cpm: Doubles
    won: Flags
    clicked: Flags
    realised_value_cpm: Doubles
    currency: str = "USD"

    def __post_init__(self) -> None:
        n = len(self.bid_cpm)
        for field in fields(self):
            if field.name == "currency":
                continue
            dtype = np.bool_ if field.name in ("winnable", "won", "clicked") else np.float64
            values: npt.NDArray[Any] = np.asarray(getattr(self, field.name), dtype=dtype)
            if values.shape != (n,):
                raise DataError(
                    f"{field.name} has one value per auction: ({n},)",
                    value=values.shape,
                    remedy="align the arrays",
                )
            if dtype is np.float64:
                wrong = ~(values >= 0.0) | (np.isinf(values) if field.name not in _UNBOUNDED else False)
                if wrong.any():
                    raise DataError(
                        f"{field.name} of a replay is a number ≥ 0",
                        value=float(values[wrong][0]),
                        remedy=f"correct or leave out {int(wrong.sum())} of {n} auctions",
                    )
            object.__setattr__(self, field.name, values)
        for rule, wrong in (
            ("the lower bound of a market price is at most the upper", self.lower_cpm > self.upper_cpm),
            ("an auction is of first or second price, 1 or 2", ~np.isin(self.auction_type, [1.0, 2.0])),
            ("a click comes from an impression", self.clicked & ~self.won),
            ("value is realised by impressions", (self.realised_value_cpm > 0.0) & ~self.won),
        ):
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise DataError(
                    rule, value=f"auction {row}", remedy="correct the arrays, or validate the log"
                )

    def __len__(self) -> int:
        return len(self.bid_cpm)

    def __getitem__(self, rows: slice | npt.NDArray[Any]) -> Self:
        """Some auctions: a slice, a mask or indices."""
        arrays = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "currency"}
        return replace(self, **arrays)

    @property
    def exact(self) -> Flags:
        """True where the market price is known."""
        found: Flags = self.lower_cpm == self.upper_cpm
        return found

    @classmethod
    def from_log(
        cls,
        log: pd.DataFrame,
        *,
        pctr: npt.ArrayLike | None = None,
        value_per_click: npt.ArrayLike | None = None,
        floor_cpm: npt.ArrayLike | None = None,
        auction_type: AuctionType | int | None = None,
    ) -> Self:
        """The auctions of a log (docs/auction_log.md), rows as they stand: sort them by time for a budget.

        `true_market_price_cpm`, where the log has it, makes every outcome known; without it the exchange's feedback
        tells what it tells. `pctr`: the judge's, (n,); default: `true_pctr`. `value_per_click`: where the log has
        none. `floor_cpm` and `auction_type` replace the log's, for a replay under other rules. A log without
        `auction_type` is first price. Raises `DataError` for a log without what is needed, or with several currencies.
        """
        if sample_weights(log) is not None:
            raise DataError(
                "a replay goes through every auction",
                value="a sample: rows with a sampling_rate",
                remedy="replay the whole log of a shorter time",
            )
        told = MarketPriceObservations.from_log(log)
        n = len(log)
        lower, upper = told.lower_cpm.copy(), told.upper_cpm.copy()
        lost = ~told.won & ~price_loss(log).to_numpy(dtype=bool)
        if "true_market_price_cpm" in log:
            price = log["true_market_price_cpm"].to_numpy(dtype=np.float64)
            lower, upper = price, price
            lost |= ~told.won & (told.bid_cpm > price)
        believed = _column(log, "true_pctr", None) if pctr is None else _per_auction("pctr", pctr, n)
        if believed is None:
            raise DataError(
                "the judge of a replay knows what a click is likely to be",
                value="neither pctr nor true_pctr",
                remedy="pass pctr, for example predict(scorer, columns).pctr",
            )
        worth = _column(log, "value_per_click", value_per_click)
        if worth is None:
            raise DataError(
                "the judge of a replay knows what a click is worth",
                value="no value_per_click",
                remedy="pass value_per_click in the log's currency",
            )
        floor = (
            _column(log, "floor_cpm", 0.0) if floor_cpm is None else _per_auction("floor_cpm", floor_cpm, n)
        )
        clicked = log["clicked"].to_numpy(dtype=bool) if "clicked" in log else np.zeros(n, dtype=bool)
        at = _column(log, "auction_type", 1.0) if auction_type is None else np.full(n, float(auction_type))
        return cls(
            lower_cpm=lower,
            upper_cpm=upper,
            winnable=~lost,
            floor_cpm=np.zeros(n) if floor is None else floor,
            auction_type=np.ones(n) if at is None else at,
            value_cpm=value_of_click_cpm(believed, worth),
            pctr=believed,
            bid_cpm=told.bid_cpm,
            won=told.won,
            clicked=clicked & told.won,
            realised_value_cpm=value_of_click_cpm(clicked & told.won, worth),
            currency=str(log["currency"].iloc[0]) if "currency" in log else "USD",
        )


def _column(log: pd.DataFrame, name: str, otherwise: npt.ArrayLike | None) -> Doubles | None:
    """The log's column with its gaps filled by `otherwise`; None when neither says anything."""
    n = len(log)
    filler = None if otherwise is None else _per_auction(name, otherwise, n)
    if name not in log:
        return filler
    numbers = log[name].to_numpy(dtype=np.float64, na_value=np.nan)
    gaps = np.isnan(numbers)
    if not gaps.any():
        return np.asarray(numbers)
    if filler is None:
        return None
    return np.where(gaps, filler, numbers)


def _per_auction(name: str, numbers: npt.ArrayLike, n: int) -> Doubles:
    values = np.asarray(numbers, dtype=np.float64)
    if values.shape not in ((), (n,)):
        raise DataError(
            f"{name} is one number, or one per auction: ({n},)", value=values.shape, remedy="align it"
        )
    return np.ascontiguousarray(np.broadcast_to(values, (n,)))
