"""The iPinYou logs of 2013 (Zhang, Yuan, Wang, Shen 2014, arXiv:1407.7073): won second-price auctions.

Prices are RMB fen per CPM; the log holds CNY CPM, a hundredth of it. Times are China Standard Time (UTC+8,
no summer time); the log holds UTC and `utc_offset_minutes` 480. Files have 24 columns (impressions, clicks
and conversions, told apart by `logtype` 1, 2, 3) or 27 (joined by the make-ipinyou-data scripts: click,
weekday, hour in front).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from bidml.errors import DataError
from bidml.log.files import opened
from bidml.log.mapping import UNITS_PER_CPM, PriceUnit
from bidml.log.quarantine import ReadingReport

RAW_COLUMNS: Final = (
    "bidid", "timestamp", "logtype", "ipinyouid", "useragent", "ip", "region", "city", "adexchange", "domain",
    "url", "urlid", "slotid", "slotwidth", "slotheight", "slotvisibility", "slotformat", "slotprice",
    "creative", "bidprice", "payprice", "keypage", "advertiser", "usertag",
)  # fmt: skip
JOINED_COLUMNS: Final = ("click", "weekday", "hour", *RAW_COLUMNS)

FEATURES: Final = (
    "weekday", "hour_of_day", "os", "browser", "useragent", "ip", "region", "city", "adexchange", "domain",
    "url", "urlid", "slotid", "slotwidth", "slotheight", "slot_size", "slotvisibility", "slotformat",
    "creative", "keypage", "advertiser", "usertag", "ipinyouid",
)  # fmt: skip

_UTC_OFFSET_MINUTES: Final = 480
_IMPRESSION, _CLICK, _CONVERSION = "1", "2", "3"
_TOKEN = re.compile(r"(?P<os>[a-z]+)_(?P<browser>[a-z]+)")
_OS_MARKS: Final = (
    ("windows", "windows"), ("iphone", "ios"), ("ipad", "ios"), ("ipod", "ios"), ("android", "android"),
    ("mac os", "mac"), ("linux", "linux"),
)  # fmt: skip
_BROWSER_MARKS: Final = (
    ("sogou", "sogou"), ("metasr", "sogou"), ("maxthon", "maxthon"), ("theworld", "theworld"),
    ("opera", "opera"), ("firefox", "firefox"), ("chrome", "chrome"), ("safari", "safari"),
    ("msie", "ie"), ("trident", "ie"),
)  # fmt: skip


def read_ipinyou(
    paths: list[Path], *, price_unit: PriceUnit = PriceUnit.CENTI_CPM
) -> tuple[pd.DataFrame, ReadingReport]:
    """Impressions left-joined with clicks and conversions on bidid, as an auction log, with `FEATURES`.

    A repeated bidid is kept once, its earliest row (equal times: the smaller text). `clicked` is there when
    the files hold clicks, `converted` when they hold conversions. `weekday` (Monday is 0) and `hour_of_day`
    are local; `os` and `browser` come from the user agent; "null" is null. `price_unit=PriceUnit.CPM`
    leaves the fen figures as they are. Lines of another width or with an unreadable time or price are
    malformed.
    """
    notes = _Notes()
    rows = pd.concat([_read_file(path, notes) for path in paths], ignore_index=True)
    impressions = rows[rows["logtype"] == _IMPRESSION]
    if impressions.empty:
        raise DataError("iPinYou files hold impressions (logtype 1)", value=[str(p) for p in paths],
                        remedy="give the impression file too")  # fmt: skip
    others = ~rows["logtype"].isin([_IMPRESSION, _CLICK, _CONVERSION])
    notes.add("unknown_logtype", rows[others]["logtype"])
    shown = _earliest(impressions, "duplicate_impression", notes)
    events = {}
    for logtype, name in ((_CLICK, "click"), (_CONVERSION, "conversion")):
        found = rows[rows["logtype"] == logtype]
        if not found.empty:
            events[name] = _earliest(found, f"duplicate_{name}", notes).set_index("bidid")["timestamp"]
            unmatched = events[name].index.difference(pd.Index(shown["bidid"]))
            notes.add(f"{name}_without_impression", unmatched)
    return _log(shown, events, price_unit), notes.report()


class _Notes:
    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._malformed: set[str] = set()

    def add(self, rule: str, found: Iterable[Any], *, malformed: bool = False) -> None:
        found = list(found)
        if found:
            self._counts[rule] = self._counts.get(rule, 0) + len(found)
            self._examples.setdefault(rule, str(found[0])[:200])
            if malformed:
                self._malformed.add(rule)

    def report(self) -> ReadingReport:
        malformed = {rule: n for rule, n in self._counts.items() if rule in self._malformed}
        notes = {rule: n for rule, n in self._counts.items() if rule not in self._malformed}
        return ReadingReport(malformed, notes, self._examples)


def _read_file(path: Path, notes: _Notes) -> pd.DataFrame:
    with opened(path) as stream:
        lines = [line.rstrip(b"\r").replace(b"\r", b" ") for line in stream.read().split(b"\n")]
    lines = [line for line in lines if line]
    if lines and lines[0].startswith(b"click\tweekday\t"):
        del lines[0]
    columns = JOINED_COLUMNS if lines and lines[0].count(b"\t") == len(JOINED_COLUMNS) - 1 else RAW_COLUMNS
    good = [line.count(b"\t") == len(columns) - 1 and _is_utf8(line) for line in lines]
    bad = (line.decode(errors="replace") for line, is_good in zip(lines, good, strict=True) if not is_good)
    notes.add("malformed_line", bad, malformed=True)
    if not any(good):
        raise DataError(
            f"an iPinYou file has lines of {len(RAW_COLUMNS)} or {len(JOINED_COLUMNS)} columns between tabs",
            value=str(path),
            remedy="set another format",
        )
    table = pacsv.read_csv(
        io.BytesIO(b"\n".join(line for line, is_good in zip(lines, good, strict=True) if is_good)),
        read_options=pacsv.ReadOptions(use_threads=False, column_names=columns),
        parse_options=pacsv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in columns},
            strings_can_be_null=True,
            null_values=["", "null"],
        ),
    )
    return _typed(table.to_pandas(), notes)


def _typed(rows: pd.DataFrame, notes: _Notes) -> pd.DataFrame:
    text = rows["timestamp"].fillna("")
    seconds = pd.to_datetime(text.str.slice(0, 14), format="%Y%m%d%H%M%S", errors="coerce")
    milliseconds = pd.to_numeric(text.str.slice(14), errors="coerce")
    rows["timestamp"] = seconds + pd.to_timedelta(milliseconds, unit="ms")  # local, without a zone
    bad = rows["timestamp"].isna()
    for name in ("bidprice", "payprice", "slotprice"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce").astype("float64")
        bad |= rows[name].isna()
    notes.add("unreadable_time_or_price", rows[bad]["bidid"].fillna("null"), malformed=True)
    return rows[~bad]


def _earliest(rows: pd.DataFrame, rule: str, notes: _Notes) -> pd.DataFrame:
    """One row for each bidid; a joined row that was clicked goes before its unclicked twin."""
    twins = rows[rows["bidid"].duplicated(keep=False) & rows["bidid"].notna()]
    if twins.empty:
        return rows
    order = pd.DataFrame(
        {
            "unclicked": twins.get("click", pd.Series("0", index=twins.index)) != "1",
            "timestamp": twins["timestamp"],
            "text": twins.drop(columns="timestamp").astype(object).map(str).agg("\t".join, axis=1),
        }
    )
    ordered = twins["bidid"].loc[order.sort_values(["unclicked", "timestamp", "text"]).index]
    later = ordered[ordered.duplicated()]
    notes.add(rule, later)
    return rows.drop(index=later.index)


def _log(shown: pd.DataFrame, events: dict[str, pd.Series[Any]], price_unit: PriceUnit) -> pd.DataFrame:
    per_cpm = UNITS_PER_CPM[price_unit]
    ids, local = shown["bidid"], shown["timestamp"]
    log = pd.DataFrame(
        {
            "auction_id": ids,
            "timestamp": _utc(local),
            "utc_offset_minutes": float(_UTC_OFFSET_MINUTES),
            "exchange": shown["adexchange"],
            "line_item_id": shown["advertiser"],
            "currency": "CNY",
            "auction_type": 2,
            "bid_cpm": shown["bidprice"] / per_cpm,
            "floor_cpm": shown["slotprice"] / per_cpm,
            "won": True,
            "price_cpm": shown["payprice"] / per_cpm,
        }
    )
    if "click" in shown.columns:
        log["clicked"] = shown["click"] == "1"
    for name, flag in (("click", "clicked"), ("conversion", "converted")):
        if name in events:
            log[flag] = ids.isin(events[name].index) | log.get(flag, False)
            log[f"{name}_timestamp"] = _utc(ids.map(events[name]))
    agents = {agent: os_and_browser(agent) for agent in shown["useragent"].dropna().unique()}
    derived = {
        "weekday": local.dt.day_of_week.astype("float64"),
        "hour_of_day": local.dt.hour.astype("float64"),
        "os": shown["useragent"].map({agent: found[0] for agent, found in agents.items()}),
        "browser": shown["useragent"].map({agent: found[1] for agent, found in agents.items()}),
        "slot_size": shown["slotwidth"] + "x" + shown["slotheight"],
    }
    features = {name: derived.get(name, shown.get(name)) for name in FEATURES}
    return pd.concat([log, pd.DataFrame(features)], axis=1).reset_index(drop=True)


def os_and_browser(agent: str) -> tuple[str, str]:
    """Of a user agent, or of the token the joined files hold in its place.

    >>> os_and_browser("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1)"), os_and_browser("mac_safari")
    (('windows', 'ie'), ('mac', 'safari'))
    """
    token = _TOKEN.fullmatch(agent)
    if token is not None:
        return token["os"], token["browser"]
    text = agent.lower()
    return _first_mark(text, _OS_MARKS), _first_mark(text, _BROWSER_MARKS)


def _first_mark(text: str, marks: tuple[tuple[str, str], ...]) -> str:
    return next((name for mark, name in marks if mark in text), "other")


def _utc(local: pd.Series[Any]) -> pd.Series[Any]:
    return (local - pd.Timedelta(minutes=_UTC_OFFSET_MINUTES)).dt.tz_localize("UTC")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
