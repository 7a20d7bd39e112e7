"""Raw features → what the trees read: numbers as they are, categories and crosses as effect, count and (where few)
rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bidml.blueprint import Column, Head
from bidml.contract import FeatureKind, FeatureSpec
from bidml.errors import ConfigError
from bidml.features import Doubles, RawColumns, encode
from bidml.fit.crew import ALONE, Crew
from bidml.fit.crosses import CrossedCategories, Pair, check_crosses, cross_categories
from bidml.fit.encoding import (
    Categories,
    FittedColumn,
    OtherFolds,
    OutcomeEvidence,
    Visibility,
    effect_and_count_columns,
    empirical_shrinkage,
    rank_column,
)

FEW_KEYS: Final = 16  # up to here trees sort categories out by themselves, and a rank is all they need


@dataclass(frozen=True, slots=True, eq=False)
class TreeInputs:
    """`columns` as the artifact computes them; `training` (n_rows, n_columns), column by column in memory: their values
    for the rows they were learnt from, none of which has seen its own outcome. `categories`: the coded
    columns by name, those of the crosses last."""

    columns: tuple[Column, ...]
    training: Doubles
    categories: Mapping[str, Categories]

    @classmethod
    def learn(
        cls,
        raw: RawColumns,
        spec: FeatureSpec,
        y: Doubles,
        visibility: Visibility,
        *,
        expected: Doubles,
        weight: Doubles | None = None,
        parents: Mapping[str, str] | None = None,
        crosses: Sequence[Pair] = (),
        max_keys: int = 50_000,
        min_count: int = 3,
        crew: Crew = ALONE,
    ) -> TreeInputs:
        """From the `raw_columns` of training rows with outcomes `y` (n_rows,) in [0, 1] and `expected` rates (n_rows,).

        `parents` maps a category to the one whose effect it deviates from (placement → app): a hierarchical prior.
        `crosses`: pairs of categories whose effect deviates from those of both. Raises `ConfigError` for a parent that
        is no category of the spec, or its own ancestor, and for what `check_crosses` refuses.
        """
        learner = _Learner(
            raw,
            spec,
            y,
            visibility,
            expected,
            weight,
            dict(parents or {}),
            [(first, second) for first, second in crosses],
            max_keys,
            min_count,
            crew,
        )
        columns: list[Column] = []
        training = np.empty((len(y), 2 * (len(spec.features) + len(crosses))), order="F")
        for feature in spec.features:
            if feature.kind is FeatureKind.NUMBER:
                training[:, len(columns)] = raw[feature.name]
                columns.append(Column(feature.name))
            else:
                for fitted in learner.columns_of(feature.name):
                    training[:, len(columns)] = fitted.values
                    columns.append(Column(feature.name, fitted.lookup))
                learner.forget(feature.name)
        for name in learner.cross():
            for fitted in learner.columns_of(name):
                training[:, len(columns)] = fitted.values
                columns.append(Column(name, fitted.lookup))
            learner.forget(name)
        return cls(tuple(columns), training[:, : len(columns)], learner.categories)

    def of(self, raw: RawColumns) -> Doubles:
        """The values of other rows, (n_rows, n_columns), as the bidder would compute them."""
        return encode(raw, Head(self.columns, None))


class _Learner:
    def __init__(
        self,
        raw: RawColumns,
        spec: FeatureSpec,
        y: Doubles,
        visibility: Visibility,
        expected: Doubles,
        weight: Doubles | None,
        parents: dict[str, str],
        crosses: list[Pair],
        max_keys: int,
        min_count: int,
        crew: Crew,
    ) -> None:
        self._raw, self._y, self._visibility, self._weight = raw, y, visibility, weight
        self._expected, self._parents, self._crosses = expected, parents, crosses
        self._max_keys, self._min_count, self._crew = max_keys, min_count, crew
        self._done: dict[str, tuple[FittedColumn, ...]] = {}
        self.categories: dict[str, Categories] = {}
        _check_parents(spec, parents)
        check_crosses(crosses, [feature.name for feature in spec.categories()])

    def cross(self) -> list[str]:
        """Codes the crosses, once all categories are; their names."""
        options = {"max_keys": self._max_keys, "min_count": self._min_count}
        crossed = cross_categories(self.categories, self._crosses, **options)
        self.categories |= crossed
        return list(crossed)

    def columns_of(self, name: str) -> tuple[FittedColumn, ...]:
        """Effect and count, or effect and rank of few; of a constant the rank, as its running mean tells the time."""
        if name not in self._done:
            categories = self._categories_of(name)
            if np.count_nonzero(categories.counts) == 1:
                self._done[name] = (rank_column(categories),)
            else:
                effect, count = self._effect_and_count(name)
                few = categories.n_keys <= FEW_KEYS
                self._done[name] = (effect, rank_column(categories)) if few else (effect, count)
        return self._done[name]

    def _effect_and_count(self, name: str) -> tuple[FittedColumn, FittedColumn]:
        """Against what the ancestors lead one to expect, of a cross both sides and theirs."""
        categories = self.categories[name]
        sides = self._sides_of(name)
        if sides and isinstance(self._visibility, OtherFolds):
            return self._out_of_fold(categories, sides, self._visibility)
        expected = self._expected
        if sides:
            odds = expected / (1.0 - expected)
            for side in sides:
                odds = odds * np.exp(self.columns_of(side)[0].values)
            expected = odds / (1.0 + odds)
        evidence = OutcomeEvidence(self._y, expected, self._weight)
        return effect_and_count_columns(categories, evidence, self._visibility)

    def _out_of_fold(
        self, categories: Categories, sides: list[str], folds: OtherFolds
    ) -> tuple[FittedColumn, FittedColumn]:
        """Each fold's values are those that the other folds would serve.

        Expecting of each row what the other folds say of its sides would not do: the rows of a pair share its sides,
        those of a child its parent, so what they are expected to do knows each other's outcomes, and with rare sides
        a row reads its own from theirs.
        """
        served = self._beyond_sides(categories, sides, np.ones(len(self._y), dtype=bool), 1.0)
        values = np.empty((len(self._y), 2))
        for visible in folds.visible():
            values[~visible] = self._beyond_sides(categories, sides, visible, folds.share)[
                categories.codes[~visible]
            ]
        return categories.column(values[:, 0], served[:, 0]), categories.column(values[:, 1], served[:, 1])

    def _beyond_sides(
        self, child: Categories, sides: list[str], visible: npt.NDArray[np.bool_], share: float
    ) -> Doubles:
        """Effect and ln(1 + n) of each code by the `visible` rows alone, a `share` of all, (n_codes, 2)."""
        weight = visible if self._weight is None else visible * self._weight
        base = np.log(self._expected) - np.log1p(-self._expected)
        effects: dict[str, Doubles] = {}

        def effect_of(categories: Categories, beyond: list[str]) -> Doubles:
            s = base + sum(effects[name] for name in beyond)
            evidence = OutcomeEvidence(self._y, 1.0 / (1.0 + np.exp(-s)), weight.astype(np.float64))
            sums = np.column_stack([categories.sums(quantity) for quantity in evidence.quantities.T])
            shrinkage = empirical_shrinkage(*evidence.score_and_information(sums[:-1]))
            return evidence.effect(sums / share, shrinkage)

        for side in sides:
            categories = self.categories[side]
            ancestors = [name for name in self._line_of(side)[1:] if name in effects]
            effects[side] = effect_of(categories, ancestors)[categories.codes]
        n = child.sums(visible / share)
        n[-1] = 0.0
        return np.column_stack((effect_of(child, sides), np.log1p(n)))

    def _categories_of(self, name: str) -> Categories:
        if name not in self.categories:
            self.categories[name] = Categories.of(
                name, self._raw[name], max_keys=self._max_keys, min_count=self._min_count, crew=self._crew
            )
        return self.categories[name]

    def forget(self, name: str) -> None:
        """Values that no child and no cross will ask for are gigabytes."""
        if name not in self._parents.values() and not any(name in cross for cross in self._crosses):
            del self._done[name]

    def _sides_of(self, name: str) -> list[str]:
        """What a category is measured beyond: its ancestors, these first; of a cross also the sides; but for constants,
        which have no effect."""
        categories = self.categories[name]
        if isinstance(categories, CrossedCategories):
            names = [n for side in categories.sides for n in reversed(self._line_of(side.feature))]
        else:
            names = self._line_of(name)[:0:-1]
        return [n for n in dict.fromkeys(names) if len(self.columns_of(n)) > 1]

    def _line_of(self, name: str) -> list[str]:
        line = [name]
        while (parent := self._parents.get(line[-1])) is not None:
            line.append(parent)
        return line


def _check_parents(spec: FeatureSpec, parents: Mapping[str, str]) -> None:
    categories = {feature.name for feature in spec.categories()}
    for child in parents:
        ancestors = [child]
        while (parent := parents.get(ancestors[-1])) is not None:
            if parent not in categories or child not in categories or parent in ancestors:
                raise ConfigError(
                    "a parent is another category of the spec, without going round in circles",
                    value=[*ancestors, parent],
                    remedy="correct parents",
                )
            ancestors.append(parent)
