"""When memory runs out: an exception or the model of before, then as usual. `robust/out_of_memory.py` tries it all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts import complete_blueprint

from bidml.export import model_bytes
from bidml.score import Following, Scorer, Staleness, follow
from bidml.score.publication import Release
from bidml.self_check import self_check_of
from robust.builds import ROOT, shim
from training.publication import publish_bytes

MAKE_A_SCORER = """
import ctypes, os
from artifacts import complete_blueprint
from bidml.metadata import SelfCheck
from bidml.score import Scorer
from bidml.score.reader import Artifact
libc = ctypes.CDLL(None)
libc.robust_countdown.restype = ctypes.c_long
artifact = Artifact(complete_blueprint(), SelfCheck({}, {}), "")
terms = {"creative": "320x50", "value_per_click": 1.0, "cap_cpm": 9.0}
ends = set()
for k in range(1, 10_000):
    pid = os.fork()
    if pid == 0:
        try:
            libc.robust_fail_at(k)
            Scorer(artifact, rates={"USD": 0.9}).line_item(**terms)
            os._exit(0 if libc.robust_countdown() else 2)  # 2: it could do without
        except MemoryError:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    ends.add(code)
    if code == 0:
        break
assert {0, 1} <= ends <= {0, 1, 2}, ends
print("done", k > 100)
"""


def test_a_scorer_is_made_or_memory_error_whichever_allocation_fails() -> None:
    """Of some 650 allocations up to 7 ended the process: nanobind allocates in noexcept functions and under C code."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "LD_PRELOAD": str(shim("malloc_shim")),
    }
    found = subprocess.run(
        [sys.executable, "-c", MAKE_A_SCORER], env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.stdout == "done True\n", found.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models, published one after the other by the test: this is the first."""
    publish_bytes(tmp_path, model(1), expected_generation=0)
    return tmp_path


def model(number: int) -> bytes:
    blueprint = replace(complete_blueprint(), provenance={"number": number})
    return model_bytes(blueprint, self_check_of(blueprint, {}))


def test_a_reload_that_lacks_memory_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate was judged by a `MemoryError`: the bidder kept its old model until somebody published again."""
    with follow(folder, interval_seconds=None) as following:
        publish_bytes(folder, model(2), expected_generation=1)
        load = following._load

        def without_memory(data: bytes, release: Release) -> Scorer:
            monkeypatch.setattr(following, "_load", load)
            raise MemoryError

        monkeypatch.setattr(following, "_load", without_memory)
        assert not following.check()
        assert following.status()["refused"] == 1
        assert following.check()
        assert following.status()["generation"] == 2


def test_a_thread_that_lacks_memory_lives_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended, and the model in service aged no more."""
    calls: list[int] = []

    def without_memory(self: Following) -> None:
        calls.append(1)
        raise MemoryError

    policy = Staleness(aged_after_seconds=1e12, expired_after_seconds=1e12)
    monkeypatch.setattr(Following, "_age_of", lambda self, born: policy.age_at(0.0))
    monkeypatch.setattr(Following, "_grow_old", without_memory)
    provenance = {"window": ["2026-11-01T00:00:00+00:00", "2026-11-07T00:00:00+00:00"]}
    blueprint = replace(complete_blueprint(), provenance=provenance)
    publish_bytes(folder, model_bytes(blueprint, self_check_of(blueprint, {})), expected_generation=1)
    with follow(folder, interval_seconds=0.01, staleness=policy) as following:
        until = time.monotonic() + 30.0
        while len(calls) < 8 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(calls) >= 8
        assert all(thread.is_alive() for thread in following._threads)
