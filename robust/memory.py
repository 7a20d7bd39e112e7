"""Memory: none grows, none is asked for on the hot path, and a load that runs out of it raises and leaves nothing.

Held: after a warm-up, 10^7 bids (quick) leave the resident set where it was, to 64 KiB; a bid asks CPython's allocators
for nothing but its result; when the k-th allocation of lowering a model fails, for every k, the answer is
`MemoryError` and the scorers there were bid as before.
"""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from bidml.score._native import Engine
from robust.corpus import requests
from robust.models import line_of, scorer_of, wide_blueprint
from robust.outcome import Effort, Outcome

_PAGE_KIB = 4
_MOST_KIB = 64


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    outcome = Outcome()
    scorer = scorer_of(wide_blueprint())
    line = line_of(scorer)
    chosen = [request for request in requests() if isinstance(request.get("imp"), list)][:1_000]
    _growth(outcome, scorer, line, chosen, effort.of(twin=1_000_000, quick=10_000_000, long=1_000_000_000))
    _allocations(outcome, scorer, line, chosen)
    _failures(outcome, scorer, line, chosen[0])
    return outcome


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KIB


def _bid_on(scorer: Any, line: Any, chosen: list[Any], n: int) -> None:
    bid = scorer.bid
    for _ in range(n // len(chosen)):
        for request in chosen:
            bid(request, line)


def _growth(outcome: Outcome, scorer: Any, line: Any, chosen: list[Any], n: int) -> None:
    _bid_on(scorer, line, chosen, 200_000)
    gc.collect()
    before = _resident_kib()
    _bid_on(scorer, line, chosen, n)
    grown = _resident_kib() - before
    outcome.trials += n
    outcome.note(f"{grown} KiB after {n:,} bids")
    outcome.demand(grown <= _MOST_KIB, f"{grown} KiB more after {n:,} bids")


def _allocations(outcome: Outcome, scorer: Any, line: Any, chosen: list[Any]) -> None:
    """What CPython's allocators hand out during bids whose results are thrown away: at most one float at a time."""
    tracemalloc.start()
    _bid_on(scorer, line, chosen, 10 * len(chosen))
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    for request in chosen:
        scorer.bid(request, line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    outcome.trials += len(chosen)
    outcome.demand(peak - before < 512, f"bids ask for {peak - before} bytes")


def _failures(outcome: Outcome, scorer: Any, line: Any, request: Any) -> None:
    """Every allocation of lowering a model fails once, each in a child. Through `Engine`: nanobind 3.1 itself does not
    look at one of the allocations by which Python calls `Scorer.__init__` (a bound method), and dies of it."""
    import _testcapi

    wanted = scorer.bid(request, line)
    blueprint, slots = wide_blueprint(), scorer._slots()
    assert blueprint.ctr is not None
    assert blueprint.win is not None
    heads = [blueprint.ctr.head, blueprint.win.location, blueprint.win.log_slope]
    n_categories = sum(is_category for is_category, _ in slots.values())
    k, code = 0, 1
    while code == 1 and k < 100_000:
        k += 1
        outcome.trials += 1
        pid = os.fork()
        if pid == 0:
            code = 2
            _testcapi.set_nomemory(k, k + 1)
            try:
                Engine(heads, slots, len(slots) - n_categories, n_categories)
                code = 0
            except MemoryError:
                code = 1
            finally:
                _testcapi.remove_mem_hooks()
                os._exit(code if scorer.bid(request, line) == wanted else 3)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    outcome.demand(code == 0, f"allocation {k} of lowering a model fails: exit code {code}")
    outcome.note(f"{k - 1} allocations failed one by one")


def _leak() -> None:
    from robust import memory

    real, kept = memory._bid_on, []

    def leaking(scorer: Any, line: Any, chosen: list[Any], n: int) -> None:
        real(scorer, line, chosen, n)
        kept.append(bytearray(n // 4))
        kept[-1][::4096] = b"x" * len(kept[-1][::4096])

    memory._bid_on = leaking


TWINS = {"python: a byte is kept of every fourth bid": _leak}
