"""Spending a budget evenly over the traffic of a day, also when reports of spend come late.

For each control window the pacer sets a target: what is left of the budget, in proportion to the window's share of the
traffic that is left. A report moves the controller by the relative difference of spend and target, the target being for
the auctions that really came. Windows that are not reported yet count as having spent their target.

Money is in any one currency unit. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bidml.errors import ConfigError, DataError
from bidml.pacing.controllers import Controller, controller_from_json
from bidml.pacing.forecast import TrafficForecast

_HIGHEST_OVERSPEND: Final = 10.0


@dataclass(slots=True)
class BudgetPacer:
    """One line item's day: `begin(window)` gives the pacing multiplier, `report(window, ...)` feeds back.

    Windows begin in order; reports may be late and in any order, once per window. A window whose report is more than
    `stale_after` windows late stops the bidding: the multiplier is 0 until it comes (the kill switch of a dead feed).

    `trust_in_volume` is how many days of observed traffic the forecast's volume counts for when the traffic to come is
    estimated: on real days, whose shape changes as much as their volume, early traffic says little about late traffic
    (docs/pricing.md). Lower it where shapes are known better than volumes.
    """

    budget: float
    forecast: TrafficForecast
    controller: Controller
    stale_after: int = 24
    trust_in_volume: float = 1.0
    spent: float = 0.0
    window: int = -1
    n_reported: int = 0
    expected_reported: float = 0.0
    targets: dict[int, float] = field(default_factory=dict)  # of windows begun and not reported: per auction

    def __post_init__(self) -> None:
        if not (0.0 < self.budget < math.inf and self.stale_after >= 1 and self.trust_in_volume > 0.0):
            raise ConfigError(
                "budget and trust_in_volume are above 0, and reports may be at least 1 window late",
                value=(self.budget, self.trust_in_volume, self.stale_after),
                remedy="correct them",
            )

    def begin(self, window: int) -> float:
        """The pacing multiplier of `window`; 0.0 when the budget is spent or the reports are stale.

        Raises `DataError` for a window that is not after the last one, or not of the day.
        """
        if not self.window < window < self.forecast.n_windows:
            raise DataError(
                f"windows begin in order, below {self.forecast.n_windows}",
                value=(self.window, window),
                remedy="make a new pacer for a new day",
            )
        self.window = window
        self.targets[window] = self._target_per_auction(window)
        if self.spent >= self.budget or min(self.targets) < window - self.stale_after:
            return 0.0
        return self.controller.multiplier

    def report(self, window: int, *, spend: float, n_auctions: int) -> float:
        """Takes what a window spent on how many auctions (bid on or not); returns the controller's multiplier.

        Raises `DataError` for a window that has not begun or was reported, and for negative numbers or NaN.
        """
        if window not in self.targets:
            raise DataError(
                "a window is reported once, after it began",
                value=window,
                remedy=f"open: {sorted(self.targets)}",
            )
        if not (0.0 <= spend < math.inf and n_auctions >= 0):
            raise DataError(
                "spend and auctions are at least 0", value=(spend, n_auctions), remedy="fix the feed"
            )
        target = self.targets.pop(window) * n_auctions
        self.spent += spend
        self.n_reported += n_auctions
        self.expected_reported += self.forecast.expected[window]
        if n_auctions == 0:
            return self.controller.multiplier
        overspend = _HIGHEST_OVERSPEND if target <= 0.0 else spend / target - 1.0
        return self.controller.observe(
            min(overspend, _HIGHEST_OVERSPEND), n_auctions, delay=max(0, self.window - window)
        )

    def _target_per_auction(self, window: int) -> float:
        """What is left of the budget over the auctions that are left, from this window on."""
        volume = self._volume()
        open_auctions = {w: volume * self.forecast.expected[w] for w in self.targets}
        committed = sum(self.targets[w] * n for w, n in open_auctions.items())
        left = max(self.budget - self.spent - committed, 0.0)
        ahead = volume * sum(self.forecast.expected[window:])
        return left / max(ahead, 1.0)

    def _volume(self) -> float:
        """Auctions per expected auction, from the windows reported, with the forecast as a prior."""
        prior = self.trust_in_volume * self.forecast.total
        return (self.n_reported + prior) / (self.expected_reported + prior)

    def to_json(self) -> dict[str, Any]:
        """All state: a pacer made `from_json` of it goes on as if nothing had happened."""
        return {
            "budget": self.budget,
            "forecast": self.forecast.to_json(),
            "controller": self.controller.to_json(),
            "stale_after": self.stale_after,
            "trust_in_volume": self.trust_in_volume,
            "spent": self.spent,
            "window": self.window,
            "n_reported": self.n_reported,
            "expected_reported": self.expected_reported,
            "targets": [[window, target] for window, target in self.targets.items()],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BudgetPacer:
        """The inverse of `to_json`. Raises `DataError` for another document."""
        try:
            state = dict(document)
            state["forecast"] = TrafficForecast.from_json(state["forecast"])
            state["controller"] = controller_from_json(state["controller"])
            state["targets"] = {int(window): float(target) for window, target in state["targets"]}
            return cls(**state)
        except (KeyError, TypeError, ValueError):
            raise DataError(
                "the state of a pacer is what to_json made", value=document, remedy="start the day anew"
            ) from None


@dataclass(slots=True)
class TargetCost:
    """Keeps spend per result (click, conversion, unit of revenue: 1/ROS) at `cost_per_result`.

    Results may be expected ones, Σ pctr · pcvr, which are neither late nor rare. The controller should be allowed
    multipliers above 1 when the value of a result is taken to be its target cost. The overspend is relative to the
    recent spend, so that a window without a result is no catastrophe.
    """

    cost_per_result: float
    controller: Controller
    recent_spend: float = 0.0
    memory: float = 0.8

    def __post_init__(self) -> None:
        if not (0.0 < self.cost_per_result < math.inf and 0.0 <= self.memory < 1.0):
            raise ConfigError(
                "a target cost is above 0, and the memory in [0, 1)",
                value=(self.cost_per_result, self.memory),
                remedy="correct them",
            )

    @property
    def multiplier(self) -> float:
        return self.controller.multiplier

    def report(self, *, spend: float, results: float, n_auctions: int, delay: int = 0) -> float:
        """Takes what a window spent and bought; returns the multiplier."""
        if not (0.0 <= spend < math.inf and 0.0 <= results < math.inf):
            raise DataError("spend and results are at least 0", value=(spend, results), remedy="fix the feed")
        first = self.recent_spend == 0.0
        self.recent_spend = spend if first else self.memory * self.recent_spend + (1.0 - self.memory) * spend
        excess = spend - self.cost_per_result * results
        scale = max(self.recent_spend, spend)
        if scale == 0.0:
            return self.controller.multiplier
        return self.controller.observe(min(max(excess / scale, -1.0), 1.0), n_auctions, delay=delay)

    def to_json(self) -> dict[str, Any]:
        return {
            "cost_per_result": self.cost_per_result,
            "controller": self.controller.to_json(),
            "recent_spend": self.recent_spend,
            "memory": self.memory,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TargetCost:
        """The inverse of `to_json`. Raises `DataError` for another document."""
        try:
            return cls(**{**document, "controller": controller_from_json(document["controller"])})
        except (KeyError, TypeError):
            raise DataError(
                "the state of a target cost is what to_json made", value=document, remedy="start anew"
            ) from None


def min_pacing(*multipliers: float) -> float:
    """The multiplier under several constraints, each with its own controller: the smallest.

    >>> min_pacing(0.8, 1.2)
    0.8
    """
    return min(multipliers)
