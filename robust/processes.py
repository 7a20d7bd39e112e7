"""Processes and threads: fork, exit, a second interpreter, eight threads on one scorer while models come and go.

Held: a child of fork bids what its parent bids; an interpreter ends well while daemon threads bid, score batches and
load; a subinterpreter is refused and the first interpreter bids on; threads see whole decisions of one model, whatever
changes meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from array import array
from typing import Any

import numpy as np

from bidml.contract import PRICE_INPUTS
from robust.corpus import requests
from robust.models import CAP_CPM, line_of, scorer_of, wide_blueprint
from robust.outcome import Effort, Outcome

_PREAMBLE = """
import os, sys, threading, time
from array import array
from robust.corpus import requests
from robust.models import line_of, scorer_of, wide_blueprint
from bidml.contract import PRICE_INPUTS
scorer = scorer_of(wide_blueprint())
line = line_of(scorer)
request = requests()[0]
wanted = scorer.bid(request, line)
spec = wide_blueprint().spec
columns = {f.name: [""] * 2000 if f.kind == "category" else 0.0 for f in spec.features}
columns |= dict.fromkeys(PRICE_INPUTS, 1.0)
def bids():
    while True:
        scorer.bid(request, line)
def batches():
    out = array("d", bytes(16_000))
    while True:
        scorer.bid_many(columns, out=out)
def loads():
    while True:
        scorer_of(wide_blueprint())
"""

PROGRAMS = {
    "exit while threads score": "for work in (bids, batches, batches, loads):\n"
    "    threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.2)\n",
    "exit while scorers are made": "from bidml.score import _native\nbegan = threading.Event()\n"
    "class Slow:\n    def __init__(self, real):\n        self.real = real\n"
    "    def __getattr__(self, name):\n        until = time.monotonic() + 0.05\n        began.set()\n"
    "        while time.monotonic() < until:\n            pass\n        return getattr(self.real, name)\n"
    "def makes(blueprint):\n    while True:\n        _native.NativeScorer(blueprint, [], None, 'scalar')\n"
    "for blueprint in (wide_blueprint(), Slow(wide_blueprint())):\n"
    "    threading.Thread(target=makes, args=(blueprint,), daemon=True).start()\nbegan.wait()\n",
    "exit while a reloader runs": "import tempfile\nfrom pathlib import Path\nfrom bidml.score import follow\n"
    "from robust.models import two_files\nfrom training.publication import publish_bytes\n"
    "folder = Path(tempfile.mkdtemp())\nfiles = two_files()\n"
    "publish_bytes(folder, files[0], expected_generation=0)\n"
    "following = follow(folder, interval_seconds=1e-4)\n"
    "followed = following.line_item(creative='320x50', value_per_click=2.0, cap_cpm=9.0)\n"
    "def publishes():\n    for n in range(1, 100_000):\n"
    "        publish_bytes(folder, files[n % 2], expected_generation=n)\n"
    "def follows():\n    while True:\n        following.bid(request, followed)\n"
    "for work in (publishes, follows):\n    threading.Thread(target=work, daemon=True).start()\n"
    "until = time.monotonic() + 60.0\n"
    "while following.status()['swaps'] < 2 and time.monotonic() < until:\n    time.sleep(0.01)\n"
    "assert following.status()['swaps'] >= 2, following.status()\n"
    "import atexit, shutil\natexit.register(shutil.rmtree, folder, True)\n",
    "sys.exit from a busy process": "threading.Thread(target=batches, daemon=True).start()\n"
    "time.sleep(0.1)\nsys.exit()\n",
    "fork, then bid": "pid = os.fork()\nbid = scorer.bid(request, line)\nif pid == 0:\n"
    "    os._exit(0 if bid == wanted else 3)\nassert os.waitpid(pid, 0)[1] == 0\nassert bid == wanted\n",
    "fork while threads score": "for work in (bids, batches):\n    threading.Thread(target=work, daemon=True).start()\n"
    "time.sleep(0.05)\npid = os.fork()\nif pid == 0:\n    os._exit(0 if scorer.bid(request, line) == wanted else 3)\n"
    "assert os.waitpid(pid, 0)[1] == 0\n",
    "a subinterpreter": "import _xxsubinterpreters as interpreters\nother = interpreters.create()\ntry:\n"
    "    interpreters.run_string(other, f'import sys; sys.path = {sys.path!r}; import bidml.score')\n    sys.exit(4)\n"
    "except interpreters.RunFailedError as error:\n    assert 'main interpreter' in str(error)\n"
    "assert scorer.bid(request, line) == wanted\n",
}


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    outcome = Outcome()
    for name, program in PROGRAMS.items():
        for _ in range(effort.of(short=1, ci=2, quick=5, long=200)):
            outcome.trials += 1
            found = subprocess.run(
                [sys.executable, "-S", "-c", _PREAMBLE + program], capture_output=True, text=True, timeout=300
            )
            outcome.demand(
                found.returncode == 0, f"{name}: exit code {found.returncode}, {found.stderr[-500:]}"
            )
    for _ in range(effort.of(short=1, ci=1, quick=1, long=100)):
        _threads(outcome, effort.of(short=300, ci=20_000, quick=100_000, long=100_000))
    return outcome


def _threads(outcome: Outcome, n_swaps: int) -> None:
    """Eight threads bid by whatever scorer is current while it is swapped and pacing changes."""
    request = requests()[0]
    models = [scorer_of(wide_blueprint(), isa=isa) for isa in ("best", "scalar")]
    current: list[tuple[Any, Any]] = [(scorer, line_of(scorer)) for scorer in models]
    wanted = {0.0} | {_bid_at(scorer, line, request, m) for scorer, line in current for m in _PACINGS}
    box = [current[0]]
    stop, bids, broken = threading.Event(), [0] * 8, []

    def bid(i: int) -> None:
        while not stop.is_set():
            scorer, line = box[0]
            try:
                found = scorer.bid(request, line)
            except BaseException as error:
                broken.append(repr(error))
                return
            bids[i] += 1
            if found not in wanted:
                broken.append(f"a bid of {found!r}, cap {CAP_CPM}")
                return

    def batch() -> None:
        out = array("d", bytes(8))
        columns: dict[str, Any] = {
            f.name: [""] if f.kind == "category" else 0.0 for f in wide_blueprint().spec.features
        }
        columns |= dict.fromkeys(PRICE_INPUTS, 1.0)
        while not stop.is_set():
            box[0][0].bid_many(columns, out=out)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=bid, args=(i,)) for i in range(7)] + [threading.Thread(target=batch)]
    for thread in threads:
        thread.start()
    for i in range(n_swaps):
        box[0] = current[i % 2]
        box[0][1].pacing_multiplier = _PACINGS[i % len(_PACINGS)]
        if i % 500 == 0:  # a new one takes the place of an old one, which its last reader frees
            scorer = scorer_of(wide_blueprint(), isa="scalar")
            current[i // 500 % 2] = (scorer, line_of(scorer))
            time.sleep(0)
    stop.set()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(switch)
    outcome.trials += n_swaps
    outcome.count("swaps", n_swaps)
    outcome.count("bids", sum(bids))
    for what in broken:
        outcome.broke(f"between threads: {what}")


_PACINGS = (1.0, 0.5, 0.0, 0.25, 1.5)


def _bid_at(scorer: Any, line: Any, request: Any, pacing: float) -> float:
    line.pacing_multiplier = pacing
    bid: float = scorer.bid(request, line)
    return bid


def _abort_at_exit() -> None:
    """What the threads did before they waited for the end: they took the process with them."""
    PROGRAMS["exit while threads score"] += "os.abort()\n"


def _another_model() -> None:
    from robust import processes

    real = processes._bid_at
    processes._bid_at = lambda scorer, line, request, pacing: real(scorer, line, request, pacing) * 1.0000001


TWINS = {"python: exit by abort": _abort_at_exit, "python: a bid of another model": _another_model}
