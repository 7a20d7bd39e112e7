"""What an attack reports, and how long it may try."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum


class Effort(StrEnum):
    """TWIN: enough to catch a deliberate fault. QUICK: the CI's figures. LONG: hours."""

    TWIN = "twin"
    QUICK = "quick"
    LONG = "long"

    def of(self, *, twin: int, quick: int, long: int) -> int:
        """The number of trials for this effort."""
        return {Effort.TWIN: twin, Effort.QUICK: quick, Effort.LONG: long}[self]


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
