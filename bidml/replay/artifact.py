"""An artifact against what the log's own bidder did, in the same auctions under the same rules."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from bidml.contract import AuctionType
from bidml.errors import ConfigError, DataError
from bidml.features import raw_columns
from bidml.pacing import BudgetPacer, DualDescent, TrafficForecast
from bidml.replay.auctions import ReplayAuctions
from bidml.replay.bidders import predict, scorer_bidder
from bidml.replay.result import ReplayResult
from bidml.replay.run import replay
from bidml.score import Scorer

ARTIFACT: Final = "artifact"
LOGGED: Final = "as logged"


def replay_artifact(
    scorer: Scorer,
    log: pd.DataFrame,
    *,
    judge: Scorer | None = None,
    value_per_click: float | None = None,
    cap_cpm: float = 1e6,
    floor_cpm: float | None = None,
    auction_type: AuctionType | int | None = None,
    budget: float | None = None,
    n_windows: int | None = None,
) -> dict[str, ReplayResult]:
    """`ARTIFACT` and `LOGGED`, the logged bids with the same budget, in a validated `log` in time order.

    `judge`: the artifact whose pctr values the wins and whose curve imputes what the log leaves open; default: the
    scorer's own, which flatters it. `true_pctr` and `true_market_price_cpm` are used where the log has them.
    `value_per_click` where the log has none; `floor_cpm` and `auction_type` instead of the log's. `n_windows` paces
    the artifact's budget over as many windows of equally many auctions; the logged bids stop when it is spent.
    Raises `ConfigError`, `DataError`.
    """
    judge = scorer if judge is None else judge
    if n_windows is not None and budget is None:
        raise ConfigError("pacing has a budget", value="no budget", remedy="give the budget too")
    if judge.currency != scorer.currency:
        raise ConfigError(
            "judge and artifact speak one currency",
            value=(judge.currency, scorer.currency),
            remedy="use another",
        )
    columns = raw_columns(log, scorer.spec)
    judged = predict(judge, columns if judge is scorer else raw_columns(log, judge.blueprint.spec))
    auctions = ReplayAuctions.from_log(
        log,
        pctr=None if "true_pctr" in log else judged.pctr,
        value_per_click=value_per_click,
        floor_cpm=floor_cpm,
        auction_type=auction_type,
    )
    if auctions.currency != scorer.currency:
        raise DataError(
            f"the log's money is the artifact's: {scorer.currency}",
            value=auctions.currency,
            remedy="replay an artifact trained in the log's currency",
        )
    pacer = None
    if budget is not None and n_windows is not None:
        pacer = BudgetPacer(budget, TrafficForecast.flat(n_windows, len(auctions)), DualDescent())
    worth = log["value_per_click"].to_numpy(dtype=np.float64) if "value_per_click" in log else value_per_click
    bidder = scorer_bidder(
        scorer, columns, auctions, value_per_click=0.0 if worth is None else worth, cap_cpm=cap_cpm
    )
    return {
        ARTIFACT: replay(
            bidder, auctions, curve=judged.curve, budget=None if pacer is not None else budget, pacer=pacer
        ),
        LOGGED: replay(auctions.bid_cpm, auctions, curve=judged.curve, budget=budget),
    }
