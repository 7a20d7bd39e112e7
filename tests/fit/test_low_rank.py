"""Effects of low rank: the posterior's mean against an integral, and what it is worth at few clicks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from bidml.fit.low_rank import LowRank, Sides


def table(n_first: int, n_second: int) -> Sides:
    first, second = np.divmod(np.arange(n_first * n_second), n_second)
    return Sides(first, second, n_first, n_second)


def settled(low_rank: LowRank, score: np.ndarray, information: np.ndarray, n: int) -> np.ndarray:
    for _ in range(10):
        low_rank.draw(score, information)
    return np.mean([low_rank.draw(score, information) for _ in range(n)], axis=0)


@pytest.mark.parametrize(("score", "information"), [(3.0, 2.0), (-1.0, 5.0), (8.0, 8.0), (0.5, 0.1)])
def test_one_cell_has_the_mean_of_its_posterior(score: float, information: float) -> None:
    """u and v with variances that are scaled inverse χ² of 4 degrees are Student's t of 4: a double integral."""
    variance = 0.25
    at = np.linspace(-30.0, 30.0, 6001)
    prior = t(4, scale=variance**0.25).pdf(at)
    effect = np.outer(at[::10], at)
    density = np.outer(prior[::10], prior) * np.exp(score * effect - 0.5 * information * effect**2)
    exact = (effect * density).sum() / density.sum()
    sampler = LowRank(table(1, 1), 1, variance=variance)
    found = settled(sampler, np.array([score]), np.array([information]), 1500)
    assert found[0] == pytest.approx(exact, rel=0.06, abs=0.004)


def worlds(seed: int, *, together: bool) -> tuple[Sides, np.ndarray, np.ndarray, np.ndarray]:
    """200 × 10 cells of standard deviation 0.5 that saw three events each: (sides, truth, score, information)."""
    rng = np.random.default_rng(seed)
    sides = table(200, 10)
    truth = 0.5 * rng.normal(size=len(sides))
    if together:
        truth = (
            0.5 * np.einsum("ik,jk->ij", rng.normal(size=(200, 2)), rng.normal(size=(10, 2))).ravel() / 2**0.5
        )
    information = rng.gamma(2.0, 1.5, len(sides))
    return sides, truth, information * truth + rng.normal(size=len(sides)) * information**0.5, information


@pytest.mark.parametrize("seed", range(3))
def test_cells_learn_from_those_beside_them(seed: int) -> None:
    """Six tenths of the error, at most, of a cell by itself that knows its variance; and where nothing is of low rank,
    no more than what nobody knows."""
    for together in (True, False):
        sides, truth, score, information = worlds(seed, together=together)
        found = settled(LowRank(sides, 5, variance=0.05), score, information, 5)
        alone = score / (information + 1.0 / truth.var())
        error, of_alone = (((each - truth) ** 2).mean() for each in (found, alone))
        assert error < (0.6 * of_alone if together else 1.05 * truth.var())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_cells_says_nothing_and_a_copy_goes_its_own_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = table(6, 5)
    order = rng.permutation(len(sides))
    shuffled = Sides(sides.first[order], sides.second[order], 6, 5)
    score, information = rng.normal(size=30), rng.random(30)
    one, other = (LowRank(each, 2, variance=0.05) for each in (sides, shuffled))
    by_one = one.draw(score, information)
    assert other.draw(score[order], information[order]) == pytest.approx(by_one[order], abs=1e-9)
    copy = one.copy()
    copy.draw(score + 1.0, information)
    assert (copy.copy().draw(score, information) != other.copy().draw(score, information)).any()
    again = other.draw(score[order], information[order])
    assert again == pytest.approx(one.draw(score, information)[order], abs=1e-9)


def test_what_saw_nothing_is_nothing() -> None:
    found = settled(LowRank(table(20, 20), 3, variance=0.05), np.zeros(400), np.zeros(400), 50)
    assert np.abs(found).max() < 0.1
