"""How the logging DSP bid: in proportion to a believed value, with noise whose density can be known."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from bidml.features import Doubles
from bidml.simulate.market import Market

_SMALLEST_NOISE = 1e-12


def logged_bids_cpm(
    intended_cpm: Doubles, floor_cpm: Doubles, market: Market, rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    """Bids and their densities in ln b, (n,) each; the density is NaN where the bid was not randomised.

    ln b is normal around ln max(intended, floor), cut off below the floor; its spread is `bid_noise`, and for a share
    `exploration` of the rows √(bid_noise² + exploration_sigma²). Without exploration no density is logged.
    """
    centre = np.log(np.maximum(intended_cpm, floor_cpm))
    with np.errstate(divide="ignore"):
        lowest = np.log(floor_cpm)
    explored = rng.random(len(centre)) < market.exploration
    quiet, loud = market.bid_noise, float(np.hypot(market.bid_noise, market.exploration_sigma))
    spread = np.where(explored, loud, max(quiet, _SMALLEST_NOISE))
    cut = ndtr((lowest - centre) / spread)
    z = ndtri(cut + rng.random(len(centre)) * (1.0 - cut))
    step = np.where(spread > _SMALLEST_NOISE, spread * z, 0.0)
    bid = np.maximum(np.exp(centre + step), floor_cpm)
    if market.exploration == 0.0:
        return bid, np.full(len(bid), np.nan)
    step = np.log(bid) - centre
    density = market.exploration * _density(step, loud, lowest - centre)
    if quiet > 0.0:
        return bid, density + (1.0 - market.exploration) * _density(step, quiet, lowest - centre)
    return bid, np.where(explored, density, np.nan)


def _density(step: Doubles, spread: float, lowest: Doubles) -> Doubles:
    """Of a normal step with this spread, given that it is above `lowest`."""
    inside = np.exp(-0.5 * (step / spread) ** 2) / (spread * np.sqrt(2.0 * np.pi))
    return np.asarray(inside / ndtr(-lowest / spread))
