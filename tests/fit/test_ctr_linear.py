"""The linear base: FTRL as the paper has it, scores that are out of sample, weights that the artifact serves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.fit.encoding import Categories, lookup_values
from bidml.fit.ftrl import fit_ftrl
from bidml.metrics import auc, calibration_ratio, log_loss_from_log_odds


def sigmoid(s: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-s))


def coded(name: str, cells: np.ndarray) -> Categories:
    return Categories.of(name, cells.astype(str).astype(object), min_count=1)


def sequential_ftrl(
    features: list[Categories], y: np.ndarray, *, alpha: float, l1: float, l2: float, base: float
) -> np.ndarray:
    """The paper's algorithm 1, row by row, β = 1: progressive log-odds."""
    z: dict[tuple[int, int], float] = {}
    n: dict[tuple[int, int], float] = {}

    def weight(key: tuple[int, int]) -> float:
        at = z.get(key, 0.0)
        if abs(at) <= l1:
            return 0.0
        return -(at - np.sign(at) * l1) / ((1.0 + np.sqrt(n[key])) / alpha + l2)

    scores = []
    for i, outcome in enumerate(y):
        keys = [(-1, 0), *((f, int(feature.codes[i])) for f, feature in enumerate(features))]
        scores.append(base + sum(weight(key) for key in keys))
        g = 1.0 / (1.0 + np.exp(-scores[-1])) - outcome
        for key in keys:
            w, old = weight(key), n.get(key, 0.0)
            n[key] = old + g * g
            z[key] = z.get(key, 0.0) + g - (np.sqrt(n[key]) - np.sqrt(old)) / alpha * w
    return np.array(scores)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3]), st.sampled_from([0.1, 1.0]))
def test_one_row_at_a_time_it_is_the_papers_algorithm(seed: int, l1: float, alpha: float) -> None:
    """Instants of one row and batches of one: the first 16 rows are a batch, so time is spread by blocks of 16 equal
    rows of no weight between them."""
    rng = np.random.default_rng(seed)
    n = 12
    cells = [rng.integers(0, 3, n), rng.integers(0, 4, n)]
    y = rng.integers(0, 2, n).astype(float)
    filler = 16  # rows of weight 0 that fill the batch after each row, in the same instant
    spread = np.repeat(np.arange(n), filler)
    weight = np.where(np.arange(n * filler) % filler == 0, 1.0, 0.0)
    features = [coded(f"f{i}", column[spread]) for i, column in enumerate(cells)]
    found = fit_ftrl(
        features,
        y[spread],
        base_log_odds=-1.0,
        weight=weight,
        time=spread,
        rng=rng,
        alphas=[alpha],
        l1=l1,
        l2=0.5,
    )
    plain = [coded(f"f{i}", column) for i, column in enumerate(cells)]
    expected = sequential_ftrl(plain, y, alpha=alpha, l1=l1, l2=0.5, base=-1.0)
    assert found.progressive[::filler] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_no_progressive_score_depends_on_its_own_or_a_later_outcome(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    features, time = [coded("site", rng.integers(0, 20, n))], rng.integers(0, 100, n)
    y = (rng.random(n) < 0.3).astype(float)
    flipped = y.copy()
    i = int(rng.integers(0, n))
    flipped[i] = 1.0 - flipped[i]
    one, other = (
        fit_ftrl(features, outcome, base_log_odds=-1.0, time=time, rng=rng, alphas=[0.3]).progressive
        for outcome in (y, flipped)
    )
    assert (one[time <= time[i]] == other[time <= time[i]]).all()


def test_served_weights_predict_new_rows_as_well_as_logistic_regression() -> None:
    """Additive truth over three fields: log loss within 0.5 % of scikit-learn's on one-hot columns; calibrated."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(1)
    n = 120_000
    cells = [rng.integers(0, levels, n) for levels in (5, 40, 400)]
    s = -3.0 + sum(rng.normal(0.0, 0.5, column.max() + 1)[column] for column in cells)
    y = (rng.random(n) < sigmoid(s)).astype(float)
    train, new = slice(0, 90_000), slice(90_000, n)
    features = [coded(f"f{i}", column[train]) for i, column in enumerate(cells)]
    found = fit_ftrl(features, y[train], base_log_odds=-3.0, time=np.arange(90_000), rng=rng)
    texts = [column.astype(str).astype(object)[new] for column in cells]
    served = found.intercept + sum(lookup_values(t, x) for t, x in zip(found.terms, texts, strict=True))
    encoder = OneHotEncoder(handle_unknown="ignore")
    design = encoder.fit_transform(np.column_stack(cells)[train])
    peer = LogisticRegression(C=1.0, max_iter=300).fit(design, y[train])
    peer_loss = log_loss_from_log_odds(
        y[new], peer.decision_function(encoder.transform(np.column_stack(cells)[new]))
    )
    assert log_loss_from_log_odds(y[new], served) < 1.005 * peer_loss
    assert calibration_ratio(y[new], sigmoid(served)) == pytest.approx(1.0, abs=0.06)
    # the last progressive scores are as good as what is served: no row had seen itself
    late = slice(80_000, 90_000)
    assert auc(y[late], found.progressive[late]) == pytest.approx(auc(y[new], served), abs=0.03)


def test_noise_stays_noise() -> None:
    """30,000 users in 40,000 coin tosses: progressive scores know nothing, and say so."""
    rng = np.random.default_rng(2)
    features = [coded("user", rng.integers(0, 30_000, 40_000))]
    y = (rng.random(40_000) < 0.2).astype(float)
    found = fit_ftrl(features, y, base_log_odds=float(np.log(0.25)), rng=rng)
    assert auc(y, found.progressive) == pytest.approx(0.5, abs=0.02)
    assert found.progressive.std() < 0.1
