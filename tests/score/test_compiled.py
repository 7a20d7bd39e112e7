"""A compiled runtime of another version is refused where it is imported, and says what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bidml
from bidml.score import _native
from bidml.score.compiled import demand_same_version


def test_the_compiled_version_is_the_packages() -> None:
    assert _native.__version__ == bidml.__version__, "run make build"


@pytest.mark.parametrize("compiled", ["0.0.1", None])
def test_another_version_is_refused_with_the_remedy(compiled: str | None) -> None:
    with pytest.raises(ImportError, match=r"built from bidml .+; found .+; run make build"):
        demand_same_version(compiled)


def test_the_package_does_not_import_beside_another_version() -> None:
    stale = "import bidml; bidml.__version__ = '99.0'; import bidml.score"
    done = subprocess.run([sys.executable, "-c", stale], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"built from bidml 99.0; found {bidml.__version__}; run make build" in done.stderr
