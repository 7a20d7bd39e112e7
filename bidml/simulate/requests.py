"""Log rows as OpenRTB 2.x bid requests, such that extraction gives back the log's feature values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bidml.simulate.market import CURRENCY


def requests_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """One request per row of a simulated log; what is missing in the row is absent from the request."""
    epoch_ms = rows["timestamp"].astype("datetime64[ms, UTC]").astype("int64")
    cells = rows.assign(epoch_ms=epoch_ms)
    names = list(cells.columns)
    return [_request(dict(zip(names, row, strict=True))) for row in cells.itertuples(index=False, name=None)]


def _request(row: dict[str, Any]) -> dict[str, Any]:
    w, h = map(int, row["banner_size"].split("x"))
    imp = {
        "id": "1",
        "banner": {"w": w, "h": h},
        "tagid": row["tag_id"],
        "instl": _integer(row["instl"]),
        "secure": 1,
        "ext": _present(sessiondepth=_integer(row["session_depth"]), viewability=_number(row["viewability"])),
    }
    floor = _number(row["bidfloor"])
    if floor is not None:
        imp |= {"bidfloor": floor, "bidfloorcur": CURRENCY}
    version = _integer(row["os_version"])
    device = {
        "geo": {"country": row["country"], "utcoffset": int(row["utc_offset_minutes"]), "type": 2},
        "make": row["device_make"],
        "model": row["device_model"],
        "os": row["os"],
        "osv": None if version is None else f"{version}.1",
        "w": _integer(row["screen_width"]),
        "language": row["language"],
        "carrier": row["carrier"] if isinstance(row["carrier"], str) else None,
        "connectiontype": _integer(row["connection_type"]),
        "devicetype": 4,
        "js": 1,
    }
    year = _integer(row["birth_year"])
    request = {
        "id": row["auction_id"],
        "at": int(row["auction_type"]),
        "cur": [CURRENCY],
        "tmax": 120,
        "imp": [_present(**imp)],
        "app": {"bundle": row["app_bundle"], "publisher": {"id": row["publisher_id"]}},
        "device": _present(**device),
        "ext": {"timestamp": int(row["epoch_ms"]), "exchange": row["exchange"]},
    }
    return request if year is None else request | {"user": {"yob": year}}


def _present(**members: Any) -> dict[str, Any]:
    return {name: member for name, member in members.items() if member is not None}


def _number(cell: float) -> float | None:
    return None if np.isnan(cell) else float(cell)


def _integer(cell: float) -> int | None:
    return None if np.isnan(cell) else int(cell)
