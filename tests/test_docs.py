"""What the documents show works: Python examples run, links and files exist, commands are commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("*/*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_s_examples_run(
    simulated_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, in order, in one namespace, on a simulated log."""
    from bidml.simulate import simulate

    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("model.onnx", "model.onnx.json"):
        content = (simulated_run.folder / name).read_bytes()
        (tmp_path / "models" / name.replace("model", "champion", 1)).write_bytes(content)
    request = simulate(10, rng=np.random.default_rng(1)).requests([3])[0]
    namespace: dict[str, Any] = {"np": np, "request": request}
    examples = blocks(ROOT / "README.md", "python")
    assert len(examples) == 2
    for example in examples:
        assert len(example.splitlines()) <= 12, "the README promises ten lines"
        exec(compile(example, "README.md", "exec"), namespace)
    assert namespace["bid_cpm"] >= 0.0
    assert len(namespace["curve"]) == 100_000


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links name files of the project."""
    for target in LINK.findall(document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_commands_in_the_documents_exist() -> None:
    """Every `bidml <command>` and option in a shell block is one of the command line."""
    from bidml.cli import app

    known = {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    for document in DOCUMENTS:
        for block in blocks(document, "sh"):
            for command in re.findall(r"^bidml (\S+)", block, re.MULTILINE):
                assert command in known, f"{document.name}: bidml {command}"
