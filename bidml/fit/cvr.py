"""P(conversion | click), when conversions arrive late: a click without a conversion yet is not a negative.

With age e since the click and G(e) = P(delay ≤ e | converts), a click that has not converted will do so with
probability r = p (1 − G(e)) / (1 − p G(e)) (Chapelle 2014, with any delay distribution in place of the exponential
one). Fitting alternates: labels become ỹ = y + (1 − y) r, then the model is learnt again from them (the EM algorithm).
What EM gets right last, the level, is set directly after each round: Σ p G(e) = Σ y is unbiased whatever p's shape.

G comes from the logged delays, which are seen only if shorter than the click's age (right-truncated): their plain
distribution is too short. The product-limit estimator in reversed time (Lynden-Bell 1971) allows for that.

Limits: one curve for all clicks; delays do not depend on features. Conversions after the window do not count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from bidml.blueprint import CtrBlueprint
from bidml.contract import FeatureSpec
from bidml.errors import ConfigError, DataError
from bidml.features import Doubles
from bidml.fit.ctr import ClickModel
from bidml.fit.labels import checked_outcomes
from bidml.fit.maturity import MaturityCurve as MaturityCurve
from bidml.fit.maturity import utc_seconds, window_seconds

_WIDEST_LEVEL_SHIFT: Final = 20.0


class ConversionModel(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Conversions per click by a `ClickModel` of soft labels.

    Parameters
    ----------
    spec: the raw features.
    window: how long after a click a conversion counts, as pandas reads it ("7D").
    model: a `ClickModel` to copy the settings of (its spec is replaced); None: the defaults.
    rounds: alternations of labels and model. min_maturity: clicks so young that less than this share of conversions
        has arrived are left out.

    Attributes
    ----------
    model_: the fitted `ClickModel`. maturity_: the curve. n_immature_: clicks left out. level_shift_: what the last
        round added to the log-odds.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        window: str = "7D",
        model: ClickModel | None = None,
        rounds: int = 3,
        min_maturity: float = 0.2,
    ) -> None:
        self.spec = spec
        self.window = window
        self.model = model
        self.rounds = rounds
        self.min_maturity = min_maturity

    def fit(
        self,
        X: pd.DataFrame,
        y: npt.ArrayLike,
        *,
        click_timestamp: npt.ArrayLike | None = None,
        conversion_timestamp: npt.ArrayLike | None = None,
        as_of: pd.Timestamp | None = None,
    ) -> Self:
        """Learn from clicks `X` (n rows) and `y` (n,), converted as known at `as_of`.

        Times default to the log's columns `click_timestamp` and `conversion_timestamp`; `as_of` to the latest time of
        either, and should be when the log was written. Raises `DataError` for a click without a time, a conversion
        without one, and where `ClickModel.fit` does.
        """
        window = window_seconds(self.window)
        if not (self.rounds >= 1 and 0.0 <= self.min_maturity < 1.0):
            raise ConfigError(
                "there is a round, and a maturity below 1",
                value=(self.rounds, self.min_maturity),
                remedy="correct rounds or min_maturity",
            )
        outcome = checked_outcomes(y, len(X))
        clicked_at = _seconds(X, click_timestamp, "click_timestamp")
        converted_at = _seconds(X, conversion_timestamp, "conversion_timestamp")
        if np.isnan(clicked_at).any() or np.isnan(converted_at[outcome == 1.0]).any():
            raise DataError(
                "a click and a conversion have a time", value="null", remedy="set aside rows that have none"
            )
        latest = np.nanmax(np.concatenate((clicked_at, converted_at[outcome == 1.0])))
        now = latest if as_of is None else utc_seconds(pd.Series([as_of]))[0]
        age = np.minimum(now - clicked_at, window)
        delay = converted_at - clicked_at
        outcome = np.where((outcome == 1.0) & (delay <= window), 1.0, 0.0)
        counted = outcome == 1.0
        self.maturity_ = MaturityCurve.of(delay[counted], age[counted])
        arrived = self.maturity_(age)
        ripe = arrived >= max(self.min_maturity, 1e-9)
        self.n_immature_ = int((~ripe).sum())
        self._alternate(
            X[ripe], checked_outcomes(outcome[ripe], int(ripe.sum())), arrived[ripe], clicked_at[ripe]
        )
        self.classes_ = np.array([0, 1])
        return self

    def predict_log_odds(self, X: pd.DataFrame) -> Doubles:
        """ln(p / (1 − p)) of a conversion within the window, (n,)."""
        return self._fitted().predict_log_odds(X)

    def predict_proba(self, X: pd.DataFrame) -> Doubles:
        """(n, 2): P(no conversion), P(conversion) of a click."""
        return self._fitted().predict_proba(X)

    def predict(self, X: pd.DataFrame) -> npt.NDArray[np.int64]:
        """The likelier outcome, (n,)."""
        return self._fitted().predict(X)

    def to_blueprint(self) -> CtrBlueprint:
        """The model as numbers; its output is the probability of a conversion."""
        return self._fitted().to_blueprint()

    def _fitted(self) -> ClickModel:
        check_is_fitted(self, "model_")
        model: ClickModel = self.model_
        return model

    def _alternate(self, X: pd.DataFrame, y: Doubles, arrived: Doubles, clicked_at: Doubles) -> None:
        p = np.full(len(y), y.sum() / arrived.sum())
        for _ in range(self.rounds):
            late = p * (1.0 - arrived) / (1.0 - p * arrived)
            model = (ClickModel(self.spec) if self.model is None else clone(self.model)).set_params(
                spec=self.spec, uncertainty=False
            )
            model.fit_soft(X, np.where(y == 1.0, 1.0, late), timestamp=clicked_at)
            log_odds = model.predict_log_odds(X)
            self.level_shift_ = _level_shift(log_odds, y, arrived)
            p = 1.0 / (1.0 + np.exp(-(log_odds + self.level_shift_)))
        found = model.calibration_
        model.calibration_ = replace(found, shift=found.shift + self.level_shift_)
        self.model_ = model


def _level_shift(log_odds: Doubles, y: Doubles, arrived: Doubles) -> float:
    """δ with Σ σ(s + δ) G = Σ y."""

    def excess(shift: float) -> float:
        return float((arrived / (1.0 + np.exp(-(log_odds + shift)))).sum() - y.sum())

    return float(optimize.brentq(excess, -_WIDEST_LEVEL_SHIFT, _WIDEST_LEVEL_SHIFT, xtol=1e-12))


def _seconds(X: pd.DataFrame, times: npt.ArrayLike | None, column: str) -> Doubles:
    """Times as seconds since 1970, (n,), null as NaN."""
    if times is None:
        if column not in X.columns:
            raise DataError(
                f"delays need {column}", value=list(X.columns), remedy="pass it, or add the column"
            )
        times = X[column]
    found: Any = pd.Series(times)
    if len(found) != len(X):
        raise DataError(f"there is one {column} per row: {len(X)}", value=len(found), remedy="align them")
    return utc_seconds(found)
