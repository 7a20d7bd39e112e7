"""What happened in each auction, and what the log gets to know of it: the columns of docs/auction_log.md."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.features import Doubles
from bidml.simulate.inventory import Traffic
from bidml.simulate.market import Feedback, Market
from bidml.simulate.truth import Truth

Flags: TypeAlias = npt.NDArray[np.bool_]
Reasons: TypeAlias = npt.NDArray[np.int64]

# OpenRTB 2.5 list 5.25: outbid; and, whatever the price: expired, lost to a deal, disapproved, advertiser excluded.
OUTBID: Final = 102
NON_PRICE_REASONS: Final = (2, 103, 202, 205)
DELIVERED: Final = 0

_CLICK_DELAY_MS: Final = 8_000.0
_CONVERSION_DELAY_MS: Final = 20.0 * 3_600_000.0


def non_price_reasons(truth: Truth, rng: np.random.Generator) -> Reasons:
    """`DELIVERED`, or why no price would have won, (n,)."""
    lost = rng.random(len(truth)) < truth.non_price_losses
    return np.where(lost, rng.choice(NON_PRICE_REASONS, len(truth)), DELIVERED)


def feedback_columns(
    t: Traffic, truth: Truth, market: Market, bid_cpm: Doubles, reason: Reasons
) -> dict[str, Any]:
    """`won`, `price_cpm`, `min_bid_to_win_cpm` and `loss_reason` by the rules of each row's exchange."""
    feedback = np.array([exchange.feedback.value for exchange in market.exchanges])[t.exchange]
    reports = np.array([exchange.reports_loss_reasons for exchange in market.exchanges])[t.exchange]
    delivered = reason == DELIVERED
    won = delivered & (bid_cpm >= truth.market_price_cpm)
    pays_bid = feedback != Feedback.CLEARING
    tells = won & (feedback == Feedback.WINS) | delivered & (feedback == Feedback.ALWAYS)
    told_reason = pd.array(np.where(delivered, OUTBID, reason), dtype="Int64")
    told_reason[won | (delivered & ~reports)] = pd.NA
    return {
        "won": won,
        "price_cpm": np.where(won, np.where(pays_bid, bid_cpm, truth.market_price_cpm), np.nan),
        "min_bid_to_win_cpm": np.where(tells, truth.market_price_cpm, np.nan),
        "loss_reason": told_reason,
    }


def click_columns(
    t: Traffic, truth: Truth, won: Flags, end_ms: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Clicks of impressions and conversions of clicks, with their times; what comes after `end_ms` is not known."""
    n = len(t)
    clicked = won & (rng.random(n) < truth.pctr)
    click_ms = t.timestamp_ms + 1 + np.rint(_CLICK_DELAY_MS * rng.lognormal(0.0, 1.0, n)).astype(np.int64)
    delay = np.rint(_CONVERSION_DELAY_MS * rng.exponential(1.0, n)).astype(np.int64)
    conversion_ms = click_ms + 1 + delay
    converted = clicked & (rng.random(n) < truth.pcvr) & (conversion_ms < end_ms)
    return {
        "clicked": clicked,
        "click_timestamp": _times(click_ms, clicked),
        "converted": converted,
        "conversion_timestamp": _times(conversion_ms, converted),
    }


def utc(epoch_ms: npt.NDArray[np.int64]) -> pd.Series[Any]:
    """Epoch milliseconds as UTC times, (n,)."""
    times: pd.Series[Any] = pd.Series(epoch_ms.astype("datetime64[ms]")).dt.as_unit("us")
    times = times.dt.tz_localize("UTC")
    return times


def _times(epoch_ms: npt.NDArray[np.int64], known: Flags) -> pd.Series[Any]:
    times: pd.Series[Any] = utc(epoch_ms).where(known)
    return times
