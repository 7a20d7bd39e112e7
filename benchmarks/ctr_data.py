"""Click logs to compare CTR models on: real ones, and simulated ones whose true pctr is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import FeatureSpec
from bidml.features import raw_columns
from bidml.log import infer_spec, read_log
from bidml.simulate import Market, simulate

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
TEST_SHARE = 0.25
FIRST_SEED = 1001  # parameters were chosen on seeds below


@dataclass(frozen=True, eq=False)
class ClickLog:
    """`train` and `test` with `clicked` and the features of `spec`. `timed`: rows are in time order and test is later.
    `true_pctr` (n_test,) where it is known; `segments`: low-cardinality categories to judge calibration by."""

    name: str
    seed: int
    train: pd.DataFrame
    test: pd.DataFrame
    spec: FeatureSpec
    timed: bool
    segments: tuple[str, ...]
    true_pctr: npt.NDArray[np.float64] | None = None

    def raw(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return raw_columns(self.train, self.spec), raw_columns(self.test, self.spec)

    def outcomes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return self.train["clicked"].to_numpy(dtype=float), self.test["clicked"].to_numpy(dtype=float)


def simulated(n_rows: int, *, base_ctr: float, seed: int) -> ClickLog:
    """All auctions count as impressions; clicks are drawn from the true pctr; the last quarter in time is the test."""
    rng = np.random.default_rng(seed)
    simulation = simulate(n_rows, rng=rng, market=Market(base_ctr=base_ctr))
    truth = simulation.log["true_pctr"].to_numpy()
    log = simulation.log[["timestamp", *simulation.spec.names]].assign(clicked=rng.random(n_rows) < truth)
    n_train = round((1.0 - TEST_SHARE) * n_rows)
    segments = ("country", "campaign_id", "exchange", "banner_size", "device_make")
    name = f"simulated {base_ctr:.1%}"
    return ClickLog(
        name, seed, log[:n_train], log[n_train:], simulation.spec, True, segments, truth[n_train:]
    )


def kdd_cup(seed: int) -> ClickLog:
    """Sponsored search, no time: a random split. `impression` counts repetitions of a row, known only afterwards."""
    path = DATA / "kddcup2012_click_prediction_small.csv.gz"
    log = read_log(path, format="csv", columns={"clicked": "click"}, numbers=["depth", "position"])
    log = log.drop(columns="impression")
    return _random_split("KDD Cup 2012", log, infer_spec(log), ("advertiser_id",), seed)


def open_bandit(campaign: str) -> ClickLog:
    """Fashion recommendations at random, in time order; 38 or 46 clicks in 10,000 rows."""
    path = DATA / f"obd_random_{campaign}.csv.gz"
    log = read_log(path, format="csv", columns={"clicked": "click"}).sort_values("timestamp", kind="stable")
    names = ["item_id", "position", *(f"user_feature_{i}" for i in range(4))]
    n_train = round((1.0 - TEST_SHARE) * len(log))
    train, test = log[:n_train], log[n_train:]
    return ClickLog(f"Open Bandit {campaign}", 0, train, test, infer_spec(log, names), True, ("position",))


def ipinyou_2997(seed: int) -> ClickLog:
    """Mobile in-app impressions, unordered, 50 clicks. (The test part of iPinYou 2259 has none: it cannot judge.)"""
    log = read_log(
        DATA / "ipinyou_2997_mobile_features_price_click.parquet",
        format="parquet",
        columns={"clicked": "click", "price_cpm": "payprice", "ip": "IP"},
        currency="CNY",
        auction_type=2,
        price_unit="centi_cpm",
    )
    names = [name for name in infer_spec(log).names if name not in ("pctr", "bid")]
    return _random_split("iPinYou 2997", log, infer_spec(log, names), ("hour",), seed)


def click_logs(
    *,
    quick: bool,
    n_rows: int | None = None,
    seeds: int | None = None,
    first_seed: int = FIRST_SEED,
    named: Sequence[str] = (),
) -> Iterator[ClickLog]:
    """All of them, one at a time, or those whose name contains one of the words `named`."""
    n_simulated = n_rows or (100_000 if quick else 1_000_000)
    made: list[tuple[str, bool, Callable[[int], ClickLog]]] = [  # name, whether seeds differ
        ("KDD Cup 2012", True, kdd_cup),
        ("Open Bandit all", False, lambda seed: open_bandit("all")),
        ("Open Bandit men", False, lambda seed: open_bandit("men")),
        ("iPinYou 2997", True, ipinyou_2997),
        ("simulated 1.0%", True, lambda seed: simulated(n_simulated, base_ctr=0.01, seed=seed)),
        ("simulated 0.1%", True, lambda seed: simulated(n_simulated, base_ctr=0.001, seed=seed)),
    ]
    for name, has_seeds, make in made:
        if not named or any(word.lower() in name.lower() for word in named):
            for i in range((seeds or (1 if quick else 3)) if has_seeds else 1):
                yield make(first_seed + i)


def _random_split(
    name: str, log: pd.DataFrame, spec: FeatureSpec, segments: tuple[str, ...], seed: int
) -> ClickLog:
    order = np.random.default_rng(seed).permutation(len(log))
    n_train = round((1.0 - TEST_SHARE) * len(log))
    return ClickLog(name, seed, log.iloc[order[:n_train]], log.iloc[order[n_train:]], spec, False, segments)
