"""Requests to start from: every one of the shared data, or a few of our own where it is missing."""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from typing import Any

from robust.builds import ROOT

_DATA = ROOT.parent / "shared" / "data"
_OWN: list[dict[str, Any]] = [
    {
        "id": "1",
        "at": 1,
        "tmax": 120,
        "cur": ["USD", "EUR"],
        "imp": [
            {
                "id": "1",
                "tagid": "t7",
                "bidfloor": 0.05,
                "bidfloorcur": "USD",
                "instl": 0,
                "secure": 1,
                "banner": {"w": 320, "h": 50, "pos": 1, "format": [{"w": 320, "h": 50}]},
                "pmp": {"private_auction": 0, "deals": []},
                "ext": {"quality": 0.5},
            },
            {"id": "2", "video": {"w": 640, "h": 480, "minduration": 5, "mimes": ["video/mp4"]}},
        ],
        "app": {
            "bundle": "com.example.app",
            "paid": 0,
            "publisher": {"id": "p1"},
            "cat": ["IAB1", "IAB9-30"],
        },
        "device": {
            "ua": "Mozilla/5.0",
            "os": "iOS",
            "osv": "17.2",
            "devicetype": 4,
            "connectiontype": 2,
            "language": "en",
            "geo": {"country": "USA", "region": "CA", "city": "Ελλάδα", "lat": 37.7, "utcoffset": -480},
        },
        "user": {"id": "u", "yob": 1984},
        "ext": {"timestamp": 1_700_000_000_000, "exchange": "x"},
    },
    {"imp": [{}]},
    {"imp": [{"banner": {"format": [{"w": 300, "h": 250}]}}], "site": {"domain": "example.com", "page": "/"}},
]


@cache
def requests() -> list[dict[str, Any]]:
    """Decoded requests, all different. Callers put back what they change. In CI the shared data must be there."""
    found = list(_OWN)
    for name in ("openrtb_requests.jsonl.gz", "openrtb_adx_captured_2016.jsonl.gz"):
        path = _DATA / name
        if not path.exists() and os.environ.get("CI") == "true":
            raise FileNotFoundError(f"real requests are missing in CI: {path}")
        if path.exists():
            with gzip.open(path, "rt") as lines:
                rows = [json.loads(line) for line in lines]
            found += [row["req"] if isinstance(row.get("req"), dict) else row for row in rows]
    return found
