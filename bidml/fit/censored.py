"""The unified likelihood: every kind of feedback about a log-logistic market price, with gradients and Hessians.

ln M is logistic with slope k = eᵃ: F(b) = σ(η(b)), η(b) = eᵃ (ln b − c + β). β = c − m is how far the median price lies
below the reference bid eᶜ, in ln. (SCIENCE.md 2.3 has the log-odds at the reference bid, eᵃ β, for β. But what moves
prices multiplies them, so β is a sum of effects, and eᵃ β is none where slopes differ.) A row `lower < M ≤ upper`, seen
because M > t, contributes

    −ln σ(η(upper)) − ln σ(−η(lower)) + ln σ(−η(t))  −  { a if exact; ln(1 − e^{−δ}) if an interval; 0 }

with δ = eᵃ (ln upper − ln lower). It is the identity σ(u) − σ(l) = σ(u) σ(−l) (1 − e^{l − u}) of the logistic: an exact
price is one win and one loss at the same bid, plus a Jacobian (a − ln M, of which ln M is constant and kept in `nll`).
Truncation at the lower bound of a win cancels its second term, as it must. `censored_normal` has the log-normal's.
"""

from __future__ import annotations

from math import log, pi, sqrt
from typing import Final, NamedTuple

import numpy as np
from scipy.special import expit

from bidml.blueprint import WinFamily
from bidml.contract import MAX_ABS_WIN_LOGIT, MAX_LOG_SLOPE, MIN_LOG_SLOPE
from bidml.fit import censored_normal as normal
from bidml.fit.crew import ALONE, Crew, mean, total
from bidml.fit.observations import Doubles, MarketPriceObservations

MIN_CURVATURE_LOCATION: Final = 1e-6
MIN_CURVATURE_SLOPE: Final = 1e-3
PRIOR_LOG_SLOPE: Final = log(2.0)
_MAX_NEWTON_STEPS: Final = 100
_BLOCK_ROWS: Final = 16_384


class Derivatives(NamedTuple):
    """Of the negative log-likelihood of each row, times its weight; arrays (n,). Curvatures are positive: exact in β
    without truncation, Gauss–Newton in a and across."""

    gradient_location: Doubles
    hessian_location: Doubles
    gradient_slope: Doubles
    hessian_slope: Doubles
    cross: Doubles


class CensoredLikelihood:
    """The likelihood of observations, prepared once: logarithms of the bounds, relative to the reference bid.

    `family`: of the market price. With a `crew` the observations are this rank's, and means and steps are those of
    all ranks. Rows are taken in blocks that stay in a core's cache, which changes no bit of what a row gets.
    """

    def __init__(
        self,
        observations: MarketPriceObservations,
        *,
        reference_log_bid_cpm: float,
        family: WinFamily = WinFamily.LOG_LOGISTIC,
        crew: Crew = ALONE,
    ) -> None:
        self.crew = crew
        self.family = family
        block = _NormalBlock if family is WinFamily.LOG_NORMAL else _Block
        self.n_rows = len(observations)
        self.weight = observations.weight
        slices = [slice(i, i + _BLOCK_ROWS) for i in range(0, self.n_rows, _BLOCK_ROWS)]
        self._blocks = [(rows, block(observations, rows, reference_log_bid_cpm)) for rows in slices]

    def unit(self, a: float) -> float:
        """What of ln price, at log-slope `a`, moves log-odds by about 1: steps and priors are measured in it.

        Two curves of one spread have one unit.
        """
        return float(np.exp(-a)) * (sqrt(3.0) / pi if self.family is WinFamily.LOG_NORMAL else 1.0)

    def nll(self, beta: Doubles, a: Doubles) -> Doubles:
        """−ln likelihood of each row (n,), not weighted; for exact prices of the density per CPM."""
        found = np.empty(self.n_rows)
        for rows, block in self._blocks:
            found[rows] = block.nll(beta[rows], a[rows])
        return found

    def mean_nll(self, beta: Doubles, a: Doubles) -> float:
        """The weighted mean of `nll`."""
        return mean(self.crew, self.nll(beta, a), self.weight)

    def derivatives(self, beta: Doubles, a: Doubles) -> Derivatives:
        """Gradients and curvatures at (β, a), each (n,)."""
        found = Derivatives(*np.empty((5, self.n_rows)))
        for rows, block in self._blocks:
            for whole, part in zip(found, block.derivatives(beta[rows], a[rows]), strict=True):
                whole[rows] = part
        return found

    def location_derivatives(self, beta: Doubles, a: Doubles) -> tuple[Doubles, Doubles]:
        """Gradient and curvature in β alone, the same bits as `derivatives`' at a third of its time."""
        gradient, hessian = np.empty(self.n_rows), np.empty(self.n_rows)
        for rows, block in self._blocks:
            gradient[rows], hessian[rows] = block.location_derivatives(beta[rows], a[rows])
        return gradient, hessian


class _Block:
    """Some of the rows."""

    def __init__(
        self, observations: MarketPriceObservations, rows: slice, reference_log_bid_cpm: float
    ) -> None:
        self.weight = observations.weight[rows]
        self.n_rows = len(self.weight)
        lower, upper = observations.lower_cpm[rows], observations.upper_cpm[rows]
        below = observations.truncation_cpm[rows]
        self._upper = np.flatnonzero(upper < np.inf)
        self._lower = np.flatnonzero(lower > 0.0)
        self._below = np.flatnonzero(below > 0.0)
        self._exact = observations.exact[rows]
        self._interval = np.flatnonzero((upper < np.inf) & (lower > 0.0) & ~self._exact)
        self._log_upper = np.log(upper[self._upper]) - reference_log_bid_cpm
        self._log_lower = np.log(lower[self._lower]) - reference_log_bid_cpm
        self._log_below = np.log(below[self._below]) - reference_log_bid_cpm
        # −∂ ln likelihood / ∂η is sign (σ(η) + of_gradient) at each bound
        self._bounds = (
            (self._upper, self._log_upper, 1.0, -1.0),
            (self._lower, self._log_lower, 1.0, 0.0),
            (self._below, self._log_below, -1.0, 0.0),
        )
        self._log_width = np.log(upper[self._interval] / lower[self._interval])
        self._log_price = np.where(self._exact, np.log(np.where(self._exact, upper, 1.0)), 0.0)

    def nll(self, beta: Doubles, a: Doubles) -> Doubles:
        beta, a = clamped(beta, a)
        k = np.exp(a)
        loss = np.where(self._exact, self._log_price - a, 0.0)
        rows = self._upper
        loss[rows] += np.logaddexp(0.0, -k[rows] * (self._log_upper + beta[rows]))
        rows = self._lower
        loss[rows] += np.logaddexp(0.0, k[rows] * (self._log_lower + beta[rows]))
        rows = self._below
        loss[rows] -= np.logaddexp(0.0, k[rows] * (self._log_below + beta[rows]))
        rows = self._interval
        loss[rows] -= np.log(-np.expm1(-k[rows] * self._log_width))
        return loss

    def location_derivatives(self, beta: Doubles, a: Doubles) -> tuple[Doubles, Doubles]:
        beta, a = clamped(beta, a)
        k = np.exp(a)
        g, h = np.zeros(self.n_rows), np.zeros(self.n_rows)
        for rows, log_bound, sign, of_gradient in self._bounds:
            p = expit(k[rows] * (log_bound + beta[rows]))
            g[rows] += sign * (p + of_gradient)
            h[rows] += sign * p * (1.0 - p)
        w = self.weight
        return w * k * g, w * np.maximum(k * k * h, MIN_CURVATURE_LOCATION)

    def derivatives(self, beta: Doubles, a: Doubles) -> Derivatives:
        beta, a = clamped(beta, a)
        k = np.exp(a)
        g, h = np.zeros(self.n_rows), np.zeros(self.n_rows)
        ga, ha = np.where(self._exact, -1.0, 0.0), np.zeros(self.n_rows)
        bend, cross = (
            np.zeros(self.n_rows),
            np.zeros(self.n_rows),
        )  # bend = Σ η g: what Gauss–Newton leaves out
        for rows, log_bound, sign, of_gradient in self._bounds:
            eta = k[rows] * (log_bound + beta[rows])
            p = expit(eta)
            step = sign * (p + of_gradient)
            curvature = sign * p * (1.0 - p)
            g[rows] += step
            h[rows] += curvature
            bend[rows] += eta * step
            cross[rows] += eta * curvature
            ha[rows] += eta * eta * curvature
        ga += bend
        ha += np.where(self._exact, np.maximum(bend, 0.0), 0.0)
        rows = self._interval
        if len(rows):
            delta = k[rows] * self._log_width
            e = np.exp(-delta)
            one_e = -np.expm1(-delta)
            ga[rows] -= delta * e / one_e
            ha[rows] += delta * e * np.maximum(delta - one_e, 0.0) / (one_e * one_e)
        w = self.weight
        return Derivatives(
            w * k * g,
            w * np.maximum(k * k * h, MIN_CURVATURE_LOCATION),
            w * ga,
            w * np.maximum(ha, MIN_CURVATURE_SLOPE),
            w * k * cross,
        )


class _NormalBlock(_Block):
    """The same of a log-normal market price."""

    def __init__(
        self, observations: MarketPriceObservations, rows: slice, reference_log_bid_cpm: float
    ) -> None:
        super().__init__(observations, rows, reference_log_bid_cpm)
        is_upper, is_lower = np.zeros((2, self.n_rows), dtype=bool)
        is_upper[self._upper], is_lower[self._lower] = True, True
        log_upper, log_lower = np.zeros((2, self.n_rows))
        log_upper[self._upper], log_lower[self._lower] = self._log_upper, self._log_lower
        at = np.flatnonzero(self._exact)
        won, lost = np.flatnonzero(is_upper & ~is_lower), np.flatnonzero(is_lower & ~is_upper)
        self._at, self._won, self._lost = (at, log_upper[at]), (won, log_upper[won]), (lost, log_lower[lost])
        self._log_middle = log_lower[self._interval] + 0.5 * self._log_width

    def nll(self, beta: Doubles, a: Doubles) -> Doubles:
        beta, a = clamped(beta, a)
        k = np.exp(a)
        loss = np.where(self._exact, self._log_price - a + normal.HALF_LOG_2_PI, 0.0)
        rows, log_bound = self._at
        loss[rows] += 0.5 * (k[rows] * (log_bound + beta[rows])) ** 2
        rows, log_bound = self._won
        loss[rows] += normal.nll_below(k[rows] * (log_bound + beta[rows]))
        rows, log_bound = self._lost
        loss[rows] += normal.nll_below(-k[rows] * (log_bound + beta[rows]))
        rows = self._interval
        middle, width = k[rows] * (self._log_middle + beta[rows]), k[rows] * self._log_width
        loss[rows] += normal.nll_between(middle, width)
        loss[self._below] -= normal.nll_below(-k[self._below] * (self._log_below + beta[self._below]))
        return loss

    def location_derivatives(self, beta: Doubles, a: Doubles) -> tuple[Doubles, Doubles]:
        beta, a = clamped(beta, a)
        k = np.exp(a)
        moves = self._moves(beta, k)
        return self.weight * k * moves.g, self.weight * np.maximum(k * k * moves.h, MIN_CURVATURE_LOCATION)

    def derivatives(self, beta: Doubles, a: Doubles) -> Derivatives:
        beta, a = clamped(beta, a)
        k = np.exp(a)
        moves = self._moves(beta, k)
        return Derivatives(
            self.weight * k * moves.g,
            self.weight * np.maximum(k * k * moves.h, MIN_CURVATURE_LOCATION),
            self.weight * moves.ga,
            self.weight * np.maximum(moves.ha, MIN_CURVATURE_SLOPE),
            self.weight * k * moves.cross,
        )

    def _moves(self, beta: Doubles, k: Doubles) -> normal.Moves:
        found = normal.Moves(*np.zeros((5, self.n_rows)))
        for (rows, log_bound), moves in (
            (self._at, normal.moves_at),
            (self._won, normal.moves_below),
            (self._lost, normal.moves_above),
        ):
            normal.add(found, rows, moves(k[rows] * (log_bound + beta[rows])))
        rows = self._interval
        middle, width = k[rows] * (self._log_middle + beta[rows]), k[rows] * self._log_width
        normal.add(found, rows, normal.moves_between(middle, width))
        rows = self._below
        normal.add(found, rows, normal.moves_above(k[rows] * (self._log_below + beta[rows])), sign=-1.0)
        return found


def clamped(beta: Doubles, a: Doubles) -> tuple[Doubles, Doubles]:
    """The heads inside the contract's range, as the artifact evaluates them."""
    return np.clip(beta, -MAX_ABS_WIN_LOGIT, MAX_ABS_WIN_LOGIT), np.clip(a, MIN_LOG_SLOPE, MAX_LOG_SLOPE)


def newton_shift(
    likelihood: CensoredLikelihood, beta: Doubles, a: Doubles, *, most: float = 0.5, keeps_odds: bool = False
) -> tuple[float, float]:
    """One Newton step of a shift (Δβ, Δa) common to all rows, each at most `most` in size.

    With `keeps_odds` the caller sets β to e^{−Δa} β + Δβ: the slope moves at given log-odds of the reference bid. Else
    effects that are fitted in turn with the slope grow with it, and both overshoot. A prior on the mean log-slope,
    N(ln 2, 1), worth one observation, keeps separable data finite.
    """
    d = likelihood.derivatives(beta, a)
    along: Doubles | float = -beta if keeps_odds else 0.0  # dβ/da
    g_b, g_a, h_b, cross, h_a, sum_of_a, n = total(
        likelihood.crew,
        d.gradient_location.sum(),
        (d.gradient_slope + along * d.gradient_location).sum(),
        d.hessian_location.sum(),
        (d.cross + along * d.hessian_location).sum(),
        (d.hessian_slope + along * (2.0 * d.cross + along * d.hessian_location)).sum(),
        a.sum(),
        len(a),
    )
    g = np.array([g_b, g_a + sum_of_a / n - PRIOR_LOG_SLOPE])
    h = np.array([[h_b, cross], [cross, h_a + 1.0]])
    if h[0, 0] * h[1, 1] <= cross * cross:
        h[0, 1] = h[1, 0] = 0.0
    step = np.clip(-np.linalg.solve(h, g), -most, most)
    return float(step[0]), float(step[1])


def global_curve(likelihood: CensoredLikelihood) -> tuple[float, float]:
    """(β, a) of one curve for all rows: the maximum of likelihood and prior, by Newton steps that never go uphill."""
    (weight,) = total(likelihood.crew, likelihood.weight.sum())

    def objective(b: float, a: float) -> float:
        return weight * likelihood.mean_nll(*_constant(likelihood, b, a)) + 0.5 * (a - PRIOR_LOG_SLOPE) ** 2

    b, a = 0.0, PRIOR_LOG_SLOPE
    best = objective(b, a)
    for _ in range(_MAX_NEWTON_STEPS):
        step_b, step_a = newton_shift(likelihood, *_constant(likelihood, b, a), most=2.0)
        scale = 1.0
        while scale > 1e-4 and (tried := objective(b + scale * step_b, a + scale * step_a)) > best:
            scale *= 0.5
        if scale <= 1e-4:
            break
        gained, best = best - tried, tried
        b, a = b + scale * step_b, a + scale * step_a
        if gained <= 1e-10 * abs(best):
            break
    return b, float(np.clip(a, MIN_LOG_SLOPE, MAX_LOG_SLOPE))


def _constant(likelihood: CensoredLikelihood, b: float, a: float) -> tuple[Doubles, Doubles]:
    return np.full(likelihood.n_rows, b), np.full(likelihood.n_rows, a)
