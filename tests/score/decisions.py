"""What a bidder may do, in plain Python: an independent reading of a request's terms, and models that price."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from artifacts import INF, NAN, trees_of

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, Lookup, Rewrite, WinBlueprint
from bidml.contract import AuctionType, Feature, FeatureKind, FeatureSpec, NoBidReason
from bidml.metadata import SelfCheck
from bidml.score import LineItem, RawExtractor, Scorer
from bidml.score.reader import Artifact
from bidml.self_check import self_check_of

RATES = {"USD": 0.92, "GBP": 1.17}
"""EUR per unit; the tests' artifacts price in EUR."""

PATHS = {
    FeatureKind.CATEGORY: (
        "device.geo.country", "device.geo.city", "device.make", "device.model", "device.os", "device.carrier",
        "device.language", "app.bundle", "app.id", "app.publisher.id", "site.domain", "site.page", "imp.tagid",
        "imp.displaymanager", "user.gender", "ext.exchange", "derived.banner_size", "derived.app_or_site",
        "derived.inventory", "derived.ad_format",
    ),
    FeatureKind.NUMBER: (
        "device.devicetype", "device.w", "device.h", "device.geo.lat", "imp.instl", "imp.secure", "imp.bidfloor",
        "imp.banner.w", "imp.banner.h", "imp.banner.pos", "imp.video.startdelay", "tmax", "test",
        "derived.os_version_major",
    ),
}  # fmt: skip
"""Sources of real requests; none depends on the clock."""


def wide_spec() -> FeatureSpec:
    """A feature for every path of `PATHS`, and one of each kind from the line item."""
    features = [
        Feature(source.replace(".", "_"), kind, source)
        for kind, sources in PATHS.items()
        for source in sources
    ]
    creative = Feature("creative", FeatureKind.CATEGORY, "line_item.creative")
    return FeatureSpec((*features, creative, Feature("age", FeatureKind.NUMBER, "line_item.age_days")))


def model_of_requests(requests: Sequence[Mapping[str, Any]], *, seed: int) -> Blueprint:
    """A model that splits on the values these requests have: bids of a few EUR, won about half the time."""
    rng = random.Random(seed)
    spec = wide_spec()
    extract = RawExtractor(spec)
    rows = [
        extract(request, {"creative": rng.choice(["a", "b"]), "age_days": rng.uniform(0, 9)})
        for request in requests
    ]
    seen = {feature.name: sorted({row[feature.name] for row in rows if row[feature.name] == row[feature.name]}, key=str)
            for feature in spec.features}  # fmt: skip

    def lookup(feature: Feature) -> Lookup:
        keys = sorted(rng.sample(seen[feature.name], min(50, len(seen[feature.name])))) or ["no text"]
        return Lookup(
            feature.name, tuple(keys), array("d", [rng.gauss(0, 1) for _ in keys]), rng.choice([0.0, NAN])
        )

    def head(n_trees: int, size: float, intercept: float) -> Head:
        texts = [Column(f.name, lookup(f), rng.choice(list(Rewrite))) for f in spec.categories()]
        columns = (*texts, *(Column(f.name, None, rng.choice(list(Rewrite))) for f in spec.numbers()))

        def tree(depth: int) -> Any:
            if depth == 0 or rng.random() < 0.1:
                return rng.gauss(0, size)
            i = rng.randrange(len(columns))
            column = columns[i]
            points = seen[column.feature] if column.lookup is None else list(column.lookup.values)
            test: Any = rng.choice(points) if points else 0.0
            if column.rewrite is Rewrite.TRUNCATE and rng.random() < 0.5:
                test = frozenset(float(rng.randrange(0, 400)) for _ in range(5))
            elif rng.random() < 0.05:
                test = INF
            return (i, test, rng.random() < 0.5, tree(depth - 1), tree(depth - 1))

        terms = tuple(
            replace(found, values=array("d", [x / 4 for x in found.values]), default=0.125)
            for found in (lookup(feature) for feature in rng.sample(spec.categories(), 3))
        )
        return Head(columns, trees_of(*(tree(5) for _ in range(n_trees))), terms, intercept)

    return Blueprint(
        spec=spec,
        ctr=CtrBlueprint(head(25, 0.25, -6.0), Calibration(1.1, 0.9, 0.1)),
        win=WinBlueprint(head(15, 0.3, -0.2), head(6, 0.1, 0.3), math.log(2.0), 1.2, 0.1, 1.3),
        currency="EUR",
        default_auction_type=AuctionType.FIRST_PRICE,
    )


def artifact_of(blueprint: Blueprint) -> Artifact:
    """The artifact as if read from a file, without one."""
    check: SelfCheck = self_check_of(blueprint, {})
    return Artifact(blueprint, check, "0" * 64)


def terms_of(
    request: object, imp: int = 0, *, currency: str = "EUR", default_at: int = 1
) -> tuple[NoBidReason, float, int]:
    """(reason, floor in `currency`, auction type) by the rules of docs/artifact.md; BID when one may price."""

    def number(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return NAN
        try:
            return float(value) if math.isfinite(value) else NAN
        except OverflowError:
            return NAN

    if not isinstance(request, dict) or not isinstance(request.get("imp"), list):
        return NoBidReason.INVALID_REQUEST, NAN, 0
    if not 0 <= imp < len(request["imp"]) or not isinstance(request["imp"][imp], dict):
        return NoBidReason.INVALID_IMP, NAN, 0
    impression, accepted, at = request["imp"][imp], request.get("cur"), number(request.get("at"))
    if isinstance(accepted, list) and accepted and currency not in accepted:
        return NoBidReason.UNKNOWN_CURRENCY, NAN, 0
    pmp = impression.get("pmp")
    if isinstance(pmp, dict) and number(pmp.get("private_auction")) == 1.0:
        return NoBidReason.PRIVATE_AUCTION, NAN, 0
    if at == at and at not in (1.0, 2.0):
        return NoBidReason.UNSUPPORTED_AUCTION_TYPE, NAN, 0
    auction_type = int(at) if at == at else default_at
    floor = impression.get("bidfloor")
    if floor is None or number(floor) == 0.0:
        return NoBidReason.BID, 0.0, auction_type
    if not number(floor) > 0.0:
        return NoBidReason.INVALID_FLOOR, NAN, auction_type
    code = impression.get("bidfloorcur")
    code = "USD" if code is None else code
    rate = 1.0 if code == currency else RATES.get(code, 0.0) if isinstance(code, str) else 0.0
    if not rate > 0.0:
        return NoBidReason.UNKNOWN_CURRENCY, NAN, auction_type
    return NoBidReason.BID, number(floor) * rate, auction_type


def assert_guarded(scorer: Scorer, request: object, line: LineItem, bid_cpm: float, imp: int = 0) -> None:
    """The law of the hot path: never NaN or negative, never above cap or value, never below floor; reasons are kept."""
    assert type(bid_cpm) is float
    assert 0.0 <= bid_cpm <= line.cap_cpm
    if bid_cpm > 0.0:
        reason, floor_cpm, _ = terms_of(request, imp)
        assert reason is NoBidReason.BID
        assert bid_cpm >= floor_cpm
        assert bid_cpm <= scorer.explain(request, line, imp).unshaded_bid_cpm
