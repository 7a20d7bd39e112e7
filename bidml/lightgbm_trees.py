"""LightGBM boosters → `blueprint.Trees` and `Head`, exactly.

The source is the booster's own text, which prints doubles with 17 digits. What LightGBM 4 does with a value
(`Tree::NumericalDecision`, `Tree::CategoricalDecision`, `Predictor`) becomes:

- missing type NaN: NaN follows `default_left`. None: NaN is 0. Zero: NaN and |x| <= 1e-35 follow
  `default_left`, by a rewrite of the column.
- before any tree sees it, the predictor replaces |x| <= 1e-35 by 0; so a threshold in between is moved to the
  edge that decides alike.
- a category is cast to int (toward zero); negative, too large and NaN are in no set.
- a threshold of +inf splits missing values from all others.
- `sigmoid:k` is the head's scale, random forests' averaging its divisor; `best_iteration` is the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, nan, nextafter
from typing import Any, Final

import numpy as np

from bidml.blueprint import LIGHTGBM_ZERO, Column, CrossLookup, Head, Lookup, NodeMode, Rewrite, Trees
from bidml.errors import CertificateError, ExportError
from bidml.oracle import tree_function, truncated
from bidml.tree_builder import TreeBuilder

_LOG_ODDS_OBJECTIVES: Final = ("binary", "cross_entropy", "xentropy")
_MISSING_NONE, _MISSING_ZERO = 0, 1  # and 2 for NaN
_CHECK_ROWS: Final = 240

Sections = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class BoosterTrees:
    """The trees of a booster, and what stands around them.

    `inputs[i]`: which booster feature column i of the trees is, and how it is rewritten first. Log-odds (or
    whatever the objective predicts before its link) are Σ trees / divisor · scale. `objective`: "" for a
    custom one.
    """

    trees: Trees
    inputs: tuple[tuple[int, Rewrite], ...]
    divisor: float
    scale: float
    objective: str


def head_of_booster(
    booster: Any,
    columns: Sequence[Column],
    *,
    raw: bool = False,
    terms: Sequence[Lookup | CrossLookup] = (),
    intercept: float = 0.0,
) -> Head:
    """The head whose margin is the booster's log-odds + intercept + terms.

    `booster`: a `lightgbm.Booster`. `columns`: one per feature of it, in order, without rewrites; those that
    no tree reads are left out. `raw=True` takes the sum of trees (their average in a random forest) of any
    single-output objective, also a custom one, instead of demanding one that predicts log-odds.
    Raises `ExportError` for a model without an exact form, `CertificateError` if the trees differ from
    `booster.predict(..., raw_score=True)` in any bit on rows around their thresholds.
    """
    found = trees_of_booster(booster, raw=raw)
    n_features = booster.num_feature()
    if len(columns) != n_features or any(column.rewrite is not Rewrite.NONE for column in columns):
        raise ExportError(
            f"there is one column per feature of the booster, {n_features}, without a rewrite",
            value=len(columns),
            remedy="pass the columns it was trained on, in order",
        )
    _check_against(booster, found, n_features)
    return Head(
        columns=tuple(replace(columns[i], rewrite=rewrite) for i, rewrite in found.inputs),
        trees=found.trees,
        terms=tuple(terms),
        intercept=intercept,
        scale=found.scale,
        divisor=found.divisor,
    )


def trees_of_booster(booster: Any, *, raw: bool = False) -> BoosterTrees:
    """The trees of a `lightgbm.Booster` up to its best iteration; see `head_of_booster`."""
    return trees_of_text(booster.model_to_string(), raw=raw)


def trees_of_text(text: str, *, raw: bool = False) -> BoosterTrees:
    """The same from a model file's text."""
    header, sections = _sections(text)
    objective = _checked_objective(header, raw=raw)
    if not sections:
        raise ExportError("a booster has trees", value="none", remedy="train at least one iteration")
    inputs = sorted({pair for section in sections for pair in _inputs(section)}) or [(0, Rewrite.NONE)]
    builder = _Builder({pair: i for i, pair in enumerate(inputs)})
    for i, section in enumerate(sections):
        builder.add(section, where=f"tree {i}")
    parts = objective.split()
    sigmoid = next((part.removeprefix("sigmoid:") for part in parts if part.startswith("sigmoid:")), "1")
    return BoosterTrees(
        trees=builder.trees,
        inputs=tuple((feature, Rewrite(rewrite)) for feature, rewrite in inputs),
        divisor=float(len(sections)) if "average_output" in header else 1.0,
        scale=1.0 if raw else float(sigmoid),
        objective=parts[0] if parts else "",
    )


def _sections(text: str) -> tuple[dict[str, str], Sections]:
    body, _, _ = text.partition("\nend of trees")
    head, *trees = body.split("\nTree=")
    return _pairs(head), [_pairs(tree) for tree in trees]


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in text.split("\n"))}


def _checked_objective(header: dict[str, str], *, raw: bool) -> str:
    if header.get("version") not in ("v3", "v4"):
        raise ExportError(
            "a LightGBM model text is of version v3 or v4", value=header.get("version"), remedy="train again"
        )
    outputs = header.get("num_class"), header.get("num_tree_per_iteration")
    if outputs != ("1", "1"):
        raise ExportError(
            "a head is a booster of one class and one tree per iteration",
            value=outputs,
            remedy="train one booster per output",
        )
    objective = header.get("objective", "")
    name = objective.split()[0] if objective.split() else ""
    if not raw and name not in _LOG_ODDS_OBJECTIVES:
        raise ExportError(
            f"a booster predicts log-odds: its objective is one of {list(_LOG_ODDS_OBJECTIVES)}",
            value=objective or "custom",
            remedy="pass raw=True if the sum of its trees is what you want",
        )
    return objective


def _inputs(section: dict[str, str]) -> Iterator[tuple[int, Rewrite]]:
    if int(section["num_leaves"]) > 1:
        for feature, decision in zip(
            _ints(section, "split_feature"), _ints(section, "decision_type"), strict=True
        ):
            yield feature, _rewrite(decision)


def _rewrite(decision: int) -> Rewrite:
    if decision & 1:
        return Rewrite.TRUNCATE
    return Rewrite.ZERO_IS_MISSING if decision >> 2 & 3 == _MISSING_ZERO else Rewrite.NONE


class _Builder(TreeBuilder):
    """Appends LightGBM's trees."""

    def __init__(self, column_of: dict[tuple[int, Rewrite], int]) -> None:
        super().__init__()
        self._column_of = column_of

    def add(self, section: dict[str, str], *, where: str) -> None:
        if section.get("is_linear", "0") != "0":
            raise ExportError(
                "leaves are constants", value=f"linear_tree, {where}", remedy="train without linear_tree"
            )
        values = _floats(section, "leaf_value")
        if not all(map(isfinite, values)):
            raise ExportError(
                "leaves are finite", value=f"{where}: {values}", remedy="train with regularisation"
            )
        self.begin()
        if int(section["num_leaves"]) == 1:
            node = self.node(0, NodeMode.LEQ, 0.0, missing_true=False)
            for side in (True, False):
                self.leaf(values[0], node, side)
            return
        splits = _Splits(section)
        pending: list[tuple[int, int, bool]] = [(0, -1, False)]  # (LightGBM's child, our parent, its side)
        while pending:
            child, parent, side = pending.pop()
            if child < 0:
                self.leaf(values[~child], parent, side)
                continue
            node = self._split(splits, child)
            if parent >= 0:
                self.link(parent, side, node, is_leaf=False)
            sides = [(splits.right[child], node, False), (splits.left[child], node, True)]
            pending += sorted(sides, key=lambda side: side[0] < 0, reverse=True)  # the last is the next

    def _split(self, splits: _Splits, i: int) -> int:
        decision = splits.decision[i]
        rewrite = _rewrite(decision)
        column = self._column_of[splits.feature[i], rewrite]
        if rewrite is Rewrite.TRUNCATE:
            self.trees.membership.extend(splits.members(i))
            self.trees.membership.append(nan)
            return self.node(column, NodeMode.MEMBER, 0.0, missing_true=False)
        threshold = _as_predicted(splits.threshold[i])
        missing = decision >> 2 & 3
        missing_true = threshold >= 0.0 if missing == _MISSING_NONE else bool(decision & 2)
        return self.node(column, NodeMode.LEQ, threshold, missing_true=missing_true)


def _as_predicted(threshold: float) -> float:
    """The same decisions for every x, although LightGBM's predictor takes |x| <= 1e-35 for 0."""
    if -LIGHTGBM_ZERO <= threshold < 0.0:
        return nextafter(-LIGHTGBM_ZERO, -inf)
    return LIGHTGBM_ZERO if 0.0 <= threshold < LIGHTGBM_ZERO else threshold


class _Splits:
    """The arrays of one tree section."""

    def __init__(self, section: dict[str, str]) -> None:
        self.feature = _ints(section, "split_feature")
        self.decision = _ints(section, "decision_type")
        self.threshold = _floats(section, "threshold")
        self.left = _ints(section, "left_child")
        self.right = _ints(section, "right_child")
        self._boundaries = _ints(section, "cat_boundaries")
        self._words = _ints(section, "cat_threshold")

    def members(self, i: int) -> list[float]:
        """The categories in the set of split i: set bits of 32-bit words."""
        which = int(self.threshold[i])
        words = self._words[self._boundaries[which] : self._boundaries[which + 1]]
        return [float(32 * w + bit) for w, word in enumerate(words) for bit in range(32) if word >> bit & 1]


def _ints(section: dict[str, str], name: str) -> list[int]:
    return list(map(int, section.get(name, "").split()))


def _floats(section: dict[str, str], name: str) -> list[float]:
    return list(map(float, section.get(name, "").split()))


def _check_against(booster: Any, found: BoosterTrees, n_features: int) -> None:
    """The trees as Python walks them, against LightGBM, on rows around the thresholds."""
    points: list[list[float]] = [
        [nan, 0.0, -0.0, inf, -inf, 1e-35, -1e-35, -0.5, 1e300, -1.0] for _ in range(n_features)
    ]
    trees = found.trees
    for column, threshold, mode in zip(trees.column, trees.threshold, trees.mode, strict=True):
        if mode == NodeMode.LEQ:
            points[found.inputs[column][0]] += (
                threshold,
                nextafter(threshold, -inf),
                nextafter(threshold, inf),
            )
    members = sorted({member for member in trees.membership if member == member})
    for feature, rewrite in found.inputs:
        if rewrite is Rewrite.TRUNCATE:
            points[feature] += members
    matrix = np.empty((_CHECK_ROWS, n_features))
    for feature, values in enumerate(points):
        stride = max(1, len(values) // _CHECK_ROWS)
        matrix[:, feature] = np.resize(np.roll(values[::stride], feature), _CHECK_ROWS)
    expected = booster.predict(matrix, raw_score=True, num_threads=1)
    tree_sum = tree_function(trees)
    for row, want in zip(matrix.tolist(), expected.tolist(), strict=True):
        have = tree_sum([_rewritten(row[feature], rewrite) for feature, rewrite in found.inputs])
        if have != want:
            raise CertificateError(
                f"the exported trees equal LightGBM's: the sum is {want!r}",
                value=have,
                remedy="report the booster's text; do not publish this model",
            )


def _rewritten(x: float, rewrite: Rewrite) -> float:
    if rewrite is Rewrite.ZERO_IS_MISSING:
        return nan if abs(x) <= LIGHTGBM_ZERO else x
    return truncated(x) if rewrite is Rewrite.TRUNCATE else x
