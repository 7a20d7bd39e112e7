"""What makes a whole log unusable, whatever its single rows look like. Every check raises `DataError`."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from bidml.errors import DataError
from bidml.log.rules import price_loss
from bidml.log.schema import NEEDED_COLUMNS, Need

# A price in micros is 1000 times its CPM. Prices and floors hardly exceed the bid, and are seldom below 1/700
# of it (placeholder floors of 0.01 may be); nine rows in ten outside that are a wrong unit, not a market.
_FAR_ABOVE: Final = 30.0
_FAR_BELOW: Final = 1.0 / 700.0


def check_not_empty(log: pd.DataFrame) -> None:
    if log.empty:
        raise DataError("a log has rows", value="0 rows", remedy="check the path and the time window")


def check_columns(log: pd.DataFrame, needs: frozenset[Need]) -> None:
    for need in sorted(needs):
        missing = [name for name in NEEDED_COLUMNS[need] if name not in log.columns]
        if missing:
            raise DataError(
                f"a log for {need} has the columns {list(NEEDED_COLUMNS[need])}",
                value=f"no {', '.join(missing)} among {sorted(log.columns)}",
                remedy="map the log's own names with columns = {" + f'{missing[0]} = "its name"' + "}",
            )


def check_one_currency(log: pd.DataFrame) -> None:
    if "currency" not in log.columns:
        return
    currencies = sorted(log["currency"].dropna().unique())
    if len(currencies) > 1:
        raise DataError(
            "a log is in one currency",
            value=currencies,
            remedy="split the log, or convert all prices to one currency",
        )


def check_price_units(log: pd.DataFrame) -> None:
    """Suspects micros for CPM, and seconds for milliseconds."""
    for high, low in (("bid_cpm", "price_cpm"), ("bid_cpm", "floor_cpm"), ("price_cpm", "floor_cpm"),
                      ("bid_cpm", "min_bid_to_win_cpm")):  # fmt: skip
        if high in log.columns and low in log.columns:
            _check_ratio(log, low, high)
    if "timestamp" in log.columns and log["timestamp"].notna().any():
        median = log["timestamp"].dropna().sort_values().iloc[int(log["timestamp"].notna().sum()) // 2]
        if not 1990 <= median.year <= 2100:
            raise DataError(
                "auctions happen between 1990 and 2100",
                value=median.isoformat(),
                remedy="check timestamp_unit: seconds, milliseconds or ISO 8601 text",
            )


def check_outcomes(log: pd.DataFrame, needs: frozenset[Need]) -> None:
    """Both classes of every label that a need names."""
    if {Need.WIN, Need.OFF_POLICY} & needs:
        _check_wins_and_losses(log)
    if {Need.CTR, Need.CVR} & needs:
        shown = log[log["won"]] if "won" in log.columns else log
        _check_both("clicked", shown, "impressions", "clicks")
        if Need.CVR in needs:
            _check_both("converted", shown[shown["clicked"]], "clicks", "conversions")


def _check_ratio(log: pd.DataFrame, low: str, high: str) -> None:
    positive = log[(log[low] > 0.0) & (log[high] > 0.0)]
    if positive.empty:
        return
    ratio = positive[low] / positive[high]
    if ratio.quantile(0.1) > _FAR_ABOVE or ratio.quantile(0.9) < _FAR_BELOW:
        raise DataError(
            f"{low} and {high} are both CPM",
            value=f"a median of {positive[low].median():g} against {positive[high].median():g}",
            remedy="one is in another unit, perhaps micros: set price_unit, or check_units=False if right",
        )


def _check_wins_and_losses(log: pd.DataFrame) -> None:
    n_wins = int(log["won"].sum())
    if n_wins == 0:
        raise DataError(
            "a win curve is learnt from wins and losses",
            value=f"no wins in {len(log):,} bids",
            remedy="check the join of win notices, or take a longer window",
        )
    if not price_loss(log).any():
        raise DataError(
            "a win curve is learnt from wins and losses",
            value=f"no losses on price in {len(log):,} bids",
            remedy="log every bid, not only the won ones; bids that always win tell nothing about the price",
        )


def _check_both(label: str, rows: pd.DataFrame, of: str, events: str) -> None:
    n = int(rows[label].sum())
    if n == 0 or n == len(rows):
        found: Any = f"{'no' if n == 0 else 'only'} {events} in {len(rows):,} {of}"
        raise DataError(
            f"{label} has both outcomes",
            value=found,
            remedy=f"check the join of {events}, or take a longer window",
        )
