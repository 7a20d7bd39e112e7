"""Two LightGBM boosters on one likelihood: many trees for the location, few small ones for the slope.

SCIENCE.md 2.3, algorithm LL2. One booster with two outputs is worse than a constant slope: leaves of the slope are
noisy, and the marginal slope it starts from is too flat. So each round (i) re-centres both heads with one global 2 × 2
Newton step, (ii) adds a location tree, (iii) every other round adds a slope tree of few leaves. Rounds are chosen by
the likelihood of held-out rows. LightGBM sees gradients and Hessians only; the scores are its own sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np

from bidml.fit.boosting import common_bins
from bidml.fit.censored import CensoredLikelihood, newton_shift
from bidml.fit.crew import mean
from bidml.fit.observations import Doubles


@dataclass(frozen=True, slots=True)
class BoosterSizes:
    """What grows. A depth of at most 5 and at most 100 trees per head keep the bid near a microsecond."""

    location_depth: int = 5
    location_leaves: int = 16
    location_learning_rate: float = 0.15
    n_slope_trees: int = 50
    slope_leaves: int = 4
    slope_learning_rate: float = 0.05
    min_rows_in_leaf: int = 100
    patience: int = 25


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """The trees' inputs (n, n_columns), the likelihood of these rows, and what the heads hold before any tree, (n,)."""

    matrix: Doubles
    likelihood: CensoredLikelihood
    beta: Doubles
    a: Doubles


@dataclass(frozen=True, slots=True, eq=False)
class BoostedHeads:
    """Boosters cut at their best round (None: no tree), what to add to the heads besides, and the rounds taken."""

    location: lgb.Booster | None
    slope: lgb.Booster | None
    shift_beta: float
    shift_a: float
    n_rounds: int
    held_out_nll: float

    def heads(self, rows: TrainingRows) -> tuple[Doubles, Doubles]:
        """(β, a) of rows, (n,) each."""
        found = []
        for booster, start, shift in (
            (self.location, rows.beta, self.shift_beta),
            (self.slope, rows.a, self.shift_a),
        ):
            found.append(start + shift)
            if booster is not None:
                found[-1] += np.asarray(booster.predict(rows.matrix, raw_score=True))
        return found[0], found[1]


class _Head:
    """One booster and its current scores of the training and held-out rows."""

    def __init__(self, params: dict[str, Any], train: lgb.Dataset, held_out: lgb.Dataset | None) -> None:
        self.booster = lgb.Booster(params, train)
        if held_out is not None:
            self.booster.add_valid(held_out, "held_out")
        self.alive = any(train.feature_num_bin(i) > 1 for i in range(train.num_feature()))
        self.n_trees = 0

    def update(self, gradient: Doubles, hessian: Doubles) -> None:
        """Adds a tree; when no split is left, none, now or later (LightGBM may leave a constant 0 behind)."""
        if self.alive:
            self.alive = not self.booster.update(fobj=lambda scores, data: (gradient, hessian))
            self.n_trees += self.alive

    def scores(self) -> Doubles:
        return _captured(self.booster.eval_train)

    def held_out_scores(self) -> Doubles:
        return _captured(self.booster.eval_valid)

    def cut_at(self, n_trees: int) -> lgb.Booster | None:
        for _ in range(self.n_trees - n_trees):
            self.booster.rollback_one_iter()
        return self.booster if n_trees else None


def boost(
    train: TrainingRows,
    held_out: TrainingRows | None,
    sizes: BoosterSizes,
    *,
    boosted_slope: bool,
    n_rounds: int,
    seed: int,
    n_threads: int,
) -> BoostedHeads:
    """Boosts for `n_rounds`; with `held_out`, until its likelihood has not improved for `patience` rounds.

    With the likelihood's crew the rows are this rank's; every rank grows the trees of all rows.
    """
    crew = train.likelihood.crew
    data, held_out_data = _datasets(train, held_out)
    unit = train.likelihood.unit(mean(crew, train.a))
    params = [_location_params(sizes, unit, seed, n_threads) | crew.network]
    if boosted_slope:
        params.append(_slope_params(sizes, seed + 1, n_threads) | crew.network)
    return crew.in_network(
        lambda: _boosted(
            train, held_out, sizes, n_rounds, [_Head(each, data, held_out_data) for each in params]
        )
    )


def _boosted(
    train: TrainingRows,
    held_out: TrainingRows | None,
    sizes: BoosterSizes,
    n_rounds: int,
    heads: list[_Head],
) -> BoostedHeads:
    location, slope = heads[0], heads[1] if len(heads) > 1 else None
    b = a = 0.0
    best = _Best()
    beta, log_slope = train.beta.copy(), train.a.copy()
    for i in range(n_rounds + 1):
        step_b, step_a = newton_shift(train.likelihood, beta + b, log_slope + a)
        b, a = b + step_b, a + step_a
        if held_out is not None:
            nll = held_out.likelihood.mean_nll(
                held_out.beta + b + location.held_out_scores(),
                held_out.a + a + (slope.held_out_scores() if slope else 0.0),
            )
            best = best.or_better(nll, i, b, a, location, slope)
            if i - best.round >= sizes.patience:
                break
        else:
            best = best.or_better(-float(i), i, b, a, location, slope)
        if i == n_rounds or not (location.alive or (slope and slope.alive)):
            break
        location.update(*train.likelihood.location_derivatives(beta + b, log_slope + a))
        beta = train.beta + location.scores()
        if slope is not None and i % 2 == 1 and slope.n_trees < sizes.n_slope_trees:
            d = train.likelihood.derivatives(beta + b, log_slope + a)
            slope.update(d.gradient_slope, d.hessian_slope)
            log_slope = train.a + slope.scores()
    return BoostedHeads(
        location.cut_at(best.location_trees),
        slope.cut_at(best.slope_trees) if slope else None,
        best.shift_beta,
        best.shift_a,
        best.round,
        best.nll,
    )


@dataclass(frozen=True, slots=True)
class _Best:
    nll: float = np.inf
    round: int = 0
    shift_beta: float = 0.0
    shift_a: float = 0.0
    location_trees: int = 0
    slope_trees: int = 0

    def or_better(
        self, nll: float, i: int, b: float, a: float, location: _Head, slope: _Head | None
    ) -> _Best:
        if not nll < self.nll:
            return self
        return _Best(nll, i, b, a, location.n_trees, slope.n_trees if slope else 0)


_COMMON: Final[dict[str, Any]] = {
    "objective": "none",
    "metric": "none",
    "deterministic": True,
    "force_row_wise": True,
    "max_bin": 127,
    "feature_pre_filter": False,
    "boost_from_average": False,
    "verbosity": -1,
}


def _datasets(train: TrainingRows, held_out: TrainingRows | None) -> tuple[lgb.Dataset, lgb.Dataset | None]:
    params = _COMMON | train.likelihood.crew.network
    bins = common_bins(train.matrix, params, train.likelihood.crew)
    data = lgb.Dataset(train.matrix, reference=bins, params=params, free_raw_data=True)
    if held_out is None:
        return data, None
    return data, lgb.Dataset(held_out.matrix, reference=data, params=params, free_raw_data=True)


def _location_params(sizes: BoosterSizes, unit: float, seed: int, n_threads: int) -> dict[str, Any]:
    return _COMMON | {
        "num_leaves": min(sizes.location_leaves, 2**sizes.location_depth),
        "max_depth": sizes.location_depth,
        "learning_rate": sizes.location_learning_rate,
        "lambda_l2": 5.0 / unit**2,
        "min_data_in_leaf": sizes.min_rows_in_leaf,
        "max_delta_step": unit,
        "seed": seed,
        "num_threads": n_threads,
    }


def _slope_params(sizes: BoosterSizes, seed: int, n_threads: int) -> dict[str, Any]:
    return _COMMON | {
        "num_leaves": sizes.slope_leaves,
        "learning_rate": sizes.slope_learning_rate,
        "lambda_l2": 50.0,
        "min_data_in_leaf": 5 * sizes.min_rows_in_leaf,
        "max_delta_step": 1.0,
        "seed": seed,
        "num_threads": n_threads,
    }


def _captured(evaluate: Any) -> Doubles:
    """The booster's raw scores, which LightGBM shows to a metric only."""
    seen: list[Doubles] = []

    def metric(scores: Doubles, data: lgb.Dataset) -> tuple[str, float, bool]:
        seen.append(np.array(scores, dtype=np.float64))
        return "none", 0.0, False

    evaluate(feval=metric)
    return seen[0]
