"""How long one `bid` takes from Python: a first look. `benchmarks/bench_score.py` compares and explains."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from time import perf_counter, perf_counter_ns
from typing import Any

from bidml.score import LineItem, Scorer

_PERCENTILES = (("p10", 10.0), ("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9))


def measure_latency(
    scorer: Scorer, requests: Sequence[Mapping[str, Any]], line: LineItem, *, seconds: float = 2.0
) -> dict[str, Any]:
    """Percentiles in µs of `bid(request, line)` over rotating `requests`, net of an empty call timed alike.

    One thread; each call is timed alone. Shared machines add their noise to the upper percentiles.
    """
    for request in requests:
        scorer.bid(request, line)
    samples = {
        "bid": _samples(scorer.bid, requests, line, seconds),
        "null": _samples(_null, requests, line, 0.2),
    }
    floor = _percentile(samples["null"], 50.0)
    return {
        "n_calls": len(samples["bid"]),
        "bid(request, line)": {
            name: (_percentile(samples["bid"], percent) - floor) / 1e3 for name, percent in _PERCENTILES
        },
    }


def _null(request: object, line: object) -> float:
    return 0.0


def _samples(
    call: Callable[[Any, LineItem], object],
    requests: Sequence[Mapping[str, Any]],
    line: LineItem,
    seconds: float,
) -> list[int]:
    samples: list[int] = []
    end = perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        for i, request in enumerate(cycle(requests)):
            start = perf_counter_ns()
            call(request, line)
            samples.append(perf_counter_ns() - start)
            if i % 1024 == 0 and perf_counter() > end:
                break
    finally:
        gc.enable()
    return samples


def _percentile(samples: Sequence[int], percent: float) -> float:
    ordered = sorted(samples)
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100.0))])
