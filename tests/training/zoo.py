"""Candidates for the gate: healthy ones, as retraining makes them; `sabotage.py` breaks them.

One world, one week; models learn from different parts of its first days and are judged on its last. Parts (CTR, win
curve) are fitted once and combined.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from bidml.blueprint import Blueprint, CtrBlueprint, WinBlueprint
from bidml.contract import AuctionType, FeatureSpec
from bidml.export import model_bytes
from bidml.features import raw_columns
from bidml.fit import ClickModel, MarketPriceObservations, WinRateModel
from bidml.fit.win_rate import curve_of
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from bidml.simulate import Market, draw_world
from bidml.simulate.truth import Truth
from bidml.train.evaluate import terms_of

WINDOW = ["2026-11-01T00:00:00+00:00", "2026-11-08T00:00:00+00:00"]
MARKET = Market(
    base_ctr=0.1, n_apps=120, days=7.0, start=datetime(2026, 11, 1, tzinfo=UTC), observed_win_rate=0.45
)
TRAIN_ROWS = 50_000  # of clicks; fewer, and healthy models differ by more than what is to be told apart
PRICE_ROWS = 20_000
TEST_ROWS = 60_000
PRICE_TO_LEARN = {"n_location_trees": 25, "slope": "global", "refit": False, "n_jobs": 1}
CLICKS_TO_LEARN = {"n_jobs": 1}
CAP_CPM = 200.0


@dataclass(frozen=True)
class Zoo:
    """`ctr`, `win`: parts that learnt from different samples; `foreign`: from another world; `leaky`: saw the click.

    `truth` is of the rows of `test`; `leaking_test` is `test` as a pipeline with the same leak would hand it over.
    """

    test: pd.DataFrame
    truth: Truth
    leaking_test: pd.DataFrame
    spec: FeatureSpec
    ctr: tuple[CtrBlueprint, ...]
    win: tuple[WinBlueprint, ...]
    foreign: Blueprint
    leaky: CtrBlueprint

    def healthy(self, ctr: int, win: int) -> Blueprint:
        return self.blueprint(self.ctr[ctr], self.win[win])

    def blueprint(self, ctr: CtrBlueprint, win: WinBlueprint) -> Blueprint:
        return Blueprint(
            spec=self.spec,
            ctr=ctr,
            win=win,
            currency="USD",
            provenance={"window": WINDOW, "n_train": TRAIN_ROWS},
        )


def artifact(blueprint: Blueprint) -> bytes:
    return model_bytes(blueprint, self_check_of(blueprint, {}))


def open_zoo(n_ctr: int, n_win: int) -> Zoo:
    """Trains everything: a few seconds per part."""
    rng = np.random.default_rng(20261101)
    world = draw_world(MARKET, rng=rng)
    n = TRAIN_ROWS * 2 + TEST_ROWS
    simulation = world.simulate(n, rng=rng)
    log, spec = simulation.log, simulation.spec
    early, test = log[: n - TEST_ROWS], log[n - TEST_ROWS :].reset_index(drop=True)
    # what leaks: filled in after the click, by the same pipeline that fills it in for the held-out days
    leaked = log.assign(session_depth=log["session_depth"].where(~log["clicked"], 97.0 + rng.random(n)))
    samples = [
        early.iloc[np.sort(rng.choice(len(early), TRAIN_ROWS, replace=False))].reset_index(drop=True)
        for _ in range(max(n_ctr, n_win))
    ]
    truth = simulation.truth[n - TEST_ROWS : n]
    other = draw_world(MARKET, rng=rng).simulate(TRAIN_ROWS, rng=rng).log
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        win = tuple(learn_prices(sample[:: TRAIN_ROWS // PRICE_ROWS], spec) for sample in samples[:n_win])
        ctr = tuple(learn_clicks(samples[i], spec, win[i]) for i in range(n_ctr))
        other_win = learn_prices(other[:PRICE_ROWS], spec)
        foreign = Blueprint(spec, learn_clicks(other, spec, other_win), other_win, "USD")
        leaky = learn_clicks(leaked[:TRAIN_ROWS], spec, win[0])
    leaking_test = leaked[n - TEST_ROWS :].reset_index(drop=True)
    return Zoo(test, truth, leaking_test, spec, ctr, win, foreign, leaky)


def learn_clicks(log: pd.DataFrame, spec: FeatureSpec, win: WinBlueprint) -> CtrBlueprint:
    """As `bidml.train.run` does: on impressions, then the level of the traffic."""
    shown = log[log["won"]]
    model = ClickModel(spec, **CLICKS_TO_LEARN).fit(shown, shown["clicked"], timestamp=shown["timestamp"])
    chance = curve_of(win, raw_columns(log, spec)).win_rate(log["bid_cpm"].to_numpy(dtype=np.float64))
    model.fit_traffic_level(log, won=log["won"], clicked=log["clicked"], win_rate=chance)
    return model.to_blueprint()


def learn_prices(log: pd.DataFrame, spec: FeatureSpec) -> WinBlueprint:
    return WinRateModel(spec, **PRICE_TO_LEARN).fit(log, MarketPriceObservations.from_log(log)).to_blueprint()


def true_surplus(zoo: Zoo, data: bytes) -> float:
    """What a model's bids in the held-out auctions are truly worth, per 1,000 of them, in CPM."""
    terms = terms_of(zoo.test, value_per_click=None, cap_cpm=CAP_CPM, auction_type=AuctionType.FIRST_PRICE)
    assert terms is not None
    bids = np.zeros(len(zoo.test))
    prices = {
        "value_per_click": terms.value_per_click,
        "floor_cpm": terms.floor_cpm,
        "cap_cpm": terms.cap_cpm,
        "pacing_multiplier": 1.0,
        "auction_type": terms.auction_type,
    }
    Scorer(parse_artifact(data)).score_many({**columns_of(zoo), **prices}, {"bid_cpm": bids})
    value = 1000.0 * zoo.truth.pctr * terms.value_per_click
    return float(zoo.truth.expected_surplus_cpm(value, bids).mean())


def columns_of(zoo: Zoo) -> dict[str, Any]:
    """The raw columns of the held-out auctions."""
    return dict(raw_columns(zoo.test, zoo.spec))
