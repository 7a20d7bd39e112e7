"""Policies in the form that a replay asks: auctions and a pacing multiplier in, bids out."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bidml.blueprint import Blueprint
from bidml.features import Doubles, RawColumns
from bidml.pricing import WinCurve
from bidml.replay.auctions import ReplayAuctions
from bidml.replay.run import Bidder
from bidml.score import Scorer


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What the artifact says about a log of n rows: `pctr`, `pcvr` (n,), the win curves; None for a part it has not."""

    pctr: Doubles | None
    curve: WinCurve | None
    pcvr: Doubles | None = None


def predict(scorer: Scorer, columns: RawColumns, *, blueprint: Blueprint | None = None) -> Predictions:
    """Scores raw columns (from `bidml.features.raw_columns`) with a loaded artifact.

    `blueprint`: the scorer's own, where it is at hand; else it is read again, which is slow.
    """
    n_rows = len(next(iter(columns.values())))
    outputs = {"ctr": ["pctr"], "cvr": ["pcvr"], "win": ["win_location", "win_shape"]}
    wanted = [name for part in scorer.parts for name in outputs[part]]
    found = {name: array("d", bytes(8 * n_rows)) for name in wanted}
    scorer.score_many(columns, found)
    arrays = {name: np.frombuffer(values) for name, values in found.items()}
    curve = None
    win = (blueprint or scorer.blueprint).win if "win" in scorer.parts else None
    if win is not None:
        curve = WinCurve(arrays["win_location"], arrays["win_shape"], win.gamma, win.family)
    return Predictions(arrays.get("pctr"), curve, arrays.get("pcvr"))


def scorer_bidder(
    scorer: Scorer,
    columns: RawColumns,
    auctions: ReplayAuctions,
    *,
    value_per_click: npt.ArrayLike,
    value_per_conversion: npt.ArrayLike = 0.0,
    cap_cpm: npt.ArrayLike = 1e6,
    risk_aversion: float = 0.0,
) -> Bidder:
    """The artifact's own bids through `bid_many`, under the auctions' floors and types.

    `columns`: the raw columns of the auctions, in their order (`bidml.features.raw_columns`). `value_per_click`,
    `value_per_conversion` (of an artifact with a CVR model) and `cap_cpm` are numbers or (n,), in its currency.
    `risk_aversion`, of an artifact that knows its uncertainty, is of all.
    """
    n = len(auctions)
    worth, converts, cap = (
        np.broadcast_to(np.asarray(x, dtype=np.float64), (n,))
        for x in (value_per_click, value_per_conversion, cap_cpm)
    )
    pays = bool(np.any(converts != 0.0))

    def bids(rows: slice, multiplier: float) -> Doubles:
        found = np.empty(len(range(*rows.indices(n))))
        scorer.bid_many(
            {
                **{name: cells[rows] for name, cells in columns.items()},
                "value_per_click": np.ascontiguousarray(worth[rows]),
                **({"value_per_conversion": np.ascontiguousarray(converts[rows])} if pays else {}),
                **({"risk_aversion": risk_aversion} if risk_aversion != 0.0 else {}),
                "floor_cpm": np.ascontiguousarray(auctions.floor_cpm[rows]),
                "cap_cpm": np.ascontiguousarray(cap[rows]),
                "pacing_multiplier": multiplier,
                "auction_type": np.ascontiguousarray(auctions.auction_type[rows]),
            },
            out=found,
        )
        return found

    return bids


def value_bidder(price: Callable[[Doubles], npt.ArrayLike], value_cpm: npt.ArrayLike) -> Bidder:
    """`price` of what an auction is believed to be worth, CPM → CPM; the multiplier acts on the value."""
    values = np.asarray(value_cpm, dtype=np.float64)
    return lambda rows, multiplier: np.asarray(price(multiplier * values[rows]), dtype=np.float64)
