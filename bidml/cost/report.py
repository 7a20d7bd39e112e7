"""`bidml cost`: what was measured on this machine, and what it means for the auctions of a log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bidml.contract import AuctionType
from bidml.cost.answers import ExchangeCost, costs_by_exchange
from bidml.cost.compute import ComputeCost, Prices, measure_compute
from bidml.errors import DataError
from bidml.features import raw_columns
from bidml.log import read_log
from bidml.pricing import value_cpm
from bidml.replay import Bounded, ReplayAuctions, predict, scorer_bidder
from bidml.score import LineItem, Scorer


@dataclass(frozen=True, slots=True)
class CostReport:
    """`compute`: each call measured; `exchanges`: empty without a log. Money in `currency`."""

    currency: str
    prices: Prices
    compute: tuple[ComputeCost, ...]
    exchanges: tuple[ExchangeCost, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "currency": self.currency,
            "prices": {**asdict(self.prices), "per_response": self.prices.per_response},
            "compute": [
                {**cost.to_json(), "per_million": cost.per_million(self.prices)} for cost in self.compute
            ],
            "exchanges": [cost.to_json() for cost in self.exchanges],
        }

    def __str__(self) -> str:
        c = self.currency
        lines = [f"one core of this machine ({self.compute[0].machine}), processor time"]
        for cost in self.compute:
            lines.append(
                f"  {cost.call:<22} {cost.cpu_us:>8.2f} µs [{cost.low_us:.2f}, {cost.high_us:.2f}]"
                f" {cost.bids_per_core_second:>12,.0f} bids per core-second"
                f" {cost.per_million(self.prices):>12.4g} {c} per million"
            )
        answers = 1e6 * self.prices.per_response
        lines.append(f"  {'answers':<22} {'':<43} {answers:>32.4g} {c} per million")
        if not self.exchanges:
            return "\n".join(lines)
        head = ("requests", "bids", "surplus", "computing", "answers", "skip below, CPM", "skipped", "saved")
        lines += [
            "",
            f"{f'by exchange, {c}':<20}" + "".join(f"{name:>16}" for name in head) + "  surplus lost",
        ]
        for x in self.exchanges:
            numbers = (x.n_requests, x.n_bids, _middle(x.surplus), x.compute, x.answers,
                       x.skip_below_cpm, x.n_skipped, x.saved)  # fmt: skip
            lost = x.surplus_lost
            lines.append(
                f"{x.exchange[:19]:<20}"
                + "".join(f"{number:>16,.5g}" for number in numbers)
                + f"  {_middle(lost):.3g} [{lost.lower:.3g}, {lost.upper:.3g}]"
            )
        lines.append(
            "surplus before costs; what skipping loses as the log tells, with bounds where it is silent"
        )
        return "\n".join(lines)


def cost_report(
    scorer: Scorer,
    requests: list[Any],
    line: LineItem,
    prices: Prices,
    *,
    log: str | Path | None = None,
    seconds: float = 2.0,
) -> CostReport:
    """Measures for `seconds` on `requests`; with a Parquet `log`, the artifact bids in its auctions too.

    In the log each auction has its own `value_per_click` and exchange, where it has none the line item's and "all".
    The judge is the artifact itself (`true_pctr` where known). Raises `DataError`, as reading and replay do.
    """
    compute = tuple(measure_compute(scorer, requests, line, seconds=seconds))
    exchanges: tuple[ExchangeCost, ...] = ()
    if log is not None:
        table = read_log(log, format="parquet", spec=scorer.spec)
        columns = raw_columns(table, scorer.spec)
        said = predict(scorer, columns)
        if said.curve is None or said.pctr is None:
            raise DataError("costs need a price", value="one of two models", remedy="train both models")
        worth = line.value_per_click
        auctions = ReplayAuctions.from_log(
            table,
            pctr=None if "true_pctr" in table else said.pctr,
            value_per_click=worth,
            auction_type=None if "auction_type" in table else AuctionType.FIRST_PRICE,
        )
        values = table["value_per_click"].fillna(worth) if "value_per_click" in table else worth
        bidder = scorer_bidder(scorer, columns, auctions, value_per_click=values, cap_cpm=line.cap_cpm)
        names = table["exchange"].fillna("unknown") if "exchange" in table else np.full(len(table), "all")
        cpu_us = min(cost.cpu_us for cost in compute)
        bids = bidder(slice(0, len(table)), 1.0)
        believed = value_cpm(said.pctr, values)
        exchanges = tuple(
            costs_by_exchange(auctions, bids, said.curve, names, prices, cpu_us=cpu_us, believed_cpm=believed)
        )
    return CostReport(scorer.currency, prices, compute, exchanges)


def _middle(x: Bounded) -> float:
    return x.lower if x.estimate is None else x.estimate
