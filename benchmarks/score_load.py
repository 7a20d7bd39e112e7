"""Latency at a fixed rate, and what a second thread adds."""

from __future__ import annotations

import gc
import json
import threading
from array import array
from collections.abc import Callable, Sequence
from time import perf_counter, perf_counter_ns, process_time
from typing import Any

from benchmarks.measure import percentile
from bidml.score import LineItem, Scorer

BIDS_PER_S = 100_000
PERCENTS = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)


def under_load(scorer: Scorer, line: LineItem, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """Requests arrive every 10 µs whether or not the last one is answered; latency counts from the intended arrival.

    So a pause of the machine is charged to every request that it delays (no coordinated omission). One core.
    """
    decoded = [json.loads(request) for request in requests[:256]]
    return {
        "bids_per_s": BIDS_PER_S,
        "bid_json": _at_fixed_rate(lambda request: scorer.bid_json(request, line), requests, seconds),
        "bid, 256 requests": _at_fixed_rate(lambda request: scorer.bid(request, line), decoded, seconds),
    }


def _at_fixed_rate(call: Callable[[Any], object], rows: Sequence[Any], seconds: float) -> dict[str, float]:
    interval = 1_000_000_000 // BIDS_PER_S
    n = int(seconds * BIDS_PER_S)
    latencies = array("q", bytes(8 * n))
    n_rows = len(rows)
    gc.collect()
    gc.disable()
    try:
        for i in range(2_000):
            call(rows[i % n_rows])
        start = perf_counter_ns()
        for i in range(n):
            intended = start + i * interval
            while perf_counter_ns() < intended:
                pass
            call(rows[i % n_rows])
            latencies[i] = perf_counter_ns() - intended
        elapsed = perf_counter_ns() - start
    finally:
        gc.enable()
    found = {f"p{percent:g}": percentile(latencies, percent) for percent in PERCENTS}
    return found | {"achieved_per_s": n / elapsed * 1e9}


def two_threads(it: Any, seconds: float) -> dict[str, Any]:
    """Throughput of two threads over one: batches with one shared scorer and with two, single bids with one.

    `processors`: processor seconds per second of the two-thread run: below 2 the machine had no second core to give,
    and `per_processor_second` is the throughput that a free one would have doubled.
    """
    columns = {
        name: array("d", column[:1_000]) if isinstance(column[0], float) else tuple(column[:1_000])
        for name, column in it.columns.items()
    }
    other = Scorer.load(it.path)

    def batch_of(scorer: Scorer) -> Callable[[], object]:
        out = array("d", bytes(8_000))
        return lambda: scorer.bid_many(columns, out=out)

    def bids_of(scorer: Scorer, line: LineItem) -> Callable[[], object]:
        requests = it.decoded[:1_000]

        def call() -> None:
            bid = scorer.bid
            for request in requests:
                bid(request, line)

        return call

    own_line = it.line
    return {
        "bid_many, shared scorer": _ratio([batch_of(it.scorer), batch_of(it.scorer)], seconds),
        "bid_many, two scorers": _ratio([batch_of(it.scorer), batch_of(other)], seconds),
        "bid, shared scorer": _ratio([bids_of(it.scorer, own_line), bids_of(it.scorer, own_line)], seconds),
    }


def _ratio(calls: list[Callable[[], object]], seconds: float) -> dict[str, float]:
    """One and two threads in turns; rows per second of each at their best."""
    one, two, processors, per_processor = 0.0, 0.0, 0.0, 0.0
    for _ in range(4):
        rate, used = _throughput(calls[:1], seconds / 8)
        one = max(one, rate)
        rate, used = _throughput(calls, seconds / 8)
        if rate > two:
            two, processors, per_processor = rate, used, rate / used
    return {
        "one_thread_rows_per_s": one,
        "two_threads_rows_per_s": two,
        "ratio": two / one,
        "processors": processors,
        "per_processor_second": per_processor / one,
    }


def _throughput(calls: list[Callable[[], object]], seconds: float) -> tuple[float, float]:
    """(rows per second, processor seconds per second)."""
    counts = [0] * len(calls)
    end = perf_counter() + seconds

    def work(i: int) -> None:
        while perf_counter() < end:
            calls[i]()
            counts[i] += 1_000

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(calls))]
    start, used = perf_counter(), process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = perf_counter() - start
    return sum(counts) / elapsed, (process_time() - used) / elapsed
