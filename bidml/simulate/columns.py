"""Traffic as feature columns: the spec, and the text that codes stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.features import Doubles
from bidml.simulate.inventory import (
    CARRIERS_PER_COUNTRY,
    CONNECTIONS,
    COUNTRIES,
    INTERSTITIAL,
    LANGUAGES,
    MAKES,
    MISSING,
    MODELS_PER_MAKE,
    SIZES,
    VARIANTS,
    Codes,
    Inventory,
    Traffic,
)
from bidml.simulate.market import Market

_SOURCES: Final = (
    ("country", FeatureKind.CATEGORY, "device.geo.country"),
    ("app_bundle", FeatureKind.CATEGORY, "app.bundle"),
    ("publisher_id", FeatureKind.CATEGORY, "app.publisher.id"),
    ("tag_id", FeatureKind.CATEGORY, "imp.tagid"),
    ("exchange", FeatureKind.CATEGORY, "ext.exchange"),
    ("banner_size", FeatureKind.CATEGORY, "derived.banner_size"),
    ("device_make", FeatureKind.CATEGORY, "device.make"),
    ("device_model", FeatureKind.CATEGORY, "device.model"),
    ("os", FeatureKind.CATEGORY, "device.os"),
    ("language", FeatureKind.CATEGORY, "device.language"),
    ("carrier", FeatureKind.CATEGORY, "device.carrier"),
    ("campaign_id", FeatureKind.CATEGORY, "line_item.campaign_id"),
    ("creative", FeatureKind.CATEGORY, "line_item.creative"),
    ("os_version", FeatureKind.NUMBER, "derived.os_version_major"),
    ("connection_type", FeatureKind.NUMBER, "device.connectiontype"),
    ("hour_of_day", FeatureKind.NUMBER, "derived.hour_of_day"),
    ("weekday", FeatureKind.NUMBER, "derived.weekday"),
    ("utc_offset_minutes", FeatureKind.NUMBER, "device.geo.utcoffset"),
    ("instl", FeatureKind.NUMBER, "imp.instl"),
    ("bidfloor", FeatureKind.NUMBER, "imp.bidfloor"),
    ("screen_width", FeatureKind.NUMBER, "device.w"),
    ("birth_year", FeatureKind.NUMBER, "user.yob"),
    ("session_depth", FeatureKind.NUMBER, "imp.ext.sessiondepth"),
    ("viewability", FeatureKind.NUMBER, "imp.ext.viewability"),
)
SPEC: Final = FeatureSpec(tuple(Feature(*source) for source in _SOURCES))
LINE_ITEM_FEATURES: Final = {
    feature.name: feature.source.removeprefix("line_item.")
    for feature in SPEC.features
    if feature.source.startswith("line_item.")
}


def feature_columns(t: Traffic, floor_cpm: Doubles, inventory: Inventory, market: Market) -> dict[str, Any]:
    """The columns of `SPEC`, (n,) each: text with nulls, and float64 with NaN."""
    is_ios = inventory.app_is_ios[t.app]
    make = t.model // MODELS_PER_MAKE
    countries = [name for name, _, _ in COUNTRIES]
    offsets = np.array([offset for _, offset, _ in COUNTRIES], dtype=np.float64)
    connections = np.append(np.array(CONNECTIONS, dtype=np.float64), np.nan)
    sizes = [f"{w}x{h}" for w, h in SIZES]
    creatives = [
        f"c{campaign:02d}-{size}-{'ab'[variant] if VARIANTS == 2 else variant}"
        for campaign in range(market.n_campaigns)
        for size in sizes
        for variant in range(VARIANTS)
    ]
    return {
        "country": text(countries, t.country),
        "app_bundle": text(_bundles(inventory), t.app),
        "publisher_id": text(
            [f"pub-{i:05d}" for i in range(int(inventory.app_publisher.max()) + 1)],
            inventory.app_publisher[t.app],
        ),
        "tag_id": text([f"tag-{i:05d}" for i in range(len(inventory.tag_size))], t.tag),
        "exchange": text([exchange.name for exchange in market.exchanges], t.exchange),
        "banner_size": text(sizes, t.size),
        "device_make": text(MAKES, make),
        "device_model": text([f"{name} {i:02d}" for name in MAKES for i in range(MODELS_PER_MAKE)], t.model),
        "os": text(["Android", "iOS"], is_ios.astype(np.int64)),
        "language": text(LANGUAGES, t.language),
        "carrier": text(
            [f"{name}-{i}" for name in countries for i in range(CARRIERS_PER_COUNTRY)], t.carrier
        ),
        "campaign_id": text([f"c{i:02d}" for i in range(market.n_campaigns)], t.campaign),
        "creative": text(creatives, (t.campaign * len(sizes) + t.size) * VARIANTS + t.variant),
        "os_version": t.os_version,
        "connection_type": connections[t.connection],
        "hour_of_day": t.hour.astype(np.float64),
        "weekday": t.weekday.astype(np.float64),
        "utc_offset_minutes": offsets[t.country],
        "instl": np.where(t.size == INTERSTITIAL, 1.0, np.nan),
        "bidfloor": floor_cpm,
        "screen_width": inventory.model_width[t.model].astype(np.float64),
        "birth_year": t.birth_year,
        "session_depth": t.session_depth,
        "viewability": t.viewability,
    }


def text(levels: Sequence[str], codes: Codes) -> pd.Series[Any]:
    """`levels[codes]` as text, (n,); the code −1 is null."""
    words = pd.array([*levels], dtype="str")
    return pd.Series(words.take(codes, allow_fill=bool((codes == MISSING).any())))


def _bundles(inventory: Inventory) -> list[str]:
    return [
        str(1_000_000_007 + 37 * i) if is_ios else f"com.studio{publisher}.game{i}"
        for i, (is_ios, publisher) in enumerate(
            zip(inventory.app_is_ios, inventory.app_publisher, strict=True)
        )
    ]
