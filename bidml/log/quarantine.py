"""What was set aside, why, and one example of each: nothing is dropped in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

_READING: Final = "bidml.reading"


@dataclass(frozen=True, slots=True)
class ReadingReport:
    """What a reader met on the way: `malformed` lines it could not use, `notes` on rows it joined or removed.

    Both map a rule to its count; `examples` holds one piece of text for each. It travels with the table in
    `DataFrame.attrs`, and `validate` adds it to its own report.
    """

    malformed: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_malformed(self) -> int:
        return sum(self.malformed.values())

    def to_json(self) -> dict[str, Any]:
        return {"malformed": dict(self.malformed), "notes": dict(self.notes), "examples": dict(self.examples)}

    def attach(self, log: pd.DataFrame) -> pd.DataFrame:
        log.attrs[_READING] = self.to_json()
        return log


def reading_report(log: pd.DataFrame) -> ReadingReport:
    """The report of the reader that made `log`; an empty one for a table from elsewhere."""
    return ReadingReport(**log.attrs.get(_READING, {}))


def without_reading_report(log: pd.DataFrame) -> pd.DataFrame:
    log.attrs = {key: value for key, value in log.attrs.items() if key != _READING}
    return log


@dataclass(frozen=True, slots=True, eq=False)
class QuarantineReport:
    """The rows set aside by `validate`.

    `n_rows` rows were looked at; `rows` are the quarantined ones with the column `rule`, the first rule
    each broke; `counts` and `examples` are by rule; `why` explains each rule met; `reading` is the reader's
    report.
    """

    n_rows: int
    rows: pd.DataFrame
    counts: Mapping[str, int]
    examples: Mapping[str, Mapping[str, Any]]
    why: Mapping[str, str]
    reading: ReadingReport

    @property
    def share(self) -> float:
        """Quarantined rows and malformed lines as a share of all rows and lines."""
        lost = len(self.rows) + self.reading.n_malformed
        return lost / max(1, self.n_rows + self.reading.n_malformed)

    def to_json(self) -> dict[str, Any]:
        return {
            "n_rows": self.n_rows,
            "n_quarantined": len(self.rows),
            "share": self.share,
            "counts": dict(self.counts),
            "examples": {rule: dict(example) for rule, example in self.examples.items()},
            "why": dict(self.why),
            "reading": self.reading.to_json(),
        }

    def __str__(self) -> str:
        lines = [f"{len(self.rows):,} of {self.n_rows:,} rows quarantined"]
        for rule, count in self.counts.items():
            lines.append(f"  {rule}: {count:,} ({self.why[rule]}), such as {json.dumps(self.examples[rule])}")
        for title, counts in (("unreadable", self.reading.malformed), ("noted", self.reading.notes)):
            for rule, count in counts.items():
                lines.append(f"  {title}, {rule}: {count:,}, such as {self.reading.examples.get(rule, '')}")
        return "\n".join(lines)


def json_cells(row: pd.Series[Any]) -> dict[str, Any]:
    """A row as JSON values; null cells are left out, times are ISO text."""
    return {str(name): _json_cell(cell) for name, cell in row.items() if not pd.isna(cell)}


def _json_cell(cell: Any) -> Any:
    if isinstance(cell, pd.Timestamp):
        return cell.isoformat()
    if hasattr(cell, "item"):
        cell = cell.item()
    is_plain = isinstance(cell, (bool, int, str)) or (isinstance(cell, float) and abs(cell) != float("inf"))
    return cell if is_plain else str(cell)
