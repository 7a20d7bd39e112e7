"""What can be asked for: apps, placements, devices, countries; and the traffic drawn from it.

Level shares are heavy-tailed (Zipf). Traffic is kept as integer codes, (n,) each; `columns.py` writes them as text.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from bidml.features import Doubles
from bidml.simulate.market import Market

Codes: TypeAlias = npt.NDArray[np.int64]

# ISO 3166 alpha-3, minutes east of UTC, language (ISO 639-1); the order is that of traffic.
COUNTRIES: Final = (
    ("USA", -300, "en"), ("IND", 330, "hi"), ("BRA", -180, "pt"), ("DEU", 60, "de"), ("IDN", 420, "id"),
    ("GBR", 0, "en"), ("MEX", -360, "es"), ("JPN", 540, "ja"), ("FRA", 60, "fr"), ("TUR", 180, "tr"),
    ("ITA", 60, "it"), ("ESP", 60, "es"), ("VNM", 420, "vi"), ("KOR", 540, "ko"), ("THA", 420, "th"),
    ("CAN", -300, "en"), ("PHL", 480, "en"), ("POL", 60, "pl"), ("AUS", 600, "en"), ("ARG", -180, "es"),
    ("NLD", 60, "nl"), ("COL", -300, "es"), ("SAU", 180, "ar"), ("MYS", 480, "ms"), ("ZAF", 120, "en"),
    ("SWE", 60, "sv"), ("GRC", 120, "el"), ("NPL", 345, "ne"), ("CHE", 60, "de"), ("NZL", 720, "en"),
)  # fmt: skip
LANGUAGES: Final = tuple(sorted({language for _, _, language in COUNTRIES}))
SIZES: Final = ((320, 50), (300, 250), (320, 480), (728, 90))
INTERSTITIAL: Final = 2  # the code of 320x480
CONNECTIONS: Final = (2, 6, 7, 5, 0)  # OpenRTB list 5.22: Wi-Fi, 4G, 5G, 3G, unknown
MAKES: Final = ("Apple", "Samsung", "Xiaomi", "Oppo", "Vivo", "Motorola", "Google", "Huawei", "OnePlus")
MODELS_PER_MAKE: Final = 14
SCREEN_WIDTHS: Final = (360, 375, 390, 393, 412, 414, 430, 768)
TAGS_PER_APP: Final = 3
CARRIERS_PER_COUNTRY: Final = 3
CATEGORIES: Final = 8
VARIANTS: Final = 2
MISSING: Final = -1

_N_MODELS: Final = len(MAKES) * MODELS_PER_MAKE


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """n auctions in codes; NaN and −1 are missing. `day` is days since the start, `hour` and `weekday` are local."""

    timestamp_ms: Codes
    day: Doubles
    hour: Codes
    weekday: Codes
    country: Codes
    language: Codes
    carrier: Codes
    app: Codes
    tag: Codes
    size: Codes
    exchange: Codes
    model: Codes
    os_version: Doubles
    connection: Codes
    birth_year: Doubles
    session_depth: Doubles
    viewability: Doubles
    campaign: Codes
    variant: Codes

    def __len__(self) -> int:
        return len(self.timestamp_ms)

    def __getitem__(self, rows: Any) -> Traffic:
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """The catalogue of one simulated world: what each app, tag, model and country is like."""

    app_share: Doubles  # (n_apps,)
    app_is_ios: npt.NDArray[np.bool_]  # (n_apps,)
    app_publisher: Codes  # (n_apps,)
    app_category: Codes  # (n_apps,)
    app_exchanges: Doubles  # (n_apps, n_exchanges) cumulative shares
    tag_size: Codes  # (n_apps · TAGS_PER_APP,)
    tag_viewability: Doubles  # (n_apps · TAGS_PER_APP,)
    model_width: Codes  # (n_models,)
    model_age: Doubles  # (n_models,) years
    country_campaigns: Doubles  # (n_countries, n_campaigns) cumulative shares

    @property
    def n_apps(self) -> int:
        return len(self.app_share)

    @property
    def n_campaigns(self) -> int:
        return int(self.country_campaigns.shape[1])


def draw_inventory(market: Market, rng: np.random.Generator) -> Inventory:
    """A catalogue: `market.n_apps` apps with three placements each, and who sells and buys where."""
    n_apps, n_tags = market.n_apps, market.n_apps * TAGS_PER_APP
    shares = np.array([exchange.share for exchange in market.exchanges])
    tilt = np.exp(rng.normal(0.0, 0.7, (n_apps, len(shares))))
    campaigns = np.exp(rng.normal(0.0, 0.5, (len(COUNTRIES), market.n_campaigns)))
    size = rng.choice(len(SIZES), n_tags, p=[0.5, 0.25, 0.18, 0.07])
    return Inventory(
        app_share=zipf(n_apps, 1.05),
        app_is_ios=rng.random(n_apps) < 0.4,
        app_publisher=np.minimum(
            rng.zipf(1.6, n_apps) + rng.integers(0, max(1, n_apps // 8), n_apps), n_apps
        ),
        app_category=rng.integers(0, CATEGORIES, n_apps),
        app_exchanges=_cumulative(shares * tilt),
        tag_size=size,
        tag_viewability=np.where(size == INTERSTITIAL, 0.9, rng.beta(5.0, 3.5, n_tags)),
        model_width=rng.choice(SCREEN_WIDTHS, _N_MODELS),
        model_age=rng.uniform(0.0, 6.0, _N_MODELS),
        country_campaigns=_cumulative(campaigns),
    )


def draw_traffic(inventory: Inventory, market: Market, n: int, rng: np.random.Generator) -> Traffic:
    """`n` auctions in time order, with a day shape in every country's local time."""
    utc_hour, timestamp_ms = _times(market, n, rng)
    offsets = np.array([offset for _, offset, _ in COUNTRIES])
    country = _countries(utc_hour, offsets, rng)
    local = timestamp_ms // 60_000 + offsets[country]
    app = _choose(np.cumsum(inventory.app_share), rng.random(n))
    tag = app * TAGS_PER_APP + _choose(np.cumsum([0.6, 0.27, 0.13]), rng.random(n))
    make = np.where(
        inventory.app_is_ios[app], 0, 1 + _choose(np.cumsum(zipf(len(MAKES) - 1, 0.9)), rng.random(n))
    )
    model = make * MODELS_PER_MAKE + _choose(np.cumsum(zipf(MODELS_PER_MAKE, 0.8)), rng.random(n))
    connection = _choose(np.cumsum([0.5, 0.27, 0.13, 0.05, 0.05]), rng.random(n))
    carrier = country * CARRIERS_PER_COUNTRY + rng.integers(0, CARRIERS_PER_COUNTRY, n)
    native = np.array([LANGUAGES.index(language) for _, _, language in COUNTRIES])
    newest = np.where(make == 0, 19.0, 16.0)
    version = newest - np.floor(inventory.model_age[model] * rng.random(n) + rng.random(n))
    return Traffic(
        timestamp_ms=timestamp_ms,
        day=np.asarray((timestamp_ms - market.start.timestamp() * 1000.0) / 86_400_000.0),
        hour=(local // 60) % 24,
        weekday=(local // 1440 + 3) % 7,  # 1970-01-01 was a Thursday; Monday is 0
        country=country,
        language=np.where(rng.random(n) < 0.85, native[country], LANGUAGES.index("en")),
        carrier=np.where(connection == 0, MISSING, carrier),
        app=app,
        tag=tag,
        size=inventory.tag_size[tag],
        exchange=_choose_by_row(inventory.app_exchanges[app], rng.random(n)),
        model=model,
        os_version=_or_missing(version, 0.02, rng),
        connection=np.where(rng.random(n) < 0.03, MISSING, connection),
        birth_year=_or_missing(2026.0 - np.floor(16.0 + 50.0 * rng.beta(1.5, 2.5, n)), 0.5, rng),
        session_depth=_or_missing(rng.geometric(0.15, n).astype(np.float64), 0.15, rng),
        viewability=_or_missing(_viewability(inventory.tag_viewability[tag], rng), 0.35, rng),
        campaign=_choose_by_row(inventory.country_campaigns[country], rng.random(n)),
        variant=rng.integers(0, VARIANTS, n),
    )


def zipf(n: int, exponent: float) -> Doubles:
    """Shares of n levels ∝ (rank + 2)^−exponent, summing to 1."""
    weights = (np.arange(n) + 2.0) ** -exponent
    return np.asarray(weights / weights.sum())


def _times(market: Market, n: int, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """UTC hour of day and epoch ms, in time order. The volume follows the waking hours of the countries."""
    hours = max(1, int(np.ceil(market.days * 24.0)))
    start_ms = round(market.start.timestamp() * 1000.0)
    first_hour = start_ms // 3_600_000
    offsets = np.array([offset for _, offset, _ in COUNTRIES])
    local = (first_hour + np.arange(hours))[:, None] + offsets[None, :] / 60.0
    volume = (zipf(len(COUNTRIES), 1.0) * _day_shape(local)).sum(axis=1)
    hour = np.sort(_choose(np.cumsum(volume / volume.sum()), rng.random(n)))
    length_ms = round(market.days * 86_400_000.0)
    timestamp_ms = np.sort(
        start_ms + np.minimum(hour * 3_600_000 + rng.integers(0, 3_600_000, n), length_ms - 1)
    )
    return (timestamp_ms // 3_600_000) % 24, timestamp_ms


def _day_shape(local_hour: Any) -> Doubles:
    """Relative traffic by local hour: a trough before dawn, a peak in the evening."""
    h = np.asarray(local_hour, dtype=np.float64)
    return np.asarray(
        1.0 + 0.65 * np.sin((h - 11.0) / 24.0 * 2.0 * np.pi) + 0.2 * np.sin((h - 5.0) / 12.0 * 2.0 * np.pi)
    )


def _countries(utc_hour: Codes, offsets: Codes, rng: np.random.Generator) -> Codes:
    weights = zipf(len(COUNTRIES), 1.0) * _day_shape(np.arange(24)[:, None] + offsets[None, :] / 60.0)
    tables = _cumulative(weights)  # (24, n_countries)
    return _choose((np.arange(24)[:, None] + tables).ravel(), utc_hour + rng.random(len(utc_hour))) % len(
        COUNTRIES
    )


def _viewability(mean: Doubles, rng: np.random.Generator) -> Doubles:
    return np.round(rng.beta(12.0 * mean, 12.0 * (1.0 - mean)), 2)


def _or_missing(numbers: Doubles, share: float, rng: np.random.Generator) -> Doubles:
    return np.where(rng.random(len(numbers)) < share, np.nan, numbers)


def _cumulative(weights: Doubles) -> Doubles:
    """Row-wise cumulative shares, the last exactly 1."""
    found = np.cumsum(weights / weights.sum(axis=-1, keepdims=True), axis=-1)
    found[..., -1] = 1.0
    return np.asarray(found)


def _choose(cumulative: Any, u: Doubles) -> Codes:
    return np.minimum(np.searchsorted(cumulative, u, side="right"), len(cumulative) - 1)


def _choose_by_row(cumulative: Doubles, u: Doubles) -> Codes:
    return np.asarray((u[:, None] >= cumulative[:, :-1]).sum(axis=1))
