"""Pairs that the clicks ask for: found where there are some, seldom where there are none, never for their sides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import chi2, norm

from bidml.features import looked_up
from bidml.fit.binned_numbers import BinnedNumber
from bidml.fit.crosses import CrossedCategories, Pair, cross_categories
from bidml.fit.encoding import Categories
from bidml.fit.found_crosses import LEAST_Z, _standard_normal, strongest_pair, strongest_slopes
from bidml.fit.mixed_base import fit_mixed_base
from bidml.metrics import log_loss_from_log_odds

N = 30_000


class World:
    """Apps of unequal size, campaigns, countries; placements lie in apps. Clicks of 3 %."""

    def __init__(self, seed: int, *, pair_sd: float, slope_sd: float = 0.0, n: int = N) -> None:
        rng = np.random.default_rng(seed)
        app = np.minimum(rng.zipf(1.3, n), 60) - 1
        cells = {
            "app": app,
            "campaign": rng.integers(0, 10, n),
            "country": rng.integers(0, 20, n),
            "placement": app * 3 + rng.integers(0, 3, n),
        }
        self.truth = (
            logit(0.03)
            + rng.normal(0.0, 0.4, 60)[app]
            + rng.normal(0.0, 0.3, 10)[cells["campaign"]]
            + rng.normal(0.0, pair_sd, (60, 10))[app, cells["campaign"]]
        )
        slope = rng.normal(0.0, slope_sd, 10)
        age = rng.integers(16, 66, n).astype(float) + 10.0 * (cells["country"] % 2)  # by country, too
        self.truth += (slope[cells["campaign"]] + 0.3) * (age - 41.0) / 15.0
        age[rng.random(n) < 0.3] = np.nan
        self.truth[np.isnan(age)] = logit(0.03)
        self.age = age
        self.y = (rng.random(n) < expit(self.truth)).astype(float)
        self.texts = {name: column.astype(str).astype(object) for name, column in cells.items()}

    def categories(self, rows: slice = slice(None)) -> dict[str, Categories]:
        return {name: Categories.of(name, texts[rows]) for name, texts in self.texts.items()}

    def crossing(self, categories: dict[str, Categories]):
        def cross(pair: Pair) -> CrossedCategories:
            return next(iter(cross_categories(categories, [pair]).values()))

        return cross

    def fit(
        self,
        rows: slice = slice(None),
        *,
        find: bool = True,
        weight: np.ndarray | None = None,
        numbers: bool = False,
    ):
        categories, y = self.categories(rows), self.y[rows]
        return fit_mixed_base(
            list(categories.values()),
            [("age", self.age[rows])] if numbers else [],
            y,
            base_log_odds=float(logit(y.mean())),
            time=np.arange(len(y)),
            weight=weight,
            find=self.crossing(categories) if find else None,
        )


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_that_matters_is_found_and_lowers_the_loss_of_new_rows(seed: int) -> None:
    """And no other, not the placement's with the campaign, which go together for the same reason."""
    world = World(seed, pair_sd=0.6, n=3 * N)
    train, new = slice(0, 2 * N), slice(2 * N, None)
    losses = []
    for find in (True, False):
        base = world.fit(train, find=find)
        raw = {name: texts[new] for name, texts in world.texts.items()}
        s = base.whole.intercept + sum(looked_up(term, raw) for term in base.terms)
        losses.append(log_loss_from_log_odds(expit(world.truth[new]), s))
        assert list(base.found) == ([("app", "campaign")] if find else [])
    assert losses[0] < losses[1]


def test_where_nothing_goes_together_little_is_found() -> None:
    """Six pairs a world, 60 worlds; at a threshold of 1.2 there would be a dozen."""
    found = [bool(World(seed, pair_sd=0.0, n=5_000).fit().found) for seed in range(60)]
    assert sum(found) <= 3


def knows_neither_scale_nor_order(
    strongest: Callable[[np.ndarray, np.ndarray | None], tuple[Pair, float]],
    weight: np.ndarray,
    order: np.ndarray,
    factor: float,
) -> None:
    straight = np.arange(3_000)
    pair, z = strongest(straight, weight)
    for rows, w in ((straight, weight * factor), (order, weight)):
        assert strongest(rows, w) == (pair, pytest.approx(z, abs=1e-6))
    plain = strongest(straight, None)
    assert strongest(straight, np.full(3_000, factor)) == (plain[0], pytest.approx(plain[1], abs=1e-6))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.2, 5.0))
def test_neither_the_scale_of_weights_nor_the_order_of_rows_matters(seed: int, factor: float) -> None:
    world = World(seed, pair_sd=0.5, n=3_000)
    rng = np.random.default_rng(seed)
    p = expit(world.truth * 0.5 + 0.5 * logit(0.03))
    weight, order = rng.uniform(0.5, 2.0, 3_000), rng.permutation(3_000)

    def strongest(rows: np.ndarray, w: np.ndarray | None) -> tuple[Pair, float]:
        features = [Categories.of(name, texts[rows]) for name, texts in world.texts.items()]
        found = strongest_pair(features, world.y[rows], p[rows], weight=None if w is None else w[rows])
        assert found is not None
        return found

    knows_neither_scale_nor_order(strongest, weight, order, factor)


def test_the_score_is_that_of_its_formula() -> None:
    """Two pairs of two, by hand: residuals that agree in cells and cancel in sides."""
    one = Categories.of("one", np.array(["a", "a", "b", "b"] * 50, dtype=object))
    other = Categories.of("other", np.array(["x", "y", "x", "y"] * 50, dtype=object))
    y = np.array([1.0, 0.0, 0.0, 1.0] * 50)
    found = strongest_pair([one, other], y, np.full(200, 0.5))
    cells, variance = 4, 50 * 0.25
    noise = 200 * 0.25 + 2 * cells * variance**2
    freedom = 2.0 * (cells * variance) ** 2 / noise
    root = (cells * 25.0**2 / (cells * variance)) ** (1.0 / 3.0)
    z = (root - 1.0 + 2.0 / (9.0 * freedom)) / np.sqrt(2.0 / (9.0 * freedom))
    assert found == (("one", "other"), pytest.approx(z))
    assert found[1] > LEAST_Z


@pytest.mark.parametrize("freedom", [3.0, 10.0, 200.0])
@pytest.mark.parametrize("times", [0.5, 1.0, 1.5, 2.5])
def test_a_sum_of_squares_is_as_unlikely_as_its_standard_errors_say(freedom: float, times: float) -> None:
    """Against SciPy's χ²: of 10 degrees, two and a half times the mean are 2.6 standard errors, not 3.4."""
    exact = norm.isf(chi2(freedom).sf(times * freedom))
    assert _standard_normal(times, 1.0, 2.0 / freedom) == pytest.approx(exact, abs=0.04, rel=0.01)


def test_no_pair_is_none() -> None:
    """One feature, constants, pairs that are there already."""
    site = Categories.of("site", np.array(["a", "b"] * 20, dtype=object))
    constant = Categories.of("constant", np.array(["c"] * 40, dtype=object))
    app = Categories.of("app", np.array(["d", "e", "d", "d"] * 10, dtype=object))
    y, p = np.array([0.0, 1.0] * 20), np.full(40, 0.5)
    assert strongest_pair([site, constant], y, p) is None
    assert strongest_pair([site, app], y, p, without={frozenset(("app", "site"))}) is None


def test_a_pair_that_is_one_of_its_sides_is_none() -> None:
    app = np.arange(4_000) % 7
    app_c = Categories.of("app", app.astype(str).astype(object))
    placement = Categories.of("placement", (app * 2 + app % 2).astype(str).astype(object))
    y = (app == 3).astype(float)
    found = strongest_pair([app_c, placement], y, np.full(4_000, y.mean()))
    assert found == (("app", "placement"), -np.inf)


@pytest.mark.parametrize("seed", range(4))
def test_slopes_that_differ_are_found_and_lower_the_loss_of_new_rows(seed: int) -> None:
    """And nothing else: not the country, whose ages differ, nor what age does everywhere."""
    world = World(seed, pair_sd=0.0, slope_sd=0.4, n=3 * N)
    train, new = slice(0, 2 * N), slice(2 * N, None)
    raw = {name: texts[new] for name, texts in world.texts.items()} | {"age": world.age[new]}
    losses = []
    for find in (True, False):
        base = world.fit(train, find=find, numbers=True)
        s = base.whole.intercept + sum(looked_up(term, raw) for term in base.terms)
        s = s + sum(steps.of(raw) for steps in base.steps)
        losses.append(log_loss_from_log_odds(expit(world.truth[new]), s))
        assert list(base.found) == ([("campaign", "age")] if find else [])
    assert losses[0] < losses[1]


def test_where_no_slope_differs_few_are_found() -> None:
    """Four slopes a world, with a bend each, 60 worlds; categories and the number matter by themselves."""
    found = [list(World(seed, pair_sd=0.0, n=5_000).fit(numbers=True).found) for seed in range(60)]
    assert sum(("age" in pair) for pairs in found for pair in pairs) <= 2


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.2, 5.0))
def test_slopes_know_neither_the_scale_of_weights_nor_the_order_of_rows(seed: int, factor: float) -> None:
    world = World(seed, pair_sd=0.0, slope_sd=0.4, n=3_000)
    rng = np.random.default_rng(seed)
    p, number = expit(world.truth), BinnedNumber.of("age", world.age, n_bins=8)
    weight, order = rng.uniform(0.5, 2.0, 3_000), rng.permutation(3_000)

    def strongest(rows: np.ndarray, w: np.ndarray | None) -> tuple[Pair, float]:
        features = [Categories.of(name, texts[rows]) for name, texts in world.texts.items()]
        bins = number.codes(world.age[rows])
        w = None if w is None else w[rows]
        found = strongest_slopes(features, [(number, bins)], world.y[rows], p[rows], weight=w)
        assert found is not None
        return found

    knows_neither_scale_nor_order(strongest, weight, order, factor)


def test_standard_errors_of_slopes_are_those_of_a_normal() -> None:
    """Of the truth's own residuals, 400 worlds of ten campaigns: the mean is about 0, the spread about 1."""
    found = []
    for seed in range(400):
        world = World(seed, pair_sd=0.0, n=4_000)
        campaign, number = (
            Categories.of("campaign", world.texts["campaign"]),
            BinnedNumber.of("age", world.age),
        )
        rng = np.random.default_rng(seed)
        p = expit(world.truth)
        y = (rng.random(4_000) < p).astype(float)
        asked = strongest_slopes([campaign], [(number, number.codes(world.age))], y, p)
        assert asked is not None
        found.append(asked[1])
    greater_of_two = np.maximum(*np.random.default_rng(1).normal(size=(2, 100_000)))  # a slope's and a bend's
    assert np.mean(found) == pytest.approx(greater_of_two.mean(), abs=0.15)
    assert np.quantile(found, 0.95) == pytest.approx(np.quantile(greater_of_two, 0.95), abs=0.35)


def test_no_number_no_slope() -> None:
    """A constant number, a category of one text, cells beyond counting."""
    one = Categories.of("one", np.array(["a", "b"] * 50, dtype=object))
    same = Categories.of("same", np.array(["a"] * 100, dtype=object), min_count=100)
    constant, x = BinnedNumber.of("c", np.ones(100)), np.arange(100.0)
    number = BinnedNumber.of("x", x, n_bins=4)
    y, p = np.tile([0.0, 1.0], 50), np.full(100, 0.5)
    assert strongest_slopes([one], [], y, p) is None
    assert strongest_slopes([same], [(number, number.codes(x))], y, p) is None
    asked = strongest_slopes([one], [(constant, constant.codes(np.ones(100)))], y, p)
    assert asked is None or asked[1] == -np.inf
    without = {frozenset(("one", "x"))}
    assert strongest_slopes([one], [(number, number.codes(x))], y, p, without=without) is None
