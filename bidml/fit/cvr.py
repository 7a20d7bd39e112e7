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

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted

from bidml.blueprint import Calibration, CtrBlueprint
from bidml.contract import FeatureSpec
from bidml.errors import ConfigError, DataError
from bidml.features import Doubles
from bidml.fit.ctr import ClickModel
from bidml.fit.labels import checked_outcomes

_WIDEST_LEVEL_SHIFT: Final = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class MaturityCurve:
    """G(e): the share of conversions within the window that have arrived at age e, in seconds.

    A step function: `arrived[i]` from `delays[i]` on, (m,) each, both increasing, the last 1.
    """

    delays: Doubles
    arrived: Doubles

    def __call__(self, age_seconds: npt.ArrayLike) -> Doubles:
        """G at each age, (n,); 0 before the first delay."""
        at = np.searchsorted(self.delays, np.asarray(age_seconds, dtype=np.float64), side="right")
        found: Doubles = np.append(0.0, self.arrived)[at]
        return found

    @classmethod
    def of(cls, delay_seconds: npt.ArrayLike, age_seconds: npt.ArrayLike) -> MaturityCurve:
        """From conversions (n,): how long each took, and how old its click is now; delays at most the ages.

        Known up to the oldest age: if that is less than the window, so is what G counts.
        Raises `DataError` without conversions, and for a delay that is negative or longer than the age.
        """
        delay, age = np.asarray(delay_seconds, dtype=np.float64), np.asarray(age_seconds, dtype=np.float64)
        if not len(delay) or delay.shape != age.shape:
            raise DataError(
                "maturity is learnt from conversions", value=delay.shape, remedy="take a longer log"
            )
        if not ((delay >= 0.0) & (delay <= age)).all():
            raise DataError(
                "a conversion follows its click and precedes the end of the log",
                value=float(delay[~((delay >= 0.0) & (delay <= age))][0]),
                remedy="check the timestamps and as_of",
            )
        distinct, events = np.unique(delay, return_counts=True)
        # at risk in reversed time at u: conversions with delay ≤ u that would have been seen at u, age ≥ u
        at_risk = np.searchsorted(np.sort(delay), distinct, side="right") - np.searchsorted(
            np.sort(age), distinct, side="left"
        )
        # G(before u) = G(u) · (1 − events(u) / at risk(u)), from the last delay down
        kept = 1.0 - events / at_risk
        kept[0] = 1.0  # the first delay holds all that is left
        arrived = np.append(np.cumprod(kept[:0:-1])[::-1], 1.0)
        return cls(distinct, arrived)


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
        window = _window_seconds(self.window)
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
        now = latest if as_of is None else _utc_seconds(pd.Series([as_of]))[0]
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
                spec=self.spec
            )
            model.fit_soft(X, np.where(y == 1.0, 1.0, late), timestamp=clicked_at)
            log_odds = model.predict_log_odds(X)
            self.level_shift_ = _level_shift(log_odds, y, arrived)
            p = 1.0 / (1.0 + np.exp(-(log_odds + self.level_shift_)))
        found = model.calibration_
        model.calibration_ = Calibration(found.positive, found.negative, found.shift + self.level_shift_)
        self.model_ = model


def _level_shift(log_odds: Doubles, y: Doubles, arrived: Doubles) -> float:
    """δ with Σ σ(s + δ) G = Σ y."""

    def excess(shift: float) -> float:
        return float((arrived / (1.0 + np.exp(-(log_odds + shift)))).sum() - y.sum())

    return float(optimize.brentq(excess, -_WIDEST_LEVEL_SHIFT, _WIDEST_LEVEL_SHIFT, xtol=1e-12))


def _window_seconds(window: str) -> float:
    try:
        seconds = pd.Timedelta(window).total_seconds()
    except ValueError:
        seconds = float("nan")
    if not seconds > 0.0:
        raise ConfigError("a window is a positive duration", value=window, remedy='for example "7D"')
    return float(seconds)


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
    return _utc_seconds(found)


def _utc_seconds(times: pd.Series[Any]) -> Doubles:
    utc = pd.to_datetime(times, utc=True)
    seconds = (utc - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return np.asarray(seconds, dtype=np.float64)
