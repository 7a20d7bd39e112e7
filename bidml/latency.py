"""How long one `bid` takes from Python: a first look. `benchmarks/bench_score.py` compares and explains."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from time import perf_counter, perf_counter_ns
from typing import Any

from bidml.score import LineItem, Scorer

_TURN = 200  # calls before the null call has its turn: noise of the machine hits both
_PERCENTILES = (("p10", 10.0), ("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9))


def measure_latency(
    scorer: Scorer, requests: Sequence[Mapping[str, Any]], line: LineItem, *, seconds: float = 2.0
) -> dict[str, Any]:
    """Percentiles in µs of `bid(request, line)` over rotating `requests`, net of an empty call timed alike.

    One thread; each call is timed alone. Shared machines add their noise to the upper percentiles.
    """
    bids, nulls = _timed(scorer, requests, line, seconds)
    floor = _percentile(nulls, 50.0)
    return {
        "n_calls": len(bids),
        "bid(request, line)": {
            name: (_percentile(bids, percent) - floor) / 1e3 for name, percent in _PERCENTILES
        },
    }


def latency_samples_us(
    scorer: Scorer, requests: Sequence[Mapping[str, Any]], line: LineItem, *, seconds: float = 1.0
) -> list[float]:
    """The times behind `measure_latency`, µs, one per call: for a histogram."""
    bids, nulls = _timed(scorer, requests, line, seconds)
    floor = _percentile(nulls, 50.0)
    return [max(nanoseconds - floor, 0.0) / 1e3 for nanoseconds in bids]


def _timed(
    scorer: Scorer, requests: Sequence[Mapping[str, Any]], line: LineItem, seconds: float
) -> tuple[list[int], list[int]]:
    """Nanoseconds of each bid, and of each empty call between them."""
    for request in requests:
        scorer.bid(request, line)
    bids: list[int] = []
    nulls: list[int] = []
    turns = cycle([requests[start : start + _TURN] for start in range(0, len(requests), _TURN)])
    gc.collect()
    gc.disable()
    try:
        end = perf_counter() + seconds
        while perf_counter() < end:
            turn = next(turns)
            _time_calls(_null, turn, line, nulls)
            _time_calls(scorer.bid, turn, line, bids)
    finally:
        gc.enable()
    return bids, nulls


def _null(request: object, line: object) -> float:
    return 0.0


def _time_calls(
    call: Callable[[Any, LineItem], object],
    requests: Sequence[Mapping[str, Any]],
    line: LineItem,
    samples: list[int],
) -> None:
    for request in requests:
        start = perf_counter_ns()
        call(request, line)
        samples.append(perf_counter_ns() - start)


def _percentile(samples: Sequence[int], percent: float) -> float:
    ordered = sorted(samples)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100.0))])
