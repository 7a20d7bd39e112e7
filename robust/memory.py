"""Memory: none grows, and none is asked for on the hot path.

Held: after a warm-up, 10^7 bids (quick) leave the resident set where it was, to 64 KiB; bids, of dicts and of bytes,
for one line and for many, make no call of malloc (`malloc_shim.c` counts them) and keep no object.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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
    n = effort.of(short=400_000, ci=2_000_000, quick=10_000_000, long=1_000_000_000)
    _growth(outcome, scorer, line, chosen, n)
    _calls_of_malloc(outcome, scorer, line, chosen)
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
    before, at_once = _resident_kib(), min(n, 10_000_000)
    for _ in range(n // at_once):
        _bid_on(scorer, line, chosen, at_once)
        outcome.trials += at_once
        grown = _resident_kib() - before
        outcome.demand(grown <= _MOST_KIB, f"{grown} KiB more after {outcome.trials:,} bids")
    outcome.note(f"{grown} KiB after {n:,} bids")


def _calls_of_malloc(outcome: Outcome, scorer: Any, line: Any, chosen: list[Any]) -> None:
    """Of a second pass over the requests: the first fills what CPython keeps (texts as UTF-8, free floats)."""
    asked = ctypes.CDLL(None).robust_asked
    asked.restype = ctypes.c_long
    texts = [json.dumps(request).encode() for request in chosen]
    lines = [line] * 8  # CPython 3.11 itself keeps up to 2,000 tuples of 20
    calls: dict[str, Callable[[int], Any]] = {
        "bid": lambda i: scorer.bid(chosen[i], line),
        "bid_json": lambda i: scorer.bid_json(texts[i], line),
        "decide": lambda i: scorer.decide(chosen[i], line),
        "best of 8": lambda i: scorer.best(chosen[i], lines),
    }
    for name, call in calls.items():
        for i in range(len(chosen)):
            call(i)
        before, blocks = asked(), sys.getallocatedblocks()
        for i in range(len(chosen)):
            call(i)
        after, kept = asked(), sys.getallocatedblocks() - blocks
        outcome.trials += len(chosen)
        outcome.demand(after == before, f"{len(chosen)} calls of {name} make {after - before} of malloc")
        outcome.demand(abs(kept) < 16, f"{len(chosen)} calls of {name} keep {kept} objects")
        outcome.note(f"{name}: {after - before} mallocs in {len(chosen):,}")


def _leak() -> None:
    from robust import memory

    real, kept = memory._bid_on, []

    def leaking(scorer: Any, line: Any, chosen: list[Any], n: int) -> None:
        real(scorer, line, chosen, n)
        kept.append(bytearray(n // 4))
        kept[-1][::4096] = b"x" * len(kept[-1][::4096])

    memory._bid_on = leaking


def _ask() -> None:
    from robust import memory

    real = memory._calls_of_malloc

    class Asking:
        def __init__(self, scorer: Any) -> None:
            self._scorer = scorer

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._scorer, name)
            return lambda *arguments: (bytearray(600), found(*arguments))[1]

    memory._calls_of_malloc = lambda outcome, scorer, line, chosen: real(
        outcome, Asking(scorer), line, chosen
    )


TWINS = {
    "python: a byte is kept of every fourth bid": _leak,
    "python: a bid asks for 600 bytes and gives them back": _ask,
}
