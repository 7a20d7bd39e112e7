"""The models under attack: a small file with every part of the format, and one that reads half of OpenRTB."""

from __future__ import annotations

import dataclasses
from array import array
from functools import cache

import numpy as np
from artifacts import NAN, crossed_blueprint, trees_of, uncertain_blueprint
from ensembles import RandomShape, random_trees

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, Lookup, Rewrite, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.metadata import SelfCheck
from bidml.score import LineItem, Scorer
from bidml.score.reader import Artifact

RATES = {"EUR": 1.08, "CNY": 0.14, "KWD": 3.25}
CAP_CPM = 9.0
# What a line item pays for: clicks, conversions, impressions; an impression is worth at most VALUE_CPM.
GOALS = {"value_per_click": 1.5, "value_per_conversion": 0.4, "value_per_impression_cpm": 100.0}
VALUE_CPM = 2_000.0
DEALS = ("d1", "Ελλάδα", "x" * 256)  # that it may buy by

_CATEGORIES = {
    "country": "device.geo.country",
    "region": "device.geo.region",
    "city": "device.geo.city",
    "os": "device.os",
    "make": "device.make",
    "language": "device.language",
    "carrier": "device.carrier",
    "bundle": "app.bundle",
    "publisher": "app.publisher.id",
    "domain": "site.domain",
    "page": "site.page",
    "tagid": "imp.tagid",
    "currency": "imp.bidfloorcur",
    "user": "user.id",
    "exchange": "ext.exchange",
    "size": "derived.banner_size",
    "app_or_site": "derived.app_or_site",
    "inventory": "derived.inventory",
    "ad_format": "derived.ad_format",
    "creative": "line_item.creative",
}
_NUMBERS = {
    "hour": "derived.hour_of_day",
    "weekday": "derived.weekday",
    "os_version": "derived.os_version_major",
    "lat": "device.geo.lat",
    "utcoffset": "device.geo.utcoffset",
    "devicetype": "device.devicetype",
    "connection": "device.connectiontype",
    "w": "imp.banner.w",
    "h": "imp.banner.h",
    "pos": "imp.banner.pos",
    "minduration": "imp.video.minduration",
    "instl": "imp.instl",
    "floor": "imp.bidfloor",
    "secure": "imp.secure",
    "tmax": "tmax",
    "at": "at",
    "yob": "user.yob",
    "paid": "app.paid",
    "quality": "imp.ext.quality",
}
_TEXTS = ("", "320x50", "300x250", "USA", "DEU", "app", "site", "banner", "video", "iOS", "Android", "en", "1", "2",
          "Ελλάδα", "x" * 65, "USD", "com.example.app", "example.com", "7")  # fmt: skip


@cache
def wide_blueprint() -> Blueprint:
    """Reads 39 places of a request, with every derived feature, through trees of every shape."""
    rng = np.random.default_rng(1)
    spec = FeatureSpec(
        (
            *(Feature(name, FeatureKind.CATEGORY, source) for name, source in _CATEGORIES.items()),
            *(Feature(name, FeatureKind.NUMBER, source) for name, source in _NUMBERS.items()),
        )
    )

    def lookup(name: str) -> Lookup:
        keys = tuple(sorted(_TEXTS))
        return Lookup(name, keys, array("d", rng.normal(size=len(keys)).tolist()), NAN)

    def head(n_trees: int, depth: int, intercept: float) -> Head:
        numbers = [Column(name, None, Rewrite(rng.choice(list(Rewrite)))) for name in _NUMBERS]
        columns = (*numbers, *(Column(name, lookup(name)) for name in _CATEGORIES))
        values = np.concatenate([rng.normal(size=20), [0.0, 1.0, 2.0, 12.0, 250.0, 320.0]])
        trees = random_trees(RandomShape(n_trees, depth, 0.2, len(columns), values), rng)
        term = Lookup("creative", ("320x50",), array("d", [0.25]), 0.0)
        return Head(columns, trees, (term,), intercept, scale=0.3)

    win = WinBlueprint(head(40, 6, 0.0), head(10, 3, 0.5), 0.5, 1.0, 0.0, 1.3)
    ctr = CtrBlueprint(head(60, 9, -3.0), Calibration(1.1, 0.9, 0.0))
    cvr = CtrBlueprint(head(12, 4, -1.0), Calibration(0.9, 1.1, 0.1))
    return Blueprint(spec, ctr, win, "USD", cvr=cvr)


def scorer_of(blueprint: Blueprint, *, isa: str = "best") -> Scorer:
    return Scorer(Artifact(blueprint, SelfCheck({}, {}), ""), rates=RATES, isa=isa)


def line_of(scorer: Scorer, **exploration: float) -> LineItem:
    return scorer.line_item(creative="320x50", cap_cpm=CAP_CPM, deals=DEALS, **GOALS, **exploration)


def file_of(blueprint: Blueprint, n_rows: int) -> bytes:
    from bidml.export import model_bytes
    from bidml.self_check import self_check_of

    check = self_check_of(blueprint, {})
    few = SelfCheck(
        {name: column[:n_rows] for name, column in check.columns.items()},
        {name: column[:n_rows] for name, column in check.expected.items()},
    )
    return model_bytes(blueprint, few)


def _every_part() -> Blueprint:
    crossed, uncertain = crossed_blueprint(), uncertain_blueprint()
    assert crossed.ctr is not None
    assert uncertain.ctr is not None
    ctr = dataclasses.replace(crossed.ctr, variance=uncertain.ctr.variance)
    return dataclasses.replace(crossed, ctr=ctr, metrics={})


@cache
def small_file() -> bytes:
    """An artifact in which every part of the format occurs."""
    return file_of(_every_part(), 6)


def two_files() -> list[bytes]:
    """The small file, and one with another intercept: it bids otherwise."""
    blueprint = _every_part()
    assert blueprint.ctr is not None
    head = dataclasses.replace(blueprint.ctr.head, intercept=-2.0)
    ctr = dataclasses.replace(blueprint.ctr, head=head)
    return [small_file(), file_of(dataclasses.replace(blueprint, ctr=ctr), 6)]


@cache
def tiny_files() -> dict[str, bytes]:
    """Artifacts so small that each of their bytes can take every value: a CTR model; a win curve."""
    spec = FeatureSpec(
        (
            Feature("w", FeatureKind.NUMBER, "imp.banner.w"),
            Feature("os", FeatureKind.CATEGORY, "device.os"),
        )
    )
    columns = (
        Column("w", None, Rewrite.TRUNCATE),
        Column("os", Lookup("os", ("iOS",), array("d", [1.0]), NAN)),
    )
    trees = trees_of((0, 300.0, True, (1, 0.5, False, -0.5, 0.25), (0, frozenset({320.0}), False, 0.5, -1.0)))
    ctr = CtrBlueprint(Head(columns, trees, intercept=-2.0))
    win = WinBlueprint(Head((), None, intercept=0.5), Head((), None), 0.0)
    return {
        "a CTR model": file_of(Blueprint(spec, ctr, None, "USD"), 3),
        "a win curve": file_of(Blueprint(FeatureSpec(spec.features[:1]), None, win, "USD"), 1),
    }
