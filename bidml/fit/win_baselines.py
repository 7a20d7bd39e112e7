"""Simpler win curves to be measured against, in the interface of `WinRateModel`: `fit`, `predict_win_rate`.

- `EmpiricalWinRate`: no features, or one for segments. Kaplan–Meier (1958) where prices are known on wins; where only
  wins and losses are known, the non-parametric maximum likelihood of current-status data, which is isotonic regression
  of `won` on the bid (Ayer et al. 1955; it converges like n^{-1/3}).
- `LogisticWinRate`: logistic regression on ln bid, categories and binned numbers (Pan et al. 2020). It is a
  log-logistic curve of one slope, so it has a closed-form bid and an artifact.
- `MonotoneWinRate`: a LightGBM classifier of `won` with ln bid as a feature, constrained to rise in it.

`grid_bid_cpm` finds the best bid of a curve without a closed form.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.utils.validation import check_is_fitted

from bidml.blueprint import Head, LocationUnit, WinBlueprint
from bidml.contract import FeatureSpec
from bidml.errors import ConfigError
from bidml.features import raw_columns
from bidml.fit.binned_numbers import BinnedNumber, Steps, steps_as_trees
from bidml.fit.censored import CensoredLikelihood
from bidml.fit.encoding import Categories, OtherFolds
from bidml.fit.linear_base import fit_linear_base
from bidml.fit.observations import Doubles, MarketPriceObservations
from bidml.fit.win_inputs import WinInputs, fit_win_inputs
from bidml.fit.win_rate import check_teachable, curve_of, reference_log_bid_cpm, taught
from bidml.pricing import WinCurve

GRID: Final = 96
_LOWEST_LOGIT, _HIGHEST_LOGIT = -7.0, 6.0  # of bid / value on the grid
_N_FOLDS: Final = 8
_ROWS_AT_ONCE: Final = 4096


class PredictsWinRate(Protocol):
    """Any win curve: P(win) of one bid per row."""

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles: ...


def grid_bid_cpm(
    model: PredictsWinRate,
    X: pd.DataFrame,
    value_cpm: Doubles,
    *,
    floor_cpm: npt.ArrayLike = 0.0,
    cap_cpm: npt.ArrayLike = np.inf,
    n_points: int = GRID,
) -> Doubles:
    """argmax (v − b) F(b) over `n_points` bids between floor and min(cap, v), (n,); 0.0 where no bid is valid.

    The points are even in the logit of b / v, with the floor and the highest bid among them.
    """
    n = len(X)
    floor, cap = (np.broadcast_to(np.asarray(x, dtype=np.float64), (n,)) for x in (floor_cpm, cap_cpm))
    shades = 1.0 / (1.0 + np.exp(-np.linspace(_LOWEST_LOGIT, _HIGHEST_LOGIT, n_points)))
    best = np.zeros(n)
    valid = (value_cpm > floor) & (value_cpm < np.inf) & (cap >= floor) & (cap > 0.0)
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = np.flatnonzero(valid[start : start + _ROWS_AT_ONCE]) + start
        if not len(rows):
            continue
        v = value_cpm[rows, None]
        bids = np.clip(v * shades, floor[rows, None], np.minimum(cap[rows, None], v))
        many = X.iloc[np.repeat(rows, n_points)]
        rates = model.predict_win_rate(many, bids.ravel()).reshape(bids.shape)
        at = ((v - bids) * rates).argmax(axis=1)
        best[rows] = bids[np.arange(len(rows)), at]
    return best


class EmpiricalWinRate(BaseEstimator):  # type: ignore[misc]
    """One step function for all auctions, or one for each frequent value of the category `segment`.

    A segment below `min_rows` informative auctions uses the function of all. A price known only to be below the floor
    counts as that floor; Kaplan–Meier has no left-censored rows.
    """

    def __init__(self, spec: FeatureSpec, *, segment: str | None = None, min_rows: int = 200) -> None:
        self.spec = spec
        self.segment = segment
        self.min_rows = min_rows

    def fit(self, X: pd.DataFrame, y: MarketPriceObservations) -> Self:
        """Raises as `WinRateModel.fit`, and `ConfigError` for a segment that is no category of the spec."""
        if self.segment is not None and self.segment not in {f.name for f in self.spec.categories()}:
            raise ConfigError(
                "a segment is a category of the spec", value=self.segment, remedy="name another"
            )
        columns, y = taught(X, y, self.spec)
        check_teachable(y)
        self.all_ = _step_function(y)
        self.steps_: dict[str, tuple[Doubles, Doubles]] = {}
        if self.segment is not None:
            codes, keys = pd.factorize(columns[self.segment])
            for code in np.flatnonzero(np.bincount(codes) >= self.min_rows):
                rows = codes == code
                if y.won[rows].any():
                    self.steps_[str(keys[code])] = _step_function(y.take(rows))
        return self

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles:
        """P(win) of bids (n,), or of one bid for all."""
        check_is_fitted(self, "all_")
        bid = np.broadcast_to(np.asarray(bid_cpm, dtype=np.float64), (len(X),))
        rates = _step(self.all_, bid)
        if self.segment is not None:
            codes, keys = pd.factorize(
                raw_columns(X[[self.segment]], _only(self.spec, self.segment))[self.segment]
            )
            for code, key in enumerate(keys):
                if key in self.steps_:
                    rows = codes == code
                    rates[rows] = _step(self.steps_[key], bid[rows])
        return rates


class LogisticWinRate(BaseEstimator):  # type: ignore[misc]
    """σ(w·x + k ln b): categories with empirical-Bayes ridge, numbers in quantile bins, one slope; wins and losses."""

    def __init__(self, spec: FeatureSpec, *, random_state: int = 0) -> None:
        self.spec = spec
        self.random_state = random_state

    def fit(self, X: pd.DataFrame, y: MarketPriceObservations) -> Self:
        """Raises as `WinRateModel.fit`."""
        columns, y = taught(X, y.win_or_loss(), self.spec)
        check_teachable(y)
        reference = reference_log_bid_cpm(y)
        numbers = [BinnedNumber.of(f.name, columns[f.name]) for f in self.spec.numbers()]
        base = fit_linear_base(
            CensoredLikelihood(y, reference_log_bid_cpm=reference),
            [Categories.of(f.name, columns[f.name], min_count=2) for f in self.spec.categories()],
            visibility=OtherFolds(np.zeros(len(y), dtype=np.intp)),
            log_bid_cpm=None,
            slopes_differ=False,
            numbers=[(number.codes(columns[number.feature]), number.n_codes) for number in numbers],
        )
        steps = [Steps(number, w[None]) for number, w in zip(numbers, base.number_weights, strict=True)]
        inputs, trees = steps_as_trees(steps)
        location = Head(inputs, trees, terms=base.terms, intercept=base.intercept)
        self.blueprint_ = WinBlueprint(
            location,
            Head((), None, intercept=base.log_slope),
            reference,
            location_unit=LocationUnit.LOG_PRICE,
        )
        return self

    def predict_curve(self, X: pd.DataFrame) -> WinCurve:
        """Location (ln CPM), shape and gamma = 1 of each row (n,)."""
        check_is_fitted(self, "blueprint_")
        return curve_of(self.blueprint_, raw_columns(X, self.spec))

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles:
        """P(win) of bids (n,), or of one bid for all."""
        return self.predict_curve(X).win_rate(bid_cpm)

    def to_blueprint(self) -> WinBlueprint:
        """What `export.write_artifact` takes as `Blueprint.win`."""
        check_is_fitted(self, "blueprint_")
        return self.blueprint_


class MonotoneWinRate(BaseEstimator):  # type: ignore[misc]
    """A LightGBM classifier of `won` on the encodings of `WinRateModel` and ln bid; rounds by held-out log loss."""

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        n_trees: int = 400,
        n_leaves: int = 31,
        learning_rate: float = 0.08,
        min_rows_in_leaf: int = 100,
        validation_fraction: float = 0.2,
        random_state: int = 0,
        n_jobs: int = 2,
    ) -> None:
        self.spec = spec
        self.n_trees = n_trees
        self.n_leaves = n_leaves
        self.learning_rate = learning_rate
        self.min_rows_in_leaf = min_rows_in_leaf
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: pd.DataFrame, y: MarketPriceObservations) -> Self:
        """Raises as `WinRateModel.fit`."""
        columns, y = taught(X, y.win_or_loss(), self.spec)
        check_teachable(y)
        rng = np.random.default_rng(self.random_state)
        self.inputs_: WinInputs = fit_win_inputs(
            self.spec,
            columns,
            y,
            reference_log_bid_cpm=reference_log_bid_cpm(y),
            folds=rng.permutation(np.arange(len(y)) % _N_FOLDS),
            has_terms=False,
            slopes_differ=False,
        )
        matrix = np.column_stack((np.log(y.bid_cpm), self.inputs_.training.matrix))
        held_out = rng.random(len(y)) < self.validation_fraction
        params: dict[str, Any] = {
            "objective": "binary", "num_leaves": self.n_leaves, "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_rows_in_leaf, "lambda_l2": 5.0, "deterministic": True, "force_row_wise": True,
            "monotone_constraints": [1] + [0] * (matrix.shape[1] - 1), "verbosity": -1,
            "seed": self.random_state, "num_threads": self.n_jobs,
        }  # fmt: skip
        train, test = (
            lgb.Dataset(matrix[rows], y.won[rows].astype(np.float64), weight=y.weight[rows])
            for rows in (~held_out, held_out)
        )
        self.booster_ = lgb.train(
            params, train, self.n_trees, valid_sets=[test], callbacks=[lgb.early_stopping(30, verbose=False)]
        )
        return self

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles:
        """P(win) of bids (n,), or of one bid for all; a bid of 0 is taken as the smallest seen."""
        check_is_fitted(self, "booster_")
        bid = np.broadcast_to(np.asarray(bid_cpm, dtype=np.float64), (len(X),))
        matrix = self.inputs_.matrix(raw_columns(X, self.spec))
        log_bid = np.log(np.maximum(bid, 1e-300))
        rates = self.booster_.predict(np.column_stack((log_bid, matrix)), num_threads=self.n_jobs)
        return np.asarray(rates, dtype=np.float64)


def _step_function(y: MarketPriceObservations) -> tuple[Doubles, Doubles]:
    """Prices, ascending, and F at and above each, (m,) both."""
    return _kaplan_meier(y) if y.exact.any() else _isotonic(y)


def _kaplan_meier(y: MarketPriceObservations) -> tuple[Doubles, Doubles]:
    event = y.upper_cpm < np.inf
    at: Doubles = np.where(event, y.upper_cpm, y.lower_cpm)
    prices, where = np.unique(at, return_inverse=True)
    events = np.bincount(where, weights=event * y.weight)
    leaving = np.bincount(where, weights=y.weight)
    at_risk = np.cumsum(leaving[::-1])[::-1]
    survival: Doubles = np.cumprod(1.0 - events / np.maximum(at_risk, 1e-300)).astype(np.float64)
    return prices[events > 0.0], (1.0 - survival)[events > 0.0]


def _isotonic(y: MarketPriceObservations) -> tuple[Doubles, Doubles]:
    model = IsotonicRegression(y_min=0.0, y_max=1.0)
    model.fit(y.bid_cpm, y.won.astype(np.float64), sample_weight=y.weight)
    return model.X_thresholds_, model.y_thresholds_


def _step(steps: tuple[Doubles, Doubles], bid: Doubles) -> Doubles:
    """F(bid), 0 below the first price; (n,)."""
    prices, rates = steps
    return np.concatenate(([0.0], rates))[np.searchsorted(prices, bid, side="right")]


def _only(spec: FeatureSpec, name: str) -> FeatureSpec:
    return FeatureSpec((spec[name],), spec.timestamp_ms_source)
