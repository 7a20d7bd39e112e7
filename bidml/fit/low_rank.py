"""Effects of pairs that are products: what two features do together, told by a few numbers of each side.

An app has a taste, a campaign a flavour: the effect of a cell (a, b) is μ = u_a · v_b, of rank K. That is K numbers a
category instead of one a cell, so cells that were hardly seen know something from those beside them: matrix
factorization, and the pair's part of a field-aware factorization machine.

Clicks are few, and the likeliest u and v are mostly noise (they did worse than none). So the posterior is averaged
over, by Gibbs sampling (Salakhutdinov & Mnih 2008, Bayesian probabilistic matrix factorization using MCMC):
u_a ~ N(0, diag α), v_b ~ N(0, diag β), α_k and β_k scaled inverse χ². Given v each u_a is normal, from sums over the
cells of a, and the other way round; no row is read. What is kept is the mean of E[u | v] · v over the draws, which has
less noise than u · v.
Variational factors (Lim & Teh 2007) need no draws, but are all zero until the clicks are many.
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
_ROWS_ASSUMED: Final = 4.0
_LARGEST: Final = (
    20.0  # log-odds that a cell may ask for; a click where none was expected asks for infinitely many
)
_SEED: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Where cells lie: `first` and `second` (n_cells,) in [0, n_first) and [0, n_second)."""

    first: Indices
    second: Indices
    n_first: int
    n_second: int

    def __len__(self) -> int:
        return len(self.first)


class LowRank:
    """A sampler of the effects of cells, of rank `rank`; `variance`: of an effect, before anything is known."""

    def __init__(self, sides: Sides, rank: int, *, variance: float) -> None:
        self._sides, self._rank = sides, rank
        self._rng = np.random.default_rng([_SEED, rank, len(sides)])
        self._assumed = (variance / rank) ** 0.5
        self._u, self._v = (
            self._rng.normal(0.0, self._assumed**0.5, (n, rank)) for n in (sides.n_first, sides.n_second)
        )
        self._spread = [np.full(rank, self._assumed) for _ in range(2)]
        self._is_seen = [
            np.bincount(at, minlength=n) > 0
            for at, n in ((sides.first, sides.n_first), (sides.second, sides.n_second))
        ]
        self._mean: Doubles | None = None

    @property
    def n_cells(self) -> int:
        return len(self._sides)

    def copy(self) -> Self:
        """One that goes on from here without this one."""
        return deepcopy(self, {id(self._sides): self._sides})

    def draw(self, score: Doubles, information: Doubles) -> Doubles:
        """The posterior mean of the effects, (n_cells,), by what their likelihood says: −½ H μ² + score · μ, (n_cells,)
        both."""
        sides, mean = self._sides, np.zeros(len(self._sides))
        information = np.maximum(information, np.abs(score) / _LARGEST)
        n_draws = int(np.clip(_MOST_WORK // max(len(sides), 1), 1, _DRAWS))
        for _ in range(n_draws):
            of_first = self._normal(sides.first, sides.n_first, self._v[sides.second], 0, score, information)
            mean += np.einsum("ck,ck->c", of_first.mean[sides.first], self._v[sides.second])
            self._u = of_first.drawn(self._rng)
            of_second = self._normal(
                sides.second, sides.n_second, self._u[sides.first], 1, score, information
            )
            self._v = of_second.drawn(self._rng)
            for i, values in enumerate((self._u, self._v)):
                seen = values[self._is_seen[i]]
                squares = (seen * seen).sum(axis=0) + _ROWS_ASSUMED * self._assumed
                self._spread[i] = squares / self._rng.chisquare(len(seen) + _ROWS_ASSUMED, self._rank)
        mean /= n_draws
        self._mean = mean if self._mean is None else _KEPT * self._mean + (1.0 - _KEPT) * mean
        return self._mean

    def _normal(
        self, at: Indices, n: int, other: Doubles, side: int, score: Doubles, information: Doubles
    ) -> _Normals:
        """Of each of `n` categories, whose cells lie `at` (n_cells,), given the `other` side's (n_cells, rank)."""
        rank = self._rank
        linear, precision = np.empty((n, rank)), np.empty((n, rank, rank))
        for i in range(rank):
            linear[:, i] = np.bincount(at, weights=score * other[:, i], minlength=n)
            weighted = information * other[:, i]
            for j in range(i + 1):
                precision[:, i, j] = np.bincount(at, weights=weighted * other[:, j], minlength=n)
                precision[:, j, i] = precision[:, i, j]
        precision += np.diag(1.0 / self._spread[side])
        mean = np.asarray(np.linalg.solve(precision, linear[:, :, None])[:, :, 0], dtype=np.float64)
        return _Normals(mean, precision)


@dataclass(frozen=True, slots=True, eq=False)
class _Normals:
    mean: Doubles  # (n, rank)
    precision: Doubles  # (n, rank, rank)

    def drawn(self, rng: np.random.Generator) -> Doubles:
        root = np.linalg.cholesky(self.precision)
        noise = rng.normal(size=self.mean.shape)
        found: Doubles = self.mean + np.linalg.solve(root.transpose(0, 2, 1), noise[:, :, None])[:, :, 0]
        return found
