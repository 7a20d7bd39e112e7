"""How the command line speaks to people: progress bars on a terminal, plain lines elsewhere, tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import rich.console
import rich.table
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bidml.report.tables import tables_of

Stages = Callable[[str], AbstractContextManager[object]]


class Console:
    """`quiet` prints nothing: machines read JSON."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = rich.console.Console(quiet=quiet, highlight=False, width=None if _is_terminal() else 120)

    @contextmanager
    def progress(self) -> Iterator[Stages]:
        """Gives the function that announces a stage."""
        if self._out.quiet or not self._out.is_terminal:
            yield self._lines
            return
        columns = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<42}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._out) as progress:

            @contextmanager
            def stage(name: str) -> Iterator[None]:
                task = progress.add_task(name, total=None)
                yield
                progress.update(task, total=1, completed=1)

            yield stage

    @contextmanager
    def _lines(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self._out.print(f"{name}: {perf_counter() - start:.1f} s")

    def tables(self, metrics: Mapping[str, Any], *, currency: str) -> None:
        """The tables of `bidml.report`."""
        for table in tables_of(metrics, currency=currency):
            self.rows(table.title, table.columns, table.rows, note=table.note)

    def rows(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = ""
    ) -> None:
        drawn = rich.table.Table(title=title, title_justify="left", title_style="bold", caption=note or None)
        drawn.caption_justify = "left"
        for i, column in enumerate(columns):
            drawn.add_column(column, justify="right" if i else "left")
        for row in rows:
            drawn.add_row(*row)
        self._out.print()
        self._out.print(drawn, markup=False)

    def document(self, document: Mapping[str, Any]) -> None:
        width = max(map(len, document))
        for key, value in document.items():
            text = value if isinstance(value, str) else json.dumps(value, indent=1, default=str)
            self._out.print(f"{key:<{width}}  " + text.replace("\n", "\n" + " " * (width + 2)), markup=False)

    def text(self, title: str, text: str) -> None:
        self._out.print(f"\n[bold]{title}[/bold]")
        self._out.print(text, markup=False)

    def files(self, files: Mapping[str, Path]) -> None:
        self._out.print()
        self.document({name: str(path) for name, path in files.items()})


def _is_terminal() -> bool:
    return rich.console.Console().is_terminal
