"""Candidates for the gate: healthy ones, as retraining makes them, and sabotaged ones, each with one flaw.

One world, one week; models learn from different parts of its first days and are judged on its last. Parts (CTR, win
curve) are fitted once and combined; sabotage works on the finished blueprint.
"""

from __future__ import annotations

import math
import warnings
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, Lookup, Trees, WinBlueprint
from bidml.contract import AuctionType, FeatureSpec
from bidml.export import model_bytes
from bidml.features import raw_columns
from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel
from bidml.self_check import self_check_of
from bidml.simulate import Market, draw_world

WINDOW = ["2026-11-01T00:00:00+00:00", "2026-11-08T00:00:00+00:00"]
MARKET = Market(
    base_ctr=0.1, n_apps=120, days=7.0, start=datetime(2026, 11, 1, tzinfo=UTC), observed_win_rate=0.45
)
TRAIN_ROWS = 14_000
TEST_ROWS = 14_000
PRICE_TO_LEARN = {"n_location_trees": 25, "slope": "global", "refit": False, "n_jobs": 1}
CLICKS_TO_LEARN = {"n_jobs": 1}


@dataclass(frozen=True)
class Zoo:
    """`ctr`, `win`: parts that learnt from different samples; `foreign`: from another world; `leaky`: saw the click.

    `leaking_test` is `test` as a pipeline with the same leak would hand it over.
    """

    test: pd.DataFrame
    leaking_test: pd.DataFrame
    spec: FeatureSpec
    ctr: tuple[CtrBlueprint, ...]
    win: tuple[WinBlueprint, ...]
    foreign: Blueprint
    leaky: CtrBlueprint

    def healthy(self, ctr: int, win: int) -> Blueprint:
        return self.blueprint(self.ctr[ctr], self.win[win])

    def blueprint(self, ctr: CtrBlueprint, win: WinBlueprint) -> Blueprint:
        return Blueprint(
            spec=self.spec,
            ctr=ctr,
            win=win,
            currency="USD",
            provenance={"window": WINDOW, "n_train": TRAIN_ROWS},
        )


def artifact(blueprint: Blueprint) -> bytes:
    return model_bytes(blueprint, self_check_of(blueprint, {}))


def open_zoo(n_ctr: int, n_win: int) -> Zoo:
    """Trains everything: a few seconds per part."""
    rng = np.random.default_rng(20261101)
    world = draw_world(MARKET, rng=rng)
    n = TRAIN_ROWS * 2 + TEST_ROWS
    simulation = world.simulate(n, rng=rng)
    log, spec = simulation.log, simulation.spec
    early, test = log[: n - TEST_ROWS], log[n - TEST_ROWS :].reset_index(drop=True)
    # what leaks: filled in after the click, by the same pipeline that fills it in for the held-out days
    leaked = log.assign(session_depth=log["session_depth"].where(~log["clicked"], 97.0 + rng.random(n)))
    samples = [
        early.iloc[np.sort(rng.choice(len(early), TRAIN_ROWS, replace=False))].reset_index(drop=True)
        for _ in range(max(n_ctr, n_win))
    ]
    other = draw_world(MARKET, rng=rng).simulate(TRAIN_ROWS, rng=rng).log
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ctr = tuple(learn_clicks(sample, spec) for sample in samples[:n_ctr])
        win = tuple(learn_prices(sample, spec) for sample in samples[:n_win])
        foreign = Blueprint(spec, learn_clicks(other, spec), learn_prices(other, spec), "USD")
        leaky = learn_clicks(leaked[:TRAIN_ROWS], spec)
    leaking_test = leaked[n - TEST_ROWS :].reset_index(drop=True)
    return Zoo(test, leaking_test, spec, ctr, win, foreign, leaky)


def learn_clicks(log: pd.DataFrame, spec: FeatureSpec) -> CtrBlueprint:
    shown = log[log["won"]]
    return (
        ClickModel(spec, **CLICKS_TO_LEARN)
        .fit(shown, shown["clicked"], timestamp=shown["timestamp"])
        .to_blueprint()
    )


def learn_prices(log: pd.DataFrame, spec: FeatureSpec) -> WinBlueprint:
    return WinRateModel(spec, **PRICE_TO_LEARN).fit(log, MarketPriceObservations.from_log(log)).to_blueprint()


# ---- sabotage ----

Sabotage = Callable[[Zoo, Blueprint], "Blueprint | bytes"]


def _with_ctr(b: Blueprint, **changes: Any) -> Blueprint:
    assert b.ctr is not None
    return replace(b, ctr=replace(b.ctr, **changes))


def _with_win(b: Blueprint, **changes: Any) -> Blueprint:
    assert b.win is not None
    return replace(b, win=replace(b.win, **changes))


def _shift_ctr(b: Blueprint, shift: float) -> Blueprint:
    assert b.ctr is not None
    return _with_ctr(b, calibration=replace(b.ctr.calibration, shift=b.ctr.calibration.shift + shift))


def _steepen(b: Blueprint, factor: float) -> Blueprint:
    assert b.ctr is not None
    c = b.ctr.calibration
    return _with_ctr(b, calibration=Calibration(c.positive * factor, c.negative * factor, c.shift))


def _with_leaves(head: Head, change: Callable[[list[float]], list[float]]) -> Head:
    assert head.trees is not None
    return replace(head, trees=replace(head.trees, leaf=array("d", change(list(head.trees.leaf)))))


def _negated(head: Head) -> Head:
    head = _with_leaves(head, lambda leaves: [-x for x in leaves])
    terms = tuple(
        replace(t, values=array("d", [-x for x in t.values]), default=-t.default) for t in head.terms
    )
    return replace(head, terms=terms)


def _shuffled_leaves(head: Head) -> Head:
    return _with_leaves(head, lambda leaves: np.random.default_rng(0).permutation(leaves).tolist())


def _swapped_columns(head: Head) -> Head:
    return replace(head, columns=(*head.columns[1:], head.columns[0]))


def _fewer_trees(head: Head, keep: float) -> Head:
    """As if training had been cut short: the trees after the first few say 0."""
    assert head.trees is not None
    n = max(1, int(len(head.trees.leaf) * keep))
    return _with_leaves(head, lambda leaves: leaves[:n] + [0.0] * (len(leaves) - n))


def _map_lookups(head: Head, change: Callable[[Lookup], Lookup]) -> Head:
    columns = tuple(
        column if column.lookup is None else Column(column.feature, change(column.lookup), column.rewrite)
        for column in head.columns
    )
    return replace(head, columns=columns, terms=tuple(map(change, head.terms)))


def _without_keys(feature: str, share: float) -> Callable[[Lookup], Lookup]:
    """The model never saw most values of a feature."""

    def forget(lookup: Lookup) -> Lookup:
        if lookup.feature != feature:
            return lookup
        kept = max(1, int(len(lookup.keys) * share))
        return replace(lookup, keys=lookup.keys[:kept], values=lookup.values[:kept])

    return forget


def _many_trees(head: Head, times: int) -> Head:
    """The same sum from `times` as many trees."""
    trees = head.trees
    assert trees is not None
    n_nodes, n_leaves = len(trees.column), len(trees.leaf)
    child, is_leaf = (trees.true_child, trees.false_child), (trees.true_is_leaf, trees.false_is_leaf)

    def repeated_links(links: Any, leaves: Any) -> Any:
        return array(
            "q",
            [
                x + i * (n_leaves if leaf else n_nodes)
                for i in range(times)
                for x, leaf in zip(links, leaves, strict=True)
            ],
        )

    made = Trees(
        roots=array("q", [root + i * n_nodes for i in range(times) for root in trees.roots]),
        column=trees.column * times,
        mode=trees.mode * times,
        threshold=trees.threshold * times,
        true_child=repeated_links(child[0], is_leaf[0]),
        false_child=repeated_links(child[1], is_leaf[1]),
        true_is_leaf=trees.true_is_leaf * times,
        false_is_leaf=trees.false_is_leaf * times,
        missing_true=trees.missing_true * times,
        membership=trees.membership * times,
        leaf=array("d", [x / times for x in trees.leaf] * times),
    )
    return replace(head, trees=made)


def _provenance(b: Blueprint, **changes: Any) -> Blueprint:
    return replace(b, provenance={**b.provenance, **changes})


def _elsewhere(b: Blueprint, name: str, source: str) -> Blueprint:
    features = tuple(replace(f, source=source) if f.name == name else f for f in b.spec.features)
    return replace(b, spec=replace(b.spec, features=features))


def _ctr_head(change: Callable[[Head], Head]) -> Sabotage:
    def sabotage(zoo: Zoo, b: Blueprint) -> Blueprint:
        assert b.ctr is not None
        return _with_ctr(b, head=change(b.ctr.head))

    return sabotage


def _location(change: Callable[[Head], Head]) -> Sabotage:
    def sabotage(zoo: Zoo, b: Blueprint) -> Blueprint:
        assert b.win is not None
        return _with_win(b, location=change(b.win.location))

    return sabotage


def _reference(factor: float) -> Sabotage:
    """Every market price times `factor`, as a wrong unit or currency would."""

    def sabotage(zoo: Zoo, b: Blueprint) -> Blueprint:
        assert b.win is not None
        return _with_win(b, reference_log_bid_cpm=b.win.reference_log_bid_cpm + math.log(factor))

    return sabotage


def _slope(factor: float) -> Sabotage:
    def sabotage(zoo: Zoo, b: Blueprint) -> Blueprint:
        assert b.win is not None
        return _with_win(b, slope_scale=b.win.slope_scale * factor)

    return sabotage


def _nan_leaf(zoo: Zoo, b: Blueprint) -> bytes:
    """A leaf of the finished file becomes NaN."""
    assert b.ctr is not None
    assert b.ctr.head.trees is not None
    leaf = array("d", [max(b.ctr.head.trees.leaf, key=abs)]).tobytes()
    return artifact(b).replace(leaf, array("d", [math.nan]).tobytes())


def _flipped_bit(zoo: Zoo, b: Blueprint) -> bytes:
    """The sign of a leaf of the finished file."""
    assert b.ctr is not None
    assert b.ctr.head.trees is not None
    x = max(b.ctr.head.trees.leaf, key=abs)
    return artifact(b).replace(array("d", [x]).tobytes(), array("d", [-x]).tobytes())


SABOTAGE: dict[str, Sabotage] = {
    # the click model
    "clicks: sign flip": _ctr_head(_negated),
    "clicks: times 10": lambda zoo, b: _shift_ctr(b, math.log(10.0)),
    "clicks: a tenth": lambda zoo, b: _shift_ctr(b, -math.log(10.0)),
    "clicks: times 2": lambda zoo, b: _shift_ctr(b, math.log(2.0)),
    "clicks: a half": lambda zoo, b: _shift_ctr(b, -math.log(2.0)),
    "clicks: constant base rate": lambda zoo, b: _with_ctr(
        b, head=Head((), None, intercept=math.log(0.1 / 0.9)), calibration=Calibration()
    ),
    "clicks: constant one half": lambda zoo, b: _with_ctr(b, head=Head((), None), calibration=Calibration()),
    "clicks: three times too sure": lambda zoo, b: _steepen(b, 3.0),
    "clicks: hardly any difference": lambda zoo, b: _steepen(b, 0.2),
    "clicks: columns swapped": _ctr_head(_swapped_columns),
    "prices: training cut short": _location(lambda head: _fewer_trees(head, 0.02)),
    "clicks: no creative was seen": _ctr_head(
        lambda head: _map_lookups(head, _without_keys("creative", 0.1))
    ),
    "clicks: no app was seen": _ctr_head(lambda head: _map_lookups(head, _without_keys("app_bundle", 0.1))),
    "clicks: a leak": lambda zoo, b: replace(b, ctr=zoo.leaky),
    # the win curve
    "prices: sign flip": _location(_negated),
    "prices: times 1000": _reference(1000.0),
    "prices: times 3": _reference(3.0),
    "prices: a third": _reference(1.0 / 3.0),
    "prices: times 1.3": _reference(1.3),
    "prices: four times too sure": _slope(4.0),
    "prices: four times too vague": _slope(0.25),
    "prices: leaves shuffled": _location(_shuffled_leaves),
    "prices: columns swapped": _location(_swapped_columns),
    "prices: one for all": _location(lambda head: Head((), None)),
    "prices: Dagum exponent 5": lambda zoo, b: _with_win(b, gamma=5.0),
    # the file and what it tells
    "another market's model": lambda zoo, b: replace(b, ctr=zoo.foreign.ctr, win=zoo.foreign.win),
    "another market's clicks": lambda zoo, b: replace(b, ctr=zoo.foreign.ctr),
    "another market's prices": lambda zoo, b: replace(b, win=zoo.foreign.win),
    "wrong currency": lambda zoo, b: replace(b, currency="EUR"),
    "no win curve": lambda zoo, b: replace(b, win=None),
    "second price by default": lambda zoo, b: replace(b, default_auction_type=AuctionType.SECOND_PRICE),
    "stale": lambda zoo, b: _provenance(b, window=["2026-10-25T00:00:00+00:00", "2026-11-01T00:00:00+00:00"]),
    "one day only": lambda zoo, b: _provenance(
        b, window=["2026-11-01T00:00:00+00:00", "2026-11-02T00:00:00+00:00"], n_train=TRAIN_ROWS // 7
    ),
    "truncated data": lambda zoo, b: _provenance(b, n_train=TRAIN_ROWS // 3),
    "no provenance": lambda zoo, b: replace(b, provenance={}),
    "the hour read as the weekday": lambda zoo, b: _elsewhere(b, "hour_of_day", "derived.weekday"),
    "the time read elsewhere": lambda zoo, b: replace(
        b, spec=replace(b.spec, timestamp_ms_source="ext.time")
    ),
    "sixty times the trees": lambda zoo, b: _with_ctr(b, head=_many_trees(b.ctr.head, 60)) if b.ctr else b,
    "a NaN leaf": _nan_leaf,
    "a flipped bit": _flipped_bit,
    "a truncated file": lambda zoo, b: artifact(b)[:-100],
    "an empty file": lambda zoo, b: b"",
}


def columns_of(zoo: Zoo) -> dict[str, Any]:
    """The raw columns of the held-out auctions."""
    return dict(raw_columns(zoo.test, zoo.spec))
