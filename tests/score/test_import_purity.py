"""The runtime is the standard library and its own extension: checked in fresh interpreters, not by reading."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from artifacts import complete_blueprint
from runtimes import run_python

import bidml
from bidml.export import write_artifact
from bidml.score import Scorer, _native

LOADED = """
import sys
before = set(sys.modules)
import bidml.score
for name in sorted(set(sys.modules) - before):
    print(name)
"""

# A finder in front of all others: what is neither standard nor bidml's does not exist.
BLOCKED = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top != "bidml" and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
        return None

sys.meta_path.insert(0, Nothing())
sys.path[:0] = sys.argv[2].split("\\n")
from bidml.score import RawExtractor, Scorer
scorer = Scorer.load(sys.argv[1], rates={"USD": 0.9})
line = scorer.line_item(creative="320x50", value_per_click=4.0, cap_cpm=8.0)
request = {"at": 1, "imp": [{"bidfloor": 0.1}], "device": {"geo": {"country": "DEU"}}, "ext": {"timestamp": 1e12}}
from array import array
out = array("d", [0.0])
row = RawExtractor(scorer.blueprint.spec)(request, line.fields)
prices = {"value_per_click": 4.0, "floor_cpm": 0.09, "cap_cpm": 8.0, "pacing_multiplier": 1.0, "auction_type": 1}
scorer.bid_many({name: [value] for name, value in row.items()} | prices, out=out)
assert str(scorer.explain(request, line)) and scorer.info() and scorer.counters()
assert scorer.best(request, [line]) == (0, scorer.bid(request, line))
assert out[0] == scorer.bid(request, line)
print(scorer.bid(request, line).hex())
"""


def package_path() -> str:
    """Where bidml and its extension are found, and nothing else."""
    extension = Path(str(_native.__file__)).parents[2]
    return f"{Path(bidml.__file__).parents[1]}\n{extension}"


def test_importing_the_runtime_loads_the_standard_library_and_itself() -> None:
    """Not NumPy, not onnx: whatever is installed beside it. The interpreter's own start-up is not counted."""
    loaded = run_python(LOADED).split("\n")
    foreign = {name for name in loaded if name.partition(".")[0] not in {*sys.stdlib_module_names, "bidml"}}
    assert foreign == set()
    ours = {name for name in loaded if name.partition(".")[0] == "bidml"}
    assert "bidml.score._native" in ours
    assert not ours & {
        "bidml.export",
        "bidml.certify",
        "bidml.features",
        "bidml.fit",
        "bidml.log",
        "bidml.pricing",
    }


def test_the_runtime_imports_little_of_the_standard_library() -> None:
    """Nothing slow or surprising: no subprocesses, sockets, pickles or unit tests."""
    loaded = set(run_python(LOADED).split("\n"))
    assert not loaded & {
        "subprocess",
        "socket",
        "pickle",
        "multiprocessing",
        "asyncio",
        "unittest",
        "email",
        "ctypes",
    }


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pure") / "m.onnx"
    write_artifact(complete_blueprint(), path)
    return path


def test_the_runtime_works_where_no_extra_is_installed(artifact: Path) -> None:
    """Everything a bidder calls, with every other package forbidden; the bid is the one computed here."""
    scorer = Scorer.load(artifact, rates={"USD": 0.9})
    line = scorer.line_item(creative="320x50", value_per_click=4.0, cap_cpm=8.0)
    request = {
        "at": 1,
        "imp": [{"bidfloor": 0.1}],
        "device": {"geo": {"country": "DEU"}},
        "ext": {"timestamp": 1e12},
    }
    assert run_python(BLOCKED, str(artifact), package_path()) == scorer.bid(request, line).hex()


def test_the_block_blocks(artifact: Path) -> None:
    """The test above could not have imported NumPy by another door."""
    assert importlib.util.find_spec("numpy") is not None
    program = BLOCKED.replace("from bidml.score import RawExtractor, Scorer", "import numpy")
    with pytest.raises(AssertionError, match="blocked: numpy"):
        run_python(program, str(artifact), package_path())


def test_bidml_itself_imports_no_part_of_it() -> None:
    """Python runs `bidml/__init__.py` before `bidml.score`."""
    program = "import sys, bidml; print([name for name in sys.modules if name.startswith('bidml')])"
    assert run_python(program) == "['bidml']"
