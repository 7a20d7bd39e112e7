"""The notebooks run as they stand, without a warning, show plots, and their rendered pages are theirs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import jupytext
import pytest
from matplotlib.figure import Figure

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.py"))
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def cells(path: Path) -> list[Any]:
    return list(jupytext.read(path).cells)


def run(source: str, namespace: dict[str, Any]) -> object:
    """Runs a cell as Jupyter does, without its magics; returns what it would show."""
    lines = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
    tree = ast.parse(lines)
    shown = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        shown = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    exec(compile(tree, "cell", "exec"), namespace)
    return None if shown is None else eval(compile(shown, "cell", "eval"), namespace)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_plots(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell in order in one namespace; the claims of the text are assertions in the cells."""
    monkeypatch.chdir(FOLDER)
    namespace: dict[str, Any] = {"__name__": path.stem}
    shown = [run(cell.source, namespace) for cell in cells(path) if cell.cell_type == "code"]
    assert sum(isinstance(result, Figure) for result in shown) >= 2


def test_there_is_a_notebook_for_each_question() -> None:
    """Seven, numbered without a gap."""
    assert [path.name[:2] for path in NOTEBOOKS] == [f"0{i}" for i in range(1, len(NOTEBOOKS) + 1)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_rendered_page_is_of_this_notebook(path: Path) -> None:
    """Every cell's text is in the page and every picture exists; after a change: `make notebooks`."""
    page = FOLDER / "rendered" / f"{path.stem}.md"
    text = page.read_text()
    for cell in cells(path):
        source = "\n".join(line.rstrip() for line in cell.source.splitlines())
        assert source in text, f"make notebooks, and commit it: {source[:80]}"
    pictures = PICTURE.findall(text)
    assert pictures
    assert all((page.parent / picture).exists() for picture in pictures)


def test_the_rendered_pages_are_small() -> None:
    """They are in the repository: at most 2 MB together, and no picture that no page shows."""
    rendered = FOLDER / "rendered"
    files = [path for path in rendered.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    shown = {p for page in rendered.glob("*.md") for p in PICTURE.findall(page.read_text())}
    assert {str(path.relative_to(rendered)) for path in files if path.suffix == ".png"} == shown
