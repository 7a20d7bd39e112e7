"""P(click | impression): encoded features, boosted trees, calibration; ends as a `CtrBlueprint`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from bidml.blueprint import Calibration, CrossLookup, CtrBlueprint, Head
from bidml.contract import MAX_VARIANCE, MIN_VARIANCE, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError
from bidml.features import Doubles, RawColumns, encode, looked_up, margins, raw_columns
from bidml.fit.bases import BASES, fit_bases
from bidml.fit.binned_numbers import steps_as_trees
from bidml.fit.boosting import Rows, boost, log_odds_of, preset_of
from bidml.fit.calibration import (
    CalibrationMethod,
    at_rate,
    calibrated,
    calibration_method,
    fit_calibration,
    fit_segment_offsets,
    traffic_level,
)
from bidml.fit.crew import ALONE, Crew, mean, sampled
from bidml.fit.crosses import CrossedCategories, Pair, check_crosses, cross_categories
from bidml.fit.encoding import Categories, Earlier, OtherFolds, Visibility, as_ticks, lookup_values
from bidml.fit.labels import checked_outcomes, checked_rate, checked_weights, find_leaks, warn_of_leaks
from bidml.fit.mixed_base import Crossing
from bidml.fit.tree_inputs import TreeInputs
from bidml.fit.uncertainty import fit_variance
from bidml.lightgbm_trees import head_of_booster
from bidml.metrics import auc, calibration_ratio, log_loss_from_log_odds, normalized_entropy_from_log_odds
from bidml.tree_builder import joined


class ClickModel(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Boosted trees on numbers and category effects, calibrated on the latest rows.

    Parameters
    ----------
    spec: the raw features; `X` has a column for each (`features.raw_columns` says what cells may be).
    base: what the trees start from. "mixed": a weight for each category, shrunk by what all clicks say of its feature
        (`fit.mixed_base`), which become terms of the head; "linear": logistic regression on the categories by FTRL, in
        time order; "none": the base rate; "auto": mixed where there is time, none without.
    preset: "latency" (at most 300 trees of depth 5) or "accuracy" (at most 1,500 trees of 63 leaves).
    calibration: "beta", "platt", "isotonic" (beta, bent where the held-out clicks ask for it) or "none".
    segments: categories that get an offset of their own, shrunk by the evidence, on top of the trees.
    parents: category → the category it belongs to (placement → app): where little is known of it, it is as that.
    crosses: pairs of categories that also count together (app and slot), in the linear base and for the trees, as what
        they do beyond each by itself; a pair that is rare or unseen is as the two. "auto": those that the clicks ask
        for (`fit.found_crosses`), at most three, and at most three of a category and a number, in a mixed base alone.
    negative_sampling_rate: the share of unclicked impressions that were kept in `X`, in (0, 1]; predictions are for
        all impressions, by ln(rate) in log-odds, exactly.
    held_out_share: the last rows in time, for stopping, calibration and `held_out_`; without time, random rows.
    refit: learn the trees again from all rows, once the held-out ones have told how many; takes twice as long.
    max_keys, min_count: a category keeps at most so many texts, each seen at least so often; others are pooled.
    uncertainty: learn also how far the log-odds may be off (`fit.uncertainty`): `predict_log_odds_sd`, and what line
        items with a `risk_aversion` are priced by.
    parameters: of LightGBM, over those of the preset; also `n_trees` and `patience`.
    random_state, n_jobs: the same data and parameters give the same bytes for any `n_jobs`.

    Attributes
    ----------
    booster_, columns_, steps_ (of numbers, `binned_numbers.Steps`), intercept_, terms_ (lookups: linear base, then
        segments), calibration_: the model.
    found_crosses_: pair → by how many standard errors it was asked for, of crosses="auto".
    variance_: the head of its error's variance, or None.
    held_out_: `n_rows`, `events`, and of the calibrated model `log_loss`, `normalized_entropy`, `auc` on the held-out
        rows; `uncalibrated_ratio`: Σp / Σy there before calibration.
    traffic_level_: what `fit_traffic_level` added to the log-odds; 0 before.
    dictionaries_: category (or cross, "app*slot") → (keys kept, training rows pooled).
    leaks_: feature → AUC by itself, where that is alarming (a `LeakWarning`).
    """

    calibration_: Calibration
    traffic_level_: float
    variance_: Head | None

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        base: str = "auto",
        preset: str = "latency",
        calibration: str = "beta",
        segments: Sequence[str] = (),
        parents: Mapping[str, str] | None = None,
        crosses: Sequence[Pair] | str = "auto",
        negative_sampling_rate: float = 1.0,
        held_out_share: float = 0.15,
        refit: bool = True,
        max_keys: int = 50_000,
        min_count: int = 3,
        uncertainty: bool = False,
        parameters: Mapping[str, Any] | None = None,
        random_state: int = 0,
        n_jobs: int = 2,
    ) -> None:
        self.spec = spec
        self.base = base
        self.preset = preset
        self.calibration = calibration
        self.segments = segments
        self.parents = parents
        self.crosses = crosses
        self.negative_sampling_rate = negative_sampling_rate
        self.held_out_share = held_out_share
        self.refit = refit
        self.max_keys = max_keys
        self.min_count = min_count
        self.uncertainty = uncertainty
        self.parameters = parameters
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self,
        X: pd.DataFrame,
        y: npt.ArrayLike,
        *,
        timestamp: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        crew: Crew = ALONE,
    ) -> Self:
        """Learn from impressions `X` (n rows) and clicks `y` (n,), 0 or 1; with a `crew`, from those of all ranks.

        `timestamp` (n,): when each was shown; by default the column `timestamp` of `X`, if it has one. With it, a row
        learns from earlier rows only. Raises `DataError` for outcomes that are missing or all the same and for lost
        auctions among the rows, `SpecError` for missing columns, `ConfigError` for parameters out of range.
        """
        if isinstance(X, pd.DataFrame) and "won" in X.columns and not X["won"].all():
            raise DataError(
                "clicks are learnt from impressions",
                value=f"{int((~X['won'].astype(bool)).sum())} lost auctions",
                remedy="pass log[log.won]",
            )
        return self._fit(X, checked_outcomes(y, len(X)), timestamp, sample_weight, crew)

    def fit_soft(
        self,
        X: pd.DataFrame,
        y: npt.ArrayLike,
        *,
        timestamp: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> Self:
        """`fit` to expected outcomes between 0 and 1, for those who know them only in probability (`fit.cvr`)."""
        return self._fit(X, checked_outcomes(y, len(X), soft=True), timestamp, sample_weight, ALONE)

    def fit_traffic_level(
        self,
        X: pd.DataFrame,
        *,
        won: npt.ArrayLike,
        clicked: npt.ArrayLike,
        win_rate: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        crew: Crew = ALONE,
    ) -> Self:
        """Makes the level right for all auctions `X` (n rows) that we bid in, instead of for those that we won.

        `win_rate` (n,): what a win curve says of the logged bids. See `calibration.traffic_level`; `fit` undoes it.
        Raises `DataError` for arrays of other lengths.
        """
        before = self.traffic_level_
        self.traffic_level_ = traffic_level(
            self.predict_log_odds(X) - before,
            won=won,
            clicked=clicked,
            win_rate=win_rate,
            sample_weight=sample_weight,
            crew=crew,
        )
        c = self.calibration_
        self.calibration_ = replace(c, shift=c.shift - before + self.traffic_level_)
        return self

    def predict_log_odds(self, X: pd.DataFrame) -> Doubles:
        """ln(p / (1 − p)), calibrated, (n,): what the artifact computes. Any rows will do: unseen categories are the
        pool of rare ones, missing numbers are NaN."""
        check_is_fitted(self, "calibration_")
        raw = raw_columns(X, self.spec)
        return calibrated(self.calibration_, self._margin(raw))

    def predict_proba(self, X: pd.DataFrame) -> Doubles:
        """(n, 2): P(no click), P(click)."""
        s = self.predict_log_odds(X)
        e = np.exp(-np.abs(s))
        return np.column_stack((np.where(s >= 0.0, e, 1.0), np.where(s >= 0.0, 1.0, e))) / (1.0 + e)[:, None]

    def predict(self, X: pd.DataFrame) -> npt.NDArray[np.int64]:
        """The likelier outcome, (n,); with rare clicks always 0. Bid with `predict_proba`."""
        return (self.predict_log_odds(X) > 0.0).astype(np.int64)

    def predict_log_odds_sd(self, X: pd.DataFrame) -> Doubles:
        """The standard deviation of the error of `predict_log_odds`, (n,). `ConfigError` without `uncertainty`."""
        check_is_fitted(self, "calibration_")
        if self.variance_ is None:
            raise ConfigError(
                "a model that was told to knows its uncertainty",
                value=None,
                remedy="fit with uncertainty=True",
            )
        variance = margins(raw_columns(X, self.spec), self.variance_)
        return np.sqrt(np.clip(variance, MIN_VARIANCE, MAX_VARIANCE))

    def to_blueprint(self) -> CtrBlueprint:
        """The model as numbers, exactly. Raises `CertificateError` if the trees differ from LightGBM's in any bit."""
        check_is_fitted(self, "calibration_")
        found = Head((), None)
        if self.booster_.num_trees():
            found = head_of_booster(self.booster_, self.columns_)
        steps = steps_as_trees(self.steps_)
        columns, trees = joined(found.columns, found.trees, *steps)
        head = replace(found, columns=columns, trees=trees, terms=self.terms_, intercept=self.intercept_)
        return CtrBlueprint(head, self.calibration_, self.variance_)

    def _fit(
        self,
        X: pd.DataFrame,
        y: Doubles,
        timestamp: npt.ArrayLike | None,
        sample_weight: npt.ArrayLike | None,
        crew: Crew,
    ) -> Self:
        self._check_parameters(crew)
        n_rows, raw = len(y), raw_columns(X, self.spec)
        time, weight = _time(X, timestamp), checked_weights(sample_weight, len(y))
        rng = np.random.default_rng(self.random_state)
        rate = mean(crew, y, weight)
        visibility: Visibility = (
            OtherFolds.random(n_rows, rng=rng, crew=crew) if time is None else Earlier(time, crew)
        )
        inputs = TreeInputs.learn(
            raw,
            self.spec,
            y,
            visibility,
            expected=np.full(n_rows, rate),
            weight=weight,
            parents=self.parents,
            crosses=() if isinstance(self.crosses, str) else self.crosses,
            max_keys=self.max_keys,
            min_count=self.min_count,
            crew=crew,
        )
        leaks = find_leaks(
            [column.feature for column in inputs.columns], inputs.training, y, rng=rng, crew=crew
        )
        fit_rows, held_out = _split(n_rows, time, self.held_out_share, rng, crew)
        candidates = fit_bases(
            self.base,
            raw,
            self.spec,
            inputs.categories,
            y,
            time=time,
            weight=weight,
            find=self._crossing(inputs.categories) if self.crosses == "auto" else None,
            rng=rng,
            crew=crew,
        )
        rows = Rows(inputs.training, y, [base.margin for base in candidates.bases], weight)
        boosted = boost(
            rows,
            fit_rows,
            held_out,
            preset=self.preset,
            parameters=self.parameters,
            refit=self.refit,
            least_gain=candidates.least_gain,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            crew=crew,
        )
        base = candidates.bases[boosted.start]
        self.booster_ = boosted.final
        self.columns_, self.steps_ = inputs.columns, base.steps
        self.intercept_, self.terms_, self.found_crosses_ = base.intercept, base.terms, dict(base.found)
        self._calibrate(
            {name: cells[held_out] for name, cells in raw.items()},
            base.margin[held_out]
            + log_odds_of(boosted.stopped, inputs.training[held_out], n_jobs=self.n_jobs),
            y[held_out],
            None if weight is None else weight[held_out],
            rate if time is None else None,
            crew,
        )
        if base.afterwards is not None:
            trees = log_odds_of(boosted.final, inputs.training, n_jobs=self.n_jobs)
            rate = mean(crew, expit(base.afterwards + base.late), weight)
            self._level_by_all_rows(raw, base.afterwards + trees, rate, weight, crew)
        self.variance_ = None
        if self.uncertainty:
            self.variance_ = fit_variance(
                [inputs.categories[feature.name] for feature in self.spec.categories()],
                y,
                np.ones(n_rows) if weight is None else weight,
                of_found_pairs=self._variance_of_pairs(raw),
            )
        self.dictionaries_ = {
            name: (found.n_keys, found.n_pooled_rows) for name, found in inputs.categories.items()
        }
        self.leaks_ = leaks
        self.classes_ = np.array([0, 1])
        self.feature_names_in_ = np.array(self.spec.names, dtype=object)
        self.n_features_in_ = len(self.spec.names)
        warn_of_leaks(leaks)
        return self

    def _crossing(self, categories: Mapping[str, Categories]) -> Crossing:
        def crossing(pair: Pair) -> CrossedCategories:
            (found,) = cross_categories(
                categories, [pair], max_keys=self.max_keys, min_count=self.min_count
            ).values()
            return found

        return crossing

    def _calibrate(
        self,
        raw: RawColumns,
        margin: Doubles,
        y: Doubles,
        weight: Doubles | None,
        rate: float | None,
        crew: Crew,
    ) -> None:
        """On held-out rows: the map, then the segments' offsets before it, then the map once more for both.

        `rate`: of clicks in all rows, where the held-out ones are like them; it has less noise than theirs. The map is
        fitted to all ranks' rows, on each rank: three numbers a row.
        """
        method = calibration_method(self.calibration)
        all_y = crew.rows(y)
        all_weight = None if weight is None else crew.rows(weight)
        uncalibrated = all_margin = crew.rows(margin)
        found = fit_calibration(all_margin, all_y, method=method, sample_weight=all_weight)
        for name in self.segments:
            categories = Categories.of(
                name, raw[name], max_keys=self.max_keys, min_count=self.min_count, crew=crew
            )
            offsets = fit_segment_offsets(categories, margin, y, calibration=found, sample_weight=weight)
            self.terms_ = (*self.terms_, offsets)
            margin = margin + lookup_values(offsets, raw[name])
            all_margin = crew.rows(margin)
            found = fit_calibration(all_margin, all_y, method=method, sample_weight=all_weight)
        if rate is not None and method is not CalibrationMethod.NONE:
            found = at_rate(found, all_margin, rate, sample_weight=all_weight)
        self.held_out_ = _held_out_metrics(all_y, all_weight, uncalibrated, calibrated(found, all_margin))
        self.traffic_level_ = 0.0
        self.calibration_ = replace(found, shift=found.shift + log(self.negative_sampling_rate))

    def _level_by_all_rows(
        self, raw: RawColumns, margin: Doubles, rate: float, weight: Doubles | None, crew: Crew
    ) -> None:
        """Moves the map so that the model that will serve, with all rows' `margin` (n,), has the mean `rate`.

        The held-out clicks tell what the stopped model was off by, which the final one has learnt from them already;
        and they are few.
        """
        if calibration_method(self.calibration) is CalibrationMethod.NONE:
            return
        for term in self.terms_[len(self.terms_) - len(self.segments) :]:
            margin = margin + looked_up(term, raw)
        found = at_rate(self.calibration_, margin, rate, sample_weight=weight, crew=crew)
        self.calibration_ = replace(found, shift=found.shift + log(self.negative_sampling_rate))

    def _margin(self, raw: RawColumns) -> Doubles:
        """Trees + steps + intercept + terms, added in the artifact's order; (n,)."""
        matrix = encode(raw, Head(self.columns_, None))
        margin = log_odds_of(self.booster_, matrix, n_jobs=self.n_jobs)
        for steps in self.steps_:
            margin = margin + steps.of(raw)
        margin = margin + self.intercept_
        for term in self.terms_:
            margin = margin + looked_up(term, raw)
        return margin

    def _variance_of_pairs(self, raw: RawColumns) -> float:
        """How much the log-odds vary by what pairs of features do, over the rows."""
        pairs = [looked_up(term, raw) for term in self.terms_ if isinstance(term, CrossLookup)]
        pairs += [steps.of(raw) for steps in self.steps_ if steps.lookup is not None]
        return float(np.sum(pairs, axis=0).var()) if pairs else 0.0

    def _check_parameters(self, crew: Crew) -> None:
        if self.uncertainty and crew.size > 1:
            raise ConfigError(
                "an uncertainty is fitted by one machine", value=crew.size, remedy="leave uncertainty out"
            )
        preset_of(self.preset)
        calibration_method(self.calibration)
        if self.base not in BASES:
            raise ConfigError("a base is known", value=self.base, remedy=f"one of {list(BASES)}")
        checked_rate(self.negative_sampling_rate)
        if not 0.0 < self.held_out_share < 1.0:
            raise ConfigError(
                "the held-out share is between 0 and 1", value=self.held_out_share, remedy="for example 0.15"
            )
        is_list = isinstance(self.crosses, Sequence) and not isinstance(self.crosses, str)
        if not is_list and self.crosses != "auto":
            raise ConfigError(
                'crosses are pairs, or "auto"',
                value=self.crosses,
                remedy='crosses="auto", or a list of pairs',
            )
        if not isinstance(self.crosses, str):
            check_crosses(self.crosses, [feature.name for feature in self.spec.categories()])
        for name in self.segments:
            if self.spec[name].kind is not FeatureKind.CATEGORY:
                raise ConfigError(
                    "a segment is a category of the spec", value=name, remedy="correct segments"
                )


def _time(X: Any, timestamp: npt.ArrayLike | None) -> npt.NDArray[Any] | None:
    """When each row was, as integers or floats that sort, (n_rows,); None if nobody says."""
    if timestamp is None:
        if not (isinstance(X, pd.DataFrame) and "timestamp" in X.columns):
            return None
        timestamp = X["timestamp"]
    when = pd.Series(timestamp)
    if len(when) != len(X) or when.isna().any():
        raise DataError(
            f"there is one time per row: {len(X)}",
            value=f"{int(when.notna().sum())} times",
            remedy="fill them in",
        )
    if pd.api.types.is_datetime64_any_dtype(when.dtype):
        return pd.to_datetime(when, utc=True).dt.tz_localize(None).to_numpy()
    return when.to_numpy()


def _split(
    n_rows: int, time: npt.NDArray[Any] | None, share: float, rng: np.random.Generator, crew: Crew
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(rows to fit, rows held out), at least one each: the last in time, or random ones; both in order of position.

    In a crew the last of all ranks, from a time that a sample of them tells.
    """
    if crew.size > 1 and time is not None:
        ticks = as_ticks(time)
        is_last = ticks >= np.quantile(sampled(crew, ticks), 1.0 - share, method="higher")
        return np.flatnonzero(~is_last), np.flatnonzero(is_last)
    order = rng.permutation(n_rows) if time is None else np.argsort(time, kind="stable")
    n_held_out = min(max(1, round(share * n_rows)), n_rows - 1)
    return np.sort(order[: n_rows - n_held_out]), np.sort(order[n_rows - n_held_out :])


def _held_out_metrics(
    y: Doubles, weight: Doubles | None, uncalibrated: Doubles, log_odds: Doubles
) -> dict[str, float]:
    """Without clicks or without others among the rows, only what is still defined."""
    found = {
        "n_rows": float(len(y)),
        "events": float(y.sum()),
        "log_loss": log_loss_from_log_odds(y, log_odds, sample_weight=weight),
    }
    if 0.0 < y.mean() < 1.0:
        p = 1.0 / (1.0 + np.exp(-uncalibrated))
        found["normalized_entropy"] = normalized_entropy_from_log_odds(y, log_odds, sample_weight=weight)
        found["auc"] = auc(y > 0.5, log_odds) if 0 < (y > 0.5).sum() < len(y) else float("nan")
        found["uncalibrated_ratio"] = calibration_ratio(y, p, sample_weight=weight)
    return found
