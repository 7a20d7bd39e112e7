"""What an attack reports, and how long it may try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


class Effort(StrEnum):
    """SHORT: enough to catch a deliberate fault. CI: minutes. QUICK: the figures of `make robust`. LONG: hours."""

    SHORT = "short"
    CI = "ci"
    QUICK = "quick"
    LONG = "long"

    def of(self, *, short: _T, ci: _T, quick: _T, long: _T) -> _T:
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
KEPT: Path | None = None  # where inputs are kept, and how their names begin; None: nowhere
WHEN_BROKEN: Callable[[Outcome], None] | None = (
    None  # after each finding: a twin is caught by its first, and may end
)

LATEST: Outcome | None = None  # of the attack in this process


def _keep(data: bytes | str, number: int) -> Path:
    assert KEPT is not None
    path = KEPT.with_name(f"{KEPT.name}-{number}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode(errors="surrogatepass"))
    return path


@dataclass
class Outcome:
    """`trials` made; `found`: what broke a promise, in words, the first few; `n_found`: all of them."""

    trials: int = 0
    n_found: int = 0
    found: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0  # processor time of the process and its children

    _MOST_KEPT = 5

    def __post_init__(self) -> None:
        global LATEST
        LATEST = self

    def broke(self, what: str, data: bytes | str | None = None) -> None:
        """`data`: the input under which it broke; the first few are kept as files, and `what` says where."""
        self.n_found += 1
        if len(self.found) < self._MOST_KEPT:
            kept = "" if data is None or KEPT is None else f" [input: {_keep(data, self.n_found)}]"
            self.found.append(what[:2_000] + kept)
        if WHEN_BROKEN is not None:
            WHEN_BROKEN(self)

    def demand(self, holds: bool, what: str) -> None:
        if not holds:
            self.broke(what)

    def count(self, what: str, n: int) -> None:
        """A figure for the table that grows with each round."""
        self.counts[what] = self.counts.get(what, 0) + n

    def note(self, text: str) -> None:
        """A measured figure for the table."""
        self.notes.append(text)
