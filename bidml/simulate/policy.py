"""How the logging DSP bid: in proportion to a believed value, with noise whose density can be known."""

from __future__ import annotations

import numpy as np

from bidml.features import Doubles
from bidml.pricing import density_around, draw_around_cpm
from bidml.simulate.market import Market

_NO_NOISE = 1e-12


def logged_bids_cpm(
    intended_cpm: Doubles, floor_cpm: Doubles, market: Market, rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Bids and their densities in ln b, (n,) each; the density is NaN where the bid was not randomised.

    ln b is normal around ln max(intended, floor), cut off below the floor; its spread is `bid_noise`, and for a share
    `exploration` of the rows √(bid_noise² + exploration_sigma²). Without exploration no density is logged.
    """
    centre = np.maximum(intended_cpm, floor_cpm)
    explored = rng.random(len(centre)) < market.exploration
    quiet, loud = market.bid_noise, float(np.hypot(market.bid_noise, market.exploration_sigma))
    spread = np.where(explored, loud, max(quiet, _NO_NOISE))
    drawn = draw_around_cpm(centre, spread, rng, lowest_cpm=floor_cpm)
    bid = np.where(spread > _NO_NOISE, drawn, centre)
    if market.exploration == 0.0:
        return bid, np.full(len(bid), np.nan)
    density = market.exploration * density_around(bid, centre, loud, lowest_cpm=floor_cpm)
    if quiet > 0.0:
        quiet_density = density_around(bid, centre, quiet, lowest_cpm=floor_cpm)
        return bid, density + (1.0 - market.exploration) * quiet_density
    return bid, np.where(explored, density, np.nan)
