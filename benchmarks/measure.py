"""How every benchmark measures: contenders interleaved, rotating rows, percentiles, a correct flag.

One sample is one call, timed alone with `perf_counter_ns`; a null contender, measured the same way, gives the
cost of timing, which `summary` subtracts. Contenders take short turns, so that whatever else the machine does
hits all of them; compare them within a run, never across runs. A turn begins with untimed calls, because the
others have pushed the contender out of the caches; what that costs is told apart, by the cold samples: before
each of them 2 MB are walked, which evicts data and code from the first two caches.
"""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

PERCENTILES = (10.0, 50.0, 99.0, 99.9)
EVICTING_BYTES = 2 << 20


@dataclass
class Contender:
    """`call(row)` for each of `rows`, as the contender's users would write it.

    `rows` are in the contender's own form, prepared outside the timing: beforehand, or by `prepare` just before each
    timed call. `correct`: whether its results for
    the rows equal the reference; None where it runs another model. Contenders of a `group` are compared.
    """

    name: str
    group: str
    call: Callable[[Any], object]
    rows: Sequence[Any]
    correct: bool | None = None
    note: str = ""
    prepare: Callable[[Any], Any] | None = None
    warm_ns: list[int] = field(default_factory=list, repr=False)
    cold_ns: list[int] = field(default_factory=list, repr=False)
    next_row: int = 0


def _null(row: object) -> None:
    return None


def null_contender(rows: Sequence[Any]) -> Contender:
    """A Python function that does nothing: what the loop and the clock cost."""
    return Contender("null", "", _null, rows, correct=True)


def _timed_block(contender: Contender, n_calls: int, samples: list[int]) -> None:
    call, rows, n_rows, at = contender.call, contender.rows, len(contender.rows), contender.next_row
    prepare = contender.prepare
    for _ in range(n_calls):
        row = rows[at] if prepare is None else prepare(rows[at])
        start = perf_counter_ns()
        call(row)
        samples.append(perf_counter_ns() - start)
        at += 1
        if at == n_rows:
            at = 0
    contender.next_row = at


def run(contenders: Sequence[Contender], *, seconds: float, cold_share: float = 0.25) -> None:
    """Takes turns until `seconds` have passed, the last share of them with cold caches; fills the samples.

    A turn is up to 200 timed calls or 2 ms, after up to 50 untimed ones or half a ms.
    """
    turns = [(contender, *_calls_per_turn(contender)) for contender in contenders]
    evicting = memoryview(bytearray(EVICTING_BYTES))
    gc.collect()
    gc.disable()
    try:
        end = perf_counter() + seconds * (1.0 - cold_share)
        while perf_counter() < end:
            for contender, n_untimed, n_timed in turns:
                _timed_block(contender, n_untimed, [])
                _timed_block(contender, n_timed, contender.warm_ns)
        end = perf_counter() + seconds * cold_share
        while perf_counter() < end:
            for contender in contenders:
                _timed_cold(contender, evicting)
    finally:
        gc.enable()


def _timed_cold(contender: Contender, evicting: memoryview) -> None:
    """One call after what it needs has left the first two caches."""
    row = contender.rows[contender.next_row]
    if contender.prepare is not None:
        row = contender.prepare(row)
    bytes(evicting)
    start = perf_counter_ns()
    contender.call(row)
    contender.cold_ns.append(perf_counter_ns() - start)
    contender.next_row = (contender.next_row + 1) % len(contender.rows)


def _calls_per_turn(contender: Contender) -> tuple[int, int]:
    trial: list[int] = []
    _timed_block(contender, 5, trial)
    fastest = max(min(trial), 1)
    return max(2, min(50, 500_000 // fastest)), max(3, min(200, 2_000_000 // fastest))


def throughput_ns(call: Callable[[], object], n_rows: int, *, seconds: float) -> float:
    """The least time per row of a batch call repeated for `seconds`."""
    best, end = float("inf"), perf_counter() + seconds
    while perf_counter() < end:
        start = perf_counter_ns()
        call()
        best = min(best, perf_counter_ns() - start)
    return best / n_rows


def percentile(samples: Iterable[int], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(samples)
    if not ordered:
        return float("nan")
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100.0))])


def summary(contender: Contender, null: Contender) -> dict[str, Any]:
    """Percentiles in ns net of the null contender's median, warm and cold."""
    result: dict[str, Any] = {
        "name": contender.name,
        "group": contender.group,
        "correct": contender.correct,
        "note": contender.note,
        "n_calls": len(contender.warm_ns),
    }
    for kind in ("warm", "cold"):
        floor = percentile(getattr(null, f"{kind}_ns"), 50.0)
        samples = getattr(contender, f"{kind}_ns")
        result[kind] = {f"p{percent:g}": percentile(samples, percent) - floor for percent in PERCENTILES}
    return result


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Processor, cores, versions: what a number is worth nothing without."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "load_average": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "cpu family", "model\t")
    return "; ".join(
        dict.fromkeys(line.split(":", 1)[1].strip() for line in lines if line.startswith(wanted))
    )


def markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """One table: µs per call, net of the null call, and the ratio to the fastest correct of the group."""
    fastest: dict[str, float] = {}
    for row in summaries:
        if row["correct"]:
            fastest[row["group"]] = min(fastest.get(row["group"], float("inf")), row["warm"]["p50"])
    lines = [
        "| model | contender | p10 | p50 | p99 | p99.9 | cold p50 | × fastest | correct |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in summaries:
        ratio = row["warm"]["p50"] / fastest.get(row["group"], float("nan"))
        cells = [*row["warm"].values(), row["cold"]["p50"]]
        correct = {True: "yes", False: "NO", None: "own model"}[row["correct"]]
        lines.append(
            f"| {row['group']} | {row['name']} | "
            + " | ".join(f"{cell / 1e3:.2f}" for cell in cells)
            + f" | {ratio:.1f} | {correct} |"
        )
    return "\n".join(lines)
