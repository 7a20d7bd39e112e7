"""What each column contributed to a sum of trees: path-dependent TreeSHAP, exactly.

The value of a set S of known columns is the trees' answer when a node on a column of S sends the row its way, and any
other node sends it both ways, in proportion to how many background rows took each (Lundberg et al. 2020, Nature Machine
Intelligence 2, algorithm 1; arXiv 1905.04610). Column j contributes its Shapley value. LightGBM's `pred_contrib` is the
same with its training rows as background.

A leaf is reached by all of the columns on its path; of these, column i lets a share z_i of the background through, and
the row itself with o_i = 1 or 0. Within a leaf of value v with D columns the Shapley sum has the closed form

    φ_j = v (o_j − z_j) Σ_k  k! (D − 1 − k)! / D!  ·  [y^k] Π_{i ≠ j} (z_i + o_i y),

evaluated here for all leaves of equal D at once: nothing is divided, so a share of 0 needs no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Final

import numpy as np
import numpy.typing as npt

from bidml.blueprint import Trees
from bidml.errors import DataError
from bidml.features import Doubles, TreeArrays

_CELLS_AT_ONCE: Final = 1 << 24  # rows × nodes of the background looked at together

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TreeContributions:
    """`contributions` (n_rows, n_columns); with `base`, the background's mean, they add up to the sum of the trees."""

    base: float
    contributions: Doubles


def tree_contributions(matrix: Doubles, trees: Trees, background: Doubles) -> TreeContributions:
    """TreeSHAP of the rows of `matrix` (n_rows, n_columns), with `background` rows (m, n_columns) for the shares.

    Where no background row passes a node, it sends half to either side. Raises `DataError` for an empty background.
    """
    if (
        background.ndim != 2
        or matrix.ndim != 2
        or not len(background)
        or background.shape[1] != matrix.shape[1]
    ):
        raise DataError(
            "rows and background have the trees' columns, and the background has rows",
            value=(matrix.shape, background.shape),
            remedy="encode both with the same head",
        )
    arrays = TreeArrays(trees)
    groups = _leaf_groups(arrays, _true_shares(arrays, background))
    base = float(sum((group.value * group.share.prod(axis=1)).sum() for group in groups))
    found = np.zeros((len(matrix), matrix.shape[1]))
    nodes = np.arange(len(arrays.column))
    for row, x in enumerate(matrix):
        goes_true = arrays.decisions(nodes, x[arrays.column])
        for group in groups:
            group.add_to(found[row], goes_true)
    return TreeContributions(base, found)


@dataclass(frozen=True, slots=True, eq=False)
class _Leaves:
    """The n leaves with D distinct columns on their paths: `value` (n,), `column` and `share` (n, D).

    A condition is one node on a path: `node` must decide as `wanted` for the slot (leaf · D + position) it stands for.
    """

    value: Doubles
    column: Ints
    share: Doubles
    slot: Ints
    node: Ints
    wanted: npt.NDArray[np.bool_]

    def add_to(self, total: Doubles, goes_true: npt.NDArray[np.bool_]) -> None:
        """Adds each column's φ for a row whose nodes decide `goes_true` (n_nodes,) to `total` (n_columns,)."""
        n, depth = self.column.shape
        broken = self.slot[goes_true[self.node] != self.wanted]
        lets = np.ones(n * depth)
        lets[broken] = 0.0
        lets = lets.reshape(n, depth)
        for j in range(depth):
            polynomial = np.zeros((n, depth))  # coefficients of Π (z + o y) over the others
            polynomial[:, 0] = 1.0
            for i in range(depth):
                if i != j:
                    shifted = polynomial[:, :-1] * lets[:, i, None]
                    polynomial *= self.share[:, i, None]
                    polynomial[:, 1:] += shifted
            weighted = polynomial @ _shapley_weights(depth)
            phi = self.value * (lets[:, j] - self.share[:, j]) * weighted
            np.add.at(total, self.column[:, j], phi)


def _shapley_weights(depth: int) -> Doubles:
    """k! (D − 1 − k)! / D! for k = 0 … D − 1."""
    return np.array([factorial(k) * factorial(depth - 1 - k) / factorial(depth) for k in range(depth)])


def _passing(arrays: TreeArrays, background: Doubles) -> tuple[Ints, Ints]:
    """Of how many rows each node is passed, and sends to its true side; (n_nodes,) each."""
    n_nodes = len(arrays.column)
    passed, to_true = np.zeros(n_nodes, dtype=np.int64), np.zeros(n_nodes, dtype=np.int64)
    nodes = np.arange(n_nodes)
    step = max(1, _CELLS_AT_ONCE // n_nodes)
    for start in range(0, len(background), step):
        rows = background[start : start + step]
        decided = arrays.decisions(np.repeat(nodes, len(rows)), rows[:, arrays.column].T.ravel()).reshape(
            n_nodes, len(rows)
        )
        here = np.zeros((n_nodes, len(rows)), dtype=bool)
        here[arrays.roots] = True
        for node in range(n_nodes):  # children come after their parents
            goes = here[node]
            for child, sent in (
                (arrays.if_true[node], goes & decided[node]),
                (arrays.if_false[node], goes & ~decided[node]),
            ):
                if child >= 0:
                    here[child] |= sent
        passed += here.sum(axis=1)
        to_true += (here & decided).sum(axis=1)
    return passed, to_true


def _true_shares(arrays: TreeArrays, background: Doubles) -> Doubles:
    passed, to_true = _passing(arrays, background)
    return np.where(passed > 0, to_true / np.maximum(passed, 1), 0.5)


def _leaf_groups(arrays: TreeArrays, true_share: Doubles) -> list[_Leaves]:
    """Every leaf with its path, grouped by how many distinct columns that has."""
    by_depth: dict[int, list[tuple[int, dict[int, float], list[tuple[int, int, bool]]]]] = {}
    for root in arrays.roots.tolist():
        stack: list[tuple[int, tuple[tuple[int, bool], ...]]] = [(root, ())]
        while stack:
            at, path = stack.pop()
            if at >= 0:
                stack += [
                    (int(arrays.if_true[at]), (*path, (at, True))),
                    (int(arrays.if_false[at]), (*path, (at, False))),
                ]
                continue
            shares: dict[int, float] = {}
            conditions = []
            for node, side in path:
                column, share = int(arrays.column[node]), float(true_share[node])
                shares[column] = shares.get(column, 1.0) * (share if side else 1.0 - share)
                conditions.append((column, node, side))
            by_depth.setdefault(len(shares), []).append((~at, shares, conditions))
    return [_group(arrays, depth, leaves) for depth, leaves in sorted(by_depth.items())]


def _group(
    arrays: TreeArrays,
    depth: int,
    leaves: list[tuple[int, dict[int, float], list[tuple[int, int, bool]]]],
) -> _Leaves:
    slots, nodes, wanted = [], [], []
    for i, (_, shares, conditions) in enumerate(leaves):
        position = {column: i * depth + at for at, column in enumerate(shares)}
        for column, node, side in conditions:
            slots.append(position[column])
            nodes.append(node)
            wanted.append(side)
    return _Leaves(
        value=arrays.leaf[[leaf for leaf, _, _ in leaves]],
        column=np.array([list(shares) for _, shares, _ in leaves], dtype=np.int64),
        share=np.array([list(shares.values()) for _, shares, _ in leaves], dtype=np.float64),
        slot=np.array(slots, dtype=np.int64),
        node=np.array(nodes, dtype=np.int64),
        wanted=np.array(wanted, dtype=bool),
    )
