"""The report that says whether a log can teach a curve: its numbers are those of repeated experiments."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.features import Doubles
from bidml.fit import IdentifiabilityWarning, MarketPriceObservations
from bidml.fit.censored import CensoredLikelihood, global_curve
from bidml.fit.identifiability import Identifiability, identifiability
from bidml.pricing import WinCurve

SPEC = FeatureSpec((Feature("x", FeatureKind.NUMBER, "ext.x"),))


def observed(bid: Doubles, price: Doubles, *, exact: bool) -> MarketPriceObservations:
    won, n = bid >= price, np.ones(len(bid))
    lower, upper = np.where(won, 0.0, bid), np.where(won, bid, np.inf)
    if exact:
        lower, upper = np.where(won, price, bid), np.where(won, price, np.inf)
    return MarketPriceObservations(lower, upper, 0.0 * n, bid, won, n)


def report(
    y: MarketPriceObservations, x: Doubles, *, location: float = 0.0, shape: float = 2.0
) -> Identifiability:
    n = len(y)
    curve = WinCurve(np.full(n, location), np.full(n, shape), np.ones(n))
    return identifiability(y, curve, SPEC, {"x": x}, folds=np.arange(n) % 8, seed=0, n_threads=2)


@pytest.mark.parametrize("exact", [False, True])
def test_the_standard_error_is_that_of_repetitions(exact: bool) -> None:
    """SE(ln k) against the spread of 120 fits of one curve; censoring of losses is left out, so at most a fifth off."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(120):
        bid, price = np.exp(rng.normal(0.3, 0.5, 1500)), np.exp(rng.logistic(size=1500) / 2.0)
        y = observed(bid, price, exact=exact)
        found.append(global_curve(CensoredLikelihood(y, reference_log_bid_cpm=0.3))[1])
    said = report(y, np.zeros(1500))
    assert said.se_log_slope == pytest.approx(np.std(found), rel=0.25)


def test_bids_that_follow_the_features_teach_little() -> None:
    """R² is the share of ln b that x explains; the standard error is of what is left, not of the whole variation."""
    rng = np.random.default_rng(1)
    n = 20_000
    x = rng.uniform(-1.0, 1.0, n)
    price = np.exp(rng.logistic(size=n) / 2.0)
    free = np.exp(0.1 * x + rng.normal(0.0, 0.5, n))
    bound = np.exp(x + rng.normal(0.0, 0.03, n))
    free_report = report(observed(free, price, exact=False), x)
    bound_report = report(observed(bound, price, exact=False), x)
    assert free_report.bid_r2 < 0.1
    assert free_report.identified
    assert bound_report.bid_r2 == pytest.approx(1.0, abs=0.02)
    assert bound_report.se_log_slope > 5.0 * free_report.se_log_slope
    assert bound_report.predicted_relative_regret > 5.0 * free_report.predicted_relative_regret
    with pytest.warns(IdentifiabilityWarning, match="explain"):
        bound_report.warn()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report(observed(bound, price, exact=True), x).warn()


def test_few_rows_cost_money() -> None:
    """The predicted regret falls as the rows grow."""
    rng = np.random.default_rng(2)
    regrets = []
    for n in (100, 1_000, 10_000):
        bid, price = np.exp(rng.normal(0.0, 0.5, n)), np.exp(rng.logistic(size=n) / 2.0)
        regrets.append(report(observed(bid, price, exact=False), np.zeros(n)).predicted_relative_regret)
    assert regrets[0] > 3.0 * regrets[1] > 9.0 * regrets[2] / 3.0
    assert regrets[0] > 0.005 > regrets[2]
