"""Weights of bins in order: the mode of their posterior, smooth where events are few, flat where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solveh_banded

from bidml.fit.random_walk import RandomWalk


def walk(n_bins: int) -> RandomWalk:
    return RandomWalk(n_bins, at_first=0.05, assumed=0.005)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 30))
def test_the_first_mode_solves_its_equations(seed: int, n: int) -> None:
    """Against SciPy's banded solver, λ = 1 / (a tenth of 0.05), κ = 1 / 0.05."""
    rng = np.random.default_rng(seed)
    score, information = rng.normal(size=n + 1), rng.gamma(1.0, 5.0, n + 1)
    step = 1.0 / 0.005
    diagonal = information[:n] + step * np.r_[1.0, np.full(n - 2, 2.0), 1.0]
    exact = solveh_banded(np.array([np.r_[0.0, np.full(n - 1, -step)], diagonal]), score[:n])
    found = walk(n).mode(score, information)
    assert found[:n] == pytest.approx(exact, rel=1e-6, abs=1e-9)
    assert found[n] == pytest.approx(score[n] / (information[n] + 20.0))


def settled(score: np.ndarray, information: np.ndarray) -> np.ndarray:
    prior = walk(len(score) - 1)
    for _ in range(30):
        found = prior.mode(score, information)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_is_told_better_than_bin_by_bin(seed: int) -> None:
    """Six tenths of the error, at most, of the best shrinkage of 16 bins of 30 events; nothing is nearly nothing."""
    rng = np.random.default_rng(seed)
    at, information = np.linspace(-1.0, 1.0, 16), np.full(17, 30.0)
    errors = []
    for _ in range(40):
        truth = np.append(0.5 * np.sin(2.0 * at + rng.normal()), 0.0)
        score = information * truth + rng.normal(size=17) * information**0.5
        alone = score / (information + 1.0 / truth.var())
        errors.append([((w - truth)[:16].var()) for w in (settled(score, information), alone)])
    own, of_alone = np.mean(errors, axis=0)
    assert own < 0.6 * of_alone
    noise = rng.normal(size=17) * information**0.5
    assert settled(noise, information)[:16].std() < 0.08  # a bin by itself: 0.18


def test_much_evidence_is_believed() -> None:
    """A step stays a step."""
    truth = np.r_[np.zeros(8), np.ones(8), -0.5]
    information = np.full(17, 1e6)
    assert settled(information * truth, information) == pytest.approx(truth, abs=1e-3)


def test_bins_without_events_lie_between_their_neighbours() -> None:
    information = np.array([1e5, 0.0, 0.0, 1e5, 10.0])
    found = settled(information * np.array([0.0, 0.0, 0.0, 0.9, 0.0]), information)
    assert found[:4] == pytest.approx([0.0, 0.3, 0.6, 0.9], abs=1e-3)


def test_one_bin_and_no_event() -> None:
    """A constant number; a number that no row has: finite, and nothing."""
    assert walk(1).mode(np.array([3.0, 0.0]), np.array([1.5, 0.0])) == pytest.approx([2.0, 0.0])
    assert walk(4).mode(np.zeros(5), np.zeros(5)) == pytest.approx(np.zeros(5))


def test_a_copy_goes_its_own_way() -> None:
    one, other = walk(4), walk(4)
    score, information = np.arange(5.0), np.full(5, 20.0)
    one.copy().mode(10.0 * score, information)
    assert (one.mode(score, information) == other.mode(score, information)).all()
    assert (one.copy().mode(score, information) == one.mode(score, information)).all()
