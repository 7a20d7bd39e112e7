"""`make notebooks`: runs every notebook, and writes what a reader of the forge sees to notebooks/rendered/.

A page in Markdown and its pictures for each; what was rendered before is replaced.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

HERE = Path(__file__).resolve().parent
OUT = HERE / "rendered"
_STYLE = re.compile(r"<style scoped>.*?</style>\n?", re.DOTALL)


def notebooks() -> list[Path]:
    """The numbered notebooks, in order."""
    return sorted(HERE.glob("[0-9]*.py"))


def render(path: Path) -> None:
    """Runs the notebook at `path` in a kernel of its own and writes its page."""
    notebook = jupytext.read(path)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": HERE}}
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                raise SystemExit(f"{path.name} warns: {output.text}")
    folder = f"{path.stem}_files"
    page, resources = MarkdownExporter().from_notebook_node(
        nbformat.from_dict(notebook), resources={"output_files_dir": folder, "unique_key": path.stem}
    )
    shutil.rmtree(OUT / folder, ignore_errors=True)
    for name, picture in resources["outputs"].items():
        target = OUT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture)
    text = "\n".join(line.rstrip() for line in _STYLE.sub("", page).splitlines())
    (OUT / f"{path.stem}.md").write_text(text.strip() + "\n")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    chosen = sys.argv[1:]
    for path in notebooks():
        if not chosen or any(path.stem.startswith(prefix) for prefix in chosen):
            print(path.name, flush=True)
            render(path)


if __name__ == "__main__":
    main()
