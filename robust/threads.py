"""Eight threads and one model, under ThreadSanitizer: without Python, and in Python where the GIL is let go.

Held: no race; every decision is one that the model in service makes. `threads.cc` is a process without Python, so that
no lock of an interpreter orders what the threads do; the second half is what a bidder does: bids, batches without the
GIL, pacing, new models, in one process of Python with the extension built for TSan.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from bidml.contract import PRICE_INPUTS
from robust.builds import HOME, ROOT, TSAN, run
from robust.corpus import requests
from robust.models import line_of, scorer_of, wide_blueprint
from robust.outcome import Effort, Outcome

_LONGEST_WAIT_S = 60.0
_OF_PYTHON = ("bind", "engine_from_python", "batch", "dict")  # objects that need an interpreter


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    outcome = Outcome()
    for _ in range(effort.of(short=1, ci=1, quick=1, long=100)):
        _without_python(outcome, effort.of(short=1_000, ci=20_000, quick=100_000, long=100_000))
        _with_python(outcome, effort.of(short=200, ci=4_000, quick=20_000, long=20_000))
    return outcome


def _compiled() -> str:
    """`threads.cc` with the objects of the TSan build, whose faults lie dormant unless one is in force."""
    native, program = TSAN.source, HOME / "threads"
    linked = [
        str(path) for path in TSAN.objects.glob("*.o") if not any(word in path.name for word in _OF_PYTHON)
    ]
    sources = [ROOT / "robust" / "threads.cc", *native.iterdir(), *map(Path, linked)]
    if program.exists() and all(path.stat().st_mtime < program.stat().st_mtime for path in sources):
        return str(program)
    partial = program.with_suffix(f".{os.getpid()}")
    run(
        [
            *("g++", "-std=c++17", "-fsanitize=thread", "-O1", "-g1", "-ffp-contract=off", "-pthread"),
            *("-include", str(ROOT / "robust" / "fault.h"), f"-I{native}"),
            f"-I{sysconfig.get_paths()['include']}",
            *(str(ROOT / "robust" / "threads.cc"), *linked, "-o", str(partial)),
        ]
    )
    partial.replace(program)
    return str(program)


def _without_python(outcome: Outcome, n_swaps: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    found = subprocess.run(
        [*TSAN.launcher(), _compiled(), str(n_swaps)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    outcome.trials += n_swaps
    if found.returncode:
        outcome.broke(f"exit code {found.returncode}: {found.stderr[:1_500]}")
        return
    swaps, decisions, wrong = map(int, found.stdout.split())
    outcome.demand(swaps == n_swaps and decisions > n_swaps // 10, f"it decided too little: {found.stdout}")
    outcome.demand(wrong == 0, f"{wrong} decisions of no model")
    outcome.count("swaps without Python", swaps)
    outcome.count("decisions there", decisions)


def _with_python(outcome: Outcome, n_swaps: int) -> None:
    blueprint = wide_blueprint()
    chosen = [request for request in requests()[:50] if isinstance(request.get("imp"), list)]
    columns: dict[str, Any] = {
        f.name: ["", "USA", "iOS", "320x50"] * 10 if f.kind == "category" else 1.5
        for f in blueprint.spec.features
    }
    columns |= dict.fromkeys(PRICE_INPUTS, 1.0)
    expected = array("d", bytes(8 * 40))
    current = [
        (scorer, line_of(scorer)) for scorer in (scorer_of(blueprint), scorer_of(blueprint, isa="scalar"))
    ]
    current[0][0].bid_many(columns, out=expected)
    outcome.demand(any(expected), "the batch has no bid")
    box, stop = [current[0]], threading.Event()
    counts, broken = [0] * 8, []

    def bids(i: int) -> None:
        while not stop.is_set():
            scorer, line = box[0]
            for request in chosen:
                if not 0.0 <= scorer.bid(request, line) <= line.cap_cpm:
                    broken.append("a bid outside the cap")
            counts[i] += len(chosen)

    def batches(i: int) -> None:
        out = array("d", bytes(8 * 40))
        while not stop.is_set():
            scorer = box[0][0]
            scorer.bid_many(columns, out=out)
            if out != expected:
                broken.append("a batch of another model")
            counts[i] += 40

    threads = [threading.Thread(target=batches if i < 4 else bids, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    decided = [scorer for scorer, _ in current]
    for i in range(n_swaps):
        if i % 1_000 == 999:
            scorer = scorer_of(blueprint, isa="scalar")
            current[i // 1_000 % 2] = (scorer, line_of(scorer))
            decided.append(scorer)
        box[0] = current[i % 2]
        box[0][1].pacing_multiplier = (1.0, 0.5, 0.0)[i % 3]
    until = time.monotonic() + _LONGEST_WAIT_S
    while min(counts) == 0 and time.monotonic() < until:  # a busy machine may not have let each of them run
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    outcome.trials += n_swaps
    counted = sum(sum(scorer.counters().values()) for scorer in decided)
    wanted = sum(counts) + len(expected)
    outcome.demand(counted == wanted, f"{wanted} decisions, {counted} counted")
    outcome.demand(min(counts) > 0, f"a thread did nothing: {counts}")
    outcome.count("swaps in Python", n_swaps)
    outcome.count("decisions in Python", counted)
    for what in broken:
        outcome.broke(what)
