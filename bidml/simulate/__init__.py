"""Auctions with known truth: logs to learn from, and an oracle to measure by.

sim = simulate(100_000, rng=np.random.default_rng(7), market=Market(shape="gumbel"))
sim.log  # docs/auction_log.md, with features and true_* columns
sim.truth.oracle_surplus_cpm(value_cpm)  # what no policy exceeds

Traffic is that of a mobile DSP with several exchanges. `effects.py` says how features make clicks and prices,
`policy.py` how the logging DSP bid.
"""

from __future__ import annotations

import numpy as np

from bidml.simulate.market import EXCHANGES, Exchange, Feedback, Market, Shape, one_exchange
from bidml.simulate.simulation import Simulation
from bidml.simulate.truth import Truth
from bidml.simulate.world import World, draw_world

__all__ = [
    "EXCHANGES",
    "Exchange",
    "Feedback",
    "Market",
    "Shape",
    "Simulation",
    "Truth",
    "World",
    "draw_world",
    "one_exchange",
    "simulate",
]


def simulate(n_auctions: int, *, rng: np.random.Generator, market: Market | None = None) -> Simulation:
    """A new world of `market` (default: `Market()`) and a log of `n_auctions` from it.

    The same state of `rng` gives the same log. For several logs of one world use `draw_world`.
    """
    return draw_world(market or Market(), rng=rng).simulate(n_auctions, rng=rng)
