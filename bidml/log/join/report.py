"""What a join read, kept and left out: counts that add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from bidml.log.quarantine import ReadingReport


@dataclass(frozen=True, slots=True)
class DayReport:
    """One partition: its rows and outcomes. `is_final`: no later event can change it (see `JoinRules`)."""

    day: date
    n_rows: int
    n_won: int
    n_clicked: int
    n_converted: int
    currencies: tuple[str, ...]
    is_final: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "day": self.day.isoformat(),
            "rows": self.n_rows,
            "won": self.n_won,
            "clicked": self.n_clicked,
            "converted": self.n_converted,
            "currencies": list(self.currencies),
            "final": self.is_final,
        }


@dataclass(frozen=True, slots=True)
class JoinReport:
    """`events` counts each event once, by what became of it; its values add up to the events read.

    `events`: `read`, and then `malformed`, `after_watermark`, `out_of_time`, `repeated`, `without_bid`,
    `set_aside` (its auction makes no row), `used`. `reading`: the same report that the in-memory reader gives
    (malformed lines, and notes on repeated events and auctions without a bid). `out_of_time`: events that
    windows and clocks dropped, by rule. `set_aside`: auctions that make no row, by rule. `corrected`: events
    moved to their cause within the clock skew, by type. `missing_days`: days without a bid between the first
    and the last.
    """

    events: Mapping[str, int]
    reading: ReadingReport
    out_of_time: Mapping[str, int] = field(default_factory=dict)
    set_aside: Mapping[str, int] = field(default_factory=dict)
    corrected: Mapping[str, int] = field(default_factory=dict)
    days: tuple[DayReport, ...] = ()
    missing_days: tuple[date, ...] = ()
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return sum(day.n_rows for day in self.days)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "events": dict(self.events),
            "reading": self.reading.to_json(),
            "out_of_time": dict(self.out_of_time),
            "set_aside": dict(self.set_aside),
            "corrected": dict(self.corrected),
            "days": [day.to_json() for day in self.days],
            "missing_days": [day.isoformat() for day in self.missing_days],
            "rules": dict(self.rules),
        }

    def __str__(self) -> str:
        lines = [f"{self.n_rows:,} auctions of {self.events['read']:,} events"]
        lines += [f"  {name}: {n:,}" for name, n in self.events.items() if n and name not in ("read", "used")]
        for title, counts in (
            ("unreadable", self.reading.malformed),
            ("noted", self.reading.notes),
            ("out of time", self.out_of_time),
            ("auctions set aside", self.set_aside),
            ("moved to their cause", self.corrected),
        ):
            for rule, count in counts.items():
                example = self.reading.examples.get(rule)
                shown = f", such as {example.strip()[:80]}" if example else ""
                lines.append(f"  {title}, {rule}: {count:,}{shown}")
        for day in self.days:
            state = "final" if day.is_final else "provisional"
            lines.append(
                f"{day.day}: {day.n_rows:,} rows, {day.n_won:,} won, {day.n_clicked:,} clicked, "
                f"{day.n_converted:,} converted ({', '.join(day.currencies)}; {state})"
            )
        if self.missing_days:
            lines.append(f"no bids on {', '.join(map(str, self.missing_days))}")
        return "\n".join(lines)
