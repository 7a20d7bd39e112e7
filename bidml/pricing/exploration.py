"""Bids that vary on purpose, with their density: what makes the next win curve identifiable.

ln b is normal around the intended ln bid, cut off at the bounds that a bid must keep. The density of the logged ln bid
is the propensity of docs/auction_log.md; it is exact at the cuts, because the cut normal is drawn, not clipped.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from bidml.errors import ConfigError
from bidml.pricing.arrays import Doubles, Numbers, aligned, double


def explore(
    bid_cpm: Numbers,
    rng: np.random.Generator,
    sigma: float,
    share: float,
    *,
    lowest_cpm: Numbers = 0.0,
    highest_cpm: Numbers = np.inf,
) -> tuple[Doubles, Doubles]:
    """Bids with jitter of ln b on a random `share` of the auctions, and the density of ln b; (n,) each.

    `lowest_cpm` and `highest_cpm` bound the jitter: floor, and the smaller of cap and value. The density counts the
    choice to explore (share · density of the jitter); it is NaN where the bid was not jittered. A bid of 0.0 stays, and
    so does one outside its bounds.
    Raises `ConfigError` for a sigma not above 0 or a share outside [0, 1].
    """
    if not (0.0 < sigma < np.inf and 0.0 <= share <= 1.0):
        raise ConfigError(
            "the jitter has a sigma above 0, and a share in [0, 1]",
            value=(sigma, share),
            remedy="correct them",
        )
    bid, lowest, highest = aligned(bid=bid_cpm, lowest=lowest_cpm, highest=highest_cpm)
    may = (bid > 0.0) & (lowest <= bid) & (bid <= highest) & (lowest < highest)
    explored = may & (rng.random(len(bid)) < share)
    centre = np.where(explored, bid, 1.0)
    lowest, highest = np.where(explored, lowest, 0.0), np.where(explored, highest, np.inf)
    jittered = draw_around_cpm(centre, sigma, rng, lowest_cpm=lowest, highest_cpm=highest)
    density = share * density_around(jittered, centre, sigma, lowest_cpm=lowest, highest_cpm=highest)
    return np.where(explored, jittered, bid), np.where(explored, density, np.nan)


def draw_around_cpm(
    centre_cpm: Doubles,
    sigma: Numbers,
    rng: np.random.Generator,
    *,
    lowest_cpm: Numbers = 0.0,
    highest_cpm: Numbers = np.inf,
) -> Doubles:
    """exp of a normal of spread `sigma` around ln centre, cut off outside [lowest, highest], (n,)."""
    low, high = _cuts(centre_cpm, sigma, lowest_cpm, highest_cpm)
    below, above = ndtr(low), ndtr(high)
    z = ndtri(below + rng.random(len(centre_cpm)) * (above - below))
    drawn = centre_cpm * np.exp(double(sigma) * np.clip(z, low, high))
    return np.clip(drawn, double(lowest_cpm), double(highest_cpm))


def density_around(
    bid_cpm: Doubles,
    centre_cpm: Doubles,
    sigma: Numbers,
    *,
    lowest_cpm: Numbers = 0.0,
    highest_cpm: Numbers = np.inf,
) -> Doubles:
    """The density, per unit of ln CPM, with which `draw_around_cpm` gives `bid_cpm` inside the cuts, (n,)."""
    low, high = _cuts(centre_cpm, sigma, lowest_cpm, highest_cpm)
    z = np.log(bid_cpm / centre_cpm) / double(sigma)
    inside = np.exp(-0.5 * z * z) / (double(sigma) * np.sqrt(2.0 * np.pi))
    return np.asarray(inside / (ndtr(high) - ndtr(low)))


def _cuts(
    centre_cpm: Doubles, sigma: Numbers, lowest_cpm: Numbers, highest_cpm: Numbers
) -> tuple[Doubles, Doubles]:
    """The cuts in standard deviations from the centre. The centre lies between them, or near."""
    with np.errstate(divide="ignore"):
        low, high = (np.log(double(cut) / centre_cpm) / double(sigma) for cut in (lowest_cpm, highest_cpm))
    return np.asarray(low), np.asarray(high)
