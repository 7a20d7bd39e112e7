"""What a user might reach for instead: XGBoost's accelerated failure time model, lifelines' survival regressions, and
Deep Landscape Forecasting in PyTorch (`deep_landscape.py`).

All are optional packages. The first two get the encodings that our trees see (out of fold for the training rows),
because their own handling of rich categories is worse; a price is their survival time.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, ndtr

from benchmarks.deep_landscape import ALPHA, Bins, DeepLandscape
from benchmarks.win_curves import Contender, OnGrid, Policy
from bidml.contract import FeatureSpec
from bidml.features import Doubles, raw_columns
from bidml.fit import MarketPriceObservations
from bidml.fit.win_inputs import WinInputs, fit_win_inputs
from bidml.fit.win_rate import reference_log_bid_cpm, taught

_AFT_SCALES: Final = (0.4, 0.6, 0.8, 1.1)
_AFT_ROUNDS: Final = 300
_N_FOLDS: Final = 8
# What the prices are counted in; 300 ticks are the highest.
_IPINYOU_BINS: Final = Bins(tick_cpm=0.01, width=2, n=150)


class _Encoded:
    """The encodings of training rows and of any other."""

    def __init__(self, spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations, seed: int) -> None:
        columns, y = taught(X, y, spec)
        folds = np.random.default_rng(seed).permutation(np.arange(len(y)) % _N_FOLDS)
        self.spec, self.y = spec, y
        self._inputs: WinInputs = fit_win_inputs(
            spec,
            columns,
            y,
            reference_log_bid_cpm=reference_log_bid_cpm(y),
            folds=folds,
            has_terms=False,
            slopes_differ=False,
        )
        self.train = self._inputs.training.matrix
        self._last: tuple[pd.DataFrame, Doubles] | None = None

    def of(self, X: pd.DataFrame) -> Doubles:
        return self._inputs.matrix(raw_columns(X, self.spec))


class XGBoostAft:
    """`survival:aft` with one scale for all, chosen like the number of rounds by held-out likelihood."""

    def __init__(self, distribution: str, seed: int) -> None:
        self._distribution, self._seed = distribution, seed

    def fit(self, spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations) -> XGBoostAft:
        import xgboost

        self._encoded = _Encoded(spec, X, y, self._seed)
        y = self._encoded.y
        held_out = np.random.default_rng(self._seed + 1).random(len(y)) < 0.2
        parts = []
        for rows in (~held_out, held_out):
            data = xgboost.DMatrix(self._encoded.train[rows])
            data.set_float_info("label_lower_bound", y.lower_cpm[rows])
            data.set_float_info("label_upper_bound", y.upper_cpm[rows])
            parts.append(data)
        best = np.inf
        for scale in _AFT_SCALES:
            params = {
                "objective": "survival:aft", "eval_metric": "aft-nloglik", "max_depth": 5, "eta": 0.1, "lambda": 5.0,
                "aft_loss_distribution": self._distribution, "aft_loss_distribution_scale": scale,
                "min_child_weight": 5.0, "nthread": 2, "seed": self._seed, "tree_method": "hist",
            }  # fmt: skip
            booster = xgboost.train(
                params, parts[0], _AFT_ROUNDS, evals=[(parts[1], "held_out")], early_stopping_rounds=20,
                verbose_eval=False,
            )  # fmt: skip
            if booster.best_score < best:
                best, self._booster, self._scale = booster.best_score, booster, scale
        return self

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles:
        import xgboost

        to = (0, self._booster.best_iteration + 1)
        location = self._booster.predict(
            xgboost.DMatrix(self._encoded.of(X)), output_margin=True, iteration_range=to
        )
        z = (np.log(np.maximum(bid_cpm, 1e-12)) - location) / self._scale
        return np.asarray(expit(z) if self._distribution == "logistic" else ndtr(z), dtype=np.float64)


class Lifelines:
    """Weibull accelerated failure times, or Cox's proportional hazards, with a small ridge; missing numbers are 0."""

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._seed = kind, seed

    def fit(self, spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations) -> Lifelines:
        import lifelines

        self._encoded = _Encoded(spec, X, y, self._seed)
        y, matrix = self._encoded.y, self._encoded.train
        self._center, self._spread = np.nanmean(matrix, axis=0), np.nanstd(matrix, axis=0)
        self._used = self._spread > 1e-9
        frame = pd.DataFrame(self._standardised(matrix)).add_prefix("x")
        event = y.upper_cpm < np.inf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._kind == "weibull" and not y.exact.any():
                frame = frame.assign(low=y.lower_cpm, high=y.upper_cpm)
                self._model = lifelines.WeibullAFTFitter(penalizer=0.01)
                self._model.fit_interval_censoring(frame, lower_bound_col="low", upper_bound_col="high")
            else:
                frame = frame.assign(price=np.where(event, y.upper_cpm, y.lower_cpm), event=event)
                self._model = (
                    lifelines.WeibullAFTFitter(penalizer=0.01)
                    if self._kind == "weibull"
                    else lifelines.CoxPHFitter(penalizer=0.01)
                )
                self._model.fit(frame, duration_col="price", event_col="event")
        return self

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles:
        z = self._standardised(self._encoded.of(X))
        bid = np.broadcast_to(np.asarray(bid_cpm, dtype=np.float64), (len(z),))
        params = self._model.params_
        if self._kind == "weibull":
            of_scale = params["lambda_"]
            names = [f"x{i}" for i in range(z.shape[1])]
            log_scale = z @ of_scale[names].to_numpy() + of_scale["Intercept"]
            hazard = np.exp(
                np.exp(params["rho_"]["Intercept"]) * (np.log(np.maximum(bid, 1e-12)) - log_scale)
            )
        else:
            base = self._model.baseline_cumulative_hazard_
            steps = np.concatenate(([0.0], base.iloc[:, 0].to_numpy()))
            centered = z - self._model._norm_mean.to_numpy()
            at = np.searchsorted(base.index.to_numpy(), bid, side="right")
            hazard = steps[at] * np.exp(np.clip(centered @ params.to_numpy(), -30.0, 30.0))
        return np.asarray(-np.expm1(-hazard), dtype=np.float64)

    def _standardised(self, matrix: Doubles) -> Doubles:
        z = (matrix[:, self._used] - self._center[self._used]) / self._spread[self._used]
        return np.nan_to_num(z, nan=0.0)


def peers() -> tuple[list[Contender], list[str]]:
    """The contenders of the real auctions whose package is installed, and the names of the other packages."""

    def contender(name: str, make: Callable[[int], Any], needs_prices: bool = False) -> Contender:
        def fit(spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations, seed: int) -> Policy:
            return OnGrid(make(seed).fit(spec, X, y))

        return Contender(name, fit, needs_prices=needs_prices)

    def deep(name: str, alpha: float | None, needs_prices: bool = False) -> Contender:
        def fit(spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations, seed: int) -> Policy:
            return DeepLandscape(_IPINYOU_BINS, seed, alpha=alpha).fit(spec, X, y)

        return Contender(name, fit, needs_prices=needs_prices)

    known = {
        "xgboost": [
            contender("XGBoost AFT, logistic", lambda seed: XGBoostAft("logistic", seed)),
            contender("XGBoost AFT, normal", lambda seed: XGBoostAft("normal", seed)),
        ],
        "lifelines": [
            contender("Weibull AFT (lifelines)", lambda seed: Lifelines("weibull", seed)),
            contender("Cox (lifelines)", lambda seed: Lifelines("cox", seed), needs_prices=True),
        ],
        "torch": [
            deep("deep landscape, likelihood", None),
            deep("deep landscape, two losses", ALPHA, needs_prices=True),
        ],
    }
    found, missing = [], []
    for package, of_package in known.items():
        if importlib.util.find_spec(package) is None:
            missing.append(package)
        else:
            found += of_package
    return found, missing
