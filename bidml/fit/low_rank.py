"""Effects of pairs that are products: what two features do together, told by a few numbers of each side.

An app has a taste, a campaign a flavour: the effect of a cell (a, b) is μ = u_a · v_b, of rank K. That is K numbers a
category instead of one a cell, so cells that were hardly seen know something from those beside them: matrix
factorization, and the pair's part of a field-aware factorization machine.

Clicks are few, and the likeliest u and v are mostly noise (they did worse than none). So the posterior is averaged
over, by Gibbs sampling (Salakhutdinov & Mnih 2008, Bayesian probabilistic matrix factorization using MCMC):
u_a ~ N(0, diag α), v_b ~ N(0, diag β), α_k and β_k scaled inverse χ². Given v each u_a is normal, from sums over the
cells of a, and the other way round; no row is read. What is kept is the mean of E[u | v] · v over the draws, which has
less noise than u · v. Variational factors (Lim & Teh 2007) need no draws, but are all zero until the clicks are many.

Where the second side are bins in order, those beside each other are alike: v_k ~ N(0, β_k C), all bins drawn at once.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from bidml.fit.encoding import Indices
from bidml.fit.observations import Doubles

_DRAWS: Final = 20
_MOST_WORK: Final = 2_000_000  # cells × draws
_KEPT: Final = 0.7  # of the mean before, when the cells' evidence has moved on
_VALUES_ASSUMED: Final = 4.0
_LARGEST: Final = (
    20.0  # log-odds that a cell may ask for; a click where none was expected asks for infinitely many
)
_SEED: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Where cells lie: `first` and `second` (n_cells,) in [0, n_first) and [0, n_second).

    `likeness` (n_second, n_second): C⁻¹, if the second side's values are not each by itself.
    """

    first: Indices
    second: Indices
    n_first: int
    n_second: int
    likeness: Doubles | None = None

    def __len__(self) -> int:
        return len(self.first)


class LowRank:
    """A sampler of the effects of cells, of rank `rank`; `variance`: of an effect, before anything is known."""

    def __init__(self, sides: Sides, rank: int, *, variance: float) -> None:
        self._sides = sides
        self._rng = np.random.default_rng([_SEED, rank, len(sides)])
        assumed = float((variance / rank) ** 0.5)
        self._first = _Side(sides.first, sides.n_first, rank, assumed, None, self._rng)
        self._second = _Side(sides.second, sides.n_second, rank, assumed, sides.likeness, self._rng)
        self._mean: Doubles | None = None

    @property
    def n_cells(self) -> int:
        return len(self._sides)

    def copy(self) -> Self:
        """One that goes on from here without this one."""
        sides = self._sides
        return deepcopy(self, {id(each): each for each in (sides, sides.first, sides.second, sides.likeness)})

    def draw(self, score: Doubles, information: Doubles) -> Doubles:
        """The posterior mean of the effects, (n_cells,), by what their likelihood says: −½ H μ² + score · μ, (n_cells,)
        both."""
        mean = np.zeros(self.n_cells)
        information = np.maximum(information, np.abs(score) / _LARGEST)
        n_draws = int(np.clip(_MOST_WORK // max(self.n_cells, 1), 1, _DRAWS))
        for _ in range(n_draws):
            v = self._second.of_cells()
            self._first.draw(v, score, information, self._rng)
            mean += np.einsum("ck,ck->c", self._first.mean[self._sides.first], v)
            self._second.draw(self._first.of_cells(), score, information, self._rng)
        mean /= n_draws
        self._mean = mean if self._mean is None else _KEPT * self._mean + (1.0 - _KEPT) * mean
        return self._mean


class _Side:
    """`values` (n, rank) as last drawn and `mean`, theirs given the other side; of categories whose cells lie `at`."""

    def __init__(
        self,
        at: Indices,
        n: int,
        rank: int,
        assumed: float,
        likeness: Doubles | None,
        rng: np.random.Generator,
    ) -> None:
        self._at, self._rank, self._assumed, self._likeness = at, rank, assumed, likeness
        self._is_known = np.bincount(at, minlength=n) > 0
        self.values = self.mean = rng.normal(0.0, assumed**0.5, (n, rank))
        self._spread = np.full(rank, assumed)

    def of_cells(self) -> Doubles:
        found: Doubles = self.values[self._at]
        return found

    def draw(self, other: Doubles, score: Doubles, information: Doubles, rng: np.random.Generator) -> None:
        """Values given the `other` side's of each cell (n_cells, rank), then the spread given the values."""
        n, rank = self.values.shape
        linear, precision = np.empty((n, rank)), np.empty((n, rank, rank))
        for i in range(rank):
            linear[:, i] = np.bincount(self._at, weights=score * other[:, i], minlength=n)
            weighted = information * other[:, i]
            for j in range(i + 1):
                precision[:, i, j] = np.bincount(self._at, weights=weighted * other[:, j], minlength=n)
                precision[:, j, i] = precision[:, i, j]
        if self._likeness is None:
            precision += np.diag(1.0 / self._spread)
            self.mean, self.values = _normal(linear, precision, rng)
            known = self.values[self._is_known]
            squares = (known * known).sum(axis=0)
        else:
            known = self.values
            joint = np.zeros((n, rank, n, rank))
            joint[np.arange(n), :, np.arange(n), :] = precision
            joint[:, np.arange(rank), :, np.arange(rank)] += self._likeness / self._spread[:, None, None]
            drawn = _normal(linear.reshape(1, -1), joint.reshape(1, n * rank, n * rank), rng)
            self.mean, self.values = (each.reshape(n, rank) for each in drawn)
            squares = np.einsum("ik,ij,jk->k", self.values, self._likeness, self.values)
        freedom = len(known) + _VALUES_ASSUMED
        self._spread = (squares + _VALUES_ASSUMED * self._assumed) / rng.chisquare(freedom, rank)


def _normal(linear: Doubles, precision: Doubles, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
    """(means, draws), (m, k) both, of m normals by their precision (m, k, k) and precision · mean (m, k)."""
    root = np.linalg.cholesky(precision)
    mean = np.linalg.solve(precision, linear[:, :, None])[:, :, 0]
    noise = rng.normal(size=linear.shape)
    drawn = mean + np.linalg.solve(root.transpose(0, 2, 1), noise[:, :, None])[:, :, 0]
    return np.asarray(mean, dtype=np.float64), np.asarray(drawn, dtype=np.float64)
