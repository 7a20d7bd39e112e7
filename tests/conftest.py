"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("bidml", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("bidml")

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
