"""The win curve: P(win | bid, x), fitted to whatever the exchanges tell, exported as it is.

A log-logistic or log-normal market price: F(b | x) = G(k(x) (ln b − m(x))), G = σ or Φ, trained on one censored
likelihood (`censored`), with a linear part for the categories (`linear_base`), two LightGBM boosters (`two_boosters`)
and three held-out numbers for what the family misses (`dagum`). Monotone in the bid by construction. Why not a
classifier with the bid as a feature: at equal log loss it earns 1 to 2 points less of the attainable surplus, and it
collapses where bids vary little (SCIENCE.md 0, 2.4). docs/win_curve.md tells which feedback means what.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from bidml.blueprint import Head, LocationUnit, WinBlueprint, WinFamily
from bidml.contract import MAX_LOG_SLOPE, MIN_LOG_SLOPE, FeatureSpec
from bidml.errors import ConfigError, DataError
from bidml.features import RawColumns, margins, raw_columns
from bidml.fit.censored import CensoredLikelihood, clamped
from bidml.fit.crew import ALONE, Crew, mean, total
from bidml.fit.dagum import Dagum, fit_dagum
from bidml.fit.encoding import Indices
from bidml.fit.identifiability import Identifiability, identifiability
from bidml.fit.observations import Doubles, MarketPriceObservations
from bidml.fit.two_boosters import BoostedHeads, BoosterSizes, TrainingRows, boost
from bidml.fit.win_inputs import WinInputs, fit_win_inputs
from bidml.lightgbm_trees import head_of_booster
from bidml.pricing import WinCurve

MIN_ROWS: Final = 20
MIN_ROWS_FOR_TREES: Final = 1000
_ROWS_PER_THREAD: Final = 20_000
_N_FOLDS: Final = 8


class FallbackWarning(UserWarning):
    """A log allows less than was asked for: a simpler win curve was fitted, and the message says which and why."""


class WinRateModel(BaseEstimator):  # type: ignore[misc]
    """The market price's distribution given the features of an auction.

    `family`: "log_logistic", or "log_normal". `slope`: weights of categories and "boosted" trees for ln k, or one
    "global" k. `base`: "linear" weights of categories before the trees, or "none". `calibration`: "dagum" on held-out
    rows (of both families), or "none". Sizes default to what serves in about a microsecond. `validation_fraction` of
    the rows choose the rounds and the calibration; with `refit` the trees are then grown again on all rows.

    After `fit`: `identifiability_`, `n_rounds_`, `held_out_nll_`, `n_rows_`, `blueprint_`.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        family: str = "log_logistic",
        slope: str = "boosted",
        base: str = "linear",
        calibration: str = "dagum",
        n_location_trees: int = 100,
        location_depth: int = 5,
        location_leaves: int = 16,
        location_learning_rate: float = 0.15,
        n_slope_trees: int = 50,
        slope_leaves: int = 4,
        slope_learning_rate: float = 0.05,
        min_rows_in_leaf: int = 100,
        validation_fraction: float = 0.2,
        refit: bool = True,
        random_state: int = 0,
        n_jobs: int = 2,
    ) -> None:
        self.spec = spec
        self.family = family
        self.slope = slope
        self.base = base
        self.calibration = calibration
        self.n_location_trees = n_location_trees
        self.location_depth = location_depth
        self.location_leaves = location_leaves
        self.location_learning_rate = location_learning_rate
        self.n_slope_trees = n_slope_trees
        self.slope_leaves = slope_leaves
        self.slope_learning_rate = slope_learning_rate
        self.min_rows_in_leaf = min_rows_in_leaf
        self.validation_fraction = validation_fraction
        self.refit = refit
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: pd.DataFrame, y: MarketPriceObservations, *, crew: Crew = ALONE) -> Self:
        """Fits the curve to `y` (n,), given the columns of the spec in `X` (n rows); with a `crew`, to all ranks' rows.

        Raises `ConfigError` for an unknown option, `SpecError` for a missing column, `DataError` for a log from
        which no curve follows: too few rows, no losses, no wins, one bid without exact prices. Warns with
        `FallbackWarning` when it fits less than asked, with `IdentifiabilityWarning` when bids hardly vary given x.
        """
        self._check_options()
        columns, y = taught(X, y, self.spec)
        check_teachable(y, crew)
        self.n_rows_ = int(total(crew, len(y))[0])
        self.reference_log_bid_cpm_ = reference_log_bid_cpm(y, crew)
        rng = np.random.default_rng(self.random_state)
        folds = rng.permutation(np.arange(len(y)) % _N_FOLDS)
        if self.n_rows_ < MIN_ROWS_FOR_TREES:
            instead = "category weights and one slope" if self.base == "linear" else "one curve for all"
            warnings.warn(
                f"trees need {MIN_ROWS_FOR_TREES} auctions that tell about the price, found {self.n_rows_}: "
                f"fitted {instead}",
                FallbackWarning,
                stacklevel=2,
            )
            inputs = self._inputs(columns, y, folds, crew, slopes_differ=False)
            boosted, dagum = None, Dagum()
            self.held_out_nll_ = float("nan")
        else:
            inputs, boosted, dagum = self._fit_trees(columns, y, folds, rng, crew)
            self.held_out_nll_ = boosted.held_out_nll
        self.n_rounds_ = 0 if boosted is None else boosted.n_rounds
        self.blueprint_ = _blueprint(
            inputs, boosted, dagum, self.reference_log_bid_cpm_, WinFamily(self.family)
        )
        curve = curve_of(self.blueprint_, columns)
        _warn_at_the_bounds(curve)
        self.identifiability_: Identifiability = identifiability(
            y,
            curve,
            self.spec,
            columns,
            folds=folds,
            seed=self.random_state,
            n_threads=self._n_threads(len(y)),
            crew=crew,
        )
        self.identifiability_.warn()
        return self

    def predict_curve(self, X: pd.DataFrame) -> WinCurve:
        """Location (ln CPM), shape and gamma of each row (n,), to 1e-12 what the artifact computes."""
        check_is_fitted(self, "blueprint_")
        return curve_of(self.blueprint_, raw_columns(X, self.spec))

    def predict_win_rate(self, X: pd.DataFrame, bid_cpm: npt.ArrayLike) -> Doubles:
        """P(win) of bids (n,), or of one bid for all; 0 for a bid of 0."""
        return self.predict_curve(X).win_rate(bid_cpm)

    def to_blueprint(self) -> WinBlueprint:
        """What `export.write_artifact` takes as `Blueprint.win`."""
        check_is_fitted(self, "blueprint_")
        return self.blueprint_

    def _inputs(
        self,
        columns: RawColumns,
        y: MarketPriceObservations,
        folds: Indices,
        crew: Crew,
        *,
        slopes_differ: bool,
    ) -> WinInputs:
        return fit_win_inputs(
            self.spec,
            columns,
            y,
            reference_log_bid_cpm=self.reference_log_bid_cpm_,
            folds=folds,
            has_terms=self.base == "linear",
            slopes_differ=slopes_differ,
            family=WinFamily(self.family),
            crew=crew,
        )

    def _fit_trees(
        self,
        columns: RawColumns,
        y: MarketPriceObservations,
        folds: Indices,
        rng: np.random.Generator,
        crew: Crew,
    ) -> tuple[WinInputs, BoostedHeads, Dagum]:
        """Rounds and calibration on held-out rows; then, with `refit`, the same number of rounds on all rows."""
        order = rng.permutation(len(y))
        n_held_out = max(1, round(self.validation_fraction * len(y)))
        held_out, train = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
        differ, family = self.slope == "boosted", WinFamily(self.family)
        inputs = self._inputs(_take(columns, train), y.take(train), folds[train], crew, slopes_differ=differ)
        seen = y.take(held_out)
        rows = inputs.rows(
            _take(columns, held_out),
            CensoredLikelihood(
                seen, reference_log_bid_cpm=self.reference_log_bid_cpm_, family=family, crew=crew
            ),
        )
        boosted = self._boost(inputs.training, rows, self.n_location_trees)
        dagum = Dagum()
        if self.calibration == "dagum":
            beta, a = boosted.heads(rows)
            dagum = fit_dagum(
                seen, beta, a, reference_log_bid_cpm=self.reference_log_bid_cpm_, family=family, crew=crew
            )
        if self.refit:
            inputs = self._inputs(columns, y, folds, crew, slopes_differ=differ)
            again = self._boost(inputs.training, None, boosted.n_rounds)
            boosted = replace(again, held_out_nll=boosted.held_out_nll)
        return inputs, boosted, dagum

    def _boost(self, train: TrainingRows, held_out: TrainingRows | None, n_rounds: int) -> BoostedHeads:
        sizes = BoosterSizes(
            location_depth=self.location_depth,
            location_leaves=self.location_leaves,
            location_learning_rate=self.location_learning_rate,
            n_slope_trees=self.n_slope_trees,
            slope_leaves=self.slope_leaves,
            slope_learning_rate=self.slope_learning_rate,
            min_rows_in_leaf=self.min_rows_in_leaf,
        )
        return boost(
            train,
            held_out,
            sizes,
            boosted_slope=self.slope == "boosted",
            n_rounds=n_rounds,
            seed=self.random_state,
            n_threads=self._n_threads(len(train.beta)),
        )

    def _n_threads(self, n_rows: int) -> int:
        """Threads wait for each other longer than they work on a small tree; the trees are the same."""
        return self.n_jobs if n_rows >= _ROWS_PER_THREAD else 1

    def _check_options(self) -> None:
        for name, known in (
            ("family", tuple(map(str, WinFamily))),
            ("slope", ("boosted", "global")),
            ("base", ("linear", "none")),
            ("calibration", ("dagum", "none")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} is one of {list(known)}", value=getattr(self, name), remedy=f"set {name}"
                )
        if not 0.0 < self.validation_fraction < 1.0:
            raise ConfigError(
                "validation_fraction is between 0 and 1",
                value=self.validation_fraction,
                remedy="0.2 is usual",
            )


def taught(
    X: pd.DataFrame, y: MarketPriceObservations, spec: FeatureSpec
) -> tuple[dict[str, npt.NDArray[Any]], MarketPriceObservations]:
    """The raw columns and observations of the rows that tell about the price. Raises `DataError` below `MIN_ROWS`."""
    if len(X) != len(y):
        raise DataError("there is one observation per row", value=(len(X), len(y)), remedy="align X and y")
    rows = np.flatnonzero(y.informative)
    if len(rows) < MIN_ROWS:
        raise DataError(
            f"a win curve needs {MIN_ROWS} auctions that tell about the market price",
            value=len(rows),
            remedy="take a longer window",
        )
    return _take(raw_columns(X, spec), rows), y.take(rows)


def check_teachable(y: MarketPriceObservations, crew: Crew = ALONE) -> None:
    """Raises `DataError` where no curve follows from what is known."""
    n, below, above, exact = total(
        crew, len(y), (y.upper_cpm < np.inf).sum(), (y.lower_cpm > 0.0).sum(), y.exact.sum()
    )
    if not below:
        raise DataError(
            "some auction tells that the market price was below something: a win, or a price",
            value=f"{n:.0f} losses and no win",
            remedy="bid higher on a share of the traffic, or log min-bid-to-win",
        )
    if not above:
        raise DataError(
            "some auction tells that the market price was above something: a loss, or a price above the floor",
            value=f"{n:.0f} wins and no loss",
            remedy="log the losses too, or the clearing prices",
        )
    bounds = _bounds(y)
    bounds = crew.rows(np.array([bounds.min(), bounds.max()]) if len(bounds) else bounds)
    if not exact and np.ptp(bounds) < 1e-9:
        raise DataError(
            "without prices, the bids must vary: one bid shows one point of the curve",
            value=float(np.exp(bounds[0])),
            remedy="bid with a random factor, or log min-bid-to-win",
        )


def _bounds(y: MarketPriceObservations) -> Doubles:
    """ln of everything the market price is compared with, (n_bounds,)."""
    above, below = y.lower_cpm > 0.0, (y.upper_cpm < np.inf) & ~y.exact
    found: Doubles = np.log(np.concatenate([y.lower_cpm[above], y.upper_cpm[below]]))
    return found


def reference_log_bid_cpm(y: MarketPriceObservations, crew: Crew = ALONE) -> float:
    """The middle of the data in ln CPM, where location and slope are least correlated."""
    return mean(crew, _bounds(y))


def _blueprint(
    inputs: WinInputs,
    boosted: BoostedHeads | None,
    dagum: Dagum,
    reference_log_bid_cpm: float,
    family: WinFamily,
) -> WinBlueprint:
    terms, slope_terms = (inputs.base.terms, inputs.base.slope_terms) if inputs.has_terms else ((), ())
    shift_beta, shift_a = (boosted.shift_beta, boosted.shift_a) if boosted else (0.0, 0.0)
    heads = [
        Head((), None, terms=tuple(of_head), intercept=intercept)
        if booster is None
        else head_of_booster(booster, inputs.columns, raw=True, terms=of_head, intercept=intercept)
        for booster, of_head, intercept in (
            (boosted.location if boosted else None, terms, inputs.base.intercept + shift_beta),
            (boosted.slope if boosted else None, slope_terms, inputs.base.log_slope + shift_a),
        )
    ]
    return WinBlueprint(
        heads[0],
        heads[1],
        reference_log_bid_cpm,
        dagum.slope_scale,
        dagum.logit_shift,
        dagum.gamma,
        LocationUnit.LOG_PRICE,
        family,
    )


def curve_of(blueprint: WinBlueprint, columns: RawColumns) -> WinCurve:
    """The curves of rows given by their `features.raw_columns`, (n,), to 1e-12 what the artifact computes."""
    beta, a = clamped(margins(columns, blueprint.location), margins(columns, blueprint.log_slope))
    k = blueprint.slope_scale * np.exp(a)
    if blueprint.location_unit is LocationUnit.LOG_PRICE:
        distance = beta + blueprint.logit_shift / k
    else:
        distance = (blueprint.slope_scale * beta + blueprint.logit_shift) / k
    location = blueprint.reference_log_bid_cpm - distance
    return WinCurve(location, k, np.full(len(k), blueprint.gamma), blueprint.family)


def _warn_at_the_bounds(curve: WinCurve) -> None:
    log_slope = float(np.median(np.log(curve.shape)))
    for at_bound, meaning in (
        (
            log_slope < MIN_LOG_SLOPE + 0.5,
            "higher bids hardly win more often: bids may follow prices (explore), or outcomes are mixed up",
        ),
        (
            log_slope > MAX_LOG_SLOPE - 0.5,
            "a bid decides the auction almost surely: outcomes may be a rule on the bid, or one price rules",
        ),
    ):
        if at_bound:
            warnings.warn(
                f"the slope of the win curve is near its bound, ln k = {log_slope:.2f}: {meaning}",
                FallbackWarning,
                stacklevel=3,
            )


def _take(columns: RawColumns, rows: Indices) -> dict[str, npt.NDArray[Any]]:
    return {name: cells[rows] for name, cells in columns.items()}
