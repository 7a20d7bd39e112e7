"""Maps of log-odds to log-odds that make predictions mean what they say, in exactly the form the artifact computes.

`s ↦ a ln σ(s) − b ln σ(−s) + c` with a, b ≥ 0: beta calibration (Kull, Silva Filho & Flach 2017); a = b is Platt's
affine map. Both are fitted by penalised maximum likelihood on held-out rows, to the bottom (the problem is convex).
ISOTONIC bends the beta map by a broken line where the clicks say so (`fit/isotonic.py`).
The penalty says what one expects of a model before seeing: its level, the change at the mean log-odds, is off by 0.2
(worth 25 clicks), its steepness a by 1/4, and b differs from a by 1/2. So ten clicks cannot turn a model round, no
clicks at all leave it finite, and with a thousand the penalty hardly shows.

Segment offsets are added *before* the map, as category weights of the head: `σ(map(s + δ_segment))`. For Platt's map
that is an offset behind it, divided by a; for the beta map it is a parametrisation of its own, fitted as such.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.blueprint import Calibration, Knots, Lookup
from bidml.errors import ConfigError, DataError
from bidml.fit.crew import ALONE, Crew, mean, total
from bidml.fit.encoding import Categories, Doubles, empirical_shrinkage
from bidml.fit.isotonic import fit_knots

_SD_OF_LEVEL: Final = 0.2
_SD_OF_TRAFFIC_LEVEL: Final = 0.3
_LEAST_WIN_RATE: Final = 1.0 / 30.0
_SD_OF_STEEPNESS: Final = 0.25
_SD_OF_ASYMMETRY: Final = 0.5
_NEWTON_STEPS: Final = 60
_WIDEST_LEVEL: Final = 60.0
_BISECTIONS: Final = 60
_OFFSET_STEPS: Final = 6
_LARGEST_OFFSET_STEP: Final = 1.0


class CalibrationMethod(StrEnum):
    NONE = "none"
    PLATT = "platt"
    BETA = "beta"
    ISOTONIC = "isotonic"


def fit_calibration(
    log_odds: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    method: CalibrationMethod | str = CalibrationMethod.BETA,
    sample_weight: npt.ArrayLike | None = None,
) -> Calibration:
    """The map that fits outcomes `y` (n,) in [0, 1] best, given held-out `log_odds` (n,); increasing, finite.

    Raises `DataError` for unequal lengths, no rows, or values that are not finite.
    """
    method = calibration_method(method)
    s, outcome, weight = _checked(log_odds, y, sample_weight)
    if method is CalibrationMethod.NONE:
        return Calibration()
    # η = level + s̄ + a (s − s̄) + (b − a)(v − v̄), v = −ln σ(−s); Platt's has b = a
    v = np.logaddexp(0.0, s)
    mean_s, mean_v = float(np.average(s, weights=weight)), float(np.average(v, weights=weight))
    design = np.column_stack((np.ones_like(s), s - mean_s, v - mean_v))
    prior = np.array([_SD_OF_LEVEL, _SD_OF_STEEPNESS, _SD_OF_ASYMMETRY]) ** -2.0
    best: tuple[float, Doubles] | None = None
    for basis in _faces(method):
        loss, theta = _newton(design, mean_s, outcome, weight, prior, basis)
        _, a, difference = theta
        if a >= 0.0 and a + difference >= 0.0 and (best is None or loss < best[0]):
            best = loss, theta
    assert best is not None, "the last face holds only feasible points"
    level, a, difference = (float(x) for x in best[1])
    shift = level + (1.0 - a) * mean_s - difference * mean_v
    found = Calibration(positive=a, negative=a + difference, shift=shift)
    if method is CalibrationMethod.ISOTONIC:
        knots = fit_knots(calibrated(found, s), outcome, weight)
        if knots is not None:
            x, y_of_x = (array("d", (np.array(values) - shift).tobytes()) for values in (knots.x, knots.y))
            found = replace(found, knots=Knots(x, y_of_x))
    return found


def at_rate(
    calibration: Calibration,
    log_odds: npt.ArrayLike,
    rate: float,
    *,
    sample_weight: npt.ArrayLike | None = None,
    crew: Crew = ALONE,
) -> Calibration:
    """The same map with the level at which the mean of σ(map(log_odds)) (n,) is `rate`, in (0, 1).

    For rows of which more is known than their own outcomes: where rows are exchangeable, held-out ones click as
    often as all do, and all have more clicks.
    """
    t = calibrated(calibration, np.asarray(log_odds, dtype=np.float64))
    weight = np.ones(len(t)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    low, high = -_WIDEST_LEVEL, _WIDEST_LEVEL
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if mean(crew, _sigmoid(t + middle), weight) < rate:
            low = middle
        else:
            high = middle
    return replace(calibration, shift=calibration.shift + 0.5 * (low + high))


def traffic_level(
    log_odds: npt.ArrayLike,
    *,
    won: npt.ArrayLike,
    clicked: npt.ArrayLike,
    win_rate: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    crew: Crew = ALONE,
) -> float:
    """What to add to `log_odds` (n,) of all auctions that we bid in, so that their mean is that of their clicks.

    Clicks are seen where we `won` (n,), mostly where we bid high, and often because we expected too much there: a model
    that is right on impressions is too high on the traffic. An impression stands for 1 / `win_rate` auctions, the
    chance (n,) that its bid had (Horvitz & Thompson 1952, normalised as by Hájek 1971); where that is below 1/30, for
    30, and such auctions count less on the other side, too. The result is shrunk by N(0, 0.3²) as far as the clicks
    are few. 0.0 without a click. All clicks count alike, old and new. Raises `DataError` for unequal lengths, NaN, no
    rows.
    """
    s, click, weight = _checked(log_odds, clicked, sample_weight)
    chance, shown = np.asarray(win_rate, dtype=np.float64), np.asarray(won, dtype=bool)
    if chance.shape != s.shape or shown.shape != s.shape or not ((chance >= 0.0) & (chance <= 1.0)).all():
        raise DataError(
            f"a chance to win, from 0 to 1, and an outcome for each of {len(s)} auctions",
            value=(chance.shape, shown.shape),
            remedy="pass the win curve's win_rate of the logged bids",
        )
    stands_for = weight / np.maximum(chance, _LEAST_WIN_RATE)
    clicks, others = (stands_for * click)[shown], (stands_for * (1.0 - click))[shown]
    share = chance * stands_for
    n_clicks, n_others, n, expected, squares = total(
        crew, clicks.sum(), others.sum(), share.sum(), (_sigmoid(s) * share).sum(), (clicks**2).sum()
    )
    if not (n_clicks and n_others and n):
        return 0.0
    p = expected / n
    level = float(np.log(n_clicks / n_others) - np.log(p / (1.0 - p)))
    variance = squares / n_clicks**2
    return level * _SD_OF_TRAFFIC_LEVEL**2 / (_SD_OF_TRAFFIC_LEVEL**2 + variance)


def calibrated(calibration: Calibration, log_odds: Doubles) -> Doubles:
    """The map applied, (n,) → (n,), by the artifact's formula."""
    if calibration == Calibration():
        return log_odds
    t = _weighted(calibration, log_odds)
    if calibration.knots is not None:
        x, y, slope = _lines(calibration.knots, t)
        t = y + slope * (t - x)
    return t + calibration.shift


def steepness(calibration: Calibration, log_odds: Doubles) -> Doubles:
    """What `calibrated` gains per unit of log-odds, (n,) → (n,)."""
    rank = _sigmoid(log_odds)
    found: Doubles = calibration.positive * (1.0 - rank) + calibration.negative * rank
    if calibration.knots is not None:
        found = found * _lines(calibration.knots, _weighted(calibration, log_odds))[2]
    return found


def _weighted(calibration: Calibration, log_odds: Doubles) -> Doubles:
    """Before knots and shift."""
    a, b = calibration.positive, calibration.negative
    if a == b:
        return a * log_odds
    tail = np.log(1.0 + np.exp(-np.abs(log_odds)))
    return a * -(np.maximum(-log_odds, 0.0) + tail) - b * -(np.maximum(log_odds, 0.0) + tail)


def _lines(knots: Knots, t: Doubles) -> Doubles:
    """x, y and slope of the line that holds at each t, (3, n)."""
    return np.array(knots.lines)[:, np.searchsorted(np.array(knots.x), t, side="right")]


def fit_segment_offsets(
    categories: Categories,
    log_odds: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    calibration: Calibration | None = None,
    sample_weight: npt.ArrayLike | None = None,
    shrinkage: float | None = None,
) -> Lookup:
    """δ of each category, so that `σ(map(log_odds + δ))` is right in it as far as the evidence goes; a term of a head.

    The posterior mode under δ ~ N(0, 1/κ), κ by empirical Bayes when `shrinkage` is None; δ is in units of log-odds
    before the map. The pool of rare and unseen categories gets its own.
    """
    s, outcome, weight = _checked(log_odds, y, sample_weight)
    applied = Calibration() if calibration is None else calibration
    delta = np.zeros(categories.n_codes)
    kappa = shrinkage
    for _ in range(_OFFSET_STEPS):
        at = s + delta[categories.codes]
        p = _sigmoid(calibrated(applied, at))
        rise = steepness(applied, at)
        score = categories.sums(weight * (outcome - p) * rise)
        information = categories.sums(weight * p * (1.0 - p) * rise**2)
        if kappa is None:
            kappa = empirical_shrinkage(score[:-1], information[:-1])
        step = (score - kappa * delta) / (information + kappa)
        delta += np.clip(step, -_LARGEST_OFFSET_STEP, _LARGEST_OFFSET_STEP)
    return Lookup(categories.feature, categories.keys, array("d", delta[:-1].tobytes()), float(delta[-1]))


def calibration_method(method: CalibrationMethod | str) -> CalibrationMethod:
    try:
        return CalibrationMethod(method)
    except ValueError:
        raise ConfigError(
            "a calibration is known",
            value=method,
            remedy=f"one of {[known.value for known in CalibrationMethod]}",
        ) from None


def _faces(method: CalibrationMethod) -> list[Doubles]:
    """Bases, (3, k), of (level, a, b − a): the inside of the feasible cone, then its faces a = 0, b = 0, both."""
    c, a_and_b, b = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
    only_a = [0.0, 1.0, -1.0]
    if method is CalibrationMethod.PLATT:
        return [np.array([c, a_and_b]).T, np.array([c]).T]
    return [np.array(rows).T for rows in ([c, a_and_b, b], [c, b], [c, only_a], [c])]


def _newton(
    design: Doubles, offset: float, y: Doubles, weight: Doubles, prior: Doubles, basis: Doubles
) -> tuple[float, Doubles]:
    """The least penalised log loss of η = offset + design·θ over θ = basis·x, from the identity's projection."""
    identity = np.array([0.0, 1.0, 0.0])
    reduced = design @ basis
    x = np.linalg.lstsq(basis, identity, rcond=None)[0]

    def loss_at(x: Doubles) -> float:
        eta, off = offset + reduced @ x, basis @ x - identity
        return float((weight * (np.logaddexp(0.0, eta) - y * eta)).sum() + 0.5 * (prior * off**2).sum())

    loss = loss_at(x)
    for _ in range(_NEWTON_STEPS):
        p = _sigmoid(offset + reduced @ x)
        gradient = reduced.T @ (weight * (p - y)) + basis.T @ (prior * (basis @ x - identity))
        curvature = (reduced * (weight * p * (1.0 - p))[:, None]).T @ reduced + (basis.T * prior) @ basis
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (trial := loss_at(x - size * step)) > loss and size > 1e-12:
            size /= 2.0
        if not trial < loss:
            break
        x, loss = x - size * step, trial
    return loss, basis @ x


def _checked(
    log_odds: npt.ArrayLike, y: npt.ArrayLike, sample_weight: Any
) -> tuple[Doubles, Doubles, Doubles]:
    s, outcome = np.asarray(log_odds, dtype=np.float64), np.asarray(y, dtype=np.float64)
    weight = np.ones(s.shape) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if s.ndim != 1 or not s.size or s.shape != outcome.shape or s.shape != weight.shape:
        raise DataError(
            "log-odds, outcomes and weights have shape (n,), n > 0",
            value=(s.shape, outcome.shape, weight.shape),
            remedy="align them",
        )
    if not (np.isfinite(s).all() and ((outcome >= 0.0) & (outcome <= 1.0)).all() and (weight >= 0.0).all()):
        raise DataError(
            "log-odds are finite, outcomes from 0 to 1, weights not negative",
            value="another number",
            remedy="look for NaN",
        )
    return s, outcome, weight


def _sigmoid(s: Doubles) -> Doubles:
    e = np.exp(-np.abs(s))
    found: Doubles = np.where(s >= 0.0, 1.0, e) / (1.0 + e)
    return found
