"""Crosses: a pair of categories as one category, whose effect is what the two do not say each for itself.

An app and a slot may each be average and the slot in that app be worth three times as much. Trees on the two effects
cannot know, for the effect of an app is all they see of it; a linear model adds weights. So the pair is coded as a
category is: known pairs by the evidence, the others pooled. Its sides are coded first, so a pair may have the pool of
rare texts on a side, and the bidder finds it by two numbers (`blueprint.CrossLookup`) instead of a joined text.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bidml.blueprint import CrossLookup, Vocabulary
from bidml.contract import MAX_CROSSES
from bidml.errors import ConfigError
from bidml.fit.encoding import Categories, Doubles
from bidml.fit.low_rank import Sides

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossedCategories(Categories):
    """Pairs as codes: `codes` (n_rows,) index `pairs` (n_keys,), rising; n_keys is the pool of all others. `keys` is
    empty."""

    first: Vocabulary
    second: Vocabulary
    pairs: Doubles

    @property
    def sides(self) -> tuple[Vocabulary, Vocabulary]:
        return self.first, self.second

    @property
    def cells(self) -> Sides:
        """Where the known pairs lie."""
        pairs = self.pairs.astype(np.intp)
        one, other = self.sides
        return Sides(pairs // other.n_numbers, pairs % other.n_numbers, one.n_numbers, other.n_numbers)

    @property
    def n_keys(self) -> int:
        return len(self.pairs)

    def lookup(self, served: Doubles) -> CrossLookup:
        """What the bidder finds: `served` (n_codes,), the pool's last."""
        values = array("d", served[:-1].tobytes())
        codes = array("d", self.pairs.tobytes())
        return CrossLookup(self.first, self.second, codes, values, float(served[-1]))


def cross_categories(
    categories: Mapping[str, Categories],
    crosses: Sequence[Pair],
    *,
    max_keys: int = 50_000,
    min_count: int = 3,
) -> dict[str, CrossedCategories]:
    """The `crosses` of coded `categories` by name, "first*second"; `max_keys` and `min_count` as of `Categories.of`."""
    vocabularies = {
        name: Vocabulary(name, categories[name].keys) for name in dict.fromkeys(n for c in crosses for n in c)
    }
    found = {}
    for first, second in crosses:
        one = _crossed(categories[first], categories[second], vocabularies, max_keys, min_count)
        found[one.feature] = one
    return found


def check_crosses(crosses: Sequence[Pair], categories: Collection[str]) -> None:
    """Raises `ConfigError` for a cross that is not of two `categories`, for one given twice, and for too many."""
    for cross in crosses:
        is_pair = not isinstance(cross, str) and len(cross) == 2 and cross[0] != cross[1]
        if not is_pair or not set(cross) <= set(categories):
            raise ConfigError(
                "a cross is of two different categories of the spec",
                value=cross,
                remedy=f"name two of {sorted(categories)}",
            )
    if len({frozenset(cross) for cross in crosses}) < len(crosses):
        raise ConfigError("a cross is named once", value=list(crosses), remedy="drop the second")
    if len(crosses) > MAX_CROSSES:
        raise ConfigError(
            f"a model has at most {MAX_CROSSES} crosses", value=len(crosses), remedy="cross fewer categories"
        )


def _crossed(
    first: Categories,
    second: Categories,
    vocabularies: Mapping[str, Vocabulary],
    max_keys: int,
    min_count: int,
) -> CrossedCategories:
    crew = first.crew
    pair = first.codes.astype(np.int64) * second.n_codes + second.codes
    here, n_here = np.unique(pair, return_counts=True)
    known, counts = crew.sums_at(here, n_here[:, None].astype(np.float64))
    n_rows = counts[:, 0]
    kept = known[n_rows >= min_count]
    if len(kept) > max_keys:
        most = np.argsort(-n_rows[n_rows >= min_count], kind="stable")[:max_keys]
        kept = kept[np.sort(most)]
    if not len(kept):  # a lookup has a key
        kept = known[:1]
    at = np.minimum(np.searchsorted(kept, pair), len(kept) - 1)
    return CrossedCategories(
        feature=f"{first.feature}*{second.feature}",
        keys=(),
        codes=np.where(kept[at] == pair, at, len(kept)).astype(np.intp),
        crew=crew,
        first=vocabularies[first.feature],
        second=vocabularies[second.feature],
        pairs=kept.astype(np.float64),
    )
