"""Simulated worlds with a known win rate, and what a policy earns in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from benchmarks.win_curves import Policy
from bidml.features import Doubles
from bidml.fit import MarketPriceObservations
from bidml.pricing import value_cpm
from bidml.simulate import Feedback, Market, Shape, Simulation, draw_world, one_exchange

DATA: Final = Path(__file__).resolve().parents[2] / "shared" / "data"
HISTOGRAMS: Final = DATA / "ipinyou_price_histograms_9campaigns.csv.gz"
CLOSED: Final = "closed"
EXACT: Final = "exact on wins"
FEEDBACK: Final = (CLOSED, EXACT)
SHAPES: Final = tuple(str(shape) for shape in Shape)


@dataclass(frozen=True)
class Experiment:
    """A training log, and test auctions with their truth. `value_cpm` (n_test,) uses the true pctr.

    `oracle_cpm`: the expected surplus of the best bid at each test auction, (n_test,).
    """

    train: pd.DataFrame
    test: Simulation
    value_cpm: Doubles
    oracle_cpm: Doubles

    def observations(self, feedback: str) -> MarketPriceObservations:
        """Of the training log; CLOSED: as if the exchange told no prices."""
        y = MarketPriceObservations.from_log(self.train)
        return y.win_or_loss() if feedback == CLOSED else y

    def surplus(self, bid_cpm: Doubles) -> float:
        """Expected surplus of bids (n_test,) as a share of the oracle's."""
        return float(
            self.test.truth.expected_surplus_cpm(self.value_cpm, bid_cpm).sum() / self.oracle_cpm.sum()
        )


def make_experiment(shape: str, *, seed: int, n_train: int, n_test: int) -> Experiment:
    """One world, one first-price exchange, every loss on price."""
    rng = np.random.default_rng(seed)
    market = Market(
        shape=shape,  # type: ignore[arg-type]
        exchanges=one_exchange(Feedback.WINS),
        histograms=HISTOGRAMS if shape == Shape.EMPIRICAL else None,
    )
    world = draw_world(market, rng=rng)
    train, test = world.simulate(n_train, rng=rng), world.simulate(n_test, rng=rng)
    value = value_cpm(test.truth.pctr, test.log["value_per_click"].to_numpy())
    return Experiment(train.log, test, value, test.truth.oracle_surplus_cpm(value))


def judge(policy: Policy, experiment: Experiment) -> tuple[dict[str, float], Doubles]:
    """Scores of a policy, and its bids (n_test,).

    `surplus`: of the oracle's. `bias`: Σ predicted ÷ Σ true win rate at its own bids (bias@opt). `excess_nll`: of the
    predicted win rates at the logged bids, above the entropy of the true ones, in nats.
    """
    test, truth = experiment.test, experiment.test.truth
    X = test.log
    bid = policy.bid_cpm(X, experiment.value_cpm, truth.floor_cpm)
    at = bid > 0.0
    believed = np.where(at, policy.win_rate(X, np.where(at, bid, 1.0)), 0.0)
    logged = X["bid_cpm"].to_numpy()
    p = np.clip(policy.win_rate(X, logged), 1e-9, 1.0 - 1e-9)
    q = truth.win_rate(logged)
    cost = -(q * np.log(p) + (1.0 - q) * np.log1p(-p))
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(np.where(q > 0.0, q * np.log(q), 0.0) + np.where(q < 1.0, (1.0 - q) * np.log1p(-q), 0.0))
    scores = {
        "surplus": experiment.surplus(bid),
        "bias": float(believed.sum() / truth.win_rate(bid).sum()),
        "excess_nll": float((cost - entropy).mean()),
    }
    return scores, bid
