"""From a window to its files, complete; from files to one table, whatever their order and however often a row came."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bidml.errors import DataError
from bidml.log.files import files_of
from training.config import DataConfig
from training.window import Window

# What an auction log learns after the bid. Copies of a row that differ only here are one row, better known.
OUTCOMES: Final = (
    "won",
    "price_cpm",
    "min_bid_to_win_cpm",
    "loss_reason",
    "clicked",
    "click_timestamp",
    "converted",
    "conversion_timestamp",
)


@dataclass(frozen=True, slots=True)
class Intake:
    """The files of a window; `digest` is of their content, whatever their names and order; `rows` if markers tell."""

    files: tuple[Path, ...]
    digest: str
    rows: int | None


def wait_for_files(
    folder: str | Path,
    config: DataConfig,
    window: Window,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> Intake:
    """The files of every day of `window`, once all are complete.

    Raises `DataError` for days that are missing or not complete in time, and before clicks have matured.
    """
    ripe = window.end + timedelta(hours=config.maturity_hours)
    if now() < ripe:
        raise DataError(
            f"clicks have {config.maturity_hours:g} hours to arrive after the window's end",
            value=f"it is {now().isoformat(timespec='minutes')}",
            remedy=f"run after {ripe.isoformat(timespec='minutes')}, or take an earlier window",
        )
    deadline = now() + timedelta(minutes=config.wait_minutes)
    while True:
        missing = [
            _said(part) for part in _parts(config, window) if not _is_complete(Path(folder), config, part)
        ]
        if not missing:
            break
        if now() >= deadline:
            raise DataError(
                "every day or hour of the window is complete",
                value=missing,
                remedy=f"wait for {config.marker or 'the files'} of these, or take another window",
            )
        sleep(min(60.0, config.wait_minutes * 60.0))
    places = _places(Path(folder), config, window)
    files = tuple(path for place in places for path in files_of(place) if path.name != config.marker)
    if not files:
        raise DataError(
            "a window has log files", value=str(folder), remedy="correct train.log.path or data.days"
        )
    return Intake(files, _digest(files), _rows_promised(Path(folder), config, window))


def one_copy(log: pd.DataFrame, window: Window) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of `window`, each once, in an order of their own; and how many were left out, by reason.

    Equal copies are one row. Of copies that differ in their outcome only (`OUTCOMES`: a win notice or a click came
    later) the one that knows most stays: won, clicked, converted. Any other two rows of one auction are left to
    `validate`, which quarantines all but one. Rows without a time stay: they are quarantined, too.
    """
    counts: dict[str, int] = {}
    attrs = dict(log.attrs)
    log = log.reset_index(drop=True)
    if "timestamp" in log:
        outside = (log["timestamp"] < window.start) | (log["timestamp"] >= window.end)
        counts["outside the window"] = int(outside.sum())
        log = log[~outside]
    if "auction_id" not in log:
        raise DataError(
            "a log that may hold copies names its auctions",
            value=sorted(log.columns),
            remedy="map auction_id in train.log.columns",
        )
    columns = sorted(log.columns)
    content = _hashes(log, columns)
    before = _hashes(log, [name for name in columns if name not in OUTCOMES])
    order = pd.DataFrame({"before": before, "content": content}, index=log.index)
    by = ["before"]
    for name in ("won", "clicked", "converted"):
        if name in log:
            order[name] = ~log[name].fillna(False).astype(bool)
            by.append(name)
    order = order.sort_values([*by, "content"], kind="stable")
    copy = order["content"].duplicated()
    counts["equal copies"] = int(copy.sum())
    order = order[~copy]
    known = log.loc[order.index, "auction_id"].notna().to_numpy()
    superseded = order["before"].duplicated().to_numpy() & known
    counts["superseded by a later outcome"] = int(superseded.sum())
    kept = log.loc[order.index[~superseded]].reset_index(drop=True)
    kept.attrs = attrs
    return kept, counts


def _hashes(log: pd.DataFrame, columns: list[str]) -> Any:
    return pd.util.hash_pandas_object(log[columns], index=False).to_numpy()


def _parts(config: DataConfig, window: Window) -> Sequence[date]:
    """What has a folder of its own: hours (as datetimes) where `days` names {hour}, else days."""
    return window.hours if config.days is not None and "{hour}" in config.days else window.days


def _said(part: date) -> str:
    return f"{part:%Y-%m-%dT%H}" if isinstance(part, datetime) else str(part)


def _place(folder: Path, config: DataConfig, part: date) -> Path:
    return folder / (config.days or "").format(date=f"{part:%Y-%m-%d}", hour=f"{part:%H}")


def _places(folder: Path, config: DataConfig, window: Window) -> list[Path]:
    if config.days is None:
        return [folder]
    return [_place(folder, config, part) for part in _parts(config, window)]


def _is_complete(folder: Path, config: DataConfig, part: date) -> bool:
    if config.days is None:
        return folder.exists() and (config.marker is None or (folder / config.marker).is_file())
    place = _place(folder, config, part)
    return place.exists() if config.marker is None else (place / config.marker).is_file()


def _rows_promised(folder: Path, config: DataConfig, window: Window) -> int | None:
    """What the markers say; None unless all of them say it."""
    if config.marker is None:
        return None
    total = 0
    for place in _places(folder, config, window):
        try:
            rows = json.loads((place / config.marker).read_text())["rows"]
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(rows, int):
            return None
        total += rows
    return total


def _digest(files: tuple[Path, ...]) -> str:
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
