"""Models and rows of the tree benchmarks: LightGBM ensembles over 40 encoded columns of a synthetic log."""

from __future__ import annotations

from array import array

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from bidml.blueprint import Column, Head
from bidml.lightgbm_trees import head_of_booster

N_COLUMNS = 40

MODELS: dict[str, dict[str, int]] = {
    "100 × 31 leaves": {"n_trees": 100, "num_leaves": 31},
    "300 × 63 leaves": {"n_trees": 300, "num_leaves": 63},
    "300, depth 5": {"n_trees": 300, "num_leaves": 32, "max_depth": 5},
    "100, depth 5": {"n_trees": 100, "num_leaves": 32, "max_depth": 5},
}


def ad_rows(n_rows: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n_rows, 40) encoded columns and 0/1 clicks: 20 target and 8 price statistics, 12 raw numbers.

    The categories behind the statistics are heavy-tailed, with 3 to 8,000 values.
    """
    cardinalities = np.geomspace(3, 8_000, 20).astype(int)
    logit = np.full(n_rows, -3.2)
    codes, columns = [], []
    for cardinality in cardinalities:
        code = np.minimum((rng.pareto(1.1, n_rows) * cardinality / 20).astype(int), cardinality - 1)
        effect, noise = rng.normal(size=cardinality) * 0.35, rng.normal(size=cardinality) * 0.3
        logit += effect[code]
        columns.append(1.0 / (1.0 + np.exp(3.0 - effect[code] - noise[code])))
        codes.append(code)
    columns += [rng.normal(size=cardinalities[i])[codes[i]] for i in range(8)]
    for i, most in enumerate((24, 7, 50, 500, 1_000, 5_000)):
        steps, smooth = rng.integers(0, most, n_rows).astype(float), rng.normal(size=n_rows)
        logit += 0.2 * np.tanh(steps / 10 - 1) * (columns[2 * i] * 10 - 0.5) + 0.2 * np.tanh(smooth)
        columns += [steps, smooth]
    x = np.ascontiguousarray(np.stack(columns, axis=1))
    return x, (rng.random(n_rows) < 1.0 / (1.0 + np.exp(-logit))).astype(float)


def train(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> lgb.Booster:
    """The LightGBM booster of `MODELS[name]`."""
    shape = dict(MODELS[name])
    n_trees = shape.pop("n_trees")
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 2, "learning_rate": 0.08, "seed": 1}
    return lgb.train(parameters | shape, lgb.Dataset(x, y), n_trees)


def head_of(booster: lgb.Booster) -> Head:
    """The booster as a blueprint's head over the number features x0 .. x39."""
    return head_of_booster(booster, [Column(f"x{i}") for i in range(N_COLUMNS)])


def as_arrays(rows: NDArray[np.float64]) -> list[array[float]]:
    """Each row as an `array.array` of doubles: what a bidder without NumPy holds."""
    return [array("d", row.tolist()) for row in rows]
