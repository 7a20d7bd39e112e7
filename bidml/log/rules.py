"""What makes one row of an auction log unusable: the rules, in the order in which they are tried.

A rule applies when its columns are there. A row that breaks several is counted under the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import AuctionType
from bidml.log.schema import COLUMNS, PRICE_LOSS_REASONS, TRUTH_PREFIX, ColumnType, Need
from bidml.units import is_currency_code

Mask: TypeAlias = "pd.Series[Any]"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the rules compare with: the time window [start, end) and the relative tolerance of prices."""

    start: datetime | None = None
    end: datetime | None = None
    price_tolerance: float = 0.01


@dataclass(frozen=True, slots=True)
class Rule:
    """`broken(log, limits)` is True on the rows to quarantine; a `need` limits the rule to jobs with it."""

    name: str
    columns: tuple[str, ...]
    broken: Callable[[pd.DataFrame, Limits], Mask]
    why: str
    need: Need | None = None


def price_loss(log: pd.DataFrame) -> Mask:
    """True where a lost row tells that the market price was above the bid; needs `won`."""
    if "loss_reason" not in log.columns:
        return ~log["won"]
    reason = log["loss_reason"]
    return ~log["won"] & (reason.isna() | reason.isin(list(PRICE_LOSS_REASONS))).astype(bool)


def sample_weights(log: pd.DataFrame) -> npt.NDArray[np.float64] | None:
    """How many rows of the whole log each row stands for, 1 / `sampling_rate`, (n,); None for a log that is whole."""
    if "sampling_rate" not in log or log["sampling_rate"].isna().all():
        return None
    return 1.0 / log["sampling_rate"].fillna(1.0).to_numpy(dtype=np.float64)


def _number_columns(log: pd.DataFrame) -> list[str]:
    known = [column.name for column in COLUMNS if column.type is ColumnType.NUMBER]
    return [
        name
        for name in log.columns
        if name in known or (name.startswith(TRUTH_PREFIX) and log[name].dtype == np.float64)
    ]


def _not_finite(log: pd.DataFrame, limits: Limits) -> Mask:
    numbers = log[_number_columns(log)].to_numpy(dtype=np.float64)
    return pd.Series(np.isinf(numbers).any(axis=1), index=log.index)


def _unknown_currency(log: pd.DataFrame, limits: Limits) -> Mask:
    known = [code for code in log["currency"].dropna().unique() if is_currency_code(code)]
    return ~log["currency"].isin(known)


def _outside_window(log: pd.DataFrame, limits: Limits) -> Mask:
    outside = pd.Series(False, index=log.index)
    if limits.start is not None:
        outside |= log["timestamp"] < limits.start
    if limits.end is not None:
        outside |= log["timestamp"] >= limits.end
    return outside


def _not_the_bid(log: pd.DataFrame, limits: Limits) -> Mask:
    first = log["auction_type"] == AuctionType.FIRST_PRICE
    off = (log["price_cpm"] - log["bid_cpm"]).abs() > limits.price_tolerance * log["bid_cpm"]
    return log["won"] & first & off


def _missing(name: str) -> Rule:
    why = "the schema allows no null here"
    return Rule(f"missing_{name}", (name,), lambda log, limits: log[name].isna(), why)


_MISSING: Final = tuple(_missing(column.name) for column in COLUMNS if not column.nullable)

# Evaluated on rows that pass _MISSING, so that flags are plain bools.
_CONTENT: Final = (
    Rule("not_finite", (), _not_finite, "an infinite number is a failed computation"),
    Rule("unknown_currency", ("currency",), _unknown_currency, "a currency is an ISO 4217 code such as USD"),
    Rule("unknown_auction_type", ("auction_type",),
         lambda log, limits: ~log["auction_type"].isin([kind.value for kind in AuctionType]),
         "only first-price and second-price auctions can be learnt from"),
    Rule("outside_window", ("timestamp",), _outside_window, "the job asked for another time window"),
    Rule("bid_not_positive", ("bid_cpm",), lambda log, limits: log["bid_cpm"] <= 0.0, "no bid, no row"),
    Rule("floor_negative", ("floor_cpm",), lambda log, limits: log["floor_cpm"] < 0.0, "a floor is ≥ 0"),
    Rule("bid_below_floor", ("bid_cpm", "floor_cpm"), lambda log, limits: log["bid_cpm"] < log["floor_cpm"],
         "the exchange rejects it: it was in no auction"),
    Rule("won_without_price", ("won", "price_cpm"), lambda log, limits: log["won"] & log["price_cpm"].isna(),
         "the job needs to know what was paid", need=Need.PRICE),
    Rule("lost_with_price", ("won", "price_cpm"), lambda log, limits: ~log["won"] & log["price_cpm"].notna(),
         "a loss costs nothing; what would have won belongs in min_bid_to_win_cpm"),
    Rule("price_not_positive", ("price_cpm",), lambda log, limits: log["price_cpm"] <= 0.0,
         "a price is above 0"),
    Rule("price_above_bid", ("bid_cpm", "price_cpm"),
         lambda log, limits: log["price_cpm"] > log["bid_cpm"] * (1.0 + limits.price_tolerance),
         "nobody pays more than the bid"),
    Rule("price_is_not_the_bid", ("won", "bid_cpm", "price_cpm", "auction_type"), _not_the_bid,
         "in a first-price auction the price is the bid"),
    Rule("price_below_floor", ("price_cpm", "floor_cpm"),
         lambda log, limits: log["price_cpm"] < log["floor_cpm"] * (1.0 - limits.price_tolerance),
         "nothing sells below its floor"),
    Rule("min_bid_to_win_not_positive", ("min_bid_to_win_cpm",),
         lambda log, limits: log["min_bid_to_win_cpm"] <= 0.0, "a price is above 0"),
    Rule("won_below_min_bid", ("won", "bid_cpm", "min_bid_to_win_cpm"),
         lambda log, limits: log["won"]
         & (log["min_bid_to_win_cpm"] > log["bid_cpm"] * (1.0 + limits.price_tolerance)),
         "a winning bid is at least the minimum to win"),
    Rule("lost_above_min_bid", ("won", "bid_cpm", "min_bid_to_win_cpm"),
         lambda log, limits: price_loss(log)
         & (log["min_bid_to_win_cpm"] < log["bid_cpm"] * (1.0 - limits.price_tolerance)),
         "a bid that lost on price was below the minimum to win"),
    Rule("won_with_loss_reason", ("won", "loss_reason"),
         lambda log, limits: log["won"] & log["loss_reason"].notna() & (log["loss_reason"].fillna(0) != 0),
         "an auction is won or lost"),
    Rule("clicked_but_lost", ("won", "clicked"), lambda log, limits: log["clicked"] & ~log["won"],
         "what was not shown is not clicked"),
    Rule("click_before_impression", ("timestamp", "click_timestamp"),
         lambda log, limits: log["click_timestamp"] < log["timestamp"], "a click follows its impression"),
    Rule("click_time_without_click", ("clicked", "click_timestamp"),
         lambda log, limits: ~log["clicked"] & log["click_timestamp"].notna(), "clicked or not"),
    Rule("converted_without_click", ("clicked", "converted"),
         lambda log, limits: log["converted"] & ~log["clicked"], "a conversion here follows a click"),
    Rule("conversion_before_click", ("click_timestamp", "conversion_timestamp"),
         lambda log, limits: log["conversion_timestamp"] < log["click_timestamp"],
         "a conversion follows its click"),
    Rule("conversion_time_without_conversion", ("converted", "conversion_timestamp"),
         lambda log, limits: ~log["converted"] & log["conversion_timestamp"].notna(), "converted or not"),
    Rule("value_negative", ("value_per_click",), lambda log, limits: log["value_per_click"] < 0.0,
         "a click is not worth less than nothing"),
    Rule("missing_propensity", ("propensity",), lambda log, limits: log["propensity"].isna(),
         "the job weights rows by it", need=Need.OFF_POLICY),
    Rule("propensity_not_positive", ("propensity",), lambda log, limits: log["propensity"] <= 0.0,
         "what the policy never does was not logged by it"),
    Rule("sampling_rate_not_a_share", ("sampling_rate",),
         lambda log, limits: (log["sampling_rate"] <= 0.0) | (log["sampling_rate"] > 1.0),
         "a row stands for at least itself"),
)  # fmt: skip

DUPLICATED_ID: Final = Rule(
    "duplicated_auction_id",
    ("auction_id",),
    lambda log, limits: repeated_ids(log),
    "an auction is one row; the earliest of its good rows is kept",
)

RULES: Final = (*_MISSING, *_CONTENT, DUPLICATED_ID)


def first_broken(log: pd.DataFrame, *, needs: frozenset[Need], limits: Limits) -> pd.Series[Any]:
    """The name of the first rule each row breaks, "" for good rows; `log` as `conform` gives it."""
    broken = pd.Series("", index=log.index, dtype=object)
    for stage in (_MISSING, _CONTENT, (DUPLICATED_ID,)):
        good = _with_plain_flags(log[broken == ""])
        for rule in stage:
            if set(rule.columns) <= set(good.columns) and (rule.need is None or rule.need in needs):
                mask = rule.broken(good, limits)
                hit = good.index[mask.to_numpy(dtype=bool, na_value=False)]
                broken[hit] = broken[hit].where(broken[hit] != "", rule.name)
    return broken


def repeated_ids(log: pd.DataFrame) -> Mask:
    """True on all but one row of each auction_id: the earliest stays; content, not place, breaks ties."""
    repeated = log["auction_id"].duplicated(keep=False)
    if not repeated.any():
        return repeated
    rows = log[repeated]
    content = pd.util.hash_pandas_object(rows.astype(object).map(str), index=False)
    order = pd.DataFrame({"auction_id": rows["auction_id"], "content": content})
    by = ["content"]
    if "timestamp" in rows.columns:
        order["timestamp"] = rows["timestamp"]
        by = ["timestamp", "content"]
    later = order.sort_values(by)["auction_id"].duplicated(keep="first")
    return later.reindex(log.index, fill_value=False)


def _with_plain_flags(log: pd.DataFrame) -> pd.DataFrame:
    flags = {
        column.name: "bool"
        for column in COLUMNS
        if column.type is ColumnType.FLAG and column.name in log.columns
    }
    has_null = any(log[name].isna().any() for name in flags)
    return log if has_null else log.astype(flags)


def markdown_rules() -> str:
    """The table of rules of `docs/auction_log.md`."""
    lines = ["| rule | reads | only for | because |", "|---|---|---|---|"]
    for rule in RULES:
        reads = ", ".join(f"`{name}`" for name in rule.columns) or "every number"
        lines.append(f"| `{rule.name}` | {reads} | {rule.need or ''} | {rule.why} |")
    return "\n".join(lines)
