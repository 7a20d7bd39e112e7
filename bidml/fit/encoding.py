"""Categories as numbers: what each is worth by the evidence, learnt without seeing the row's own outcome.

A tree cannot split on a million texts. What it needs to know of a category is how far its outcomes lie from what was
expected, and how much evidence there is. Both are sums over the category's rows, so one code serves every target:
clicks against an expected rate (`OutcomeEvidence`), or one Newton step of any likelihood (`StepEvidence`: the win
curve, where a plain win rate would be confounded with our own bids).

A value that contains the row's own outcome tells the trees the answer, and they believe it: in-sample target encoding
keeps a tenth of the attainable information (SCIENCE.md 1.2). So a training row sees only earlier rows (`Earlier`, as
CatBoost does it, Prokhorenkova et al. 2018) or rows of other folds (`OtherFolds`). A served row sees all of history:
a `blueprint.Lookup`.

Shrinkage is empirical Bayes. An effect δ_c ~ N(0, 1/κ); the evidence of a category is its score G and information H;
then δ̂ = G / (H + κ), and since E G² = H + H²/κ, the data tell κ. For rare clicks κ is a number of expected clicks.

A cross of two categories is a category too (`fit.crosses`), which differs only in its lookup.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.blueprint import CrossLookup, Lookup
from bidml.bounds import MAX_KEY_BYTES
from bidml.errors import ConfigError, DataError
from bidml.features import UNMATCHABLE
from bidml.fit.crew import ALONE, Crew, sampled

Doubles: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.intp]

MIN_SHRINKAGE: Final = 0.5
MAX_SHRINKAGE: Final = 1e9  # a column without any effect: every value is as good as 0
_REWEIGHTINGS: Final = 8
_CELLS: Final = 1 << 21  # of categories by periods, in a sum over ranks


@dataclass(frozen=True, slots=True)
class Categories:
    """A column of texts as codes: `codes` (n_rows,) index `keys`, sorted; `len(keys)` is the pool of all others.

    The pool stands for what the bidder will see and we did not: its value is the lookup's default. Rows are those of
    this rank of the `crew`; keys, and all sums, are of all ranks.
    """

    feature: str
    keys: tuple[str, ...]
    codes: Indices
    crew: Crew = ALONE

    @classmethod
    def of(
        cls,
        feature: str,
        texts: npt.NDArray[Any],
        *,
        max_keys: int = 50_000,
        min_count: int = 3,
        crew: Crew = ALONE,
    ) -> Categories:
        """From an array of `features.raw_columns`. Texts seen less than `min_count` times, those beyond the `max_keys`
        most frequent (ties: the first in order of text), and those that no key can hold are pooled.
        """
        if max_keys < 1 or min_count < 1:
            raise ConfigError(
                "a dictionary has room for a key", value=(max_keys, min_count), remedy="give both ≥ 1"
            )
        found, here = pd.factorize(texts)
        distinct, counts = crew.counts(here, np.bincount(found, minlength=len(here)))
        by_text = np.array(sorted(range(len(distinct)), key=distinct.__getitem__), dtype=np.intp)
        kept = by_text[[_is_key(distinct[i]) for i in by_text] & (counts[by_text] >= min_count)]
        if len(kept) > max_keys:
            most = np.argsort(-counts[kept], kind="stable")[:max_keys]
            kept = kept[np.sort(most)]
        code_of = np.full(len(distinct), len(kept), dtype=np.intp)
        code_of[kept] = np.arange(len(kept))
        if not len(kept):  # a lookup has a key, though none may ever match it
            return cls(feature, ("",), np.where(texts == "", 0, 1).astype(np.intp), crew)
        if distinct is not here:
            code_of = code_of[pd.Index(distinct).get_indexer(pd.Index(here))]
        return cls(feature, tuple(distinct[kept].tolist()), code_of[found], crew)

    @property
    def n_keys(self) -> int:
        return len(self.keys)

    @property
    def n_codes(self) -> int:
        """The keys and the pool."""
        return self.n_keys + 1

    @property
    def n_pooled_rows(self) -> int:
        """Rows whose text was rare, beyond the bound, or unmatchable."""
        return int((self.codes == self.n_keys).sum())

    def sums(self, quantity: Doubles) -> Doubles:
        """Σ `quantity` (n_rows,) over the rows of each code, on all ranks; (n_codes,)."""
        return self.crew.sum(
            np.bincount(self.codes, weights=quantity, minlength=self.n_codes).astype(np.float64)
        )

    @property
    def counts(self) -> Doubles:
        """The rows of each code, on all ranks; (n_codes,)."""
        return self.crew.sum(np.bincount(self.codes, minlength=self.n_codes).astype(np.float64))

    def column(self, values: Doubles, served: Doubles) -> FittedColumn:
        """`values` (n_rows,) for training, `served` (n_codes,) for the lookup."""
        return FittedColumn(self.lookup(served), values)

    def lookup(self, served: Doubles) -> Lookup | CrossLookup:
        """What the bidder finds: `served` (n_codes,), the pool's last."""
        return Lookup(self.feature, self.keys, array("d", served[:-1].tobytes()), float(served[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class FittedColumn:
    """One encoding: `lookup` for serving, `values` (n_rows,) for training, which no row's own outcome has entered."""

    lookup: Lookup | CrossLookup
    values: Doubles


class Visibility(Protocol):
    """Which rows a training row may learn from."""

    @property
    def share(self) -> float:
        """How much of all rows that is, where it is the same for all of them; else 1."""

    def sums(self, codes: Indices, n_codes: int, quantities: Doubles) -> Doubles:
        """For each row the sum of `quantities` (n_rows, k) over the visible rows of its code; (n_rows, k)."""


class Earlier:
    """Rows of strictly earlier time: what could be known when the row was bid on. Rows of one instant do not see
    each other. `time` (n_rows,): anything that sorts, without nulls.

    Of the rows on other ranks those of earlier periods are visible; there are 16 to 256 periods of about equally many
    rows, fewer where categories are many."""

    def __init__(self, time: npt.ArrayLike, crew: Crew = ALONE) -> None:
        when = np.asarray(time)
        _, self._instant = np.unique(when, return_inverse=True)
        self._order = np.argsort(self._instant, kind="stable")
        self._crew = crew
        if crew.size > 1:
            self._ticks = as_ticks(when)
            self._ticks_of_all = np.sort(sampled(crew, np.sort(self._ticks)))

    @property
    def share(self) -> float:
        return 1.0

    def sums(self, codes: Indices, n_codes: int, quantities: Doubles) -> Doubles:
        rows = self._order[np.argsort(codes[self._order].astype(_narrow(n_codes)), kind="stable")]
        code, instant = codes[rows], self._instant[rows]
        before = np.cumsum(quantities[rows], axis=0) - quantities[rows]
        code_begins = np.diff(code, prepend=-1) != 0
        instant_begins = code_begins | (np.diff(instant, prepend=-1) != 0)
        found = np.empty_like(before)
        found[rows] = before[_latest(instant_begins)] - before[_latest(code_begins)]
        if self._crew.size > 1:
            found += self._on_other_ranks(codes, n_codes, quantities)
        return found

    def _on_other_ranks(self, codes: Indices, n_codes: int, quantities: Doubles) -> Doubles:
        n_periods = int(np.clip(_CELLS // n_codes, 16, 256))
        starts = np.linspace(0, len(self._ticks_of_all) - 1, n_periods + 1)[1:-1].astype(np.intp)
        period = np.searchsorted(self._ticks_of_all[starts], self._ticks, side="right")
        cell = codes * n_periods + period
        found = np.empty(quantities.shape)
        for i, quantity in enumerate(quantities.T):
            here: Doubles = np.bincount(cell, weights=quantity, minlength=n_codes * n_periods).astype(
                np.float64
            )
            others = (self._crew.sum(here) - here).reshape(n_codes, n_periods)
            found[:, i] = (np.cumsum(others, axis=1) - others).ravel()[cell]
        return found


class OtherFolds:
    """Rows of the other folds, for logs without time. `folds` (n_rows,): 0 to n_folds − 1, independent of outcomes."""

    def __init__(self, folds: npt.NDArray[Any], crew: Crew = ALONE) -> None:
        self._folds = folds.astype(np.intp)
        self._crew = crew
        highest = crew.rows(np.array([self._folds.max(initial=0)], dtype=np.int64))
        self._n_folds = int(highest.max()) + 1

    @classmethod
    def random(
        cls, n_rows: int, *, n_folds: int = 5, rng: np.random.Generator, crew: Crew = ALONE
    ) -> OtherFolds:
        return cls(rng.permutation(np.arange(n_rows) % n_folds), crew)

    @property
    def share(self) -> float:
        return (self._n_folds - 1) / self._n_folds if self._n_folds > 1 else 1.0

    def visible(self) -> list[npt.NDArray[np.bool_]]:
        """For each fold the rows (n_rows,) that its own rows may learn from."""
        return [self._folds != fold for fold in range(self._n_folds)]

    def sums(self, codes: Indices, n_codes: int, quantities: Doubles) -> Doubles:
        cell = codes * self._n_folds + self._folds
        found = np.empty(quantities.shape)
        for i, quantity in enumerate(quantities.T):
            here = np.bincount(cell, weights=quantity, minlength=n_codes * self._n_folds)
            in_cell = self._crew.sum(here.astype(np.float64))
            by_code = in_cell.reshape(n_codes, self._n_folds)
            others = by_code.sum(axis=1, keepdims=True) - by_code
            found[:, i] = others.ravel()[cell]
        return found


class Evidence(Protocol):
    """Additive evidence about the effect of a category, and how sums of it become an effect."""

    @property
    def quantities(self) -> Doubles:
        """What is summed, shape (n_rows, k)."""

    def score_and_information(self, sums: Doubles) -> tuple[Doubles, Doubles]:
        """(G, H), each (m,): the slope of the log likelihood at no effect, and its expected curvature."""

    def effect(self, sums: Doubles, shrinkage: float) -> Doubles:
        """δ̂ (m,) from `sums` (m, k); 0 without evidence, finite always."""


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeEvidence:
    """Outcomes `y` (n_rows,) in [0, 1] against expected rates `expected` (n_rows,) strictly between, with weights.

    The effect is a shift of log-odds: with Y observed and E expected events in N rows,
    `ln((Y + a)/(E + a)) − ln((N − Y + b)/(N − E + b))`, where a = κ/(1 − p), b = κ/p, p = E/N: as if κ/p(1 − p) more
    rows had met their expectation. To first order it is G/(H + κ) with G = Y − E, H = N p (1 − p); unlike that, it is
    right for categories with many times the expected clicks.
    """

    y: Doubles
    expected: Doubles
    weight: Doubles | None = None

    @property
    def quantities(self) -> Doubles:
        w = np.ones(len(self.y)) if self.weight is None else self.weight
        return np.column_stack((self.y * w, self.expected * w, w))

    def score_and_information(self, sums: Doubles) -> tuple[Doubles, Doubles]:
        events, expected, n = sums.T
        return events - expected, expected * (1.0 - _rate(expected, n))

    def effect(self, sums: Doubles, shrinkage: float) -> Doubles:
        events, expected, n = sums.T
        rate = _rate(expected, n)
        a, b = shrinkage / (1.0 - rate), shrinkage / rate
        found: Doubles = np.log((events + a) / (expected + a)) - np.log(
            (np.maximum(n - events, 0.0) + b) / (np.maximum(n - expected, 0.0) + b)
        )
        return np.where(n > 0.0, found, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class StepEvidence:
    """`gradient` (n_rows,): d(log likelihood)/dη of each row at the base model, above 0 where η should rise;
    `hessian` (n_rows,) ≥ 0: its expected curvature. The effect on η is one shrunk Newton step, `ΣG / (ΣH + κ)`.
    """

    gradient: Doubles
    hessian: Doubles

    @property
    def quantities(self) -> Doubles:
        return np.column_stack((self.gradient, self.hessian))

    def score_and_information(self, sums: Doubles) -> tuple[Doubles, Doubles]:
        return sums[:, 0], sums[:, 1]

    def effect(self, sums: Doubles, shrinkage: float) -> Doubles:
        found: Doubles = sums[:, 0] / (np.maximum(sums[:, 1], 0.0) + shrinkage)
        return found


def empirical_shrinkage(score: Doubles, information: Doubles) -> float:
    """κ = 1 / Var(effects), from each category's G and H, shape (m,); between `MIN_` and `MAX_SHRINKAGE`.

    Solves Σ w (G² − H − H²/κ) = 0 for κ. The moment equation holds for any weights w; these are near the inverse
    variance of G² (2 (H + H²/κ)² plus H for the skew of counts), so they depend on κ and are iterated.
    """
    g2, h = score**2, np.maximum(information, 0.0)
    variance = 0.0
    for _ in range(_REWEIGHTINGS):
        w = 1.0 / (h + 2.0 * (h + variance * h * h) ** 2 + 1e-300)
        denominator = float((w * h * h).sum())
        if not denominator > 0.0:
            return MAX_SHRINKAGE
        variance = max(0.0, float((w * (g2 - h)).sum()) / denominator)
    return float(np.clip(1.0 / max(variance, 1.0 / MAX_SHRINKAGE), MIN_SHRINKAGE, MAX_SHRINKAGE))


def effect_column(
    categories: Categories, evidence: Evidence, visibility: Visibility, *, shrinkage: float | None = None
) -> FittedColumn:
    """The effect of each category; the pool's own effect is the default. `shrinkage` None: empirical Bayes.

    A hierarchical prior is evidence against the parent: with `expected` (or the base model of the gradients) holding
    the parent's own effect, 0 means "as its parent", and that is what little evidence shrinks to.
    Raises `DataError` for evidence that is not finite.
    """
    return _columns(categories, evidence, visibility, shrinkage, 1.0)[0]


def effect_and_count_columns(
    categories: Categories, evidence: Evidence, visibility: Visibility, *, shrinkage: float | None = None
) -> tuple[FittedColumn, FittedColumn]:
    """`effect_column`, and ln(1 + n): how often the category was seen; 0 for what never was, and for the pool.

    What a row sees of a part of the rows stands for all of them, as a served row sees them: four fifths of the evidence
    would be shrunk more, and counted as less, than the bidder's, and trees learnt on it would be off by that.
    """
    return _columns(categories, evidence, visibility, shrinkage, visibility.share)


def _columns(
    categories: Categories, evidence: Evidence, visibility: Visibility, shrinkage: float | None, share: float
) -> tuple[FittedColumn, FittedColumn]:
    """The effect and count of each category; of training rows, by the rows they see divided by `share`."""
    quantities = evidence.quantities
    if not np.isfinite(quantities).all():
        raise DataError(
            "evidence is finite", value="NaN or infinity", remedy="set aside rows without an outcome"
        )
    quantities = np.column_stack((quantities, np.ones(len(quantities))))
    totals = np.column_stack([categories.sums(quantity) for quantity in quantities.T])
    if shrinkage is None:
        shrinkage = empirical_shrinkage(*evidence.score_and_information(totals[:-1, :-1]))
    visible = visibility.sums(categories.codes, categories.n_codes, quantities) / share
    effect = categories.column(
        evidence.effect(visible[:, :-1], shrinkage), evidence.effect(totals[:, :-1], shrinkage)
    )
    totals[-1, -1] = 0.0
    visible[categories.codes == categories.n_keys, -1] = 0.0
    return effect, categories.column(np.log1p(visible[:, -1]), np.log1p(totals[:, -1]))


def rank_column(categories: Categories) -> FittedColumn:
    """The rank by frequency, most frequent 0 (ties: by text); the pool comes last. For few categories."""
    counts = categories.counts[:-1]
    served = np.empty(categories.n_codes)
    served[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    served[-1] = len(counts)
    return categories.column(served[categories.codes], served)


def lookup_values(lookup: Lookup, texts: npt.NDArray[Any]) -> Doubles:
    """What the bidder finds for `texts` (n_rows,) of `features.raw_columns`; (n_rows,)."""
    codes, distinct = pd.factorize(texts)
    values: Mapping[str, float] = dict(zip(lookup.keys, lookup.values, strict=True))
    by_code: Doubles = np.array([values.get(text, lookup.default) for text in distinct], dtype=np.float64)
    found: Doubles = by_code[codes]
    return found


def as_ticks(time: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Times (n,) as numbers of the same order, 64 bits each."""
    is_date = np.issubdtype(time.dtype, np.datetime64)
    return time.astype("datetime64[ns]").astype(np.int64) if is_date else time.astype(np.float64)


def _is_key(text: str) -> bool:
    return text != UNMATCHABLE and (len(text) * 4 <= MAX_KEY_BYTES or len(text.encode()) <= MAX_KEY_BYTES)


def _rate(expected: Doubles, n: Doubles) -> Doubles:
    """E / N, strictly between 0 and 1; a half where there is nothing."""
    rate = np.divide(expected, n, out=np.full(len(n), 0.5), where=n > 0.0)
    clipped: Doubles = np.clip(rate, 1e-15, 1.0 - 1e-15)
    return clipped


def _latest(begins: npt.NDArray[np.bool_]) -> Indices:
    """For each position the last one at or before it where `begins` is true."""
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))


def _narrow(n_codes: int) -> npt.DTypeLike:
    """Sorting is several times faster on 16 bits."""
    return np.uint16 if n_codes <= 1 << 16 else np.int64
