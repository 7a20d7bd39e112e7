"""Sabotaged candidates for the gate, each with one flaw, made from a healthy blueprint."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from artifacts import negated, with_leaves
from zoo import TRAIN_ROWS, Zoo, artifact

from bidml.blueprint import Blueprint, Calibration, Column, Head, Lookup, Trees
from bidml.contract import AuctionType
from bidml.features import TreeArrays, encode
from bidml.self_check import self_check_of

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


def _shuffled_values(lookup: Lookup) -> Lookup:
    """The categories' effects, dealt out again."""
    dealt = np.random.default_rng(1).permutation(lookup.values)
    return replace(lookup, values=array("d", dealt.tolist()))


def _raised(feature: str, key_at: int, by: float) -> Callable[[Head], Head]:
    """One value of a category gets so much more log-odds."""

    def raise_it(head: Head) -> Head:
        terms = []
        for term in head.terms:
            if term.feature == feature and len(term.keys) > key_at:
                values = array("d", term.values)
                values[key_at] += by
                term = replace(term, values=values)
            terms.append(term)
        return replace(head, terms=tuple(terms))

    return raise_it


def _shuffled_leaves(head: Head) -> Head:
    return with_leaves(head, lambda leaves: np.random.default_rng(0).permutation(leaves).tolist())


def _swapped_columns(head: Head) -> Head:
    return replace(head, columns=(*head.columns[1:], head.columns[0]))


def _fewer_trees(head: Head, keep: float) -> Head:
    """As if training had been cut short: the trees after the first few say 0."""
    assert head.trees is not None
    n = max(1, int(len(head.trees.leaf) * keep))
    return with_leaves(head, lambda leaves: leaves[:n] + [0.0] * (len(leaves) - n))


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


def _many_trees(head: Head) -> Head:
    """The same sum from many times as many trees."""
    trees = head.trees
    assert trees is not None
    times = 4_000 // trees.n_trees
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
    """The sign of the largest leaf that the finished file's own rows reach: what the certificate sees.

    The digests of stage, manifest and publication see every bit; the gate is not told them.
    """
    assert b.ctr is not None
    assert b.ctr.head.trees is not None
    rows = {
        name: np.array(cells, dtype=object if isinstance(cells, tuple) else np.float64)
        for name, cells in self_check_of(b, {}).columns.items()
    }
    reached = TreeArrays(b.ctr.head.trees).leaves(encode(rows, b.ctr.head), slice(None))
    x = max((b.ctr.head.trees.leaf[i] for i in np.unique(reached)), key=abs)
    return artifact(b).replace(array("d", [x]).tobytes(), array("d", [-x]).tobytes())


def _flipped_calibration(zoo: Zoo, b: Blueprint) -> bytes:
    """The sign of a number of the finished file that every row meets."""
    assert b.ctr is not None
    x = b.ctr.calibration.shift
    found = artifact(b)
    flipped = found.replace(array("d", [x]).tobytes(), array("d", [-x]).tobytes())
    assert flipped != found
    return flipped


SABOTAGE: dict[str, Sabotage] = {
    # the click model
    "clicks: sign flip": _ctr_head(negated),
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
    "clicks: odds times 1.5": lambda zoo, b: _shift_ctr(b, math.log(1.5)),
    "clicks: odds over 1.5": lambda zoo, b: _shift_ctr(b, -math.log(1.5)),
    "clicks: one campaign's odds doubled": _ctr_head(_raised("campaign_id", 0, math.log(2.0))),
    "clicks: columns swapped": _ctr_head(_swapped_columns),
    "clicks: leaves shuffled": _ctr_head(_shuffled_leaves),
    "clicks: category effects shuffled": _ctr_head(lambda head: _map_lookups(head, _shuffled_values)),
    "clicks: training cut short": _ctr_head(lambda head: _fewer_trees(head, 0.02)),
    "clicks: four fifths of the training missing": _ctr_head(lambda head: _fewer_trees(head, 0.2)),
    "clicks: half of the training missing": _ctr_head(lambda head: _fewer_trees(head, 0.5)),
    "clicks: odds times 1.1": lambda zoo, b: _shift_ctr(b, math.log(1.1)),
    "prices: training cut short": _location(lambda head: _fewer_trees(head, 0.02)),
    "clicks: no creative was seen": _ctr_head(
        lambda head: _map_lookups(head, _without_keys("creative", 0.1))
    ),
    "clicks: no app was seen": _ctr_head(lambda head: _map_lookups(head, _without_keys("app_bundle", 0.1))),
    "clicks: a leak": lambda zoo, b: replace(b, ctr=zoo.leaky),
    # the win curve
    "prices: sign flip": _location(negated),
    "prices: times 1000": _reference(1000.0),
    "prices: times 3": _reference(3.0),
    "prices: a third": _reference(1.0 / 3.0),
    "prices: times 1.3": _reference(1.3),
    "prices: four times too sure": _slope(4.0),
    "prices: four times too vague": _slope(0.25),
    "prices: leaves shuffled": _location(_shuffled_leaves),
    "prices: columns swapped": _location(_swapped_columns),
    "prices: category effects shuffled": _location(lambda head: _map_lookups(head, _shuffled_values)),
    "prices: times 1.15": _reference(1.15),
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
    "four thousand trees": lambda zoo, b: _with_ctr(b, head=_many_trees(b.ctr.head)) if b.ctr else b,
    "a NaN leaf": _nan_leaf,
    "a flipped bit in a leaf": _flipped_bit,
    "a flipped bit in the calibration": _flipped_calibration,
    "a truncated file": lambda zoo, b: artifact(b)[:-100],
    "an empty file": lambda zoo, b: b"",
}

# Too like a healthy model to be told apart for certain by these auctions. What each costs is known by the truth.
KNOWN_MISSES: dict[str, Sabotage] = {
    "prices: four fifths of the training missing": _location(lambda head: _fewer_trees(head, 0.2)),
    "clicks: odds times 1.03": lambda zoo, b: _shift_ctr(b, math.log(1.03)),
    "clicks: odds over 1.05": lambda zoo, b: _shift_ctr(b, -math.log(1.05)),
    "clicks: one creative's odds doubled": _ctr_head(_raised("creative", 0, math.log(2.0))),
    "prices: times 1.05": _reference(1.05),
    "prices: over 1.05": _reference(1.0 / 1.05),
}
