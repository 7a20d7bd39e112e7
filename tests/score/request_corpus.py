"""A model that reads every kind of place of a request, and requests for it: captured, made, mutated."""

from __future__ import annotations

import gzip
import json
from array import array
from pathlib import Path
from typing import Any

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, Lookup, Trees, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.metadata import SelfCheck
from bidml.score import Scorer
from bidml.score.reader import Artifact

CATEGORIES = {
    "country": "device.geo.country",
    "zip": "device.geo.zip",
    "city": "device.geo.city",
    "make": "device.make",
    "device_model": "device.model",
    "language": "device.language",
    "carrier": "device.carrier",
    "ip": "device.ip",
    "ua": "device.ua",
    "app_id": "app.id",
    "bundle": "app.bundle",
    "publisher": "app.publisher.id",
    "domain": "site.domain",
    "page": "site.page",
    "tagid": "imp.tagid",
    "imp_id": "imp.id",
    "request_id": "id",
    "gender": "user.gender",
    "exchange": "ext.exchange",
    "deep": "imp.ext.a.b.c",
    "devicetype_text": "device.devicetype",
    "size": "derived.banner_size",
    "app_or_site": "derived.app_or_site",
    "inventory": "derived.inventory",
    "ad_format": "derived.ad_format",
}
NUMBERS = {
    "hour": "derived.hour_of_day",
    "weekday": "derived.weekday",
    "major": "derived.os_version_major",
    "devicetype": "device.devicetype",
    "width": "device.w",
    "lat": "device.geo.lat",
    "lon": "device.geo.lon",
    "floor": "imp.bidfloor",
    "instl": "imp.instl",
    "pos": "imp.banner.pos",
    "secure": "imp.secure",
    "private": "imp.pmp.private_auction",
    "yob": "user.yob",
    "number": "ext.number",
    "timestamp": "ext.timestamp",
}
TIMESTAMP = 1_480_544_698_821
BASE = {
    "id": "r-1",
    "at": 1,
    "cur": ["USD", "EUR"],
    "imp": [
        {"id": "1", "tagid": "top", "instl": 1, "bidfloor": 0.25, "bidfloorcur": "EUR", "secure": 0,
         "pmp": {"private_auction": 0}, "banner": {"w": 320, "h": 50, "pos": 1}, "ext": {"a": {"b": {"c": "deep"}}}},
        {"id": "2", "video": {"w": 640, "h": 480}, "banner": {"format": [{"w": 300, "h": 250}, {"w": 1, "h": 1}]}},
    ],
    "app": {"id": "a", "bundle": "com.example", "publisher": {"id": "p"}},
    "device": {"ua": 'M"ozilla\\/5.0', "devicetype": 4, "os": "ios", "osv": "10.1.1", "w": 414, "language": "en",
               "geo": {"country": "DEU", "lat": 52.52, "lon": -13.4, "city": "Köln", "zip": "50667", "utcoffset": 60}},
    "user": {"gender": "F", "yob": 1980},
    "ext": {"exchange": "adx", "number": 1e-3, "timestamp": TIMESTAMP},
}  # fmt: skip


def spec() -> FeatureSpec:
    categories = [Feature(name, FeatureKind.CATEGORY, source) for name, source in CATEGORIES.items()]
    numbers = [Feature(name, FeatureKind.NUMBER, source) for name, source in NUMBERS.items()]
    return FeatureSpec(
        (*categories, *numbers, Feature("creative", FeatureKind.CATEGORY, "line_item.creative"))
    )


def scorer_of(keys: dict[str, set[str]], *, isa: str = "best", strict: bool = False) -> Scorer:
    """A scorer whose margins are a different sum for almost every combination of raw values.

    A text has its own weight when it is one of `keys[feature]`, else the feature's default; a number moves the
    margins at each of 18 thresholds.
    """
    columns, terms = [], []
    for i, name in enumerate(CATEGORIES):
        known = tuple(sorted(keys.get(name, set()), key=str.encode))
        weights = [((j * 7919 + i * 104_729) % 10_007) / 1e4 - 0.5 for j in range(len(known))]
        terms.append(Lookup(name, known, array("d", weights), (i - 12) / 100))
    trees = Trees(
        *(array("q"), array("q"), array("B"), array("d"), array("q"), array("q")),
        *(array("q"), array("q"), array("q"), array("d"), array("d")),
    )
    thresholds = [
        -1e9,
        -90.0,
        -1.0,
        -0.0,
        0.25,
        1.0,
        2.0,
        3.0,
        5.0,
        7.5,
        12.0,
        18.0,
        33.3,
        100.0,
        320.0,
        1990.0,
        1e12,
        1e300,
    ]
    for i, name in enumerate(NUMBERS):
        columns.append(Column(name))
        for j, threshold in enumerate(thresholds):
            node = len(trees.column)
            trees.roots.append(node)
            trees.column.append(i)
            trees.mode.append(0)
            trees.threshold.append(threshold)
            trees.missing_true.append(j % 2)
            for side in ("true", "false"):
                getattr(trees, f"{side}_child").append(len(trees.leaf))
                getattr(trees, f"{side}_is_leaf").append(1)
                trees.leaf.append(((i * 31 + j * 17 + (side == "true") * 7) % 101) / 1e3 - 0.05)
    head = Head(tuple(columns), trees, tuple(terms), intercept=-3.0)
    win = WinBlueprint(head, Head((), None, (), intercept=0.3), reference_log_bid_cpm=0.5, slope_scale=1.2)
    blueprint = Blueprint(spec(), CtrBlueprint(head, Calibration(1.1, 0.9, 0.1)), win, "USD")
    check = SelfCheck({}, {})
    return Scorer(Artifact(blueprint, check, "0" * 64), rates={"EUR": 1.1}, isa=isa, strict=strict)


def captured(folder: Path) -> list[dict[str, Any]]:
    """The captured AdX requests and the fixtures, decoded."""
    found = []
    with gzip.open(folder / "openrtb_adx_captured_2016.jsonl.gz", "rt") as lines:
        found += [json.loads(line) for line in lines]
    with gzip.open(folder / "openrtb_requests.jsonl.gz", "rt") as lines:
        found += [json.loads(line)["req"] for line in lines]
    return found


def texts_of(requests: list[Any], n_most: int = 300) -> dict[str, set[str]]:
    """Every other text that the features find in the requests, to be keys."""
    from bidml.score import RawExtractor

    extractor = RawExtractor(spec())
    texts: dict[str, set[str]] = {name: set() for name in CATEGORIES}
    for request in requests[::2]:
        if isinstance(request, dict):
            for name, value in extractor(request, {}).items():
                if (
                    name in texts
                    and isinstance(value, str)
                    and len(texts[name]) < n_most
                    and "\ufffd" not in value
                ):
                    texts[name].add(value)
    return texts


def line_of(scorer: Scorer) -> Any:
    """A line item that usually bids."""
    return scorer.line_item(value_per_click=2.0, cap_cpm=50.0, creative="c")
