"""Blueprints for tests: one by hand with every part of the format, and random ones for Hypothesis."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from bidml.blueprint import (
    Blueprint,
    Calibration,
    Column,
    CrossLookup,
    CtrBlueprint,
    Head,
    Knots,
    LocationUnit,
    Lookup,
    NodeMode,
    Rewrite,
    Trees,
    Vocabulary,
    WinBlueprint,
    WinFamily,
)
from bidml.contract import UNMATCHABLE, AuctionType, Feature, FeatureKind, FeatureSpec
from bidml.tree_builder import TreeBuilder

NAN = float("nan")
INF = float("inf")

SPEC = FeatureSpec(
    (
        Feature("hour", FeatureKind.NUMBER, "derived.hour_of_day"),
        Feature("country", FeatureKind.CATEGORY, "device.geo.country"),
        Feature("lat", FeatureKind.NUMBER, "device.geo.lat"),
        Feature("creative", FeatureKind.CATEGORY, "line_item.creative"),
        Feature("unused_number", FeatureKind.NUMBER, "imp.instl"),
        Feature("unused_text", FeatureKind.CATEGORY, "device.os"),
    )
)

# A leaf is a float; a node is (column, threshold or set of members, missing_true, true side, false side).
Tree = Any


def trees_of(*roots: Tree) -> Trees:
    """`Trees` from nested tuples, in preorder; a leaf after the branch beside it; a constant is two leaves."""
    builder = TreeBuilder()
    for root in roots:
        builder.begin()
        _grow(builder, (0, 0.0, False, root, root) if isinstance(root, float) else root)
    return builder.trees


def _grow(builder: TreeBuilder, node: Tree) -> int:
    column, test, missing_true, if_true, if_false = node
    if isinstance(test, frozenset):
        builder.trees.membership.extend([*sorted(test), NAN])
        at = builder.node(column, NodeMode.MEMBER, 0.0, missing_true=missing_true)
    else:
        at = builder.node(column, NodeMode.LEQ, test, missing_true=missing_true)
    for side, child in sorted(((True, if_true), (False, if_false)), key=lambda s: isinstance(s[1], float)):
        if isinstance(child, float):
            builder.leaf(child, at, side)
        else:
            builder.link(at, side, _grow(builder, child), is_leaf=False)
    return at


COUNTRIES = Lookup("country", ("", "DEU", "USA", "Ελλάδα"), array("d", [0.0, 1.0, 2.0, -1.5]), NAN)
CREATIVES = Lookup("creative", ("320x50",), array("d", [0.25]), -0.125)

COLUMNS = (
    Column("hour"),
    Column("lat", rewrite=Rewrite.ZERO_IS_MISSING),
    Column("country", COUNTRIES),
    Column("country", COUNTRIES, Rewrite.TRUNCATE),
    Column("hour", rewrite=Rewrite.TRUNCATE),
)
TREES = trees_of(
    (0, 11.5, True, (1, -3.0, False, 0.5, -0.25), (3, frozenset({0.0, 2.0}), False, 1.5, -2.0)),
    -0.75,
    (4, frozenset({3.0, 23.0, 70.0}), True, 0.125, (0, INF, False, 0.375, (2, 0.5, True, 2.0, -1.0))),
)


def complete_blueprint() -> Blueprint:
    """Every part of the format: shared lookups, rewrites, sets, terms, scale, divisor, beta calibration."""
    ctr = Head(COLUMNS, TREES, terms=(CREATIVES, COUNTRIES_TERM), intercept=-3.0, scale=1.5, divisor=3.0)
    location = Head(COLUMNS[:1], trees_of((0, 7.0, False, 0.5, 1.5)), terms=(CREATIVES,))
    return Blueprint(
        spec=SPEC,
        ctr=CtrBlueprint(ctr, Calibration(1.25, 0.75, -0.5)),
        win=WinBlueprint(location, Head((), None, intercept=0.5), 0.75, 1.125, 0.0625, 1.5),
        currency="EUR",
        default_auction_type=AuctionType.SECOND_PRICE,
        provenance={"rows": 12, "window": ["2024-01-01", "2024-01-02"], "note": "Ελλάδα"},
        metrics={"log_loss": 0.1 + 0.2},
    )


def conversions_blueprint() -> Blueprint:
    """The same with a CVR model: shared and own lookups, trees and calibration."""
    head = Head(
        COLUMNS[1:3], trees_of((0, 10.0, False, (1, 0.5, True, -1.0, 0.75), 0.25)), (CREATIVES,), -2.0
    )
    return replace(complete_blueprint(), cvr=CtrBlueprint(head, Calibration(0.875, 1.125, -0.25)))


CTR_KNOTS = Knots(array("d", [-6.0, -4.5, -3.0, -2.5, 0.5]), array("d", [-5.25, -4.625, -3.5, -1.5, 0.25]))
CVR_KNOTS = Knots(array("d", [-2.5, -1.25]), array("d", [-2.75, -0.75]))


def isotonic_blueprint() -> Blueprint:
    """The one with a CVR model, both calibrations bent: a beta map at five knots, Platt's at two."""
    whole = conversions_blueprint()
    assert whole.ctr is not None
    assert whole.cvr is not None
    return replace(
        whole,
        ctr=replace(whole.ctr, calibration=replace(whole.ctr.calibration, knots=CTR_KNOTS)),
        cvr=replace(whole.cvr, calibration=Calibration(0.875, 0.875, -0.25, CVR_KNOTS)),
    )


OF_COUNTRY = Vocabulary("country", ("DEU", "USA", "Ελλάδα"))
OF_CREATIVE = Vocabulary("creative", ("320x50", "other"))
OF_OS = Vocabulary("unused_text", ("", "iOS"))
# Of 12 pairs and of 9: known on both sides, on one, on neither.
PLACES = CrossLookup(
    OF_COUNTRY,
    OF_CREATIVE,
    array("d", [0.0, 1.0, 5.0, 9.0, 11.0]),
    array("d", [0.75, -1.0, 0.5, 1.25, -0.5]),
    0.0625,
)
PLACES_SEEN = replace(PLACES, codes=array("d", [1.0, 4.0]), values=array("d", [1.0, 2.0]), default=NAN)
DEVICES = CrossLookup(OF_OS, OF_CREATIVE, array("d", [0.0, 4.0, 8.0]), array("d", [-0.25, 0.5, 1.0]), 0.0)


def crossed_blueprint() -> Blueprint:
    """The one with a CVR model, and crosses: as terms and as columns, with shared and own vocabularies."""
    whole = conversions_blueprint()
    assert whole.ctr is not None
    assert whole.win is not None
    columns = (Column(PLACES.feature, PLACES_SEEN), Column(DEVICES.feature, DEVICES, Rewrite.ZERO_IS_MISSING))
    head = Head(
        (*COLUMNS[1:3], *columns),
        trees_of((2, 1.5, True, (3, 0.25, False, -1.0, 0.75), (0, 10.0, False, 0.5, 0.25))),
        (CREATIVES, DEVICES),
        -2.0,
    )
    ctr, location = whole.ctr.head, whole.win.location
    return replace(
        whole,
        ctr=replace(whole.ctr, head=replace(ctr, terms=(*ctr.terms, PLACES))),
        cvr=CtrBlueprint(head, Calibration(0.875, 1.125, -0.25)),
        win=replace(whole.win, location=replace(location, terms=(*location.terms, PLACES, DEVICES))),
    )


def uncertain_blueprint() -> Blueprint:
    """The one with a CVR model, whose CTR model knows the variance of its error: trees and two terms."""
    whole = conversions_blueprint()
    assert whole.ctr is not None
    variance = Head(
        COLUMNS[1:3],
        trees_of((1, 10.0, True, 0.0625, 0.25), (0, 2.0, False, 0.5, (1, 20.0, True, 0.03125, 0.0))),
        (CREATIVES, Lookup("country", ("DEU", "USA"), array("d", [0.125, 0.0078125]), 0.75)),
        0.015625,
    )
    return replace(whole, ctr=replace(whole.ctr, variance=variance))


def log_price_blueprint() -> Blueprint:
    """The same with a location in ln price."""
    whole = complete_blueprint()
    assert whole.win is not None
    return replace(whole, win=replace(whole.win, location_unit=LocationUnit.LOG_PRICE))


def log_normal_blueprint() -> Blueprint:
    """The same with a log-normal win curve."""
    whole = log_price_blueprint()
    assert whole.win is not None
    return replace(whole, win=replace(whole.win, family=WinFamily.LOG_NORMAL))


COUNTRIES_TERM = Lookup("country", ("DEU",), array("d", [0.5]), 0.0)

_doubles = st.floats(-50.0, 50.0) | st.sampled_from([0.0, -0.0, 5e-324, -1e-35, 1.5])
_texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters=UNMATCHABLE), max_size=6)


@st.composite
def lookups(draw: st.DrawFn, feature: str, values: st.SearchStrategy[float]) -> Lookup:
    keys = tuple(sorted(draw(st.sets(_texts, min_size=1, max_size=5))))
    numbers = draw(st.lists(values, min_size=len(keys), max_size=len(keys)))
    return Lookup(feature, keys, array("d", numbers), draw(values))


@st.composite
def crosses(draw: st.DrawFn, values: st.SearchStrategy[float]) -> CrossLookup:
    """Of two sides of a request, or of both a request and a line item."""
    names = draw(st.permutations(["country", "creative", "unused_text"]))[:2]
    first, second = (
        Vocabulary(name, tuple(sorted(draw(st.sets(_texts, min_size=1, max_size=3))))) for name in names
    )
    codes = sorted(draw(st.sets(st.integers(0, first.n_numbers * second.n_numbers - 1), min_size=1)))
    numbers = draw(st.lists(values, min_size=len(codes), max_size=len(codes)))
    return CrossLookup(first, second, array("d", codes), array("d", numbers), draw(values))


@st.composite
def heads(draw: st.DrawFn) -> Head:
    """A head on the features of `SPEC`."""
    terms = tuple(draw(st.lists(lookups("creative", _doubles) | crosses(_doubles), max_size=2)))
    intercept = draw(_doubles)
    if draw(st.integers(0, 4)) == 0:
        return Head((), None, terms, intercept)
    columns = draw(st.lists(_columns(), min_size=1, max_size=4))
    trees = trees_of(*draw(st.lists(_trees(columns, 3), min_size=1, max_size=3)))
    scale = draw(st.sampled_from([1.0, 0.5, 1.7]))
    return Head(tuple(columns), trees, terms, intercept, scale, draw(st.sampled_from([1.0, 3.0])))


def _columns() -> st.SearchStrategy[Column]:
    rewrites = st.sampled_from(Rewrite)
    numbers = st.builds(Column, st.sampled_from(["hour", "lat"]), st.none(), rewrites)
    countries = lookups("country", _doubles | st.just(NAN))
    either = countries | crosses(_doubles | st.just(NAN))
    categories = st.builds(lambda lookup, rewrite: Column(lookup.feature, lookup, rewrite), either, rewrites)
    return numbers | categories


@st.composite
def _trees(draw: st.DrawFn, columns: list[Column], depth: int) -> Tree:
    if depth == 0 or draw(st.booleans()):
        return draw(_doubles)
    column = draw(st.integers(0, len(columns) - 1))
    test: Any = draw(_doubles | st.just(INF))
    if columns[column].rewrite is Rewrite.TRUNCATE and draw(st.booleans()):
        test = draw(st.frozensets(st.integers(0, 100).map(float), min_size=1, max_size=5))
    sides = draw(_trees(columns, depth - 1)), draw(_trees(columns, depth - 1))
    return (column, test, draw(st.booleans()), *sides)


@st.composite
def knots(draw: st.DrawFn) -> Knots:
    """Lines as steep and as flat as the bounds let them be, near enough."""
    x, y = [draw(st.floats(-9.0, 9.0))], [draw(st.floats(-9.0, 9.0))]
    for _ in range(draw(st.integers(1, 6))):
        x.append(x[-1] + draw(st.floats(0.01, 4.0)))
        y.append(y[-1] + draw(st.floats(0.04, 25.0)) * (x[-1] - x[-2]))
    return Knots(array("d", x), array("d", y))


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    """Any blueprint inside the bounds, small."""
    parts = draw(st.sampled_from(["both", "both", "both", "ctr", "win"]))
    weights = st.sampled_from([0.0, 0.5, 1.0, 2.0])
    calibrations = st.builds(Calibration, weights, weights, st.floats(-3.0, 3.0), st.none() | knots())
    calibration = draw(calibrations)
    win = st.builds(
        WinBlueprint,
        heads(),
        heads(),
        st.floats(-3.0, 3.0),
        st.floats(0.5, 2.0),
        st.floats(-1.0, 1.0),
        st.floats(0.25, 4.0),
        st.sampled_from(LocationUnit),
        st.sampled_from(WinFamily),
    )
    return Blueprint(
        spec=SPEC,
        ctr=None if parts == "win" else CtrBlueprint(draw(heads()), calibration, draw(st.none() | heads())),
        cvr=draw(st.none() | st.builds(CtrBlueprint, heads(), calibrations)) if parts != "win" else None,
        win=None if parts == "ctr" else draw(win),
        currency=draw(st.sampled_from(["USD", "CNY"])),
        default_auction_type=draw(st.sampled_from(AuctionType)),
        metrics=draw(
            st.dictionaries(_texts, st.floats(allow_nan=False, allow_infinity=False) | _texts, max_size=2)
        ),
    )


def with_leaves(head: Head, change: Callable[[list[float]], list[float]]) -> Head:
    assert head.trees is not None
    return replace(head, trees=replace(head.trees, leaf=array("d", change(list(head.trees.leaf)))))


def negated(head: Head) -> Head:
    """Ranks the other way round."""
    head = with_leaves(head, lambda leaves: [-x for x in leaves])
    terms = tuple(
        replace(t, values=array("d", [-x for x in t.values]), default=-t.default) for t in head.terms
    )
    return replace(head, terms=terms)
