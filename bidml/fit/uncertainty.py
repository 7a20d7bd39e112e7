"""How far the log-odds of a click model may be off: the posterior variance of what its categories are worth.

A model of clicks errs where it has seen little: a placement of last week, a creative of yesterday. In the sum of
category effects w_f(c) ~ N(0, τ_f²) the error of each has, by Laplace's approximation with a diagonal Hessian, the
variance

    v_f(c) = 1 / (1/τ_f² + H_f(c)),    H_f(c) = Σ p (1 − p) over the rows of category c,

and the error of a row's log-odds has their sum: the posterior that Chapelle & Li (2011, Algorithm 3) sample from, and
Graepel et al. (2010) keep. It is linear in lookups: a `Head` without trees. An unseen category has all of τ_f².

τ_f² is learnt by moments, E G² = H + H² τ_f², under a prior: all features together spread the log-odds by about 1, each
alike, and any share of that may be none. Without it the estimate of few clicks is often 0, and the model then claims to
know everything. Beside the effects there is what pairs of categories do beyond their sum, by the prior alone a quarter
as much, less what the model has found of it and what its cells have shown. It is told as one number for all rows.

No scale is fitted to held-out clicks. One would follow from the clicks of each category beyond their expectation, but
few clicks tell it less well than the prior does; whether the result is honest: benchmarks/pctr_uncertainty.py.

Limits: the prior is ours, right for worlds like the simulator's; the diagonal overstates nested categories of much
evidence; numbers are taken for known; what drifts after the log's end is unknown.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import combinations
from typing import Final

import numpy as np
from scipy.special import expit

from bidml.blueprint import Head, Lookup
from bidml.fit.encoding import Categories, Doubles
from bidml.fit.mixed_model import Group, MixedModel

_SWEEPS: Final = 8
_SPREAD: Final = 1.0  # the standard deviation of the log-odds by all features, before anything is known
_OF_PAIRS: Final = 0.25  # the variance that pairs add, as a share of that
_LEAST_OF_PAIRS: Final = 0.25  # of that, whatever was found
_REWEIGHTINGS: Final = 4
_LEAST: Final = 1e-3  # of the prior mean: what τ² is at least
_MOST_ROWS: Final = 200_000  # that tell how often pairs are seen
_NEGLIGIBLE: Final = 1e-4  # the variance of an effect that is left out


def fit_variance(
    categories: Sequence[Categories], y: Doubles, weight: Doubles, *, of_found_pairs: float = 0.0
) -> Head:
    """The head of the variance, from the rows' categories, their outcomes `y` (n,) in [0, 1] and their weights.

    `of_found_pairs`: how much the log-odds of rows vary by what the model knows of pairs.
    """
    rate = float(np.average(y, weights=weight))
    groups = [Group(each.codes, each.n_codes) for each in categories]
    model = MixedModel(groups, intercept=float(np.log(rate) - np.log1p(-rate)), n_rows=len(y))
    for _ in range(_SWEEPS):
        model.sweep(lambda s: (weight * (expit(s) - y), weight * _steepness(s)))
    gradient, information = weight * (expit(model.total) - y), weight * _steepness(model.total)
    expected = _SPREAD**2 / max(len(groups), 1)
    terms = []
    for each, group, effects in zip(categories, groups, model.weights, strict=True):
        h = group.sums(information)
        score = h * effects - group.sums(gradient)
        prior = effect_variance(score[:-1], h[:-1], expected=expected)
        if prior > _NEGLIGIBLE:
            v = effect_variances(prior, h)
            terms.append(Lookup(each.feature, each.keys, array("d", v[:-1].tobytes()), float(v[-1])))
    of_all = 1.0 / float(information.sum()) + pair_variance(categories, information, found=of_found_pairs)
    return Head((), None, tuple(terms), intercept=of_all)


def effect_variance(score: Doubles, information: Doubles, *, expected: float) -> float:
    """τ², given the score G and the information H of each category, (m,): E G² = H + H² τ².

    The mean of a normal posterior under the prior N(`expected`, `expected`²).
    """
    g2, h2 = score**2, information**2
    variance = expected
    for _ in range(_REWEIGHTINGS):
        w = 1.0 / (information + 2.0 * (information + variance * h2) ** 2 + 1e-300)
        told = float((w * h2 * (g2 - information)).sum()) + 1.0 / expected
        variance = max(told / (float((w * h2 * h2).sum()) + expected**-2), _LEAST * expected)
    return variance


def effect_variances(prior: float, information: Doubles) -> Doubles:
    """1 / (1/τ² + H) of each code, (n_codes,); the last, the pool, stands for what was never seen."""
    h = information.copy()
    h[-1] = 0.0
    found: Doubles = 1.0 / (1.0 / prior + h)
    return found


def pair_variance(categories: Sequence[Categories], information: Doubles, *, found: float = 0.0) -> float:
    """What pairs of categories are expected to add to the error's variance, of the mean row; `found` is known."""
    expected = _OF_PAIRS * _SPREAD**2
    expected = max(expected - found, _LEAST_OF_PAIRS * expected)
    pairs = list(combinations(categories, 2))
    step = -(-len(information) // _MOST_ROWS)
    h = information[::step]
    left = 0.0
    for one, other in pairs:
        _, cell = np.unique(one.codes[::step] * other.n_codes + other.codes[::step], return_inverse=True)
        seen = step * np.bincount(cell, weights=h)
        left += float(np.average(1.0 / (len(pairs) / expected + seen[cell]), weights=h))
    return left


def _steepness(s: Doubles) -> Doubles:
    p = expit(s)
    found: Doubles = p * (1.0 - p)
    return found
