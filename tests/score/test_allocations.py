"""The hot path allocates nothing but its result; a bid not even that, as CPython keeps the memory of floats.

Counted in a process whose every malloc passes through a counter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from robust.builds import ROOT, shim

# Two loops differ by 2,000 calls; what the loop itself asks for, both do.
COUNT = """
import ctypes, gc, itertools, json
from artifacts import isotonic_blueprint
from bidml.metadata import SelfCheck
from bidml.score import Scorer
from bidml.score.reader import Artifact

asked = ctypes.CDLL(None).robust_asked
asked.restype = ctypes.c_long
scorer = Scorer(Artifact(isotonic_blueprint(), SelfCheck({}, {}), ""))
lines = [
    scorer.line_item(creative="320x50", value_per_click=1.0 + i, cap_cpm=9.0, deals=["d"]) for i in range(60)
]
requests = [
    {
        "id": "1",
        "at": 1 + i % 2,
        "imp": [{"bidfloor": 0.1 * (i % 3), "pmp": {"deals": [{"id": "d", "bidfloor": 0.2}]}}],
        "device": {"os": ("ios", "tizen", None)[i % 3], "geo": {"country": "POL" if i % 5 else 7, "lat": 0.1 * i}},
    }
    for i in range(50)
]
requests += [{}, {"imp": 3}, {"imp": [{"bidfloor": "x"}]}]
texts = [json.dumps(request).encode() for request in requests] + [b"{", b"[1]"]


varied = scorer.line_item(
    creative="320x50", value_per_click=1.0, cap_cpm=9.0, exploration_share=1.0, exploration_sigma=0.2,
    exploration_salt="2026-11",
)


def of_one(call, line=lines[0]):
    return lambda request: call(request, line)


def twin(request):
    scorer.bid(request, lines[0])
    return bytes(100)  # one thing more


calls = {
    "bid": (of_one(scorer.bid), requests),
    "bid varied": (of_one(scorer.bid, varied), requests),
    "decide": (of_one(scorer.decide), requests),
    "decide_deal": (of_one(scorer.decide_deal), requests),
    "best_deal": (lambda request: scorer.best_deal(request, lines), requests),
    "best": (lambda request: scorer.best(request, lines), requests),
    "bid_json": (of_one(scorer.bid_json), texts),
    "decide_json": (of_one(scorer.decide_json), texts),
    "decide_deal_json": (of_one(scorer.decide_deal_json), texts),
    "best_deal_json": (lambda request: scorer.best_deal_json(request, lines), texts),
    "best_json": (lambda request: scorer.best_json(request, lines), texts),
    "twin": (twin, requests),
}


def count(call, rows, n):
    before = asked()
    for row in itertools.islice(itertools.cycle(rows), n):
        call(row)
    return asked() - before


gc.disable()
found = {}
for name, (call, rows) in calls.items():
    count(call, rows, 500)
    found[name] = count(call, rows, 3_000) - count(call, rows, 1_000)
print(json.dumps(found))
"""


def test_the_hot_path_allocates_nothing() -> None:
    """Whatever the request holds. A decision is one object, its result; `best` of a list of 60 made a tuple of them."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "PYTHONMALLOC": "malloc",
        "LD_PRELOAD": str(shim("malloc_shim")),
    }
    run = subprocess.run(
        [sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.pop("twin") == 2_000  # the counter counts
    of_results = {name: 2_000 for name in found if not name.startswith("bid")}
    assert len(of_results) == 8
    assert found == {"bid": 0, "bid varied": 0, "bid_json": 0} | of_results
