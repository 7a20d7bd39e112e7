"""What no beta map can follow: an increasing broken line behind it, as far as the clicks ask for one.

Isotonic regression (Zadrozny & Elkan 2002) takes every step that the sample shows, and so calibrates noise where
clicks are few, and bids of different worth alike. Here the line is the map's log-odds t plus a bend d(t), in steps:

1. The bend is a Gaussian process (Rasmussen & Williams 2006, 4.2.1): mean 0, so that little evidence is no bend,
   standard deviation τ, Matérn 3/2 correlation of length ℓ. It is given by its values at knots, which lie at
   quantiles of Σ √(p (1 − p)) (between the rows and their information) and near both ends, and is linear between
   them.
2. Its mode is found by Newton steps (3.4.2) and its evidence by Laplace's approximation (3.32), for each τ and ℓ of a
   grid.
3. The bends are averaged with their evidence as weights (Hoeting et al. 1999); half of the prior weight lies on none.
4. Isotonic regression over the knots, weighted by information, makes every line rise by a least slope (and by no more
   than a greatest one), so that no order among bids is lost.
5. Where no bend is still the likelier, or where step 4 loses more of the likelihood than the evidence had won, there
   are no knots: the map is the beta map.

Before the first and behind the last knot the bend stays what it is there: small probabilities go through the beta
map.

Deviations: rows are counted in 1,000 bins of equal information first. The evidence takes the beta map as given.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from sklearn.isotonic import IsotonicRegression

from bidml.blueprint import Knots
from bidml.fit.encoding import Doubles

_MOST_KNOTS: Final = 24
_LEAST_KNOTS: Final = 4
_EVENTS_OF_KNOT: Final = 25.0
_EVENTS_BEYOND: Final = 5.0  # before the first knot, and behind the last
_LEAST_GAP: Final = 0.01
_LEAST_SLOPE: Final = 1.0 / 16.0
_SIZES: Final = (0.05, 0.1, 0.2, 0.4, 0.8)  # τ
_LENGTHS: Final = (0.5, 1.0, 2.0)  # ℓ, in standard deviations of the information over t
_BINS: Final = 1_000
_NEWTON_STEPS: Final = 30
_JITTER: Final = 1e-8
_LARGEST: Final = 1e5  # log-odds of a knot


def fit_knots(log_odds: Doubles, y: Doubles, weight: Doubles) -> Knots | None:
    """The line from calibrated `log_odds` (n,) to better ones, for outcomes `y` (n,) in [0, 1] of `weight` (n,).

    None where the clicks ask for no bend, or are too few to. Any order of the rows gives the same line, to rounding.
    """
    information = weight * _variance(log_odds)
    x = _places(log_odds, weight)
    if len(x) < _LEAST_KNOTS:
        return None
    bins = _Bins.of(log_odds, y, weight, information)
    hats = _hats(x, bins.t)
    bend, log_odds_of_one = _averaged_bend(bins, x, hats, spread=_spread(log_odds, information))
    share = hats.T @ (bins.weight * _variance(bins.t)) + 1e-12
    risen = _risen(x, x + bend, share)
    lost = bins.loss(bins.t + hats @ (risen - x)) - bins.loss(bins.t + hats @ bend)
    if log_odds_of_one <= max(lost, 0.0):
        return None
    return Knots(array("d", x.tobytes()), array("d", risen.tobytes()))


@dataclass(frozen=True, slots=True)
class _Bins:
    """Neighbours in log-odds counted together: mean `t`, `weight` and `clicks`, (n_bins,) each."""

    t: Doubles
    weight: Doubles
    clicks: Doubles

    @classmethod
    def of(cls, log_odds: Doubles, y: Doubles, weight: Doubles, information: Doubles) -> Self:
        edges = _quantiles(log_odds, information, np.arange(1, _BINS) / _BINS)
        code = np.searchsorted(edges, log_odds, side="right")
        sums: Doubles = np.array(
            [np.bincount(code, weights=weight * x) for x in (log_odds, np.ones_like(y), y)]
        )
        t, n, clicks = sums[:, sums[1] > 0.0]
        return cls(t / n, n, clicks)

    def loss(self, eta: Doubles) -> float:
        return float((self.weight * np.logaddexp(0.0, eta) - self.clicks * eta).sum())


def _places(log_odds: Doubles, weight: Doubles) -> Doubles:
    """Where the knots lie, (n_knots,), rising: as many as the information bears, thinner where a row says less."""
    variance = _variance(log_odds)
    events = float(weight @ variance)
    n_knots = min(_MOST_KNOTS, int(events / _EVENTS_OF_KNOT))
    if n_knots < _LEAST_KNOTS:
        return np.empty(0)
    inner = _quantiles(log_odds, weight * np.sqrt(variance), np.arange(1, n_knots - 1) / (n_knots - 1))
    end = _EVENTS_BEYOND / events
    ends = _quantiles(log_odds, weight * variance, np.array([end, 1.0 - end]))
    found: list[float] = []
    for place in np.unique(np.r_[inner, ends]):
        if abs(place) <= _LARGEST and (not found or place - found[-1] >= _LEAST_GAP):
            found.append(place)
    return np.array(found)


def _averaged_bend(bins: _Bins, x: Doubles, hats: Doubles, *, spread: float) -> tuple[Doubles, float]:
    """(the bend at the knots, (n_knots,), the log odds that there is one)."""
    plain = bins.loss(bins.t)
    evidence, bends = [], []
    for length in _LENGTHS:
        root = np.linalg.cholesky(_matern(x, length * spread) + _JITTER * np.eye(len(x)))
        for size in _SIZES:
            loss, whitened = _mode(bins, hats @ root * size)
            evidence.append(plain - loss)
            bends.append(root @ whitened * size)
    greatest = max(0.0, *evidence)
    odds = np.exp(np.array(evidence) - greatest) / len(evidence)
    none = np.exp(-greatest)
    bend: Doubles = odds @ np.array(bends) / (none + odds.sum())
    return bend, float(np.log(odds.sum()) + greatest)


def _mode(bins: _Bins, design: Doubles) -> tuple[float, Doubles]:
    """(minus the log evidence, the mode (k,)) of η = t + design · u with u ~ N(0, 1)."""
    u = np.zeros(design.shape[1])
    eta = bins.t
    loss = bins.loss(eta)
    for _ in range(_NEWTON_STEPS):
        gradient = design.T @ (bins.weight * _sigmoid(eta) - bins.clicks) + u
        step = np.linalg.solve(_curvature(bins, design, eta), gradient)
        size = 1.0
        while True:
            trial = u - size * step
            at = bins.t + design @ trial
            found = bins.loss(at) + 0.5 * float(trial @ trial)
            if found <= loss or size < 1e-6:
                break
            size /= 2.0
        gain = loss - found
        if gain <= 0.0:
            break
        u, eta, loss = trial, at, found
        if gain < 1e-9:
            break
    _, log_determinant = np.linalg.slogdet(_curvature(bins, design, eta))
    return loss + 0.5 * float(log_determinant), u


def _curvature(bins: _Bins, design: Doubles, eta: Doubles) -> Doubles:
    found: Doubles = (design.T * (bins.weight * _variance(eta))) @ design + np.eye(design.shape[1])
    return found


def _matern(x: Doubles, length: float) -> Doubles:
    """Correlation of values at `x`, (k, k)."""
    r = np.sqrt(3.0) * np.abs(x[:, None] - x[None, :]) / length
    found: Doubles = (1.0 + r) * np.exp(-r)
    return found


def _hats(x: Doubles, t: Doubles) -> Doubles:
    """What each knot has of the bend at t, (n, n_knots): linear interpolation, constant beyond the ends."""
    return np.column_stack([np.interp(t, x, one) for one in np.eye(len(x))])


def _risen(x: Doubles, y: Doubles, weight: Doubles) -> Doubles:
    """The nearest values to `y`, (k,), whose slopes in `x` lie between the least and its inverse."""

    def isotonic(values: Doubles) -> Doubles:
        found: Doubles = IsotonicRegression().fit_transform(x, values, sample_weight=weight)
        return found

    y = isotonic(y - _LEAST_SLOPE * x) + _LEAST_SLOPE * x
    return x / _LEAST_SLOPE - isotonic(x / _LEAST_SLOPE - y)


def _quantiles(values: Doubles, weight: Doubles, shares: Doubles) -> Doubles:
    """The values at `shares` of the weight."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weight[order])
    found: Doubles = values[order][np.minimum(np.searchsorted(below, shares * below[-1]), len(values) - 1)]
    return found


def _spread(values: Doubles, weight: Doubles) -> float:
    mean = np.average(values, weights=weight)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))


def _sigmoid(s: Doubles) -> Doubles:
    e = np.exp(-np.abs(s))
    found: Doubles = np.where(s >= 0.0, 1.0, e) / (1.0 + e)
    return found


def _variance(s: Doubles) -> Doubles:
    e = np.exp(-np.abs(s))
    found: Doubles = e / (1.0 + e) ** 2
    return found
