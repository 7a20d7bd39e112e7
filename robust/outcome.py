"""What an attack reports, and how long it may try."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum


class Effort(StrEnum):
    """SHORT: enough to catch a deliberate fault. CI: minutes. QUICK: the figures of `make robust`. LONG: hours."""

    SHORT = "short"
    CI = "ci"
    QUICK = "quick"
    LONG = "long"

    def of(self, *, short: int, ci: int, quick: int, long: int) -> int:
        """The number of trials for this effort."""
        return {Effort.SHORT: short, Effort.CI: ci, Effort.QUICK: quick, Effort.LONG: long}[self]

    @property
    def lower(self) -> Effort:
        """What an attack makes on a second, slower build."""
        efforts = list(Effort)
        return efforts[max(0, efforts.index(self) - 1)]


@dataclass(frozen=True)
class Share:
    """The part of an attack that one of `of` processes makes."""

    index: int = 0
    of: int = 1

    def has(self, i: int) -> bool:
        """Whether the i-th of all trials, or groups of them, is in this part."""
        return i % self.of == self.index


WHOLE = Share()


@dataclass
class Outcome:
    """`trials` made; `found`: what broke a promise, in words, the first few; `n_found`: all of them."""

    trials: int = 0
    n_found: int = 0
    found: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    _MOST_KEPT = 5

    def broke(self, what: str) -> None:
        self.n_found += 1
        if len(self.found) < self._MOST_KEPT:
            self.found.append(what[:2_000])

    def demand(self, holds: bool, what: str) -> None:
        if not holds:
            self.broke(what)

    def note(self, text: str) -> None:
        """A measured figure for the table."""
        self.notes.append(text)
