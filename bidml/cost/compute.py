"""Bids per core-second, measured in processor time, and what a million of them costs at an instance's price.

Processor time does not count what other processes on the machine do; it does count caches that they have emptied. One
thread, rotating requests, blocks of calls; a pass of empty calls over the same requests is taken off.
"""

from __future__ import annotations

import gc
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from statistics import median
from time import perf_counter, process_time_ns
from typing import Any, Final

from bidml.errors import ConfigError, DataError
from bidml.score import LineItem, Scorer

_BLOCK: Final = 256
_FEWEST_BLOCKS: Final = 8
_GB: Final = 1e9
_SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Prices:
    """What computing and answering costs, in the artifact's currency.

    `per_hour` of an instance with `n_cores`, of whose time a share `utilisation` is paid work. `overhead_us`:
    processor time of the bidder around a bid (network, parsing, logging), per request, in µs. `per_gb` of egress,
    `response_bytes` of an answer with its headers; `per_answer` a fee for each, if the exchange takes one. Raises
    `ConfigError` for negative numbers, and a utilisation outside (0, 1].
    """

    per_hour: float
    n_cores: int = 1
    utilisation: float = 1.0
    overhead_us: float = 0.0
    per_gb: float = 0.0
    response_bytes: float = 0.0
    per_answer: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 < self.utilisation <= 1.0 and self.n_cores >= 1):
            raise ConfigError(
                "an instance has a core or more, of which a share in (0, 1] is used",
                value=(self.n_cores, self.utilisation),
                remedy="correct them",
            )
        for name in ("per_hour", "overhead_us", "per_gb", "response_bytes", "per_answer"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"{name} is a number ≥ 0", value=getattr(self, name), remedy=f"correct {name}"
                )

    @property
    def per_core_second(self) -> float:
        """What a second of useful work on one core costs."""
        return self.per_hour / self.n_cores / _SECONDS_PER_HOUR / self.utilisation

    @property
    def per_response(self) -> float:
        """Egress and fee of one answer."""
        return self.response_bytes * self.per_gb / _GB + self.per_answer

    def per_request(self, cpu_us: float) -> float:
        """Computing one request, answered or not: `cpu_us` of scoring and the overhead."""
        return (cpu_us + self.overhead_us) * 1e-6 * self.per_core_second


@dataclass(frozen=True, slots=True)
class ComputeCost:
    """Processor time of one call, µs: the median block, and the fastest and slowest decile of blocks."""

    call: str
    cpu_us: float
    low_us: float
    high_us: float
    n_calls: int
    machine: str

    @property
    def bids_per_core_second(self) -> float:
        return 1e6 / self.cpu_us

    def per_million(self, prices: Prices) -> float:
        """The price of computing a million bids, in the currency of `prices`; answers not counted."""
        return 1e6 * prices.per_request(self.cpu_us)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "bids_per_core_second": self.bids_per_core_second}


def measure_compute(
    scorer: Scorer, requests: Sequence[dict[str, Any]], line: LineItem, *, seconds: float = 2.0
) -> list[ComputeCost]:
    """`bid` on decoded requests and `bid_json` on their bytes, in turns, for `seconds` of wall time in all.

    Raises `DataError` without requests.
    """
    if not requests:
        raise DataError("a measurement has requests", value=0, remedy="give some, of real traffic")
    texts = [json.dumps(request).encode() for request in requests]
    calls: list[tuple[str, Callable[[Any, LineItem], object], Sequence[Any]]] = [
        ("bid(request, line)", scorer.bid, requests),
        ("bid_json(bytes, line)", scorer.bid_json, texts),
    ]
    blocks = {name: cycle(_blocks(rows)) for name, _, rows in calls}
    spent: dict[str, list[float]] = {name: [] for name, _, _ in calls}
    for _, call, rows in calls:
        for row in rows:
            call(row, line)
    gc.collect()
    gc.disable()
    try:
        end = perf_counter() + seconds
        while perf_counter() < end or min(map(len, spent.values())) < _FEWEST_BLOCKS:
            for name, call, _ in calls:
                block = next(blocks[name])
                null = _processor_ns(_null, block, line)
                spent[name].append((_processor_ns(call, block, line) - null) / len(block) / 1e3)
    finally:
        gc.enable()
    return [_summary(name, spent[name]) for name, _, _ in calls]


def _summary(name: str, block_us: list[float]) -> ComputeCost:
    ordered = sorted(max(us, 1e-6) for us in block_us)
    n = len(ordered)
    return ComputeCost(
        call=name,
        cpu_us=median(ordered),
        low_us=ordered[n // 10],
        high_us=ordered[n - 1 - n // 10],
        n_calls=n * _BLOCK,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
    )


def _blocks(rows: Sequence[Any]) -> list[list[Any]]:
    """Blocks of `_BLOCK` calls that go round the rows."""
    turn = cycle(rows)
    n_blocks = max(1, -(-len(rows) // _BLOCK))
    return [[next(turn) for _ in range(_BLOCK)] for _ in range(n_blocks)]


def _processor_ns(call: Callable[[Any, LineItem], object], block: Sequence[Any], line: LineItem) -> int:
    start = process_time_ns()
    for row in block:
        call(row, line)
    return process_time_ns() - start


def _null(request: object, line: object) -> float:
    return 0.0
