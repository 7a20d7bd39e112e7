"""Sums of category effects, each shrunk by what the data say about its feature: a mixed model by backfitting.

s = b + Σ_f w_f(x_f), w_f(c) ~ N(μ_f(c), 1/κ_f). The categories of one feature are disjoint, so its Newton step on any
likelihood of s is one sum per category: w ← (H w − G + κ μ) / (H + κ), with G and H the gradient and the information of
the category's rows; κ_f is empirical Bayes (`encoding.empirical_shrinkage`). No matrix is built: a pass costs a few
`bincount`s per feature, at any cardinality. Bins of a number may be a group without empirical Bayes.

How κ_f is learnt is a `Prior`. MOMENTS takes each feature's residual effects at face value. Where one category lies in
another (placement, app, publisher) and outcomes are rare, what one has not explained yet is then counted as the effect
of all three, and the noise is learnt thrice. EFFECTIVE is MacKay's fixed point (1992, Bayesian interpolation, eq. 4.9):
1/κ = Σ w² / γ with γ = Σ H/(H + κ), the parameters that the data determine. With a diagonal H that shrinks rather too
much than too little; two parameters of variance 0.005 are assumed seen, so that no feature is put out for ever.

Bins in order are a random walk instead (`fit.random_walk`). A group of cells, of one feature by another, may have a
mean of low rank (`fit.low_rank`): w ~ N(u · v, 1/κ), or u · v and nothing beyond. With w integrated out, what the cell
says of its mean counts κ / (H + κ) times.

A group may have one covariate per category, z_f(c), standardised here: μ = γ z, with γ ~ N(0, ¼) fitted by generalised
least squares of the raw effects. A category with few rows then shrinks to what its covariate predicts, not to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np

from bidml.fit.crew import ALONE, Crew
from bidml.fit.encoding import MIN_SHRINKAGE, Indices, Visibility, empirical_shrinkage
from bidml.fit.low_rank import LowRank, Sides
from bidml.fit.observations import Doubles
from bidml.fit.random_walk import RandomWalk

_LARGEST_STEP: Final = 2.0
_PRECISION_OF_GAMMA: Final = 4.0
_NUMBER_SHRINKAGE: Final = 1.0
_PARAMETERS_ASSUMED: Final = 2.0
_VARIANCE_ASSUMED: Final = 0.005
_VARIANCE_AT_FIRST: Final = 0.05  # the fixed point is soon reached from above, slowly from below

Evidence: TypeAlias = Callable[[Doubles], tuple[Doubles, Doubles]]
"""s (n,) → gradient and curvature of the negative log-likelihood of each row in its s, (n,) both."""


class Prior(StrEnum):
    MOMENTS = "moments"
    EFFECTIVE = "effective"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One feature: `codes` (n,) in [0, n_codes). `empirical`: κ is fitted. `covariate`: (n_codes,), or None.
    `crew`: with whom the rows are shared. `sides`: the codes below len(sides) are cells whose mean has rank `rank`;
    without `beyond` that is all they have. `is_ordered`: all but the last lie in order."""

    codes: Indices
    n_codes: int
    empirical: bool = True
    covariate: Doubles | None = None
    crew: Crew = ALONE
    sides: Sides | None = None
    rank: int = 0
    beyond: bool = True
    is_ordered: bool = False

    def sums(self, quantity: Doubles) -> Doubles:
        """Σ over the rows of each code, on all ranks, (n_codes,)."""
        return self.crew.sum(
            np.bincount(self.codes, weights=quantity, minlength=self.n_codes).astype(np.float64)
        )


class MixedModel:
    """`total` (n,) is s of the training rows; `weights[f]` (n_codes,) the effects; `intercept` is b.

    `unit`: the size of s in which steps and priors are measured. `largest_sd`: what is fitted is at most this many
    units. `start`: a fitted model of these groups or of the first of them, maybe of fewer rows, to go on from; its
    intercept is taken.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        intercept: float,
        n_rows: int,
        unit: float = 1.0,
        largest_sd: float = MIN_SHRINKAGE**-0.5,
        prior: Prior = Prior.MOMENTS,
        start: MixedModel | None = None,
    ) -> None:
        self.groups = tuple(groups)
        self._unit = unit
        self._largest_sd = largest_sd
        self.intercept = intercept
        self.total: Doubles = np.full(n_rows, intercept)
        self.weights = [np.zeros(group.n_codes) for group in groups]
        self.shrinkage = [_NUMBER_SHRINKAGE / unit**2] * len(self.groups)
        self._prior = [np.zeros(group.n_codes) for group in groups]
        self._seen = [group.sums(np.ones(n_rows)) > 0.0 for group in groups]
        self._covariates = [_standardised(group.covariate) for group in groups]
        self._rule = prior
        if prior is Prior.EFFECTIVE:
            self.shrinkage = [1.0 / (_VARIANCE_AT_FIRST * unit**2)] * len(self.groups)
        self._low_rank = [
            None if g.sides is None else LowRank(g.sides, g.rank, variance=_VARIANCE_AT_FIRST * unit**2)
            for g in groups
        ]
        variances = {"at_first": _VARIANCE_AT_FIRST * unit**2, "assumed": _VARIANCE_ASSUMED * unit**2}
        self._walks = [RandomWalk(g.n_codes - 1, **variances) if g.is_ordered else None for g in groups]
        if start is not None:
            n = len(start.groups)
            self.intercept, self.shrinkage[:n] = start.intercept, start.shrinkage
            self.weights[:n] = [weights.copy() for weights in start.weights]
            self._prior[:n] = [prior.copy() for prior in start._prior]
            self._walks[:n] = [None if walk is None else walk.copy() for walk in start._walks]
            self._low_rank[:n] = [None if low is None else low.copy() for low in start._low_rank]
            self.total = self.of([group.codes for group in self.groups])

    def sweep(self, evidence: Evidence) -> None:
        """One Newton step per group, in order."""
        for i, group in enumerate(self.groups):
            g, h = (group.sums(quantity) for quantity in evidence(self.total))
            score = h * self.weights[i] - g
            if group.empirical and self._rule is Prior.MOMENTS:
                self._fit_prior(i, score, h)
            kappa, prior = self.shrinkage[i], self._prior[i]
            low_rank = self._low_rank[i]
            if low_rank is not None:
                known = kappa / (h + kappa) if group.beyond else np.ones(group.n_codes)
                cells = slice(0, low_rank.n_cells)
                prior[cells] = low_rank.draw((score * known)[cells], (h * known)[cells])
            walk = self._walks[i]
            if walk is not None:
                wanted = walk.mode(score, h)
            else:
                wanted = (score + kappa * prior) / (h + kappa) if group.beyond else prior
            largest = _LARGEST_STEP * self._unit
            step = np.clip(wanted - self.weights[i], -largest, largest)
            self.weights[i] += step
            self.total += step[group.codes]
            if not group.beyond:
                continue
            if group.empirical and self._rule is Prior.EFFECTIVE and walk is None:
                self._fit_effective(i, h)
            seen = self._seen[i]  # the prior has no common part: it belongs to b
            common = float((self.weights[i] - prior)[seen].mean())
            self.weights[i][seen] -= common
            self.intercept += common

    def of(self, codes: Sequence[Indices]) -> Doubles:
        """s of rows with these `codes`, (m,) for each group in order; (m,)."""
        found = np.full(len(codes[0]) if codes else len(self.total), self.intercept)
        for each, weights in zip(codes, self.weights, strict=True):
            found += weights[each]
        return found

    def shift(self, step: float) -> None:
        """Moves b."""
        self.intercept += step
        self.total += step

    def scale(self, factor: float) -> None:
        """Measures s in other units: everything times `factor` > 0."""
        self._unit *= factor
        self.intercept *= factor
        self.total *= factor
        self.weights = [w * factor for w in self.weights]
        self._prior = [prior * factor for prior in self._prior]
        self.shrinkage = [kappa / factor**2 for kappa in self.shrinkage]

    def out_of_fold(self, i: int, evidence: Evidence, visibility: Visibility) -> Doubles:
        """Group i's weight of each row (n,) from the rows it may see: one Newton step with the others left out.

        Exact for a category that a row sees no other rows of: it gets the prior.
        """
        group, kappa = self.groups[i], self.shrinkage[i]
        quantities = np.column_stack(evidence(self.total))
        g, h = visibility.sums(group.codes, group.n_codes, quantities).T
        found: Doubles = (h * self.weights[i][group.codes] - g + kappa * self._prior[i][group.codes]) / (
            h + kappa
        )
        return found

    def total_out_of_fold(self, evidence: Evidence, visibility: Visibility) -> Doubles:
        """s of each row (n,), every fitted prior's weight from the rows it may see."""
        total: Doubles = self.total.copy()
        for i, group in enumerate(self.groups):
            if group.empirical:
                total += self.out_of_fold(i, evidence, visibility) - self.weights[i][group.codes]
        return total

    def _fit_prior(self, i: int, score: Doubles, h: Doubles) -> None:
        z, kappa = self._covariates[i], self.shrinkage[i]
        if z is not None:
            share = kappa / (h + kappa)
            gamma = float((z * share * score).sum()) / (
                float((z * z * share * h).sum()) + _PRECISION_OF_GAMMA / self._unit**2
            )
            self._prior[i] = gamma * z
        found = empirical_shrinkage(score - h * self._prior[i], h)
        self.shrinkage[i] = max(found, (self._largest_sd * self._unit) ** -2)

    def _fit_effective(self, i: int, h: Doubles) -> None:
        seen, assumed = self._seen[i], _VARIANCE_ASSUMED * self._unit**2
        effects = (self.weights[i] - self._prior[i])[seen]
        squares = float((effects**2).sum()) + _PARAMETERS_ASSUMED * assumed
        determined = float((h / (h + self.shrinkage[i])).sum()) + _PARAMETERS_ASSUMED
        self.shrinkage[i] = max(determined / squares, (self._largest_sd * self._unit) ** -2)


def _standardised(covariate: Doubles | None) -> Doubles | None:
    if covariate is None or not covariate.std() > 0.0:
        return None
    found: Doubles = (covariate - covariate.mean()) / covariate.std()
    return found
