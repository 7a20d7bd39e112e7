"""Why this price: the slow twin of `bid`, with every step in money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bidml.contract import AuctionType, NoBidReason


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision. Prices in CPM of the artifact's currency; NaN where the decision ended before that step.

    `features` are the raw values as the model read them ("" and NaN are missing). `value_cpm` is
    1000 · pctr · value_per_click after margin; `unshaded_bid_cpm` is it after pacing; `optimum_cpm` is the
    surplus-maximising price before floor and cap. `win_location` is ln CPM, `win_shape` the slope of the log-odds of
    winning in ln bid; `win_rate` is at `bid_cpm`.
    """

    bid_cpm: float
    reason: NoBidReason
    features: Mapping[str, str | float]
    ctr_margin: float
    pctr: float
    value_cpm: float
    unshaded_bid_cpm: float
    location_margin: float
    log_slope_margin: float
    win_location: float
    win_shape: float
    optimum_cpm: float
    floor_cpm: float
    cap_cpm: float
    auction_type: AuctionType | None
    win_rate: float
    currency: str

    @property
    def shading_factor(self) -> float:
        """bid / unshaded bid, in (0, 1]; NaN without a bid."""
        return self.bid_cpm / self.unshaded_bid_cpm if self.bid_cpm > 0.0 else float("nan")

    @property
    def expected_surplus_cpm(self) -> float:
        """(v − bid) · win_rate, v after pacing."""
        return (self.unshaded_bid_cpm - self.bid_cpm) * self.win_rate if self.bid_cpm > 0.0 else 0.0

    def __str__(self) -> str:
        if not self.value_cpm > 0.0 and self.reason is not NoBidReason.BID:
            return f"no bid: {self.reason.name.lower()}"
        lines = [
            f"pctr                {self.pctr:.6g}",
            f"value               {self.value_cpm:.4f} {self.currency} CPM",
            f"after pacing        {self.unshaded_bid_cpm:.4f}",
            f"win curve           median {self.win_location:.3f} ln CPM, slope {self.win_shape:.2f}",
            f"optimum             {self.optimum_cpm:.4f}",
            f"floor, cap          {self.floor_cpm:.4f}, {self.cap_cpm:.4f}",
        ]
        if self.reason is NoBidReason.BID:
            lines.append(
                f"bid                 {self.bid_cpm:.4f}  ({self.shading_factor:.1%} of value, "
                f"wins {self.win_rate:.1%}, expected surplus {self.expected_surplus_cpm:.4f})"
            )
        else:
            lines.append(f"no bid              {self.reason.name.lower()}")
        return "\n".join(lines)
