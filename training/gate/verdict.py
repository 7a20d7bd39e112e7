"""What the gate found: checks, each with its value, its bound and a verdict; one failed check refuses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bidml.metrics import Interval


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `low` and `high` bound an estimate (None: exact); `bound` says in words what was demanded."""

    name: str
    passed: bool
    value: float | str | None
    bound: str
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        value = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        interval = "" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.name}: {value}{interval}, wanted {self.bound}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`promoted` when every check passed; `reasons` are those that did not."""

    checks: tuple[Check, ...]

    @property
    def promoted(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        return [str(check) for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        rows = [{name: _plain(value) for name, value in asdict(check).items()} for check in self.checks]
        return {"promoted": self.promoted, "reasons": self.reasons, "checks": rows}


class Checks:
    """Collects checks."""

    def __init__(self) -> None:
        self.found: list[Check] = []

    def note(
        self,
        name: str,
        passed: Any,
        value: float | str | None,
        bound: str,
        interval: Interval | None = None,
    ) -> None:
        ends = (None, None) if interval is None else (interval.low, interval.high)
        self.found.append(Check(name, bool(passed), value, bound, *ends))


def _plain(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
