"""Controllers of one multiplier: how far off the spend was in, what to multiply values by out.

`DualDescent` is dual mirror descent on the budget's shadow price in its multiplicative form (Balseiro & Gur, "Learning
in repeated auctions with budgets", Management Science 2019; SCIENCE.md 3.6): with v_eff = v e^{−u} the log price u
moves by ε · n · overspend. `Pid` is the feedback controller of Zhang et al. (WSDM 2016, arXiv 1603.01055).

Both know nothing of money: the overspend is relative, (spend − target) / target. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from bidml.errors import ConfigError, DataError

# Feedback that is D windows late must move the multiplier by less than this / (D + 1) a window, or it oscillates.
STABLE_GAIN: Final = 0.3


class Controller(Protocol):
    """Anything that keeps a multiplier between its bounds and can be stored."""

    @property
    def multiplier(self) -> float: ...

    def observe(self, overspend: float, n_auctions: int, *, delay: int = 0) -> float:
        """Takes the relative overspend of a window that ended `delay` windows ago; returns the new multiplier."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class DualDescent:
    """u ← u + min(step_per_auction · n, 0.3 / (delay + 1)) · overspend, at most ±max_step; multiplier e^{−u}.

    `highest` 1.0 is for surplus: the shadow price of a budget is not negative. A goal that spends its budget whatever
    it buys sets it higher. Steps of 3e-4 to 1e-3 per auction differ by 0.2 % of value on iPinYou (docs/pricing.md).
    Raises `ConfigError` for impossible settings.
    """

    multiplier: float = 1.0
    step_per_auction: float = 5e-4
    max_step: float = 0.5
    lowest: float = 1e-4
    highest: float = 1.0

    def __post_init__(self) -> None:
        _check_bounds(self.lowest, self.multiplier, self.highest)
        _check_positive(step_per_auction=self.step_per_auction, max_step=self.max_step)

    def observe(self, overspend: float, n_auctions: int, *, delay: int = 0) -> float:
        """The next multiplier. Raises `DataError` for an overspend that is not a number."""
        _check_overspend(overspend)
        gain = min(self.step_per_auction * n_auctions, STABLE_GAIN / (delay + 1))
        step = _clipped(gain * overspend, -self.max_step, self.max_step)
        self.multiplier = _clipped(self.multiplier * math.exp(-step), self.lowest, self.highest)
        return self.multiplier

    def to_json(self) -> dict[str, Any]:
        return {"kind": "dual_descent", **asdict(self)}


@dataclass(slots=True)
class Pid:
    """multiplier = start · exp(kp e + ki Σe + kd Δe), e = −overspend cut to [−1, 1]; the sum stops at its bounds."""

    start: float = 1.0
    kp: float = 0.2
    ki: float = 0.05
    kd: float = 0.0
    lowest: float = 1e-4
    highest: float = 1.0
    integral: float = 0.0
    previous: float = 0.0
    multiplier: float = 0.0  # 0: takes `start`

    def __post_init__(self) -> None:
        if self.multiplier == 0.0:
            self.multiplier = self.start
        _check_bounds(self.lowest, self.multiplier, self.highest)
        _check_positive(ki=self.ki, start=self.start)

    def observe(self, overspend: float, n_auctions: int, *, delay: int = 0) -> float:
        """The next multiplier. Raises `DataError` for an overspend that is not a number."""
        _check_overspend(overspend)
        error = _clipped(-overspend, -1.0, 1.0)
        change, self.previous = error - self.previous, error
        low, high = (math.log(bound / self.start) / self.ki for bound in (self.lowest, self.highest))
        self.integral = _clipped(self.integral + error / (delay + 1), low, high)  # no wind-up past the bounds
        log_factor = self.kp * error + self.ki * self.integral + self.kd * change
        self.multiplier = _clipped(self.start * math.exp(log_factor), self.lowest, self.highest)
        return self.multiplier

    def to_json(self) -> dict[str, Any]:
        return {"kind": "pid", **asdict(self)}


_KINDS: Final[Mapping[str, type[DualDescent] | type[Pid]]] = {"dual_descent": DualDescent, "pid": Pid}


def controller_from_json(document: Mapping[str, Any]) -> Controller:
    """The inverse of `to_json`. Raises `DataError` for anything else than such a document."""
    try:
        settings = dict(document)
        return _KINDS[settings.pop("kind")](**settings)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"the state of a controller is of one of {sorted(_KINDS)}",
            value=document,
            remedy="start the controller anew",
        ) from None


def _check_bounds(lowest: float, multiplier: float, highest: float) -> None:
    if not 0.0 < lowest <= multiplier <= highest < math.inf:
        raise ConfigError(
            "0 < lowest ≤ multiplier ≤ highest",
            value=(lowest, multiplier, highest),
            remedy="correct the bounds",
        )


def _check_positive(**settings: float) -> None:
    for name, setting in settings.items():
        if not 0.0 < setting < math.inf:
            raise ConfigError(f"{name} is above 0", value=setting, remedy=f"correct {name}")


def _check_overspend(overspend: float) -> None:
    if not overspend >= -1.0:
        raise DataError(
            "a relative overspend is a number of at least −1",
            value=overspend,
            remedy="check the spend report: no money flows back",
        )


def _clipped(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)
