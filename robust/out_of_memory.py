"""Memory runs out: the k-th `malloc` of a load, and of a reload, fails, for every k.

`malloc_shim.c` stands before malloc and lets one call fail, each in a child of fork. Held: no crash; Python's
exception (`MemoryError`, or what CPython, OpenSSL and `open` make of it), never "the file is damaged"; older scorers
bid as before; a reloader raises nothing, keeps its model, and has the new one after its next look. Once for the
extension's and the libraries' own calls, once with every object of Python from malloc, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from robust.models import two_files
from robust.outcome import Effort, Outcome

_PREAMBLE = """
import ctypes, os, sys
from pathlib import Path
from bidml.errors import BidmlError
from bidml.score import Scorer, follow
from bidml.score.reader import parse_artifact
from training.publication import publish_bytes

path, step = Path(sys.argv[1]), int(sys.argv[2])
request = {"imp": [{"banner": {"w": 320, "h": 50}}], "device": {"geo": {"country": "USA", "lat": 1.5}}}
terms = {"creative": "320x50", "value_per_click": 2.0, "cap_cpm": 1e6}
libc = ctypes.CDLL(None)
libc.robust_countdown.restype = libc.robust_asked.restype = ctypes.c_long

def bid(scorer):
    return scorer.bid(request, scorer.line_item(**terms))

def load():
    return Scorer.load(path, rates={"USD": 0.9, "CNY": 0.125})

def children(attempt, verdict):
    # one child per k, until no call is left that could fail
    k, code = 1, ""
    while code != "done":
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            raised, begun = None, False
            try:
                libc.robust_fail_at(k)
                begun = True
                attempt()
            except BaseException as error:
                raised = error
            struck = libc.robust_countdown() == 0
            libc.robust_fail_at(0)
            try:
                code = "not begun"
                if begun:
                    code = "done" if raised is None and not struck else verdict(raised)
            except BaseException as error:
                code = f"afterwards {error!r}"
            os.write(write, code.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            code = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(k, code if status == 0 else f"BROKEN: exit code {status}", flush=True)
        k += step if code != "done" or step == 1 else 1
"""

_LOAD = """
scorer = load()
wanted = bid(scorer)
assert wanted > 0.0

def verdict(raised):
    if isinstance(raised, BidmlError):
        return f"BROKEN: the file is blamed: {raised!r}"
    if bid(scorer) != wanted or bid(load()) != wanted:
        return "BROKEN: another bid"
    return type(raised).__name__

children(load, verdict)
"""

_RELOAD = """
folder = Path(sys.argv[1] + ".publication")
data = path.read_bytes()
publish_bytes(folder, Path(sys.argv[3]).read_bytes(), expected_generation=0)
following = follow(folder, interval_seconds=None)
line = following.line_item(**terms)
before = following.bid(request, line)
publish_bytes(folder, data, expected_generation=1)
wanted = bid(Scorer(parse_artifact(data)))
assert before != wanted and before > 0.0 and wanted > 0.0

def verdict(raised):
    if raised is not None:
        return f"BROKEN: check raised {raised!r}"
    now = following.bid(request, line)
    if now not in (before, wanted):
        return f"BROKEN: a bid of {now}"
    following.check()
    if following.bid(request, line) != wanted:
        return f"BROKEN: never loaded: {following.status()['last_problem']}"
    return "kept, then loaded" if now == before else "loaded"

children(following.check, verdict)
"""

_PROGRAMS = {"load": _LOAD, "reload": _RELOAD}


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        older = Path(folder) / "older.onnx"
        for place, data in zip((path, older), two_files(), strict=True):
            place.write_bytes(data)
        for name in _PROGRAMS:
            step = effort.of(short=9, ci=1 if name == "load" else 3, quick=1, long=1)
            _failures(outcome, name, path, older, step, "the extension's and the libraries' calls", "default")
            step = effort.of(short=2_000, ci=211, quick=53, long=1)
            _failures(outcome, name, path, older, step, "every object of Python", "malloc")
    return outcome


def _failures(
    outcome: Outcome, name: str, path: Path, older: Path, step: int, what: str, allocator: str
) -> None:
    shutil.rmtree(f"{path}.publication", ignore_errors=True)
    found = subprocess.run(
        [sys.executable, "-S", "-c", _PREAMBLE + _PROGRAMS[name], str(path), str(step), str(older)],
        env={**os.environ, "PYTHONMALLOC": allocator},
        capture_output=True,
        text=True,
        errors="replace",
    )
    outcome.demand(found.returncode == 0, f"{name}, {what}: {found.stderr[-1500:]}")
    lines = [line.split(" ", 1) for line in found.stdout.splitlines()]
    outcome.trials += len(lines)
    ends = Counter(end for _, end in lines)
    outcome.demand(
        ends["done"] == 1 and len(lines) > 10, f"{name}, {what}: it did not come to the end: {ends}"
    )
    for k, end in lines:
        if end.startswith(("BROKEN", "afterwards")) or not end:
            outcome.broke(f"{name}, {what}, call {k} fails: {end}")
    every = "each" if step == 1 else f"one in {step}"
    outcome.note(f"{name}: {every} of {lines[-1][0] if lines else 0} ({what})")


def _blame_the_file() -> None:
    global _PREAMBLE
    _PREAMBLE += """
real = load
def load():
    try:
        return real()
    except Exception:
        raise BidmlError("a file is whole", value="not", remedy="fetch it again") from None
"""


def _forget_the_reload() -> None:
    global _PREAMBLE
    _PREAMBLE += """
from bidml.score.following import Following
look = Following._look
def once(self):
    try:
        look(self)
    except MemoryError:
        self._handled = (self._folder / "manifest.json").read_bytes()
        raise
Following._look = once
"""


def _abort_without_memory() -> None:
    """What a noexcept caster that copies text does."""
    global _PREAMBLE
    _PREAMBLE += """
made = load
def load():
    try:
        return made()
    except MemoryError:
        os.abort()
"""


TWINS = {
    "python: the file is blamed": _blame_the_file,
    "python: a reload that failed is not tried again": _forget_the_reload,
    "python: a process without memory aborts": _abort_without_memory,
}
