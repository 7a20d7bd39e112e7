"""What each auction tells about its market price: an interval, seen or not seen below a truncation point.

The market price M is the least bid that wins. Every feedback regime is one statement `lower < M ≤ upper`, exact when
the two are equal (SCIENCE.md 2.1):

| the log says                               | lower | upper | seen only if M > |
|--------------------------------------------|-------|-------|------------------|
| won, first price, nothing more             | 0     | bid   |                  |
| lost on price, nothing more                | bid   | ∞     |                  |
| min-bid-to-win m (on a win or a loss)      | m     | m     |                  |
| won, second price, clearing price p        | p     | p     |                  |
| the same, where m or p is the floor r      | 0     | r     |                  |
| lost for another reason than the price     | 0     | ∞     |                  |
| prices come in ticks t                     | m − t | m     |                  |
| floors truncate: prices ≤ r leave no trace |       |       | r                |

A win says nothing about M but M ≤ bid in a first-price auction: the price paid is our own bid. Taking it for a market
price is the classic error.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import AuctionType
from bidml.errors import ConfigError, DataError
from bidml.log import price_loss, sample_weights

Doubles: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]

FLOOR_TOLERANCE: Final = 1e-6
"""A price within this share of the floor is the floor: it came through a conversion of currency or unit."""


class Floors(StrEnum):
    """What a floor r means. CENSOR: the price is max(M, r), so a price of r says M ≤ r. TRUNCATE: auctions with
    M ≤ r leave no row, so every row is conditional on M > r. IGNORE: prices are M itself."""

    CENSOR = "censor"
    TRUNCATE = "truncate"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, eq=False)
class MarketPriceObservations:
    """Rows `lower < M ≤ upper` (M = both where they are equal), all prices CPM of one currency, arrays (n,).

    `lower_cpm` 0 and `upper_cpm` inf say nothing. `truncation_cpm`: the row is in the log only because M is above;
    0 for none. `bid_cpm` > 0: our bid. `won`: its outcome. `weight` ≥ 0: for logs that keep a share of the losses.
    Raises `DataError` for anything else: NaN, a price ≤ 0, lower above upper, an interval below the truncation.
    """

    lower_cpm: Doubles
    upper_cpm: Doubles
    truncation_cpm: Doubles
    bid_cpm: Doubles
    won: Flags
    weight: Doubles

    def __post_init__(self) -> None:
        n = len(self.bid_cpm)
        for field in fields(self):
            dtype = np.bool_ if field.name == "won" else np.float64
            values: npt.NDArray[Any] = np.asarray(getattr(self, field.name), dtype=dtype)
            _demand(
                values.shape == (n,),
                f"{field.name} has one value per auction, {n}",
                values.shape,
                "align the arrays",
            )
            object.__setattr__(self, field.name, values)
        _demand(n > 0, "there is an auction", 0, "check the time window and the filters of the log")
        bid, lower, upper = self.bid_cpm, self.lower_cpm, self.upper_cpm
        _demand_rows((bid > 0.0) & (bid < np.inf), "a bid is a positive number", bid)
        _demand_rows(
            (lower >= 0.0) & (lower < np.inf), "a lower bound of the market price is a number ≥ 0", lower
        )
        _demand_rows(upper > 0.0, "an upper bound of the market price is above 0", upper)
        _demand_rows(lower <= upper, "a lower bound is at most its upper bound", lower)
        below = self.truncation_cpm
        _demand_rows((below >= 0.0) & (below < np.inf), "a truncation point is a number ≥ 0", below)
        seen = (below <= lower) & (below < upper)
        _demand_rows(
            seen | (below == 0.0) | ~self.informative, "a truncation point is at most the lower bound", below
        )
        _demand_rows((self.weight >= 0.0) & (self.weight < np.inf), "a weight is a number ≥ 0", self.weight)

    def __len__(self) -> int:
        return len(self.bid_cpm)

    def take(self, rows: npt.NDArray[Any]) -> Self:
        """The observations at `rows`: indices, or flags (n,)."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def win_or_loss(self) -> Self:
        """The same auctions as a closed first price tells them: M ≤ bid if won, M > bid if lost; no prices."""
        told = self.informative
        lower = np.where(told & ~self.won, self.bid_cpm, 0.0)
        upper = np.where(told & self.won, self.bid_cpm, np.inf)
        return type(self)(lower, upper, np.zeros(len(self)), self.bid_cpm, self.won, self.weight)

    @property
    def exact(self) -> Flags:
        """True where M is known."""
        found: Flags = self.lower_cpm == self.upper_cpm
        return found

    @property
    def informative(self) -> Flags:
        """True where anything is known about M, with a weight."""
        told: Flags = (self.lower_cpm > 0.0) | (self.upper_cpm < np.inf)
        return told & (self.weight > 0.0)

    @classmethod
    def from_log(
        cls,
        log: pd.DataFrame,
        *,
        floors: Floors | str = Floors.CENSOR,
        tick_cpm: float = 0.0,
        weight: Any = None,
    ) -> Self:
        """One observation per row of an auction log (docs/auction_log.md); the table above says how.

        Reads `bid_cpm`, `won`, `currency` and, where there, `price_cpm`, `min_bid_to_win_cpm`, `floor_cpm`,
        `auction_type` (absent: first price), `loss_reason`, `sampling_rate`: without `weight` a row of a sample
        stands for 1 / rate rows of the log. With `tick_cpm` a price p stands for (p − tick, p].
        Raises `DataError` for an empty log, a missing column, several currencies, and prices that are NaN where
        they may not be, zero or negative; `validate` sets such rows aside first.
        """
        floors = _floors(floors)
        if not 0.0 <= tick_cpm < np.inf:
            raise ConfigError(
                "a tick is a number ≥ 0", value=tick_cpm, remedy="give the exchange's price step in CPM"
            )
        for name in ("bid_cpm", "won"):
            _demand(
                name in log, f"a log that teaches a win curve has {name}", list(log.columns), "add the column"
            )
        if "currency" in log:
            codes = sorted(set(log["currency"].dropna()))
            _demand(
                len(codes) <= 1,
                "the prices of one win curve are in one currency",
                codes,
                "fit each by itself",
            )
        n = len(log)
        won = log["won"].to_numpy(dtype=bool)
        bid = _money(log, "bid_cpm")
        floor = np.nan_to_num(_money(log, "floor_cpm"), nan=0.0)
        _demand_rows((floor >= 0.0) & (floor < np.inf), "a floor is a number ≥ 0", floor)
        price = _price(log, won)
        _demand_rows(
            np.isnan(price) | ((price > 0.0) & (price < np.inf)), "a price is a positive number", price
        )
        lower, upper = np.zeros(n), np.full(n, np.inf)
        upper[won] = bid[won]
        lost = price_loss(log).to_numpy(dtype=bool)
        lower[lost] = bid[lost]
        told = (won | lost) & ~np.isnan(price)
        lower[told] = np.maximum(price[told] - tick_cpm, 0.0)
        upper[told] = price[told]
        truncation = np.zeros(n)
        if floors is not Floors.IGNORE:
            at_floor = told & (price <= floor * (1.0 + FLOOR_TOLERANCE))
            lower[at_floor] = 0.0
            upper[at_floor] = floor[at_floor]
        if floors is Floors.TRUNCATE:
            lower = np.where(won | lost, np.maximum(lower, floor), lower)
            silent = (floor > 0.0) & (upper <= lower) & ~(told & (lower == upper) & (price > floor))
            lower[silent], upper[silent] = 0.0, np.inf
            truncation = np.where((lower > 0.0) & ~silent, floor, 0.0)
        weights = sample_weights(log) if weight is None else np.asarray(weight)
        return cls(lower, upper, truncation, bid, won, np.ones(n) if weights is None else weights)


def _floors(floors: Floors | str) -> Floors:
    try:
        return Floors(floors)
    except ValueError:
        raise ConfigError(
            "floors censor, truncate or are ignored", value=floors, remedy=f"one of {list(map(str, Floors))}"
        ) from None


def _price(log: pd.DataFrame, won: Flags) -> Doubles:
    """What the row says the market price is, floor included; NaN where it says nothing."""
    second = np.zeros(len(log), dtype=bool)
    if "auction_type" in log:
        second = (log["auction_type"] == AuctionType.SECOND_PRICE).to_numpy(dtype=bool, na_value=False)
    cleared = np.where(second & won, _money(log, "price_cpm"), np.nan)
    told = _money(log, "min_bid_to_win_cpm")
    return np.where(np.isnan(told), cleared, told)


def _money(log: pd.DataFrame, name: str) -> Doubles:
    if name not in log:
        return np.full(len(log), np.nan)
    try:
        return log[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise DataError(f"{name} holds numbers", value=log[name].dtype, remedy="convert the column") from None


def _demand(holds: bool, rule: str, value: object, remedy: str) -> None:
    if not holds:
        raise DataError(rule, value=value, remedy=remedy)


def _demand_rows(holds: Flags, rule: str, values: Doubles) -> None:
    if not holds.all():
        bad = np.flatnonzero(~holds)
        remedy = f"set aside such rows ({len(bad)} of {len(holds)}, the first is {bad[0]}); bidml.log.validate does"
        raise DataError(rule, value=float(values[bad[0]]), remedy=remedy)
