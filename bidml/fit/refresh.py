"""A model that follows the market between two full fits: the champion, its leaves and weights moved by newer rows.

A full fit learns which features matter, over days of rows. What moves within a day is mostly levels: of clicks, of
prices, of an exchange. So the structure stays (categories, encodings, splits) and a pass over the trees, in their
order, moves each leaf by one damped Newton step on the new rows, given everything before it:

    leaf ← leaf − rate · G / (H + prior),   G = Σ g, H = Σ h over the rows that reach it

with g and h the derivatives of the negative log-likelihood in the head's margin; the weights of a click model's
categories are moved after them by the same rule, faster; so are its trees where they are few, which are steps of
numbers then (`fit.binned_numbers`). A leaf that no row reaches stays. At `rate` and `prior` this is boosting from the
champion with its own trees in place of new ones; LightGBM's `refit` blends old leaves and leaves fitted from nothing
instead, and forgets most where it knows least. Then come what no tree can
see: the level, its slope, the shape. Nothing grows: the new file is as large and as fast as the champion's.

The champion's file is all that is read: what a bidder bids by is what the next model starts from. Limits: a category
that the champion never saw stays unseen, a feature it does not have stays out, until the next full fit.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from bidml.blueprint import CtrBlueprint, Head, LocationUnit, WinBlueprint, WinFamily
from bidml.contract import FeatureSpec
from bidml.errors import ConfigError
from bidml.features import Doubles, RawColumns, TreeArrays, encode, looked_up, margins, raw_columns
from bidml.fit.calibration import (
    CalibrationMethod,
    calibrated,
    calibration_method,
    fit_calibration,
    steepness,
    traffic_level,
)
from bidml.fit.censored import CensoredLikelihood, newton_shift
from bidml.fit.crew import ALONE, Crew
from bidml.fit.dagum import fit_dagum
from bidml.fit.labels import checked_outcomes, checked_rate, checked_weights
from bidml.fit.observations import MarketPriceObservations
from bidml.fit.win_rate import check_teachable, taught

CLICK_LEARNING_RATE: Final = 0.05
TERMS_LEARN_FASTER: Final = 6.0  # than a tree: there are few, and hundreds of trees
STEPS_LEARN_FASTER: Final = 3.0  # the trees of a model of few
FEW_TREES: Final = 60
WIN_LEARNING_RATE: Final = 0.1
EVENTS_OF_PRIOR: Final = 30.0
MIN_EVENTS: Final = 200  # with fewer clicks, leaves that move follow noise: only the level moves
_LEVEL_STEPS: Final = 8

Evidence = Callable[[Doubles], tuple[Doubles, Doubles]]
"""The margin (n,) → gradient and curvature of each row's negative log-likelihood in it, (n,) both."""


def refresh_clicks(
    champion: CtrBlueprint,
    X: pd.DataFrame,
    y: npt.ArrayLike,
    *,
    spec: FeatureSpec,
    sample_weight: npt.ArrayLike | None = None,
    calibration: CalibrationMethod | str = CalibrationMethod.PLATT,
    negative_sampling_rate: float = 1.0,
    learning_rate: float = CLICK_LEARNING_RATE,
    prior: float = EVENTS_OF_PRIOR,
) -> CtrBlueprint:
    """`champion` moved by newer impressions `X` (n rows) and their clicks `y` (n,), 0 or 1.

    First the level (`calibration`), then the leaves given it; below `MIN_EVENTS` clicks the level alone. A calibration
    after the leaves have moved would be on rows that they have seen. The level is that of the impressions, whatever the
    champion's was corrected for: see `at_traffic_level`. `negative_sampling_rate`: as of `ClickModel`. `prior`: in
    expected clicks per leaf. Raises `DataError` for outcomes that are missing or all the same, `SpecError` for missing
    columns, `ConfigError` for a rate or a prior out of range.
    """
    method = calibration_method(calibration)
    outcome, weight = checked_outcomes(y, len(X)), checked_weights(sample_weight, len(X))
    offset = log(checked_rate(negative_sampling_rate))
    weights = np.ones(len(outcome)) if weight is None else weight
    raw = raw_columns(X, spec)
    margin = margins(raw, champion.head)
    level = fit_calibration(margin, outcome, method=method, sample_weight=weight)

    def evidence(s: Doubles) -> tuple[Doubles, Doubles]:
        p, rise = expit(calibrated(level, s)), steepness(level, s)
        return weights * (p - outcome) * rise, weights * p * (1.0 - p) * rise**2

    head = champion.head
    if outcome.sum() >= MIN_EVENTS:
        _check_pace(learning_rate, prior)
        of_trees = learning_rate
        if head.trees is not None and head.trees.n_trees <= FEW_TREES:
            of_trees = min(1.0, STEPS_LEARN_FASTER * learning_rate)
        head, margin = moved_leaves(head, raw, margin, evidence, learning_rate=of_trees, prior=prior)
        rate = min(1.0, TERMS_LEARN_FASTER * learning_rate)
        head = moved_terms(head, raw, margin, evidence, learning_rate=rate, prior=prior)
    return CtrBlueprint(head, replace(level, shift=level.shift + offset), champion.variance)


def at_traffic_level(
    model: CtrBlueprint,
    X: pd.DataFrame,
    *,
    spec: FeatureSpec,
    won: npt.ArrayLike,
    clicked: npt.ArrayLike,
    win_rate: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    crew: Crew = ALONE,
) -> CtrBlueprint:
    """`model`, right on impressions, made right on all auctions `X` (n rows): `ClickModel.fit_traffic_level`."""
    level = traffic_level(
        calibrated(model.calibration, margins(raw_columns(X, spec), model.head)),
        won=won,
        clicked=clicked,
        win_rate=win_rate,
        sample_weight=sample_weight,
        crew=crew,
    )
    return replace(model, calibration=replace(model.calibration, shift=model.calibration.shift + level))


def refresh_win_curve(
    champion: WinBlueprint,
    X: pd.DataFrame,
    y: MarketPriceObservations,
    *,
    spec: FeatureSpec,
    learning_rate: float = WIN_LEARNING_RATE,
    prior: float = EVENTS_OF_PRIOR,
) -> WinBlueprint:
    """`champion` moved by newer auctions `X` (n rows) and what they tell of the market price, `y` (n,).

    The level of prices and of slopes, the leaves of the location, the three numbers of the shape; slopes keep their
    trees. `prior`: in outcomes as telling as a coin's, per leaf. Raises as `WinRateModel.fit`, and `ConfigError` for a
    champion whose location is in log-odds (a logistic regression's).
    """
    if champion.location_unit is not LocationUnit.LOG_PRICE:
        raise ConfigError(
            "a win curve is refreshed in ln price",
            value=champion.location_unit.value,
            remedy="fit it anew with WinRateModel",
        )
    columns, told = taught(X, y, spec)
    check_teachable(told)
    reference = champion.reference_log_bid_cpm
    likelihood = CensoredLikelihood(told, reference_log_bid_cpm=reference, family=champion.family)
    beta, a = margins(columns, champion.location), margins(columns, champion.log_slope)
    shift_beta = shift_a = 0.0
    for _ in range(_LEVEL_STEPS):
        step_beta, step_a = newton_shift(likelihood, beta + shift_beta, a + shift_a)
        shift_beta, shift_a = shift_beta + step_beta, shift_a + step_a
    slope = replace(champion.log_slope, intercept=champion.log_slope.intercept + shift_a)
    location = replace(champion.location, intercept=champion.location.intercept + shift_beta)
    a = a + shift_a
    of_coin = 2.0 / np.pi if champion.family is WinFamily.LOG_NORMAL else 0.25
    unit = float(np.exp(2.0 * np.mean(a))) * of_coin  # the curvature in β of a coin's outcome

    def evidence(s: Doubles) -> tuple[Doubles, Doubles]:
        return likelihood.location_derivatives(s, a)

    location, beta = moved_leaves(
        location, columns, beta + shift_beta, evidence, learning_rate=learning_rate, prior=prior * unit
    )
    shape = fit_dagum(told, beta, a, reference_log_bid_cpm=reference, family=champion.family)
    return replace(
        champion,
        location=location,
        log_slope=slope,
        slope_scale=shape.slope_scale,
        logit_shift=shape.logit_shift,
        gamma=shape.gamma,
    )


def moved_leaves(
    head: Head,
    columns: RawColumns,
    margin: Doubles,
    evidence: Evidence,
    *,
    learning_rate: float,
    prior: float,
) -> tuple[Head, Doubles]:
    """(`head` with its leaves moved, the rows' margins with them): one pass over the trees, first tree first.

    `margin` (n,): the head's own of the rows, to begin with. Raises `ConfigError` for a rate outside (0, 1] and a
    prior that is not above 0.
    """
    _check_pace(learning_rate, prior)
    if head.trees is None or head.scale == 0.0:
        return head, margin
    matrix, walker = encode(columns, head), TreeArrays(head.trees)
    per_leaf = head.scale / head.divisor  # what the margin gains when a leaf gains 1
    leaf = walker.leaf.copy()
    for tree in range(head.trees.n_trees):
        reached = walker.leaves(matrix, slice(tree, tree + 1))[:, 0]
        g, h = (np.bincount(reached, weights=part, minlength=len(leaf)) for part in evidence(margin))
        step = -learning_rate * g / (h + prior)
        leaf += step / per_leaf
        margin = margin + step[reached]
    return replace(head, trees=replace(head.trees, leaf=array("d", leaf.tobytes()))), margin


def _check_pace(learning_rate: float, prior: float) -> None:
    if not 0.0 < learning_rate <= 1.0:
        raise ConfigError(
            "a learning rate is above 0 and at most 1",
            value=learning_rate,
            remedy=f"{CLICK_LEARNING_RATE} is usual",
        )
    if not 0.0 < prior < np.inf:  # a leaf without an event would fall for ever
        raise ConfigError("a prior is a number > 0", value=prior, remedy=f"{EVENTS_OF_PRIOR} is usual")


def moved_terms(
    head: Head,
    columns: RawColumns,
    margin: Doubles,
    evidence: Evidence,
    *,
    learning_rate: float,
    prior: float,
) -> Head:
    """`head` with the weights of its categories and crosses moved by the same rule: one pass, first term first.

    `margin` (n,): the head's own of the rows, to begin with. What no row has stays, and so does the pool's weight if
    every text is known.
    """
    terms = []
    for term in head.terms:
        n = len(term.values)
        numbered = replace(term, values=array("d", range(n)), default=float(n))
        code = looked_up(numbered, columns).astype(np.intp)
        g, h = (np.bincount(code, weights=part, minlength=n + 1) for part in evidence(margin))
        step = -learning_rate * g / (h + prior)
        margin = margin + step[code]
        values = array("d", (np.array(term.values) + step[:n]).tobytes())
        terms.append(replace(term, values=values, default=term.default + float(step[n])))
    return replace(head, terms=tuple(terms))
