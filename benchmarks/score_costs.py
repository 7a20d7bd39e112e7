"""What the runtime costs besides time per bid: import, load, memory, allocations, system calls.

Allocations and system calls are counted from outside, in whole processes that differ only in the number of calls: the
difference divided by the calls is what one call does, and what the interpreter does around it cancels. Valgrind counts
every allocation, with PYTHONMALLOC=malloc so that none hides in Python's pools; strace counts every system call.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import bid_models
from bidml.blueprint import Blueprint
from bidml.export import write_artifact

FEW, MANY = 500, 1_500

_IMPORT: Final = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import bidml.score
took = time.perf_counter() - start
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(took * 1e3, sorted(names - set(sys.stdlib_module_names) - {"bidml"}))
"""

_LOAD: Final = """
import json, resource, sys, time
from bidml.score import Scorer
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = resident()
start, used = time.perf_counter(), time.process_time()
scorer = Scorer.load(sys.argv[1])
took, used = time.perf_counter() - start, time.process_time() - used
after = resident()
start = time.perf_counter()
Scorer.load(sys.argv[1])
again = time.perf_counter() - start
print(json.dumps({"ms": took * 1e3, "cpu_ms": used * 1e3, "again_ms": again * 1e3, "resident_bytes": after - before,
                  "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
                  "engine_bytes": scorer.info()["engine"]["bytes"]}))
"""

_WORK: Final = """
import itertools, json, sys
from bidml.score import Scorer
path, requests, what, n = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
scorer = Scorer.load(path, self_check=False)
line = scorer.line_item(value_per_click=1.5, cap_cpm=50.0, creative="creative-3")
raw = open(requests, "rb").read().splitlines()[:50]
if what == "bid_json":
    call, rows = scorer.bid_json, raw
else:
    call, rows = scorer.bid, [json.loads(row) for row in raw]
for row in itertools.islice(itertools.cycle(rows), n):  # one iterator: a loop within a loop allocates its own
    call(row, line)
"""


def costs(path: Path, folder: Path, *, large: Blueprint | None, log: bid_models.Log) -> dict[str, Any]:
    """Everything above for the artifact at `path`; with `large` the load of its file, and allocations."""
    found: dict[str, Any] = {"import": _import(), "load": {path.name: _load(path)}}
    if large is not None:
        big = folder / "large.onnx"
        write_artifact(large, big)
        found["load"][big.name] = _load(big)
        found["resident"] = _line(*found["load"].values())
    requests = folder / "requests.jsonl"
    rng = np.random.default_rng(2)
    rows = slice(bid_models.N_TRAIN, bid_models.N_TRAIN + 50)
    requests.write_bytes(
        b"\n".join(bid_models.requests_of({name: column[rows] for name, column in log.columns.items()}, rng))
    )
    for what in ("bid", "bid_json"):
        found[what] = {"system_calls_per_call": _per_call(_system_calls, path, requests, what)}
        if large is not None:  # a minute under valgrind
            found[what]["allocations_per_call"] = _per_call(_allocations, path, requests, what)
    return found


def _run(
    *arguments: str, before: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )


def _import() -> dict[str, Any]:
    took, names = [], ""
    for _ in range(7):
        ms, _, names = _run("-c", _IMPORT).stdout.strip().partition(" ")
        took.append(float(ms))
    return {"ms": min(took), "third_party_modules": names}


def _load(path: Path) -> dict[str, Any]:
    runs = [json.loads(_run("-c", _LOAD, str(path)).stdout) for _ in range(5)]
    best: dict[str, Any] = min(runs, key=lambda run: run["ms"])
    return best | {"file_bytes": path.stat().st_size}


def _line(small: dict[str, Any], large: dict[str, Any]) -> dict[str, float]:
    """Resident memory of a scorer as a constant and a slope, by two files."""
    slope = (large["resident_bytes"] - small["resident_bytes"]) / (large["file_bytes"] - small["file_bytes"])
    return {
        "per_byte_of_file": slope,
        "constant_bytes": small["resident_bytes"] - slope * small["file_bytes"],
    }


def _per_call(count: Any, path: Path, requests: Path, what: str) -> float | str:
    """The difference of two runs, per call; or why there is none."""
    few, many = (count("-c", _WORK, str(path), str(requests), what, f"{n:06d}") for n in (FEW, MANY))
    if isinstance(few, str):
        return few
    return (many - few) / (MANY - FEW)


def _allocations(*arguments: str) -> int | str:
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    done = _run(*arguments, before=("valgrind", "--tool=memcheck", "--undef-value-errors=no"), PYTHONMALLOC="malloc",
                PYTHONHASHSEED="0")  # fmt: skip
    found = re.search(r"total heap usage: ([\d,]+) allocs", done.stderr)
    return int(found[1].replace(",", "")) if found else f"valgrind says no count: {done.stderr[-200:]}"


def _system_calls(*arguments: str) -> int | str:
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = _run(*arguments, before=("strace", "-f", "-c"), PYTHONHASHSEED="0")
    found = re.search(r"^\s*100\.00\s.*?(\d+)\s+(?:\d+\s+)?total\s*$", done.stderr, re.MULTILINE)
    return int(found[1]) if found else f"strace says no count: {done.stderr[-200:]}"
