"""Which feature earns the money: what the bids lose when its values are shuffled among the auctions.

Permutation importance (Breiman 2001), in expected surplus: shuffled, a feature keeps its distribution and says
nothing. Features that say the same can stand in for each other, so each alone may look worthless. Without a known
market the model's own win curve and clicks are the judge: then it is what the model believes to owe to a feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.features import Doubles, RawColumns
from bidml.log import sample_weights
from bidml.pricing import WinCurve, optimal_bid_cpm, second_price_surplus_cpm, surplus_cpm
from bidml.score import Scorer
from bidml.train.evaluate import Market, Terms, bids_of, predict, true_value_cpm

MOST_ROWS: Final = 20_000
_Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True, eq=False)
class BelievedMarket:
    """The market that a model believes in; each array has shape (n,). Its oracle is the model itself."""

    curve: WinCurve
    terms: Terms
    kind: str = "the model's own win curve"

    def win_rate(self, bid_cpm: Doubles) -> Doubles:
        return np.where(bid_cpm >= self.terms.floor_cpm, self.curve.win_rate(bid_cpm), 0.0)

    def surplus_cpm(self, value_cpm: Doubles, bid_cpm: Doubles) -> Doubles:
        first = surplus_cpm(value_cpm, bid_cpm, self.win_rate(bid_cpm))
        second = self.terms.is_second_price
        if not second.any():
            return first
        least = self.terms.floor_cpm
        return np.where(
            second, second_price_surplus_cpm(value_cpm, bid_cpm, self.curve, lowest_price_cpm=least), first
        )

    def oracle_bid_cpm(self, value_cpm: Doubles) -> Doubles:
        return optimal_bid_cpm(
            value_cpm,
            self.curve,
            floor_cpm=self.terms.floor_cpm,
            cap_cpm=self.terms.cap_cpm,
            auction_type=self.terms.auction_type,
        )


def importance_in_money(
    scorer: Scorer,
    columns: RawColumns,
    log: pd.DataFrame,
    terms: Terms,
    market_of: Callable[[pd.DataFrame], Market] | None,
    *,
    rng: np.random.Generator,
    most_rows: int = MOST_ROWS,
) -> dict[str, Any]:
    """Surplus lost per 1,000 auctions without each feature: `loss_cpm`, with `loss_ci95_cpm`, half a 95 % interval.

    Measured on at most `most_rows` rows, evenly from `log`; `columns` and `terms` are its rows'. `judge` says whose
    market it is.
    """
    rows = np.unique(np.linspace(0, len(log) - 1, min(len(log), most_rows)).astype(np.int64))
    some, at = log.iloc[rows].reset_index(drop=True), terms[rows]
    cells = {name: column[rows] for name, column in columns.items()}
    found = predict(scorer, cells)
    assert found.pctr is not None
    assert found.curve is not None
    market: Market = BelievedMarket(found.curve, at) if market_of is None else market_of(some)
    value = true_value_cpm(some, found.pctr, at, found.pcvr)
    whole = market.surplus_cpm(value, bids_of(scorer, cells, at))
    w = sample_weights(some)
    w = np.ones(len(rows)) if w is None else w
    order: npt.NDArray[np.int64] = rng.permutation(len(rows))
    features = {}
    for feature in scorer.blueprint.spec.features:
        shuffled = {**cells, feature.name: cells[feature.name][order]}
        lost = whole - market.surplus_cpm(value, bids_of(scorer, shuffled, at))
        mean = float(np.average(lost, weights=w))
        half = _Z95 * float(np.sqrt(((w * (lost - mean)) ** 2).sum()) / w.sum())
        features[feature.name] = {"loss_cpm": mean, "loss_ci95_cpm": half}
    return {"judge": market.kind, "n_rows": len(rows), "features": features}
