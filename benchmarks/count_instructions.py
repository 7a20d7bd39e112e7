"""Instructions per call, counted by callgrind: the regression test that a busy machine cannot disturb.

    python -m benchmarks.count_instructions [--check | --update]

Each case runs under valgrind, which counts while the calls are made and not before: a process imports and builds some
10^9 instructions, and up to 10^7 more or less from run to run (addresses decide how tables are searched), which a
difference of two processes would charge to the calls. Included is a handful of the interpreter's instructions a call.
Valgrind knows no AVX-512, so the AVX2 and the portable kernels are counted. `--check` fails where a count exceeds
`instructions.json` by 2 %; `--update` rewrites it; `--repeat N` counts each case N times and shows least and most.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

COMMITTED = Path(__file__).with_name("instructions.json")
TOLERANCE = 0.02
N_WARM, N_CALLS = 200, 20_000
COUNTED_IN = (
    "PyRun_StringFlags"  # what Python's `exec` of a text calls: valgrind counts in the last one of a process
)
N_NUMBERS, N_CATEGORIES = 24, 16
ISAS = ("avx2", "scalar")


def full_trees(n_trees: int, depth: int, n_columns: int, rng: random.Random):
    """Complete trees in blueprint arrays, thresholds on a grid of 200 values."""
    from bidml.blueprint import Trees

    trees = Trees(
        *(array("q"), array("q"), array("B"), array("d"), array("q"), array("q")),
        *(array("q"), array("q"), array("q"), array("d"), array("d")),
    )
    n_inner = 2**depth - 1
    for _ in range(n_trees):
        first_node, first_leaf = len(trees.column), len(trees.leaf)
        trees.roots.append(first_node)
        for i in range(n_inner):
            trees.column.append(rng.randrange(n_columns))
            trees.mode.append(0)
            trees.threshold.append(rng.randrange(200) / 200)
            trees.missing_true.append(0)
            is_last = 2 * i + 1 >= n_inner
            base = first_leaf - n_inner if is_last else first_node
            trees.true_child.append(base + 2 * i + 1)
            trees.false_child.append(base + 2 * i + 2)
            trees.true_is_leaf.append(int(is_last))
            trees.false_is_leaf.append(int(is_last))
        trees.leaf.extend(rng.uniform(-0.1, 0.1) for _ in range(n_inner + 1))
    return trees


def cases(isa: str) -> dict[str, Callable[[], Callable[[], object]]]:
    """What makes each fixed workload, by name."""
    from bidml.blueprint import Column, Head, Lookup
    from bidml.score._native import Engine

    rng = random.Random(1)
    slots = {f"n{i}": (False, i) for i in range(N_NUMBERS)} | {
        f"c{i}": (True, i) for i in range(N_CATEGORIES)
    }
    keys = tuple(sorted(f"value-{i:04d}"[: 3 + i % 8] + str(i) for i in range(500)))
    numbers = tuple(Column(f"n{i}") for i in range(N_NUMBERS))
    categories = tuple(
        Column(f"c{i}", Lookup(f"c{i}", keys, array("d", [rng.random() for _ in keys]), 0.5))
        for i in range(N_CATEGORIES)
    )

    def engine(columns: tuple[Column, ...], shapes: list[tuple[int, int]]) -> Engine:
        heads = [Head(columns, full_trees(n, depth, len(columns), rng)) for n, depth in shapes]
        return Engine(heads, slots, N_NUMBERS, N_CATEGORIES, isa)

    vector = array("d", [rng.random() for _ in range(N_NUMBERS)])
    texts = [rng.choice(keys) for _ in range(N_CATEGORIES)]

    def trees_only(*shape: tuple[int, int]) -> Callable[[], object]:
        score_vector = engine(numbers, list(shape)).score_vector
        return lambda: score_vector(vector)

    def bidder(*shapes: tuple[int, int]) -> Callable[[], object]:
        margins = engine(numbers + categories, list(shapes)).margins
        return lambda: margins(vector, texts)

    def bid() -> Callable[[], object]:
        return bid_call(full_trees, keys, isa, rng)

    return {
        f"{isa}: bid, a dict of 8 numbers and 12 texts, 20 trees of depth 5 per head": bid,
        f"{isa}: 24 numbers, 300 trees of depth 5": lambda: trees_only((300, 5)),
        f"{isa}: 24 numbers, 50 trees of depth 8": lambda: trees_only((50, 8)),
        f"{isa}: 24 numbers, 16 texts, 300 + 100 + 100 trees of depth 5": lambda: bidder(
            (300, 5), (100, 5), (100, 5)
        ),
    }


def bid_call(make_trees, keys: tuple[str, ...], isa: str, rng: random.Random) -> Callable[[], object]:
    """`Scorer.bid` on one request: reading, encoding, few trees, price, counting."""
    from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, Lookup, WinBlueprint
    from bidml.contract import Feature, FeatureKind, FeatureSpec
    from bidml.export import model_bytes
    from bidml.score import Scorer
    from bidml.score.reader import parse_artifact
    from bidml.self_check import self_check_of

    numbers = [Feature(f"n{i}", FeatureKind.NUMBER, f"ext.n{i}") for i in range(8)]
    texts = [Feature(f"c{i}", FeatureKind.CATEGORY, f"device.ext.c{i}") for i in range(12)]
    columns = tuple(Column(f.name) for f in numbers) + tuple(
        Column(f.name, Lookup(f.name, keys, array("d", [rng.random() for _ in keys]), 0.5)) for f in texts
    )
    ctr, location, slope = (Head(columns, make_trees(20, 5, len(columns), rng), scale=0.01) for _ in range(3))
    blueprint = Blueprint(
        FeatureSpec((*numbers, *texts)),
        CtrBlueprint(ctr, Calibration()),
        WinBlueprint(location, slope, 0.0),
        "USD",
    )
    data = model_bytes(blueprint, self_check_of(blueprint, {}))
    scorer = Scorer(parse_artifact(data), isa=isa)
    line = scorer.line_item(value_per_click=1.0, cap_cpm=50.0)
    request = {
        "id": "1",
        "imp": [{"id": "1", "bidfloor": 0.01}],
        "device": {"ext": {f.name: rng.choice(keys) for f in texts}},
        "ext": {f.name: rng.random() for f in numbers},
    }
    return lambda: scorer.bid(request, line)


def work(isa: str, case: str) -> None:
    """What runs under valgrind."""
    call = cases(isa)[case]()

    def calls() -> None:
        for _ in range(N_CALLS):
            call()

    for _ in range(N_WARM):
        call()
    exec("calls()", {"calls": calls})


def counted(isa: str, case: str) -> int:
    """Instructions per call."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [f"--toggle-collect={COUNTED_IN}", f"--zero-before={COUNTED_IN}"]
    command += [sys.executable, "-m", "benchmarks.count_instructions", "--work", isa, case]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "BIDML_ISA": isa}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if found is None or int(found[1]) < N_CALLS:
        raise RuntimeError(f"valgrind reports what it collected; found {done.stderr[-500:]!r}; see its log")
    return round(int(found[1]) / N_CALLS)


def count(repeat: int, only: str) -> dict[str, int]:
    """Instructions per call of every case whose name holds `only`: the least of `repeat` counts."""
    counts = {}
    for isa in ISAS:
        for case in cases(isa):
            if only not in case:
                continue
            found = [counted(isa, case) for _ in range(repeat)]
            counts[case] = min(found)
            most = f" to {max(found):,}" if repeat > 1 else ""
            print(f"{counts[case]:>8,}{most}  {case}", flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a count has grown")
    parser.add_argument("--update", action="store_true", help="write instructions.json")
    parser.add_argument("--repeat", type=int, default=1, help="count each case so often")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is needed to count instructions; it is not installed; install the package valgrind")
        return 2
    counts = count(arguments.repeat, arguments.only)
    if arguments.update:
        known = json.loads(COMMITTED.read_text()) if arguments.only else {}
        COMMITTED.write_text(json.dumps(known | counts, indent=1) + "\n")
    if not arguments.check:
        return 0
    committed = json.loads(COMMITTED.read_text())
    grown = {
        case: (committed.get(case), n)
        for case, n in counts.items()
        if n > committed.get(case, 0) * (1 + TOLERANCE)
    }
    for case, (before, now) in grown.items():
        print(
            f"{case}: {now:,} instructions, committed {before}; find the cause, or run --update and say why"
        )
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
