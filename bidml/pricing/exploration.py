"""Bids that vary on purpose, with their density: what makes the next win curve identifiable.

ln b is normal around the intended ln bid, cut off at the bounds that a bid must keep. The density of the logged ln bid
is the propensity of docs/auction_log.md; it is exact at the cuts, because the cut normal is drawn, not clipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy.special import ndtr, ndtri

from bidml.errors import ConfigError
from bidml.pricing.arrays import Doubles, Numbers, aligned, double
from bidml.score.exploration import Exploration

_WORD: Final = 2**64 - 1


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
    return _explored(bid, rng.random(len(bid)), rng.random(len(bid)), sigma, share, lowest, highest)


def explore_by_id(
    bid_cpm: Numbers,
    auction_ids: Sequence[str],
    how: Exploration,
    fields: Mapping[str, str | int | float],
    *,
    imp: int = 0,
    lowest_cpm: Numbers = 0.0,
    highest_cpm: Numbers = np.inf,
) -> tuple[Doubles, Doubles]:
    """`explore` as a line item of the scorer does it: for randomness, the hash of each auction's id; (n,) each.

    `how`: `line_item.exploration`, with the `fields` of the line item; `imp` is the index of the impression. An auction
    without an id, "", is not explored. The bidder calls it for first-price auctions. This is the readable twin of
    native/exploration.h: SipHash-2-4 of the id (Aumasson & Bernstein 2012, https://doi.org/10.1007/978-3-642-34931-7_28)
    seeds SplitMix64 (Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195), whose numbers 2 imp and
    2 imp + 1 say whether, and how far.
    """
    bid, lowest, highest = aligned(bid=bid_cpm, lowest=lowest_cpm, highest=highest_cpm)
    key = how.key(fields)
    seeds = [_siphash_2_4(key, auction_id.encode()) for auction_id in auction_ids]
    chosen, at = (np.array([_uniform(seed, i) for seed in seeds]) for i in (2 * imp, 2 * imp + 1))
    chosen[[not auction_id for auction_id in auction_ids]] = 1.0
    return _explored(bid, chosen, at, how.sigma, how.share, lowest, highest)


def _explored(
    bid: Doubles, chosen: Doubles, at: Doubles, sigma: float, share: float, lowest: Doubles, highest: Doubles
) -> tuple[Doubles, Doubles]:
    """`chosen` and `at` are uniform: which bids are jittered, and the quantile that each takes then."""
    may = (bid > 0.0) & (lowest <= bid) & (bid <= highest) & (lowest < highest)
    explored = may & (chosen < share)
    centre = np.where(explored, bid, 1.0)
    lowest, highest = np.where(explored, lowest, 0.0), np.where(explored, highest, np.inf)
    jittered = _at_quantile(at, centre, sigma, lowest, highest)
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
    return _at_quantile(rng.random(len(centre_cpm)), centre_cpm, sigma, lowest_cpm, highest_cpm)


def _at_quantile(
    u: Doubles, centre_cpm: Doubles, sigma: Numbers, lowest_cpm: Numbers, highest_cpm: Numbers
) -> Doubles:
    low, high = _cuts(centre_cpm, sigma, lowest_cpm, highest_cpm)
    below, above = ndtr(low), ndtr(high)
    z = ndtri(below + u * (above - below))
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


def _siphash_2_4(key: tuple[int, int], text: bytes) -> int:
    """By the paper's pseudocode; `key`: low and high word."""
    a, b = key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D
    c, d = key[0] ^ 0x6C7967656E657261, key[1] ^ 0x7465646279746573

    def rotated(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & _WORD

    def rounds(n: int) -> None:
        nonlocal a, b, c, d
        for _ in range(n):
            a, c = (a + b) & _WORD, (c + d) & _WORD
            b, d = rotated(b, 13) ^ a, rotated(d, 16) ^ c
            a = rotated(a, 32)
            a, c = (a + d) & _WORD, (c + b) & _WORD
            d, b = rotated(d, 21) ^ a, rotated(b, 17) ^ c
            c = rotated(c, 32)

    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        d ^= word
        rounds(2)
        a ^= word
    c ^= 0xFF
    rounds(4)
    return a ^ b ^ c ^ d


def _uniform(seed: int, i: int) -> float:
    """Number i of SplitMix64's stream, in (0, 1): the upper 52 bits and a half."""
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _WORD
    return (((z ^ z >> 31) >> 12) + 0.5) / 2**52
