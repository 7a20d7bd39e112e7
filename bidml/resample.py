"""Intervals for means of auctions that follow each other: a block bootstrap.

Auctions near in time resemble each other, so blocks of consecutive rows are drawn, not rows (Künsch 1989). Only the
sums of the blocks are needed: the cost does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

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
    n = len(columns[0])
    blocks = max(2, min(_BLOCKS, n // _ROWS_PER_BLOCK))
    edges = np.linspace(0, n, blocks + 1).astype(np.int64)[:-1]
    sums = [np.add.reduceat(np.asarray(column, dtype=np.float64), edges) for column in columns]
    draws = rng.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=_DRAWS)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.asarray(statistic(*(draws @ of for of in sums)))
        value = float(statistic(*(of.sum() for of in sums)))
    tail = (1.0 - confidence) / 2.0
    low, high = (
        np.quantile(found[~np.isnan(found)], [tail, 1.0 - tail])
        if not np.isnan(found).all()
        else (-np.inf, np.inf)
    )
    return Interval(value, float(low), float(high))
