"""Which plots a report shows, in the order of its questions, each with how to read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from bidml.contract import AuctionType
from bidml.features import Doubles
from bidml.log import price_loss, sample_weights
from bidml.metrics import calibration_by_segment
from bidml.report import plots
from bidml.report.curves import Bins, gain_curve, log_bins, quantile_bins, wilson_interval
from bidml.report.data import ReportData

_SEGMENT_COLUMNS: Final = ("exchange", "campaign_id", "ad_exchange", "adexchange", "os", "advertiser_id")
_MOST_SEGMENTS: Final = 20
_MOST_EXCHANGES: Final = 5
_LEAST_ROWS: Final = 300
_TIMES: Final = 28


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A figure, and one sentence on how to read it."""

    figure: Figure
    caption: str

    @property
    def name(self) -> str:
        """Its title in the form of a file's name."""
        title = self.figure.axes[0].get_title(loc="left").lower()
        return re.sub(r"[^a-z0-9]+", "_", title).strip("_")


def figures_of(data: ReportData) -> dict[str, list[Drawing]]:
    """Sections by title; one without a figure is left out."""
    sections = {
        "Champion and challenger": _champion(data),
        "Clicks": _clicks(data),
        "Winning": _winning(data),
        "Money": _money(data),
        "Change over time": _change(data),
    }
    return {title: drawings for title, drawings in sections.items() if drawings}


def _champion(data: ReportData) -> list[Drawing]:
    if data.duel is None:
        return []
    duel, currency = data.duel, data.currency
    return [
        Drawing(
            plots.champion_and_challenger(
                duel.champion_surplus_cpm, duel.challenger_surplus_cpm, currency=currency
            ),
            "Same held-out auctions, both priced by the gate's referee. The challenger earns more where the line "
            "rises; clear of zero at the end means beyond chance.",
        ),
        Drawing(
            plots.bids_compared(duel.champion_bid_cpm, duel.challenger_bid_cpm, currency=currency),
            "A ratio far from 1 at some level of bids is a changed model: look there first.",
        ),
    ]


def _clicks(data: ReportData) -> list[Drawing]:
    test = data.test
    if data.pctr is None or "clicked" not in test:
        return []
    shown = test["won"].to_numpy(dtype=bool) if "won" in test else np.ones(len(test), dtype=bool)
    p, clicked = data.pctr[shown], test["clicked"].to_numpy(dtype=bool)[shown]
    if not len(p):
        return []
    w = sample_weights(test[shown])
    drawings = [
        Drawing(
            plots.reliability(quantile_bins(p, clicked, p, weight=w), log_bins(p, clicked, weight=w)),
            "On the line the probabilities are right; below it clicks are overpaid. Bins per decade show the rare "
            f"high predictions that bins of equal size hide.{_level(data)}",
        )
    ]
    if clicked.any():
        drawings.append(
            Drawing(
                plots.gain(gain_curve(p, clicked, weight=w)),
                "How many of the clicks the model finds in the best-scored impressions: sorting, not level.",
            )
        )
        drawings.append(
            Drawing(
                plots.lift(quantile_bins(p, clicked, p, n_bins=10, weight=w)),
                "Each tenth of the impressions against the average rate; bars and dots agree when it is calibrated.",
            )
        )
        if w is None:  # the table by segments knows no weights
            drawings += _segments(test[shown], p, clicked, level=_level(data))
    return drawings


def _level(data: ReportData) -> str:
    if data.curve is None:
        return ""
    return " These are impressions that the old policy won; the model's level is that of all auctions, a little lower."


def _segments(
    shown: pd.DataFrame, p: Doubles, clicked: npt.NDArray[np.bool_], *, level: str
) -> list[Drawing]:
    name = next((column for column in _SEGMENT_COLUMNS if column in shown), None)
    if name is None:
        return []
    segment = shown[name].astype(str).to_numpy(dtype=object)
    table = calibration_by_segment(clicked, p, segment).sort_values("n_rows", ascending=False, kind="stable")
    table = table.head(_MOST_SEGMENTS)
    figure = plots.calibration_by_segment(
        [str(key) for key in table.index],
        *(table[column].to_numpy(dtype=np.float64) for column in ("calibration_ratio", "low", "high")),
        n_events=table["events"].to_numpy(dtype=np.int64),
        by=name,
    )
    return [
        Drawing(
            figure,
            f"Right of 1 we overpay, left of 1 we miss clicks; red is beyond chance. Clicks in brackets.{level}",
        )
    ]


def _winning(data: ReportData) -> list[Drawing]:
    test = data.test
    if data.curve is None or "won" not in test or "bid_cpm" not in test:
        return []
    won = test["won"].to_numpy(dtype=bool)
    counts = won | price_loss(test).to_numpy(dtype=bool)
    if not counts.any():
        return []
    bid = test["bid_cpm"].to_numpy(dtype=float)[counts]
    predicted = data.curve[counts].win_rate(bid)
    y, w = won[counts], sample_weights(test[counts])
    by_exchange: dict[str, Bins] = {}
    if "exchange" in test:
        exchange = test["exchange"].astype(str).to_numpy(dtype=object)[counts]
        names, sizes = np.unique(exchange, return_counts=True)
        largest = names[np.argsort(-sizes, kind="stable")][:_MOST_EXCHANGES]
        by_exchange = {
            name: quantile_bins(
                bid[rows], y[rows], predicted[rows], n_bins=8, weight=None if w is None else w[rows]
            )
            for name in sorted(largest)
            if (rows := exchange == name).sum() >= _LEAST_ROWS
        }
    by_bid = (
        plots.win_rate_by_exchange(by_exchange, currency=data.currency)
        if len(by_exchange) > 1
        else plots.win_rate_by_bid(quantile_bins(bid, y, predicted, weight=w), currency=data.currency)
    )
    return [
        Drawing(by_bid, "Points are what happened, lines what the model says of the same auctions."),
        Drawing(
            plots.reliability(quantile_bins(predicted, y, predicted, weight=w), what="win rate"),
            "A win rate that is too high makes bids too low, and the other way round.",
        ),
    ]


def _money(data: ReportData) -> list[Drawing]:
    drawings = []
    currency = data.currency
    if "money" in data.metrics:
        drawings.append(
            Drawing(
                plots.surplus_of_policies(data.metrics["money"], currency=currency),
                f"What each policy earns in the same auctions; market: {data.metrics.get('market', 'unknown')}.",
            )
        )
    if data.bid_cpm is not None and data.value_cpm is not None and (data.bid_cpm > 0.0).any():
        drawings.append(
            Drawing(
                plots.shading(data.bid_cpm, data.value_cpm),
                "How much of the value is bid. All at 100 %: second price, or no competition learnt.",
            )
        )
        if data.curve is not None:
            drawings += _one_auction(data)
    if "importance" in data.metrics:
        found = data.metrics["importance"]
        names = list(found["features"])
        loss, half = (
            np.array([found["features"][name][key] for name in names])
            for key in ("loss_cpm", "loss_ci95_cpm")
        )
        drawings.append(
            Drawing(
                plots.importance_in_money(names, loss, half, currency=currency),
                f"Surplus lost when a feature's values are shuffled among auctions; judged by {found['judge']}. "
                "Features that say the same share their worth.",
            )
        )
    return drawings


def _one_auction(data: ReportData) -> list[Drawing]:
    """The surplus curve of a typical first-price auction: that of the median expected surplus."""
    assert data.bid_cpm is not None
    assert data.value_cpm is not None
    assert data.curve is not None
    test = data.test
    at = test["auction_type"].to_numpy() if "auction_type" in test else np.ones(len(test))
    floor = (
        test["floor_cpm"].fillna(0.0).to_numpy(dtype=float) if "floor_cpm" in test else np.zeros(len(test))
    )
    rows = np.flatnonzero((data.bid_cpm > floor * 1.001) & (at == AuctionType.FIRST_PRICE))
    rows = rows[data.bid_cpm[rows] < 0.999 * data.value_cpm[rows]]
    if not len(rows):
        return []
    surplus = (data.value_cpm[rows] - data.bid_cpm[rows]) * data.curve[rows].win_rate(data.bid_cpm[rows])
    row = rows[np.argsort(surplus, kind="stable")[len(rows) // 2]]
    value, bid = float(data.value_cpm[row]), float(data.bid_cpm[row])
    grid = np.linspace(0.0, 1.15 * value, 301)[1:]
    curve = data.curve[np.full(len(grid), row)]
    figure = plots.surplus_curve(
        grid,
        (value - grid) * curve.win_rate(grid),
        chosen_cpm=bid,
        value_cpm=value,
        floor_cpm=float(floor[row]),
        currency=data.currency,
    )
    return [
        Drawing(
            figure, "One held-out auction of median surplus: a higher bid wins more often and keeps less."
        )
    ]


def _change(data: ReportData) -> list[Drawing]:
    drawings = []
    if data.psi:
        names = list(data.psi)
        drawings.append(
            Drawing(
                plots.psi(names, np.array([data.psi[name] for name in names])),
                "How far each feature has moved since the champion's training; by custom 0.1 is worth a look.",
            )
        )
    if data.train is None or "timestamp" not in data.train or "timestamp" not in data.test:
        return drawings
    columns = [
        c for c in ("timestamp", "won", "clicked", "price_cpm", "bid_cpm")
        if c in data.train and c in data.test
    ]  # fmt: skip
    log = pd.concat([data.train[columns], data.test[columns]], ignore_index=True)
    start = _utc(data.test["timestamp"]).min()
    if "won" in log:
        shown = log["won"].to_numpy(dtype=bool)
        if "price_cpm" in log:
            price = log["price_cpm"].to_numpy(dtype=float)
            known = shown & np.isfinite(price)
            drawings += _quartiles(_utc(log["timestamp"])[known], price[known], start, data.currency)
        log = log[shown]
    if "clicked" in log and len(log):
        drawings += _rates(_utc(log["timestamp"]), log["clicked"].to_numpy(dtype=bool), start)
    return drawings


def _utc(times: pd.Series) -> npt.NDArray[np.datetime64]:
    return np.asarray(pd.to_datetime(times, utc=True).dt.tz_localize(None).to_numpy(), dtype="datetime64[us]")


def _slices(when: npt.NDArray[np.datetime64]) -> list[npt.NDArray[np.int64]]:
    """Rows by equal spans of time; slices of fewer than 30 rows are left out."""
    ticks = when.astype(np.int64)
    first, last = int(ticks.min()), int(ticks.max())
    if first == last:
        return []
    of = np.minimum((ticks - first) * _TIMES // (last - first), _TIMES - 1)
    found = (np.flatnonzero(of == i) for i in range(_TIMES))
    return [rows for rows in found if len(rows) >= 30]


def _middle(when: npt.NDArray[np.datetime64], rows: npt.NDArray[np.int64]) -> np.datetime64:
    return np.datetime64(int(np.median(when[rows].astype(np.int64))), "us")


def _quartiles(
    when: npt.NDArray[np.datetime64], price: Doubles, start: np.datetime64, currency: str
) -> list[Drawing]:
    slices = _slices(when) if len(when) else []
    if len(slices) < 3:
        return []
    low, middle, high = (
        np.array([np.quantile(price[rows], q) for rows in slices]) for q in (0.25, 0.5, 0.75)
    )
    figure = plots.drift(
        np.array([_middle(when, rows) for rows in slices]), middle, low, high,
        what="price paid", unit=f"{currency} CPM", band="middle half", held_out_from=start,
    )  # fmt: skip
    return [Drawing(figure, "Median price of what was won. A step is a change of market, mix or unit.")]


def _rates(
    when: npt.NDArray[np.datetime64], clicked: npt.NDArray[np.bool_], start: np.datetime64
) -> list[Drawing]:
    slices = _slices(when)
    if len(slices) < 3 or not clicked.any():
        return []
    rate = np.array([clicked[rows].mean() for rows in slices])
    low, high = wilson_interval(rate, np.array([len(rows) for rows in slices]))
    figure = plots.drift(
        np.array([_middle(when, rows) for rows in slices]), rate, low, high,
        what="click rate", unit="", held_out_from=start,
    )  # fmt: skip
    return [
        Drawing(
            figure, "Clicks per impression won. A fall at the end may be clicks that have not arrived yet."
        )
    ]
