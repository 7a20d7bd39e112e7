"""One simulated world: a market, its inventory and its truth. Logs are drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from bidml.errors import ConfigError
from bidml.features import Doubles
from bidml.pricing import value_cpm
from bidml.simulate.columns import SPEC, feature_columns, text
from bidml.simulate.effects import ClickEffects, PriceEffects, draw_effects
from bidml.simulate.inventory import TAGS_PER_APP, Inventory, Traffic, draw_inventory, draw_traffic
from bidml.simulate.market import CURRENCY, Market, Shape
from bidml.simulate.outcomes import click_columns, feedback_columns, non_price_reasons, utc
from bidml.simulate.policy import logged_bids_cpm
from bidml.simulate.shapes import PriceShape, shape_of
from bidml.simulate.simulation import Simulation
from bidml.simulate.truth import Truth

_CALIBRATION_ROWS: Final = 40_000
_SMALLEST_FLOOR_CPM: Final = 0.01
_MAX_LEVEL: Final = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """What two logs of one market share. `draw_world` makes it; `simulate` draws a log from it."""

    market: Market
    inventory: Inventory
    clicks: ClickEffects
    prices: PriceEffects
    shape: PriceShape
    value_per_click: Doubles  # (n_campaigns,) currency per click
    tag_floor_cpm: Doubles  # (n_tags,) 0: none
    click_intercept: float = 0.0
    conversion_intercept: float = 0.0
    price_level: float = 0.0

    def simulate(self, n_auctions: int, *, rng: np.random.Generator) -> Simulation:
        """A log of `n_auctions` in time order, with its truth. Raises `ConfigError` for none."""
        if n_auctions < 1:
            raise ConfigError("a simulation has auctions", value=n_auctions, remedy="ask for at least 1")
        market = self.market
        t = draw_traffic(self.inventory, market, n_auctions, rng)
        truth = self._truth(t, rng)
        bid, propensity = logged_bids_cpm(self._intended_bids_cpm(t), truth.floor_cpm, market, rng)
        feedback = feedback_columns(t, truth, market, bid, non_price_reasons(truth, rng))
        end_ms = round(1000.0 * (market.start.timestamp() + 86_400.0 * market.days))
        clicks = click_columns(t, truth, feedback["won"], end_ms, rng)
        floor = np.where(truth.floor_cpm > 0.0, truth.floor_cpm, np.nan)
        features = feature_columns(t, floor, self.inventory, market)
        columns: dict[str, Any] = {
            "auction_id": pd.Series(np.arange(10**9, 10**9 + n_auctions)).astype("str"),
            "timestamp": utc(t.timestamp_ms),
            "utc_offset_minutes": features["utc_offset_minutes"],
            "exchange": features["exchange"],
            "line_item_id": text([f"li-{i:02d}" for i in range(market.n_campaigns)], t.campaign),
            "currency": text([CURRENCY], np.zeros(n_auctions, dtype=np.int64)),
            "auction_type": truth.auction_type,
            "bid_cpm": bid,
            "floor_cpm": floor,
            **feedback,
            **clicks,
            "value_per_click": self.value_per_click[t.campaign],
            "propensity": propensity,
            **features,
            "true_pctr": truth.pctr,
            "true_pcvr": truth.pcvr,
            "true_market_price_cpm": truth.market_price_cpm,
        }
        return Simulation(pd.DataFrame(columns), SPEC, truth)

    def _truth(self, t: Traffic, rng: np.random.Generator) -> Truth:
        exchanges = self.market.exchanges
        location = self.price_level + self.prices.location(t, self.inventory, self.market.price_drift_per_day)
        scale = self.prices.scale(t, self.inventory, self.market.slope)
        parameter = self._shape_parameter(t)
        floor = self.tag_floor_cpm[t.tag]
        competition = np.exp(location + scale * self.shape.sample(rng, parameter))
        return Truth(
            shape=self.shape,
            pctr=expit(self.click_intercept + self.clicks.log_odds(t, self.inventory)),
            pcvr=expit(self.conversion_intercept + self.clicks.conversion_log_odds(t)),
            location=location,
            scale=scale,
            shape_parameter=parameter,
            floor_cpm=floor,
            auction_type=np.array([int(exchange.auction_type) for exchange in exchanges])[t.exchange],
            market_price_cpm=np.maximum(competition, floor),
            non_price_losses=np.array([exchange.non_price_losses for exchange in exchanges])[t.exchange],
        )

    def _shape_parameter(self, t: Traffic) -> Doubles:
        if self.market.shape is Shape.MIXTURE:
            return self.prices.cheap_share(t)
        if self.market.shape is Shape.EMPIRICAL:
            return self.prices.histogram_of_app[t.app]
        return np.zeros(len(t))

    def _intended_bids_cpm(self, t: Traffic) -> Doubles:
        pctr = expit(self.click_intercept + self.clicks.believed_log_odds(t, self.inventory))
        return self.market.shading * value_cpm(pctr, self.value_per_click[t.campaign])


def draw_world(market: Market, *, rng: np.random.Generator) -> World:
    """A world whose mean click probability and logged win rate are the market's.

    Levels are solved on a sample of traffic. Raises `DataError` when the file of price histograms is not one.
    """
    inventory = draw_inventory(market, rng)
    clicks, prices = draw_effects(inventory, market, rng)
    per_click = market.mean_value_cpm / (1000.0 * market.base_ctr)
    relative_value = rng.lognormal(-0.08, 0.4, market.n_campaigns)
    floor_step = rng.normal(-0.9, 0.4, len(inventory.tag_size))
    has_floor = rng.random(len(inventory.tag_size)) < market.floor_share
    world = World(
        market=market,
        inventory=inventory,
        clicks=clicks,
        prices=prices,
        shape=shape_of(market),
        value_per_click=np.round(per_click * relative_value, 6),
        tag_floor_cpm=np.zeros(len(inventory.tag_size)),
    )
    t = draw_traffic(inventory, market, _CALIBRATION_ROWS, rng)
    world = replace(
        world,
        click_intercept=_level(clicks.log_odds(t, inventory), market.base_ctr),
        conversion_intercept=_level(clicks.conversion_log_odds(t), market.base_cvr),
    )
    world = replace(world, price_level=_price_level(world, t, rng))
    typical = world.price_level + np.repeat(prices.app, TAGS_PER_APP)
    floors = np.maximum(np.round(np.exp(typical + floor_step), 2), _SMALLEST_FLOOR_CPM)
    return replace(world, tag_floor_cpm=np.where(has_floor, floors, 0.0))


def _level(log_odds: Doubles, mean: float) -> float:
    """The intercept that gives the mean probability."""
    return float(brentq(lambda level: expit(level + log_odds).mean() - mean, -_MAX_LEVEL, _MAX_LEVEL))


def _price_level(world: World, t: Traffic, rng: np.random.Generator) -> float:
    """The log price at which the logged bids win as often as the market says, non-price losses and floors aside."""
    market = world.market
    location = world.prices.location(t, world.inventory, market.price_drift_per_day)
    scale = world.prices.scale(t, world.inventory, market.slope)
    parameter = world._shape_parameter(t)
    bid = world._intended_bids_cpm(t) * np.exp(rng.normal(0.0, market.bid_noise, len(t)))

    def excess(level: float) -> float:
        rates = world.shape.cdf((np.log(bid) - level - location) / scale, parameter)
        return float(rates.mean()) - market.observed_win_rate

    return float(brentq(excess, -_MAX_LEVEL, _MAX_LEVEL, xtol=1e-6))
