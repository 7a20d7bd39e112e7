"""Deals, soft floors, unknown auction types, ticks: each against brute force or its defining inequality."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from bidml.blueprint import WinFamily
from bidml.pricing import (
    WinCurve,
    bid_in_ticks_cpm,
    deal_bid_cpm,
    mixed_auction_bid_cpm,
    optimal_bid_cpm,
    second_price_surplus_cpm,
    soft_floor_bid_cpm,
    surplus_cpm,
)

N = 300
GRID = np.linspace(1e-3, 1.0, 2_000)


@pytest.fixture(scope="module", params=WinFamily)
def auctions(request) -> tuple[np.ndarray, WinCurve]:
    rng = np.random.default_rng(31)
    curve = WinCurve(
        rng.uniform(-2.0, 2.0, N),
        rng.uniform(0.5, 12.0, N),
        np.exp(rng.normal(0.0, 0.5, N)),
        request.param,
    )
    return np.exp(curve.location + rng.normal(0.3, 1.0, N)), curve


def saved(curve: WinCurve, row: int, low: float, high: float) -> float:
    """∫ F over [low, high]."""
    one = curve[row : row + 1]
    knee = float(np.clip(np.exp(one.location[0]), low, high))
    return sum(
        quad(lambda z: one.win_rate(z)[0] if z > 0.0 else 0.0, a, b, limit=400, epsabs=1e-13)[0]
        for a, b in ((low, knee), (knee, high))
    )


def test_a_deal_is_taken_when_it_gains_more_than_the_open_auction(auctions):
    value, curve = auctions
    bid = optimal_bid_cpm(value, curve)
    open_surplus = surplus_cpm(value, bid, curve.win_rate(bid))
    price = value * np.linspace(0.05, 1.1, N)
    taken = deal_bid_cpm(value, price, open_surplus_cpm=open_surplus)
    np.testing.assert_array_equal(taken > 0.0, (value - price >= open_surplus) & (value > price))
    np.testing.assert_array_equal(taken[taken > 0.0], price[taken > 0.0])
    assert 0 < np.count_nonzero(taken) < N
    assert not deal_bid_cpm([np.nan, 2.0, np.inf, 2.0, 1.0], [1.0, np.nan, 1.0, 0.0, 1.0]).any()


def test_a_mixed_auction_interpolates_between_shading_and_truth(auctions):
    value, curve = auctions
    for never in (0.0, 1e-320):
        np.testing.assert_array_equal(mixed_auction_bid_cpm(value, curve, never), value)
    np.testing.assert_allclose(
        mixed_auction_bid_cpm(value, curve, 1.0), optimal_bid_cpm(value, curve), rtol=1e-14
    )
    bids = [
        mixed_auction_bid_cpm(value, curve, pi, floor_cpm=0.1, cap_cpm=50.0) for pi in (1.0, 0.7, 0.3, 0.01)
    ]
    for low, high in pairwise(bids):
        assert np.all(low <= high * (1.0 + 1e-12))
    assert not mixed_auction_bid_cpm(value, curve, np.nan).any()
    assert not mixed_auction_bid_cpm(value, curve, 1.5).any()


@pytest.mark.parametrize("pi", [0.2, 0.6])
def test_a_mixed_bid_earns_the_most(auctions, pi):
    value, curve = auctions

    def earned(bid):
        first = surplus_cpm(value, bid, curve.win_rate(bid))
        return pi * first + (1.0 - pi) * second_price_surplus_cpm(value, bid, curve)

    best = earned(mixed_auction_bid_cpm(value, curve, pi))
    for shade in GRID[::20]:
        assert np.all(earned(shade * value) <= best * (1.0 + 1e-6) + 1e-12)


def test_second_price_surplus_is_its_integral(auctions):
    value, curve = auctions
    bid, lowest = 0.9 * value, 0.3 * value * (np.arange(N) % 3)
    found = second_price_surplus_cpm(value, bid, curve, lowest_price_cpm=lowest)
    for row in range(0, N, 10):
        wanted = (value[row] - bid[row]) * curve[row : row + 1].win_rate(bid[row])[0]
        wanted += saved(curve, row, lowest[row], bid[row])
        assert found[row] == pytest.approx(wanted, rel=1e-6, abs=1e-12)
    assert not second_price_surplus_cpm(value, 0.0, curve).any()


def test_a_soft_floor_bid_earns_the_most(auctions):
    value, curve = auctions
    soft, floor = value * np.linspace(0.1, 1.3, N), np.where(np.arange(N) % 2, 0.05 * value, 0.0)
    bid = soft_floor_bid_cpm(value, curve, soft_floor_cpm=soft, floor_cpm=floor, cap_cpm=3.0)

    def earned(bid):
        below = surplus_cpm(value, bid, curve.win_rate(bid))
        above = second_price_surplus_cpm(value, bid, curve, lowest_price_cpm=soft)
        return np.where(bid < soft, below, above)

    can_bid = floor <= 3.0
    assert not bid[~can_bid].any()
    assert np.all(((bid >= floor) & (bid <= np.minimum(value, 3.0)) & (bid > 0.0))[can_bid])
    best = earned(np.where(bid == soft, bid * (1.0 - 1e-12), bid))
    for shade in GRID[::10]:
        other = np.minimum(np.maximum(shade * value, floor), np.minimum(value, 3.0))
        assert np.all((earned(other) <= best * (1.0 + 1e-6) + 1e-12)[can_bid]), shade
    assert np.count_nonzero(bid > soft) > 20
    assert np.count_nonzero(bid < soft) > 20


def test_soft_floors_at_the_ends_are_the_plain_auctions(auctions):
    value, curve = auctions
    no_floor = soft_floor_bid_cpm(value, curve, soft_floor_cpm=0.0)
    np.testing.assert_array_equal(no_floor, value)  # all second price
    above = soft_floor_bid_cpm(value, curve, soft_floor_cpm=2.0 * value)
    np.testing.assert_array_equal(above, optimal_bid_cpm(value, curve))  # all first price
    assert not soft_floor_bid_cpm(value, curve, soft_floor_cpm=np.nan).any()
    assert not soft_floor_bid_cpm(value, curve, soft_floor_cpm=0.1, floor_cpm=value).any()


@given(bid=st.floats(1e-3, 100.0), tick=st.sampled_from([0.01, 0.1, 0.25]), floor=st.floats(0.0, 5.0))
def test_a_bid_in_ticks_is_a_multiple_at_or_above_the_floor(bid, tick, floor):
    if bid < floor:
        return
    rounded = bid_in_ticks_cpm(bid, tick, floor_cpm=floor, highest_cpm=bid * 1.5)[0]
    if rounded > 0.0:
        assert rounded / tick == pytest.approx(round(rounded / tick), abs=1e-6)
        assert floor * (1.0 - 1e-8) <= rounded <= bid * 1.5
        assert rounded <= bid * (1.0 + 1e-8) or rounded - tick < floor
    else:
        ticks = np.arange(1, 1_000) * tick
        assert not np.any((ticks >= floor * (1.0 + 1e-8)) & (ticks <= bid))


def test_ticks_forgive_binary_fractions_and_refuse_nonsense():
    np.testing.assert_allclose(bid_in_ticks_cpm([0.3, 0.7, 0.05], 0.1), [0.3, 0.7, 0.0])
    assert bid_in_ticks_cpm(0.31, 0.1, floor_cpm=0.31, highest_cpm=0.35) == 0.0
    assert not bid_in_ticks_cpm([np.nan, 0.0, 1.0], [0.1, 0.1, np.nan]).any()
