"""A prior for what lies in order: the weights of a number's bins go up and down in small steps.

w_{i+1} − w_i ~ N(0, 1/λ), any level; what is missing is no neighbour of anything: N(0, 1/κ). So bins of few events are
what those beside them are, and a number without effect costs nothing; a curve costs as many parameters as it bends. The
posterior's mode solves a small tridiagonal system. λ and κ are MacKay's fixed point as in `fit.mixed_model`: λ =
γ / Σ (w_{i+1} − w_i)², γ = tr(I − λ L Σ) the steps that the data determine, L the Laplacian of the line, Σ the
posterior's covariance.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bidml.fit.observations import Doubles

_STEPS_ASSUMED: Final = 2.0
_SHARE: Final = 0.1  # of the variance of a weight that a step has, before anything is known


class RandomWalk:
    """`n_bins` in order, and after them the missing. `at_first`, `assumed`: variances of a weight."""

    def __init__(self, n_bins: int, *, at_first: float, assumed: float) -> None:
        self._n = n_bins
        self._assumed = np.array([_SHARE * assumed, assumed])
        self._precision = 1.0 / np.array([_SHARE * at_first, at_first])
        steps = np.diff(np.eye(n_bins), axis=0)
        self._line: Doubles = steps.T @ steps

    def copy(self) -> RandomWalk:
        found = RandomWalk(self._n, at_first=1.0, assumed=self._assumed[1])
        found._precision = self._precision.copy()
        return found

    def mode(self, score: Doubles, information: Doubles) -> Doubles:
        """The likeliest weights (n_bins + 1,) under −½ H w² + score · w, and λ and κ by them."""
        of_step, of_missing = self._precision
        n = self._n
        seen = np.maximum(information[:n], 1e-9 * max(float(information.max()), 1.0))
        covariance = np.linalg.inv(np.diag(seen) + of_step * self._line)
        w = np.append(covariance @ score[:n], score[n] / (information[n] + of_missing))
        squares = np.array([float((np.diff(w[:n]) ** 2).sum()), float(w[n] ** 2)])
        determined = np.array(
            [
                max(n - 1.0 - of_step * float((covariance * self._line).sum()), 0.0),
                information[n] / (information[n] + of_missing),
            ]
        )
        self._precision = (determined + _STEPS_ASSUMED) / (squares + _STEPS_ASSUMED * self._assumed)
        return w
