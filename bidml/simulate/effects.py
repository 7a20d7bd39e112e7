"""The truth of one simulated world: how features make clicks and market prices.

Click log-odds are a sum of category effects, curves of the numbers and interactions (app × campaign by latent taste,
campaign × age, category × hour). The log price has its own effects, partly the same inventory quality, and
interactions (country × os, category × size); its scale 1/k differs by exchange, country, category and size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bidml.features import Doubles
from bidml.simulate.inventory import (
    CATEGORIES,
    CONNECTIONS,
    COUNTRIES,
    MAKES,
    MODELS_PER_MAKE,
    SIZES,
    TAGS_PER_APP,
    VARIANTS,
    Inventory,
    Traffic,
)
from bidml.simulate.market import Market

_TASTES: Final = 3  # dimensions of the app × campaign interaction
_HISTOGRAMS: Final = 9
_MIN_SCALE, _MAX_SCALE = 0.08, 1.6


@dataclass(frozen=True, slots=True, eq=False)
class ClickEffects:
    """Additive parts of the click log-odds, by code."""

    app: Doubles
    tag: Doubles
    country: Doubles
    model: Doubles
    size: Doubles
    connection: Doubles  # the last entry is for missing
    creative: Doubles  # (n_campaigns, n_sizes, n_variants)
    app_taste: Doubles  # (n_apps, _TASTES)
    campaign_taste: Doubles  # (n_campaigns, _TASTES)
    campaign_age: Doubles  # (n_campaigns,) per 15 years
    category_hour: Doubles  # (n_categories, 24)
    conversion: Doubles  # (n_campaigns,)
    belief: Doubles  # (n_apps,) the error of the logging DSP's model

    def log_odds(self, t: Traffic, inventory: Inventory) -> Doubles:
        """The true click log-odds but for the intercept, (n,)."""
        taste = (self.app_taste[t.app] * self.campaign_taste[t.campaign]).sum(axis=1)
        age = np.where(np.isnan(t.birth_year), 0.0, (1991.0 - t.birth_year) / 15.0)
        return np.asarray(
            self._plain(t, inventory) + self.tag[t.tag] + taste + self.campaign_age[t.campaign] * age
        )

    def believed_log_odds(self, t: Traffic, inventory: Inventory) -> Doubles:
        """What the logging DSP's model sees of it, (n,): no interactions, no tags, an error for each app."""
        return 0.9 * self._plain(t, inventory) + self.belief[t.app]

    def conversion_log_odds(self, t: Traffic) -> Doubles:
        """Of a conversion after a click, but for the intercept, (n,)."""
        return self.conversion[t.campaign] + 0.5 * self.country[t.country] - 0.15 * np.isnan(t.birth_year)

    def _plain(self, t: Traffic, inventory: Inventory) -> Doubles:
        depth = np.where(np.isnan(t.session_depth), 5.0, t.session_depth)
        seen = np.where(np.isnan(t.viewability), 0.6, t.viewability)
        return np.asarray(
            self.app[t.app]
            + self.country[t.country]
            + self.model[t.model]
            + self.size[t.size]
            + self.connection[t.connection]
            + self.creative[t.campaign, t.size, t.variant]
            + self.category_hour[inventory.app_category[t.app], t.hour]
            - 0.3 * np.log(depth)
            + 1.0 * (seen - 0.6)
        )


@dataclass(frozen=True, slots=True, eq=False)
class PriceEffects:
    """Additive parts of the log price and of ln k, by code."""

    app: Doubles
    tag: Doubles
    model: Doubles
    size: Doubles
    country_os: Doubles  # (n_countries, 2)
    category_size: Doubles  # (n_categories, n_sizes)
    hour: Doubles  # (24,)
    exchange: Doubles
    slope_exchange: Doubles
    slope_country: Doubles
    slope_category: Doubles
    slope_size: Doubles
    dear_app: Doubles  # (n_apps,) log-odds of the dear half of a mixture
    histogram_of_app: Doubles  # (n_apps,)

    def location(self, t: Traffic, inventory: Inventory, drift_per_day: float) -> Doubles:
        """The location of ln M but for the level, (n,)."""
        depth = np.where(np.isnan(t.session_depth), 5.0, t.session_depth)
        seen = np.where(np.isnan(t.viewability), 0.6, t.viewability)
        return np.asarray(
            self.app[t.app]
            + self.tag[t.tag]
            + self.model[t.model]
            + self.size[t.size]
            + self.country_os[t.country, (t.model < MODELS_PER_MAKE).astype(np.int64)]
            + self.category_size[inventory.app_category[t.app], t.size]
            + self.hour[t.hour]
            + self.exchange[t.exchange]
            - 0.08 * np.log(depth)
            + 0.5 * (seen - 0.6)
            + drift_per_day * t.day
        )

    def scale(self, t: Traffic, inventory: Inventory, slope: float) -> Doubles:
        """1/k, (n,)."""
        ln_k = (
            np.log(slope)
            + self.slope_exchange[t.exchange]
            + self.slope_country[t.country]
            + self.slope_category[inventory.app_category[t.app]]
            + self.slope_size[t.size]
        )
        return np.asarray(np.clip(np.exp(-ln_k), _MIN_SCALE, _MAX_SCALE))

    def cheap_share(self, t: Traffic) -> Doubles:
        """The weight of the cheap half of a mixture, (n,), in (0, 1)."""
        return np.asarray(
            1.0 / (1.0 + np.exp(self.dear_app[t.app] + 0.4 * np.sin(t.hour / 24.0 * 2.0 * np.pi)))
        )


def draw_effects(
    inventory: Inventory, market: Market, rng: np.random.Generator
) -> tuple[ClickEffects, PriceEffects]:
    """Both truths. The quality of an app, a country, a model moves clicks and prices together."""
    n_apps, n_campaigns, n_models = inventory.n_apps, inventory.n_campaigns, len(MAKES) * MODELS_PER_MAKE
    publisher = rng.normal(0.0, 0.35, int(inventory.app_publisher.max()) + 1)[inventory.app_publisher]
    quality = publisher + rng.normal(0.0, 0.4, n_apps)
    affluence = rng.normal(0.0, 0.45, len(COUNTRIES))
    model_class = 0.3 * (np.arange(n_models) < MODELS_PER_MAKE) - 0.06 * inventory.model_age
    peak = rng.uniform(0.0, 24.0, CATEGORIES)[:, None]
    clicks = ClickEffects(
        app=quality + rng.normal(0.0, 0.35, n_apps),
        tag=rng.normal(0.0, 0.2, n_apps * TAGS_PER_APP),
        country=-0.4 * affluence + rng.normal(0.0, 0.2, len(COUNTRIES)),
        model=0.3 * model_class + rng.normal(0.0, 0.1, n_models),
        size=np.array([-0.35, 0.1, 0.8, -0.2]),
        connection=np.append(rng.normal(0.0, 0.12, len(CONNECTIONS)), 0.0),
        creative=rng.normal(0.0, 0.3, (n_campaigns, len(SIZES), VARIANTS)),
        app_taste=rng.normal(0.0, 0.45, (n_apps, _TASTES)),
        campaign_taste=rng.normal(0.0, 0.45, (n_campaigns, _TASTES)),
        campaign_age=rng.normal(0.0, 0.3, n_campaigns),
        category_hour=0.25 * np.cos((np.arange(24)[None, :] - peak) / 24.0 * 2.0 * np.pi),
        conversion=rng.normal(0.0, 0.4, n_campaigns),
        belief=rng.normal(0.0, 0.2, n_apps),
    )
    prices = PriceEffects(
        app=0.55 * quality + rng.normal(0.0, 0.25, n_apps),
        tag=rng.normal(0.0, 0.12, n_apps * TAGS_PER_APP),
        model=0.4 * model_class + rng.normal(0.0, 0.05, n_models),
        size=np.array([-0.3, 0.1, 0.55, -0.1]),
        country_os=affluence[:, None] + rng.normal(0.0, 0.15, (len(COUNTRIES), 2)) + np.array([0.0, 0.2]),
        category_size=rng.normal(0.0, 0.18, (CATEGORIES, len(SIZES))),
        hour=0.15 * np.sin((np.arange(24) - 13.0) / 24.0 * 2.0 * np.pi),
        exchange=np.array([exchange.price_shift for exchange in market.exchanges]),
        slope_exchange=np.array([exchange.slope_shift for exchange in market.exchanges]),
        slope_country=rng.normal(0.0, 0.15, len(COUNTRIES)),
        slope_category=rng.normal(0.0, 0.2, CATEGORIES),
        slope_size=rng.normal(0.0, 0.12, len(SIZES)),
        dear_app=rng.normal(0.0, 0.8, n_apps),
        histogram_of_app=rng.integers(0, _HISTOGRAMS, n_apps).astype(np.float64),
    )
    return clicks, prices
