"""LightGBM as bidml trains it: deterministic, stopped on later rows, sized by the number of events.

The same data and parameters give the same booster with any number of threads: `deterministic`, and each histogram
built by one thread (`force_col_wise`). A model is kept as its text, which is exact and holds no data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, sqrt
from typing import Any, Final

import lightgbm as lgb
import numpy as np
from lightgbm.callback import CallbackEnv

from bidml.errors import ConfigError, DataError
from bidml.features import Doubles
from bidml.fit.crew import ALONE, Crew, sampled, total
from bidml.fit.encoding import Indices


class Preset(StrEnum):
    """LATENCY: trees of depth 5, which the engine walks in one step. ACCURACY: more and larger trees."""

    LATENCY = "latency"
    ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True)
class _Shape:
    n_trees: int
    parameters: Mapping[str, Any]
    patience: int


_SHAPES: Final[Mapping[Preset, _Shape]] = {
    Preset.LATENCY: _Shape(300, {"num_leaves": 32, "max_depth": 5, "learning_rate": 0.05}, patience=30),
    Preset.ACCURACY: _Shape(1_500, {"num_leaves": 63, "max_depth": -1, "learning_rate": 0.025}, patience=60),
}
_COMMON: Final[Mapping[str, Any]] = {
    "objective": "cross_entropy",  # `binary` for outcomes between 0 and 1 as well
    "deterministic": True,
    "force_col_wise": True,
    "feature_pre_filter": False,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "min_data_in_leaf": 20,
    "max_bin": 255,  # at most 254 thresholds: one byte per feature in the engine
    "verbose": -1,
}
# In units of Hessian, which is expected events where these are rare: a leaf on fewer says nothing. Few events in all
# mean no tree at all.
_EVENTS_PER_LEAF: Final = 8.0
_EVENTS_OF_PRIOR: Final = 10.0
_TREES_OF_REFIT: Final = 1.1
_EVENTS_THAT_JUDGE: Final = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to learn from: `matrix` (n, n_columns), `y` (n,), weights; `margins`, (n,) each: the log-odds to start from,
    the others where trees pay on top of the first."""

    matrix: Doubles
    y: Doubles
    margins: Sequence[Doubles]
    weight: Doubles | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Boosted:
    """Corrections to the margin number `start`. `stopped` was learnt without the held-out rows and cut to the number of
    trees that is best there; `final` has a tenth more trees and was learnt from all rows, the latest included."""

    start: int
    stopped: lgb.Booster
    final: lgb.Booster


def boost(
    rows: Rows,
    fit_rows: Indices,
    held_out: Indices,
    *,
    preset: Preset | str,
    parameters: Mapping[str, Any] | None = None,
    refit: bool = True,
    least_gain: float = -inf,
    random_state: int,
    n_jobs: int,
    crew: Crew = ALONE,
) -> Boosted:
    """Boosters by `preset`, with LightGBM's `parameters` over it; without `refit` both are the stopped one.

    `least_gain`: by how many standard errors the stopped one must lower the mean log loss of the held-out rows, or
    there is no tree in either; twice as many where 100 events judge, four times where 11 do, who know little of a
    standard error. Where it does, the other margins are started from as well, and the held-out loss chooses.

    With a `crew` the rows are this rank's, the boosters those of all rows on every rank. Raises `DataError` for a rank
    without rows on either side.
    """
    shape = _SHAPES[preset_of(preset)]
    weight_of_event = _weight_of_event(rows, crew)
    options: dict[str, Any] = {
        **_COMMON,
        **shape.parameters,
        "min_sum_hessian_in_leaf": _EVENTS_PER_LEAF * weight_of_event,
        "lambda_l2": _EVENTS_OF_PRIOR * weight_of_event,
        "seed": int(random_state),
        "num_threads": int(n_jobs),
        **(parameters or {}),
        **crew.network,
    }
    n_trees = int(options.pop("n_trees", shape.n_trees))
    patience = int(options.pop("patience", shape.patience))
    check_every_rank(crew, {"rows to learn from": len(fit_rows), "held-out rows": len(held_out)})
    every = lgb.Dataset(
        rows.matrix,
        rows.y,
        reference=common_bins(rows.matrix, options, crew),
        weight=rows.weight,
        params=dict(options),
    ).construct()
    judged = np.ones(len(held_out)) if rows.weight is None else rows.weight[held_out]
    weight = float(judged.sum())
    n_events = total(crew, float((judged * rows.y[held_out]).sum()))[0] / weight_of_event

    def stopped(margin: Doubles) -> lgb.Booster:
        every.set_init_score(margin)
        train, stop = (every.subset(part.tolist(), params=dict(options)) for part in (fit_rows, held_out))
        stopping = _stop_together(patience, weight, crew)
        found = lgb.train(options, train, n_trees, valid_sets=[stop], callbacks=[stopping])
        return lgb.Booster(model_str=found.model_to_string(num_iteration=found.best_iteration))

    def trained() -> Boosted:
        start, best = 0, stopped(rows.margins[0])
        loss = _losses(best, rows, 0, held_out, n_jobs)
        gain = _gain(_losses(None, rows, 0, held_out, n_jobs) - loss, crew)
        if gain < least_gain * (1.0 + sqrt(_EVENTS_THAT_JUDGE / max(n_events, 1.0))):
            none = lgb.Booster(model_str=lgb.Booster(options, every).model_to_string())
            return Boosted(0, none, none)
        for i in range(1, len(rows.margins)):
            other = stopped(rows.margins[i])
            other_loss = _losses(other, rows, i, held_out, n_jobs)
            if _gain(loss - other_loss, crew) > 0.0:
                start, best, loss = i, other, other_loss
        if not refit:
            return Boosted(start, best, best)
        every.set_init_score(rows.margins[start])
        final = lgb.train(options, every, min(n_trees, round(_TREES_OF_REFIT * best.num_trees())))
        return Boosted(start, best, lgb.Booster(model_str=final.model_to_string()))

    return crew.in_network(trained)


def _losses(booster: lgb.Booster | None, rows: Rows, start: int, held_out: Indices, n_jobs: int) -> Doubles:
    """The weighted log loss of each held-out row, (n,)."""
    s = rows.margins[start][held_out]
    if booster is not None:
        s = s + log_odds_of(booster, rows.matrix[held_out], n_jobs=n_jobs)
    losses: Doubles = np.logaddexp(0.0, s) - rows.y[held_out] * s
    return losses if rows.weight is None else losses * rows.weight[held_out]


def _gain(d: Doubles, crew: Crew) -> float:
    """By how many standard errors the mean of `d` (n,), of all ranks, is above 0."""
    n, gained, squares = total(crew, float(len(d)), float(d.sum()), float((d * d).sum()))
    variance = squares - gained**2 / n
    return gained / sqrt(variance) if variance > 0.0 else 0.0


def common_bins(matrix: Doubles, parameters: Mapping[str, Any], crew: Crew) -> lgb.Dataset | None:
    """A dataset of a sample of all ranks' rows, whose bin boundaries every rank takes; None alone, where LightGBM
    samples by itself.

    LightGBM's distributed search would find each column's boundaries in one rank's rows: others, by the layout.
    """
    if crew.size == 1:
        return None
    return lgb.Dataset(sampled(crew, matrix), params=dict(parameters)).construct()


def check_every_rank(crew: Crew, rows: Mapping[str, int]) -> None:
    """Raises `DataError` on every rank when one has none of the `rows`: LightGBM needs some."""
    found = crew.rows(np.array([list(rows.values())], dtype=np.int64))
    for name, by_rank in zip(rows, found.T, strict=True):
        if not by_rank.all():
            raise DataError(
                f"every rank has {name}",
                value={f"rank {rank}": int(n) for rank, n in enumerate(by_rank)},
                remedy="take fewer ranks, or a longer window",
            )


def _stop_together(patience: int, weight: float, crew: Crew) -> Callable[[CallbackEnv], None]:
    """Early stopping by the mean held-out loss of all ranks; `weight`: of this rank's held-out rows.

    Rank 0 adds the losses up, and its sum decides for all. LightGBM's own callback would stop each rank by its rows.
    """
    best, best_round = np.inf, 0

    def callback(env: CallbackEnv) -> None:
        nonlocal best, best_round
        results = env.evaluation_result_list or []
        ((_, _, loss, *_),) = results
        if crew.size > 1:
            above, below = total(crew, loss * weight, weight)
            loss = above / below
        if env.iteration == env.begin_iteration or loss < best:
            best, best_round = loss, env.iteration
        if env.iteration - best_round >= patience or env.iteration == env.end_iteration - 1:
            raise lgb.callback.EarlyStopException(best_round, results)

    callback.order = 30  # type: ignore[attr-defined]  # after what records the losses
    return callback


def log_odds_of(booster: lgb.Booster, matrix: Doubles, *, n_jobs: int) -> Doubles:
    """The sum of a booster's trees, first tree first; (n,)."""
    if not booster.num_trees() or not len(matrix):
        return np.zeros(len(matrix))
    return np.asarray(booster.predict(matrix, raw_score=True, num_threads=n_jobs), dtype=np.float64)


def _weight_of_event(rows: Rows, crew: Crew) -> float:
    """What an event weighs: Σ w² y / Σ w y, so that scaling all weights changes nothing."""
    if rows.weight is None:
        return 1.0
    by_event = rows.weight * rows.y
    squares, weight = total(crew, (rows.weight * by_event).sum(), by_event.sum())
    return squares / weight


def preset_of(preset: Preset | str) -> Preset:
    try:
        return Preset(preset)
    except ValueError:
        raise ConfigError(
            "a preset is known", value=preset, remedy=f"one of {[known.value for known in Preset]}"
        ) from None
