"""Intervals for means of auctions that follow each other: a block bootstrap.

Auctions near in time resemble each other, so blocks of consecutive rows are drawn, not rows (Künsch 1989). Only the
sums of the blocks are needed: the cost does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from bidml.features import Doubles
from bidml.metrics import Interval

_BLOCKS: Final = 400
_ROWS_PER_BLOCK: Final = 20
_DRAWS: Final = 1000


def block_interval(
    statistic: Callable[..., Doubles],
    *columns: Doubles,
    confidence: float,
    rng: np.random.Generator,
) -> Interval:
    """`statistic` of the columns' sums, with the percentile interval of its block bootstrap.

    `columns` have shape (n,), in time order. `statistic` takes one array of sums per column, any shape, and is made of
    ratios, so that the number of rows cancels.

    >>> x = np.tile([0.0, 1.0], 500)
    >>> found = block_interval(lambda s, n: s / n, x, np.ones(1000), confidence=0.9, rng=np.random.default_rng(0))
    >>> found.value, found.low <= 0.5 <= found.high
    (0.5, True)
    """
    return BlockSums.draw(columns, rng=rng).interval(statistic, range(len(columns)), confidence=confidence)


@dataclass(frozen=True, slots=True, eq=False)
class BlockSums:
    """Sums of columns, `whole` (n_columns,), and of each bootstrap draw, `drawn` (n_columns, n_draws): for several
    statistics of the same draws."""

    whole: Doubles
    drawn: Doubles

    @classmethod
    def draw(cls, columns: Sequence[Doubles], *, rng: np.random.Generator) -> Self:
        """`columns` have shape (n,), in time order."""
        sums = np.array([block_sums(column, len(columns[0])) for column in columns])
        return cls(sums.sum(axis=1), sums @ block_draws(sums.shape[1], rng).T)

    def interval(
        self, statistic: Callable[..., Doubles], columns: Sequence[int], *, confidence: float
    ) -> Interval:
        """`statistic` of the sums of some columns, by their numbers; see `block_interval`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.asarray(statistic(*(self.drawn[i] for i in columns)))
            value = float(statistic(*(self.whole[i] for i in columns)))
        return percentile_interval(value, found, confidence)


def block_sums(column: Doubles, n: int) -> Doubles:
    """The sums of `column` (n,) over consecutive blocks, (n_blocks,)."""
    blocks = max(2, min(_BLOCKS, n // _ROWS_PER_BLOCK))
    edges = np.linspace(0, n, blocks + 1).astype(np.int64)[:-1]
    return np.add.reduceat(np.asarray(column, dtype=np.float64), edges)


def block_draws(n_blocks: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each block is drawn, (n_draws, n_blocks)."""
    return rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=_DRAWS)


def percentile_interval(value: float, draws: Doubles, confidence: float) -> Interval:
    """`value` with the middle part of its draws; draws that are NaN are left out."""
    known = draws[~np.isnan(draws)]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(known, [tail, 1.0 - tail]) if known.size else (-np.inf, np.inf)
    return Interval(value, float(low), float(high))
