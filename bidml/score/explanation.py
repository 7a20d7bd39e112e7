"""Why this price: the slow twin of `bid`, with every step in money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bidml.contract import AuctionType, NoBidReason


@dataclass(frozen=True, slots=True)
class Step:
    """One step from value to bid, CPM: a waterfall's steps follow each other, `before` is the last one's `after`."""

    name: str
    before_cpm: float
    after_cpm: float

    @property
    def change_cpm(self) -> float:
        return self.after_cpm - self.before_cpm


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision. Prices in CPM of the artifact's currency; NaN where the decision ended before that step.

    `features` are the raw values as the model read them ("" and NaN are missing). `value_cpm` is
    value_per_impression_cpm + 1000 · priced_pctr · (value_per_click + pcvr · value_per_conversion), amounts after
    margin; pcvr is NaN where no conversion is paid for. `priced_pctr` is pctr but under a `risk_aversion`: then its
    log-odds are lower by that many standard deviations, `pctr_log_odds_sd` (else NaN). `unshaded_bid_cpm` is the value
    after pacing; `optimum_cpm` is the surplus-maximising price before floor and cap. `win_location` is ln CPM,
    `win_shape` the slope of the log-odds of winning in ln bid; `win_rate` is at `bid_cpm`. `margin` is the share of the
    value that the line item keeps.
    `propensity` is the density of ln bid where exploration varied the bid, else NaN. `soft_floor_cpm` is what the call
    was given; where the bid stays below it, `optimum_cpm` does too. `deal` is what the bid is by; with a fixed price
    `auction_type` is None, and price, `floor_cpm` and `optimum_cpm` are one.
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
    margin: float = 0.0
    cvr_margin: float = math.nan
    pcvr: float = math.nan
    value_per_click: float = 0.0
    value_per_conversion: float = 0.0
    value_per_impression_cpm: float = 0.0
    propensity: float = math.nan
    risk_aversion: float = 0.0
    pctr_log_odds_sd: float = math.nan
    priced_pctr: float = math.nan
    soft_floor_cpm: float | None = None
    deal: str | None = None

    @property
    def waterfall(self) -> tuple[Step, ...]:
        """From 0 to the bid, or to 0 with the reason for no bid; as far as the decision went.

        "prediction": the value of an impression at the uncalibrated probabilities; "calibration": at the calibrated
        ones; "risk", "margin", "pacing": what an aversion, the line item's keep and the budget take off; "shading": to
        the surplus-maximising price; "floor": raised to it; "cap": lowered to cap; "exploration": varied. The first
        step begins at 0, the last one ends at just `bid_cpm`.
        """
        gross = self.value_cpm / (1.0 - self.margin)
        raw = self._value_cpm(_sigmoid(self.ctr_margin), _sigmoid(self.cvr_margin)) / (1.0 - self.margin)
        shaded = min(
            self.optimum_cpm, self.unshaded_bid_cpm
        )  # a value next to 0 rounds to an optimum above it
        levels = [
            ("prediction", raw),
            *self._calibrated_levels(gross),
            ("margin", self.value_cpm),
            ("pacing", self.unshaded_bid_cpm),
        ]
        if self.reason is NoBidReason.BID:
            raised = max(shaded, self.floor_cpm)
            levels += [("shading", shaded), ("floor", raised)]
            if math.isnan(self.propensity):
                levels += [("cap", self.bid_cpm)]
            else:
                intended = min(raised, self.cap_cpm, self.unshaded_bid_cpm)
                levels += [("cap", intended), ("exploration", self.bid_cpm)]
        steps: list[Step] = []
        before = 0.0
        if math.isnan(self.pctr):
            levels = []
        for name, after in levels:
            if math.isnan(after):
                break
            steps.append(Step(name, before, after))
            before = after
        if self.reason is not NoBidReason.BID:
            steps.append(Step(f"no bid: {self.reason.name.lower()}", before, 0.0))
        return tuple(steps)

    def _calibrated_levels(self, gross: float) -> list[tuple[str, float]]:
        if not self.risk_aversion > 0.0:
            return [("calibration", gross)]
        return [("calibration", self._value_cpm(self.pctr, self.pcvr) / (1.0 - self.margin)), ("risk", gross)]

    def _value_cpm(self, pctr: float, pcvr: float) -> float:
        conversions = pcvr * self.value_per_conversion if self.value_per_conversion > 0.0 else 0.0
        return self.value_per_impression_cpm + 1000.0 * pctr * (self.value_per_click + conversions)

    @property
    def shading_factor(self) -> float:
        """bid / unshaded bid, in (0, 1]; NaN without a bid."""
        return self.bid_cpm / self.unshaded_bid_cpm if self.bid_cpm > 0.0 else float("nan")

    @property
    def expected_surplus_cpm(self) -> float:
        """(v − bid) · win_rate, v after pacing: what first price earns. Second price earns at least that."""
        return (self.unshaded_bid_cpm - self.bid_cpm) * self.win_rate if self.bid_cpm > 0.0 else 0.0

    def __str__(self) -> str:
        if not self.value_cpm > 0.0 and self.reason is not NoBidReason.BID:
            return f"no bid: {self.reason.name.lower()}"
        lines = [f"{'pctr':<38} {self.pctr:>12.6g}"]
        if self.risk_aversion > 0.0:
            below = f"{self.risk_aversion:g} of sd {self.pctr_log_odds_sd:.3f} lower"
            lines.append(f"{'pctr, priced':<38} {self.priced_pctr:>12.6g}  {below}")
        if not math.isnan(self.pcvr):
            lines.append(f"{'pcvr':<38} {self.pcvr:>12.6g}")
        if not math.isnan(self.win_location):
            median = f"e^{self.win_location:.3f}"
            lines.append(f"{'market price, median':<38} {median:>12}  slope {self.win_shape:.2f}")
        for step in self.waterfall:
            # differences of what is printed, so that the column adds up to the bid
            change = round(step.after_cpm, 4) - round(step.before_cpm, 4)
            notes = {"floor": f"floor {self.floor_cpm:.4f}", "cap": f"cap {self.cap_cpm:.4f}"}
            unit = f"{self.currency} CPM" if step.before_cpm == 0.0 else notes.get(step.name, "")
            lines.append(f"{step.name:<26}{change:>+12.4f} {step.after_cpm:>12.4f}  {unit}".rstrip())
        if self.reason is NoBidReason.BID:
            surplus = f", expected surplus {self.expected_surplus_cpm:.4f}"
            # what second price earns, the market decides
            is_known = self.auction_type is not AuctionType.SECOND_PRICE
            lines.append(
                f"{'bid':<38} {self.bid_cpm:>12.4f}  ({self.shading_factor:.1%} of value, wins {self.win_rate:.1%}"
                f"{surplus if is_known else ''})"
            )
            if self.deal is not None:
                lines.append(f"by deal {self.deal}")
        return "\n".join(lines)


def _sigmoid(x: float) -> float:
    e = math.exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)
