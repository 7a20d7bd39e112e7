"""The refreshed model: the champion's own structure, leaves moved as the plain rule says, nearer to a moved market."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.blueprint import (
    Blueprint,
    Calibration,
    CrossLookup,
    CtrBlueprint,
    Head,
    LocationUnit,
    Lookup,
    Vocabulary,
    WinBlueprint,
)
from bidml.errors import ConfigError, DataError
from bidml.export import model_bytes
from bidml.features import encode, looked_up, margins, raw_columns
from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel, refresh_clicks, refresh_win_curve
from bidml.fit.calibration import calibrated
from bidml.fit.refresh import moved_leaves, moved_terms
from bidml.fit.win_rate import curve_of
from bidml.oracle import tree_function
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from tests.fit.test_ctr import SPEC as CLICK_SPEC
from tests.fit.test_ctr import click_log, sigmoid
from tests.fit.test_win_rate import QUICK
from tests.fit.win_world import SPEC as WIN_SPEC
from tests.fit.win_world import World, make_world


@pytest.fixture(scope="module")
def clicks() -> CtrBlueprint:
    log = click_log(40_000, seed=1)
    return ClickModel(CLICK_SPEC, n_jobs=1).fit(log, log["clicked"]).to_blueprint()


@pytest.fixture(scope="module")
def wins() -> WinBlueprint:
    world = make_world(20_000, seed=1)
    model = WinRateModel(WIN_SPEC, **QUICK).fit(  # type: ignore[arg-type]
        world.X, MarketPriceObservations.from_log(world.log())
    )
    return model.to_blueprint()


def moved_clicks(n: int, *, seed: int) -> pd.DataFrame:
    """The clicks of `click_log`, a day later: half as many in slot 4, twice as many by night, a third more of all."""
    log = click_log(n, seed=seed)
    s = np.log(log["true_pctr"] / (1.0 - log["true_pctr"])).to_numpy() + 0.3
    s += np.where(log["slot"] == 4, -0.7, 0.0) + np.where(log["hour"] < 6, 0.7, 0.0)
    p = sigmoid(s)
    clicked = np.random.default_rng(seed + 100).random(n) < p
    return log.assign(true_pctr=p, clicked=clicked)


def moved_prices(world: World) -> World:
    """A fifth dearer, and half as dear again on device 1."""
    by = 0.2 + np.where(world.X["device"].to_numpy() == 1, 0.4, 0.0)
    truth = replace(world.truth, location=world.truth.location + by)
    return replace(world, market_price_cpm=world.market_price_cpm * np.exp(by), truth=truth)


def excess(model: CtrBlueprint, log: pd.DataFrame) -> float:
    """Expected log loss over the truth's."""
    s, p = log_odds(model, log), log["true_pctr"].to_numpy()
    entropy = -(p * np.log(p) + (1.0 - p) * np.log1p(-p))
    return float((np.logaddexp(0.0, s) - p * s - entropy).mean())


def log_odds(model: CtrBlueprint, log: pd.DataFrame) -> Any:
    return calibrated(model.calibration, margins(raw_columns(log, CLICK_SPEC), model.head))


# ---- laws ----------------------------------------------------------------------------------------------------


def plainly_moved(
    head: Head, matrix: Any, margin: Any, y: Any, *, learning_rate: float, prior: float
) -> tuple[list[float], list[float]]:
    """The rule of `moved_leaves` for clicks, one row and one tree at a time, by the oracle's own walk."""
    assert head.trees is not None
    marked = replace(head.trees, leaf=array("d", range(len(head.trees.leaf))))
    leaf, margin = list(head.trees.leaf), list(margin)
    per_leaf = head.scale / head.divisor
    for root in head.trees.roots:
        walk = tree_function(replace(marked, roots=array("q", [root])))
        reached = [int(walk(row)) for row in matrix]
        for number in sorted(set(reached)):
            rows = [i for i, at in enumerate(reached) if at == number]
            p = [1.0 / (1.0 + math.exp(-margin[i])) for i in rows]
            g = math.fsum(q - y[i] for q, i in zip(p, rows, strict=True))
            step = -learning_rate * g / (math.fsum(q * (1.0 - q) for q in p) + prior)
            leaf[number] += step / per_leaf
            for i in rows:
                margin[i] += step
    return leaf, margin


@settings(max_examples=10, deadline=None)
@given(
    rate=st.floats(0.01, 1.0),
    prior=st.floats(0.5, 100.0),
    scale=st.floats(0.1, 3.0),
    seed=st.integers(0, 99),
)
def test_leaves_move_as_the_plain_rule_says(
    clicks: CtrBlueprint, rate: float, prior: float, scale: float, seed: int
) -> None:
    log = click_log(200, seed=seed)
    raw, y = raw_columns(log, CLICK_SPEC), log["clicked"].to_numpy(dtype=float)
    trees = clicks.head.trees
    assert trees is not None
    head = replace(clicks.head, trees=replace(trees, roots=trees.roots[:12]), scale=scale)

    def evidence(s: Any) -> Any:
        return sigmoid(s) - y, sigmoid(s) * (1.0 - sigmoid(s))

    start = margins(raw, head)
    found, margin = moved_leaves(head, raw, start, evidence, learning_rate=rate, prior=prior)
    leaf, plain = plainly_moved(head, encode(raw, head), start, y, learning_rate=rate, prior=prior)
    assert found.trees is not None
    np.testing.assert_allclose(found.trees.leaf, leaf, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(margin, plain, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(margins(raw, found), margin, rtol=1e-9, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(rate=st.floats(0.01, 1.0), prior=st.floats(0.5, 100.0), seed=st.integers(0, 99))
def test_weights_move_as_the_plain_rule_says(
    clicks: CtrBlueprint, rate: float, prior: float, seed: int
) -> None:
    """Term by term and text by text; a cross of two, an unseen text and a missing one among them."""
    log = click_log(300, seed=seed)
    log.loc[:20, "app"] = "never seen"
    raw, y = raw_columns(log, CLICK_SPEC), log["clicked"].to_numpy(dtype=float)
    sides = [Vocabulary(name, ("app0", "app1") if name == "app" else ("1", "2")) for name in ("app", "slot")]
    cross = CrossLookup(*sides, array("d", [0.0, 4.0]), array("d", [0.3, -0.2]), 0.1)
    head = replace(clicks.head, terms=(*clicks.head.terms, cross))

    def evidence(s: Any) -> Any:
        return sigmoid(s) - y, sigmoid(s) * (1.0 - sigmoid(s))

    start = margins(raw, head)
    found = moved_terms(head, raw, start, evidence, learning_rate=rate, prior=prior)
    margin = start.copy()
    for term in head.terms:
        worth = looked_up(term, raw)
        names = (
            [raw[side.feature] for side in term.sides]
            if isinstance(term, CrossLookup)
            else [raw[term.feature]]
        )
        groups: dict[Any, list[int]] = {}
        for i, texts in enumerate(zip(*names, strict=True)):
            groups.setdefault(known_key(term, texts), []).append(i)
        for rows in groups.values():
            p = sigmoid(margin[rows])
            step = -rate * (p - y[rows]).sum() / ((p * (1.0 - p)).sum() + prior)
            assert np.ptp(worth[rows]) == 0.0
            margin[rows] += step
    np.testing.assert_allclose(margins(raw, found), margin, rtol=1e-9, atol=1e-12)
    for before, after in zip(head.terms, found.terms, strict=True):
        assert len(after.values) == len(before.values)


def known_key(term: Lookup | CrossLookup, texts: tuple[str, ...]) -> Any:
    """What the bidder tells apart: a key, a pair of them, or all others."""
    if isinstance(term, Lookup):
        return texts[0] if texts[0] in term.keys else None
    first, second = (
        side.keys.index(text) if text in side.keys else len(side.keys)
        for side, text in zip(term.sides, texts, strict=True)
    )
    code = float(first * term.second.n_numbers + second)
    return code if code in term.codes else None


def test_only_leaves_and_levels_change(clicks: CtrBlueprint, wins: WinBlueprint) -> None:
    """Same trees and keys; so the same size and the same speed."""
    log, world = moved_clicks(5_000, seed=3), moved_prices(make_world(5_000, seed=3))
    newer = refresh_clicks(clicks, log, log["clicked"], spec=CLICK_SPEC)
    assert newer.head != clicks.head
    assert replace(with_leaves_of(newer.head, clicks.head), terms=clicks.head.terms) == clicks.head
    assert [term.keys for term in newer.head.terms] == [term.keys for term in clicks.head.terms]
    curve = refresh_win_curve(wins, world.X, MarketPriceObservations.from_log(world.log()), spec=WIN_SPEC)
    assert curve.location != wins.location
    location = replace(with_leaves_of(curve.location, wins.location), intercept=wins.location.intercept)
    assert location == wins.location
    assert replace(curve.log_slope, intercept=wins.log_slope.intercept) == wins.log_slope
    assert curve.reference_log_bid_cpm == wins.reference_log_bid_cpm


def with_leaves_of(head: Head, other: Head) -> Head:
    assert head.trees is not None
    assert other.trees is not None
    return replace(head, trees=replace(head.trees, leaf=other.trees.leaf))


def test_weights_are_repetitions(clicks: CtrBlueprint) -> None:
    log = moved_clicks(3_000, seed=4)
    times = np.random.default_rng(0).integers(1, 4, len(log))
    weighted = refresh_clicks(clicks, log, log["clicked"], spec=CLICK_SPEC, sample_weight=times)
    often = log.loc[log.index.repeat(times)]
    repeated = refresh_clicks(clicks, often, often["clicked"], spec=CLICK_SPEC)
    np.testing.assert_allclose(log_odds(weighted, log), log_odds(repeated, log), rtol=1e-6, atol=1e-6)


# ---- nearer to a market that moved ---------------------------------------------------------------------------


def test_clicks_follow(clicks: CtrBlueprint) -> None:
    """Level and interactions: half of what the champion lost is regained, a third more than by its level alone."""
    newer, test = moved_clicks(20_000, seed=5), moved_clicks(20_000, seed=6)
    refreshed = refresh_clicks(clicks, newer, newer["clicked"], spec=CLICK_SPEC)
    level_only = refresh_clicks(
        clicks, newer, newer["clicked"], spec=CLICK_SPEC, learning_rate=1e-9, calibration="platt"
    )
    assert excess(refreshed, test) < 0.7 * excess(level_only, test) < 0.7 * excess(clicks, test)


def test_prices_follow(wins: WinBlueprint) -> None:
    """Better than the champion, than its level alone moved, and than a model of these few rows alone; in money, too."""
    newer, test = moved_prices(make_world(5_000, seed=5)), moved_prices(make_world(20_000, seed=6))
    seen = MarketPriceObservations.from_log(newer.log())
    models = (
        refresh_win_curve(wins, newer.X, seen, spec=WIN_SPEC),
        refresh_win_curve(wins, newer.X, seen, spec=WIN_SPEC, learning_rate=1e-9),
        WinRateModel(WIN_SPEC, **QUICK).fit(newer.X, seen).to_blueprint(),  # type: ignore[arg-type]
        wins,
    )
    columns, truth = raw_columns(test.X, WIN_SPEC), test.truth.win_rate(test.bid_cpm)
    curves = [curve_of(model, columns) for model in models]
    errors = [np.abs(curve.win_rate(test.bid_cpm) - truth).mean() for curve in curves]
    surplus = [test.surplus_of_oracle(curve)[0] for curve in curves]
    assert errors[0] < 0.97 * errors[1] < min(errors[2:])
    assert surplus[0] > surplus[1] > max(surplus[2:])
    assert surplus[0] > surplus[3] + 0.01


def test_what_did_not_move_stays(clicks: CtrBlueprint) -> None:
    """On rows of the champion's own market the refreshed model is no worse than a hair."""
    same, test = click_log(10_000, seed=7), click_log(20_000, seed=8)
    refreshed = refresh_clicks(clicks, same, same["clicked"], spec=CLICK_SPEC)
    assert excess(refreshed, test) < 1.1 * excess(clicks, test)


def test_few_clicks_move_the_level_only(clicks: CtrBlueprint) -> None:
    """Fewer than 200: leaves would follow noise."""
    log = moved_clicks(1_500, seed=3)
    assert 50 < log["clicked"].sum() < 200
    newer = refresh_clicks(clicks, log, log["clicked"], spec=CLICK_SPEC)
    assert newer.head == clicks.head
    assert newer.calibration != clicks.calibration


# ---- the artifact --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calibration", ["beta", "isotonic"])
def test_a_refreshed_model_is_an_artifact(clicks: CtrBlueprint, calibration: str) -> None:
    log = moved_clicks(2_000, seed=9)
    newer = refresh_clicks(clicks, log, log["clicked"], spec=CLICK_SPEC, calibration=calibration)
    blueprint = Blueprint(spec=CLICK_SPEC, ctr=newer, win=None, currency="USD")
    scorer = Scorer(parse_artifact(model_bytes(blueprint, self_check_of(blueprint, {}))))
    raw = {name: cells.tolist() for name, cells in raw_columns(log, CLICK_SPEC).items()}
    found = {"pctr": array("d", bytes(8 * len(log)))}
    scorer.score_many(raw, found)
    np.testing.assert_allclose(found["pctr"], sigmoid(log_odds(newer, log)), rtol=1e-12)


# ---- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"learning_rate": 0.0}, {"learning_rate": 1.5}, {"prior": 0.0}, {"prior": math.nan}]
)
def test_options_out_of_range(clicks: CtrBlueprint, options: dict[str, float]) -> None:
    log = click_log(5_000, seed=1)
    with pytest.raises(ConfigError):
        refresh_clicks(clicks, log, log["clicked"], spec=CLICK_SPEC, **options)


def test_one_sided_rows_are_refused(clicks: CtrBlueprint, wins: WinBlueprint) -> None:
    log, world = click_log(500, seed=1), make_world(500, seed=1)
    with pytest.raises(DataError):
        refresh_clicks(clicks, log, np.zeros(500), spec=CLICK_SPEC)
    lost = MarketPriceObservations.from_log(world.log().assign(won=False))
    with pytest.raises(DataError, match="no win"):
        refresh_win_curve(wins, world.X, lost, spec=WIN_SPEC)


def test_a_location_in_log_odds_is_refused(wins: WinBlueprint) -> None:
    world = make_world(500, seed=1)
    with pytest.raises(ConfigError, match="ln price"):
        refresh_win_curve(
            replace(wins, location_unit=LocationUnit.LOG_ODDS),
            world.X,
            MarketPriceObservations.from_log(world.log()),
            spec=WIN_SPEC,
        )


def test_a_head_without_trees_keeps_its_terms() -> None:
    head = Head((), None, intercept=-2.7)
    log = click_log(2_000, seed=1)
    newer = refresh_clicks(CtrBlueprint(head, Calibration()), log, log["clicked"], spec=CLICK_SPEC)
    assert newer.head == head
    assert sigmoid(log_odds(newer, log)).mean() == pytest.approx(log["clicked"].mean(), rel=0.05)
