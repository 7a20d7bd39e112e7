"""The architecture, as tests: who imports whom, what the runtime needs, what no file contains."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

import bidml
from bidml import contract
from bidml.score import _native

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bidml"

# A stage imports from its own layer (without cycles) and from those before it.
LAYERS: Final = (
    {"errors", "units", "openrtb", "contract", "atomic", "__version__"},
    {"blueprint", "bounds", "metadata", "graph_parts", "graph_log_normal", "graph_price", "graph"},
    {"score"},
    {
        "features",
        "metrics",
        "pricing",
        "oracle",
        "oracle_log_normal",
        "lightgbm_trees",
        "pacing",
        "resample",
        "tree_builder",
        "tree_shap",
    },
    {"log", "fit", "simulate"},
    {"self_check", "certify", "export", "report", "replay", "why", "monitor"},
    {"train", "latency", "assemble", "console", "demo", "cost"},
    {"cli"},
)
RANK: Final = {stage: rank for rank, layer in enumerate(LAYERS) for stage in layer}
RUNTIME: Final = frozenset().union(*LAYERS[:3])
TEXT: Final = {
    ".py",
    ".pyi",
    ".h",
    ".cc",
    ".md",
    ".toml",
    ".txt",
    ".in",
    ".lock",
    ".json",
    ".ipynb",
    ".j2",
    ".yaml",
}
JOBS: Final = {"training", "notebooks", "benchmarks", "tests", "robust"}


def modules(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names of everything a module imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def stage_imports() -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for path, tree in modules(PACKAGE):
        stage = stage_of(path)
        found = {name.split(".")[1] for name in imported(tree) if name.startswith("bidml.")}
        edges.setdefault(stage, set()).update(found - {stage})
    return edges


def test_every_stage_has_its_layer_and_imports_downwards() -> None:
    """The direction of docs/design.md; no cycle inside a layer."""
    edges = stage_imports()
    edges.pop("__init__")
    assert set(edges) <= set(RANK), f"give {sorted(set(edges) - set(RANK))} a layer"
    upwards = [
        (stage, other) for stage, found in edges.items() for other in found if RANK[other] > RANK[stage]
    ]
    assert upwards == []
    list(TopologicalSorter(edges).static_order())


def test_an_upward_import_would_be_found() -> None:
    """The check is not blind: `score` importing `fit`, inside a function, is seen."""
    tree = ast.parse("def later():\n    from bidml.fit import ClickModel")
    (name,) = imported(tree)
    assert RANK[name.split(".")[1]] > RANK["score"]


def test_the_runtime_imports_the_standard_library_only() -> None:
    """Of everything below `score` and before it."""
    foreign = {
        (path.name, name)
        for path, tree in modules(PACKAGE)
        if stage_of(path) in RUNTIME | {"__init__"}
        for name in imported(tree)
        if name.split(".")[0] not in sys.stdlib_module_names | {"bidml", "__future__"}
    }
    assert foreign == set()


def test_the_package_never_imports_its_jobs() -> None:
    """`training/`, `benchmarks/`, `notebooks/` and tests import bidml, not the reverse."""
    found = {
        (path.name, name)
        for path, tree in modules(PACKAGE)
        for name in imported(tree)
        if name.split(".")[0] in JOBS
    }
    assert found == set()


def test_importing_the_runtime_loads_nothing_else() -> None:
    """In a fresh interpreter without site-packages: the bidder installs nothing but bidml."""
    extension = Path(_native.__file__)
    program = (
        "import sys\n"
        "from importlib.util import module_from_spec, spec_from_file_location\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "class Finder:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'bidml.score._native':\n"
        f"            return spec_from_file_location(name, {str(extension)!r})\n"
        "sys.meta_path.insert(0, Finder)\n"
        "before = set(sys.modules)\n"
        "import bidml.score\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))\n"
        "numpy = None\n"
        "try:\n    import numpy\nexcept ImportError:\n    pass\n"
        "assert numpy is None, 'the environment was not bare'\n"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "['bidml']"


def test_versions_and_constants_are_one() -> None:
    """pyproject, Python and the extension."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == bidml.__version__
    assert project["dependencies"] == []
    assert importlib.metadata.version("bidml") == bidml.__version__, "run make build"
    constants = dict(_native.CONSTANTS)
    # A place for each value; `follow` alone says STALE_MODEL.
    assert constants.pop("REASONS") == len(contract.NoBidReason) == max(contract.NoBidReason) + 1
    assert constants == {name: getattr(contract, name) for name in constants}
    assert {"MAX_ABS_WIN_LOGIT", "MIN_LOG_SLOPE", "MAX_LOG_SLOPE", "HALLEY_STEPS", "MAX_FEATURES"} <= set(
        constants
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_an_init_imports_names_and_does_no_work(path: Path) -> None:
    """A docstring, imports, constants, at most one small function that a package exists for."""
    statements = ast.parse(path.read_text()).body
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef)
    assert all(isinstance(statement, allowed) for statement in statements)
    assert sum(isinstance(statement, ast.FunctionDef) for statement in statements) <= 1
    assert isinstance(statements[0], ast.Expr), "an __init__ says what the package is"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_public_names_are_there_once_and_sorted(path: Path) -> None:
    """`__all__` is a promise: every name exists, and the list can be searched by eye."""
    name = ".".join(path.relative_to(ROOT).parent.parts)
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert sorted(set(public), key=_as_ruff_sorts) == list(public)
    assert [each for each in public if not hasattr(module, each)] == []


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_no_file_names_a_machine() -> None:
    """No home, no checkout, no temporary folder of somebody's."""
    machine = re.compile(
        "/(?:" + "|".join(["home", "root", "Users", "mnt", "work", "tmp"]) + ")/[A-Za-z0-9_.]"
    )
    folders = ("bidml", "tests", "benchmarks", "training", "notebooks", "docs", "requirements")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXT]
    files += [path for path in ROOT.iterdir() if path.suffix in TEXT or path.name == "Makefile"]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line) and "https://" not in line
    ]
    assert len(files) > 100
    assert found == []


def test_no_file_is_a_god() -> None:
    """Split before 600 lines."""
    sources = [
        p for folder in ("bidml", "tests", "benchmarks", "training") for p in (ROOT / folder).rglob("*.*")
    ]
    long = [
        str(path.relative_to(ROOT))
        for path in sources
        if path.suffix in (".py", ".h", ".cc") and len(path.read_text().splitlines()) > 600
    ]
    assert long == []


def test_no_pickle_no_stub_on_the_path_to_the_bidder() -> None:
    """A model is its ONNX file."""
    for path, tree in modules(PACKAGE):
        assert not {name.split(".")[0] for name in imported(tree)} & {
            "pickle",
            "cloudpickle",
            "joblib",
            "dill",
        }, path
        raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
        names = [exc.func if isinstance(exc, ast.Call) else exc for exc in raised]
        assert not any(getattr(name, "id", "") == "NotImplementedError" for name in names), path
