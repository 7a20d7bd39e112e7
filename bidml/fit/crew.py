"""The processes that fit one model together, each on rows of its own; usually there is one, and nothing to exchange.

A fit is a loop of local work and small sums: outcomes of a category, a Newton step, a held-out loss. Every such sum
goes through a `Crew`. What it returns has the same bytes on every rank, so every rank takes the same decisions and
ends with the same model; the only rows that travel are samples (bin boundaries, calibration). LightGBM exchanges
histograms by its own network, which `in_network` calls run in. `training.ranks` is a crew of several machines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Found = TypeVar("Found")

SAMPLED_ROWS: Final = 200_000
"""What all ranks together contribute to a common sample: as many as LightGBM takes for bin boundaries."""


class Crew(Protocol):
    """Every rank makes the same calls in the same order. Whatever goes wrong on one rank is raised on all of them."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""

    @property
    def size(self) -> int:
        """How many processes there are."""

    @property
    def network(self) -> dict[str, Any]:
        """LightGBM's parameters for training with the others; empty alone."""

    def sum(self, values: Doubles) -> Doubles:
        """Σ over ranks of arrays of one shape, in order of rank."""

    def sums_at(self, keys: npt.NDArray[np.int64], values: Doubles) -> tuple[npt.NDArray[np.int64], Doubles]:
        """Σ over ranks of `values` (m, k) at distinct sorted `keys` (m,), which may differ; keys and sums alike."""

    def rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The arrays of all ranks, one after another along their first axis; doubles or 64-bit integers."""

    def counts(
        self, texts: npt.NDArray[Any], n: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """How often distinct `texts` (m,) were seen on all ranks; sorted, or alone as given."""

    def told(self, message: bytes) -> list[bytes]:
        """The messages of all ranks, by rank."""

    def in_network(self, work: Callable[[], Found]) -> Found:
        """What `work` returns, run where LightGBM knows the other ranks."""

    def check(self) -> None:
        """Raises what went wrong on another rank, if it did."""


class Alone:
    """A crew of one."""

    rank: Final = 0
    size: Final = 1

    def __init__(self) -> None:
        self.network: dict[str, Any] = {}

    def sum(self, values: Doubles) -> Doubles:
        return values

    def sums_at(self, keys: npt.NDArray[np.int64], values: Doubles) -> tuple[npt.NDArray[np.int64], Doubles]:
        return keys, values

    def rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values

    def counts(
        self, texts: npt.NDArray[Any], n: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        return texts, n

    def told(self, message: bytes) -> list[bytes]:
        return [message]

    def in_network(self, work: Callable[[], Found]) -> Found:
        return work()

    def check(self) -> None:
        return


ALONE: Final[Crew] = Alone()


def total(crew: Crew, *values: float) -> list[float]:
    """Σ over ranks of each of the numbers."""
    return [float(found) for found in crew.sum(np.array(values, dtype=np.float64))]


def mean(crew: Crew, values: Doubles, weight: Doubles | None = None) -> float:
    """The (weighted) mean over the rows (n,) of all ranks."""
    if weight is None:
        above, below = total(crew, float(values.sum()), float(len(values)))
    else:
        above, below = total(crew, float((values * weight).sum()), float(weight.sum()))
    return above / below


def sampled(crew: Crew, values: npt.NDArray[Any], *, most: int = SAMPLED_ROWS) -> npt.NDArray[Any]:
    """`values` alone; else about `most` of the rows of all ranks, evenly from each."""
    if crew.size == 1:
        return values
    n = len(values)
    share = max(1, most // crew.size)
    chosen = np.arange(n) if n <= share else np.linspace(0, n - 1, share).astype(np.intp)
    return crew.rows(values[chosen])
