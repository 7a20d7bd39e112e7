"""What a scorer has done, in numbers for a monitor (bidml/native/telemetry.h counts). Standard library only."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from bidml.contract import NoBidReason

_PER_OCTAVE: Final = 4
_FIRST_SECOND_EXPONENT: Final = -24  # 60 ns
_SECOND_OCTAVES: Final = 24  # to 1 s


@dataclass(frozen=True, slots=True)
class LogHistogram:
    """Counts on a logarithmic scale: `counts[i]` values in [edges[i], edges[i + 1]), outliers in the outermost.

    `edges` has one more element than `counts` and is the same for every scorer; `sum` is of the values.

    >>> LogHistogram((1.0, 2.0, 4.0), (3, 1), 7.0).quantile(0.5)
    2.0
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """An upper bound of the q-quantile, 0 ≤ q ≤ 1: the edge above it. NaN when nothing was counted."""
        if not self.count:
            return math.nan
        above = itertools.accumulate(self.counts)
        return next(
            edge for edge, n in zip(self.edges[1:], above, strict=True) if n >= max(1.0, q * self.count)
        )

    def __add__(self, other: LogHistogram) -> LogHistogram:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return LogHistogram(self.edges, counts, self.sum + other.sum)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Of one scorer, or the sum of several.

    `decisions`: by `NoBidReason` name in lower case ("bid": the bids). `lowered`: bids that the cap held below their
    optimum; `raised`: bids that the floor lifted above it; `explored`: bids that were varied, in neither of these.
    `pctr`: of every decision that was scored (of `best`, of the line item that bids); `pcvr`: of those that pay for
    conversions; `bid_cpm`: of every bid, in the artifact's currency. One decision in about 16 is looked at closely:
    `seconds` is what such decisions took inside the scorer, and of the `looked_at` that were scored `missing` and
    `unseen` count, by feature, values that were not there and categories that the model does not know. Batches count
    decisions, `pctr`, `pcvr` and `bid_cpm` only.
    """

    decisions: dict[str, int]
    lowered: int
    raised: int
    explored: int
    pctr: LogHistogram
    pcvr: LogHistogram
    bid_cpm: LogHistogram
    seconds: LogHistogram
    looked_at: int
    missing: dict[str, int]
    unseen: dict[str, int]

    def __add__(self, other: Telemetry) -> Telemetry:
        both = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Telemetry(*(_sum_of(a, b) for a, b in both))


def _sum_of(a: Any, b: Any) -> Any:
    if not isinstance(a, dict):
        return a + b
    total = Counter(a)
    total.update(b)
    return dict(total)


def read_telemetry(found: Mapping[str, Any], slots: Mapping[str, tuple[bool, int]]) -> Telemetry:
    """From what the native scorer tells; `slots`: feature name → (whether a category, its slot)."""
    n_categories = sum(is_category for is_category, _ in slots.values())
    place = {
        name: slot if is_category else n_categories + slot for name, (is_category, slot) in slots.items()
    }
    return Telemetry(
        decisions=decisions_of(found["decisions"]),
        lowered=found["lowered"],
        raised=found["raised"],
        explored=found["explored"],
        pctr=_histogram(*found["pctr"]),
        pcvr=_histogram(*found["pcvr"]),
        bid_cpm=_histogram(*found["bid_cpm"]),
        seconds=_in_seconds(*found["ticks_taken"], seconds_per_tick=found["seconds_per_tick"]),
        looked_at=found["looked_at"],
        missing={name: found["missing"][i] for name, i in place.items()},
        unseen={name: found["unseen"][i] for name, i in place.items() if slots[name][0]},
    )


def decisions_of(counts: Sequence[int]) -> dict[str, int]:
    """Native counts by the name of their reason; a scorer never says `STALE_MODEL`."""
    return {
        reason.name.lower(): counts[reason] for reason in NoBidReason if reason is not NoBidReason.STALE_MODEL
    }


def _edges(first_exponent: int, n: int) -> tuple[float, ...]:
    return tuple(
        math.ldexp(1.0 + (i % _PER_OCTAVE) / _PER_OCTAVE, first_exponent + i // _PER_OCTAVE)
        for i in range(n + 1)
    )


def _histogram(first_exponent: int, counts: Sequence[int], total: float) -> LogHistogram:
    return LogHistogram(_edges(first_exponent, len(counts)), tuple(counts), total)


def _in_seconds(
    first_exponent: int, counts: Sequence[int], total: float, *, seconds_per_tick: float
) -> LogHistogram:
    """Buckets of ticks, each moved as a whole to the bucket of seconds that holds its middle."""
    edges = _edges(_FIRST_SECOND_EXPONENT, _SECOND_OCTAVES * _PER_OCTAVE)
    moved = [0] * (len(edges) - 1)
    ticks = _edges(first_exponent, len(counts))
    for low, high, n in zip(ticks, ticks[1:], counts, strict=False):
        at = bisect_right(edges, 0.5 * (low + high) * seconds_per_tick) - 1
        moved[min(max(at, 0), len(moved) - 1)] += n
    return LogHistogram(edges, tuple(moved), total * seconds_per_tick)
