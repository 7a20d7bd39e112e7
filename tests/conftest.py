"""What every test may ask for."""

from __future__ import annotations

import fcntl
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("bidml", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("bidml")

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # LightGBM's threads must not spin on a shared machine

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real logs; in CI its absence is a failure, elsewhere the test has nothing to test."""
    folder = ROOT.parent / "shared" / "data"
    if folder.is_dir():
        return folder
    if os.environ.get("CI") == "true":
        pytest.fail(f"real data is missing in CI: {folder}")
    pytest.skip(f"real data is not here: {folder}")


@pytest.fixture(scope="session")
def simulated_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The demo on few auctions: a `DemoResult` with log, artifact, held-out requests. All workers share the first's."""
    from bidml.demo import run_demo

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return run_demo(shared / "demo", n_auctions=30_000, stages=lambda _: nullcontext())
