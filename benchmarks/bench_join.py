"""The out-of-core join of events: time, processor time and peak memory against the number of bids.

    python -m benchmarks.bench_join [--quick] [--json FILE] [--plot FILE] [--folder FOLDER] [--bids N ...]

Tables: bids as a bidder logs them, with five features as columns; 2 % of them won, 0.2 % clicked, a quarter of the
losses told with reason and min-bid-to-win, 1 % of the bids replayed. JSON Lines: bids with their whole request, 700
bytes each, gzip, features extracted on the way. Each join is a process of its own; the peak is that of the largest
process (for JSON Lines two workers read, each below it). `correct`: the rows and outcomes of the report are those that
were generated. Events are generated below FOLDER (35 MB per million bids, as much again for each join) and then
deleted afterwards.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import measure
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.log import JoinRules, join_events

N_BIDS = (2_000_000, 5_000_000, 10_000_000, 20_000_000)
QUICK_N_BIDS = (50_000, 200_000)
N_JSON_BIDS, QUICK_N_JSON_BIDS = 200_000, 5_000
N_FILES = 24
DAY_MS = 86_400_000
MIDNIGHT_MS = 1_772_323_200_000
SPEC = FeatureSpec(
    (
        Feature("country", FeatureKind.CATEGORY, "device.geo.country"),
        Feature("app_bundle", FeatureKind.CATEGORY, "app.bundle"),
        Feature("os", FeatureKind.CATEGORY, "device.os"),
        Feature("size", FeatureKind.CATEGORY, "derived.banner_size"),
        Feature("hour_of_day", FeatureKind.NUMBER, "derived.hour_of_day"),
    )
)


def generate_tables(folder: Path, n_bids: int) -> dict[str, int]:
    """Bids and outcomes in 24 files each, in order of time; what the join must find."""
    import duckdb

    connection = duckdb.connect(
        config={"threads": 2, "memory_limit": "1GB", "temp_directory": str(folder / "spill")}
    )
    truth = {"won": 0, "clicked": 0, "rows": 0}
    for i in range(N_FILES):
        first, last = i * n_bids // N_FILES, (i + 1) * n_bids // N_FILES
        connection.execute(
            f"""CREATE OR REPLACE TABLE bids AS SELECT 'bid' AS type, md5(i::VARCHAR) AS auction_id,
            {MIDNIGHT_MS} + (i * {DAY_MS} // {n_bids})::BIGINT AS timestamp_ms, 'USD' AS currency, 1 AS auction_type,
            'ssp' || hash(i, 1) % 6 AS exchange, 'line' || hash(i, 2) % 40 AS line_item_id,
            round(exp(hash(i, 3) % 10000 / 5000.0 - 1), 4) AS bid_cpm, 0.1 AS floor_cpm, 0.4 AS value_per_click,
            60.0 AS utc_offset_minutes, 'c' || hash(i, 4) % 60 AS country, 'app.' || hash(i, 5) % 20000 AS app_bundle,
            'os' || hash(i, 7) % 4 AS os, ['320x50', '300x250', '728x90'][1 + (hash(i, 6) % 3)::INT] AS size,
            (hash(i, 8) % 24)::DOUBLE AS hour_of_day, hash(i, 9) % 1000 AS w, hash(i, 10) % 4 AS q
            FROM range({first}, {last}) t(i)"""
        )  # fmt: skip
        columns = "SELECT * EXCLUDE (w, q) FROM bids"
        _copy(
            connection,
            f"{columns} UNION ALL {columns} WHERE w = 999 OR w < 9",
            folder / f"bids-{i:02}.parquet",
        )
        _copy(
            connection,
            "SELECT 'win' AS type, auction_id, timestamp_ms + 80 AS timestamp_ms, bid_cpm AS price_cpm, "
            "bid_cpm * 0.8 AS min_bid_to_win_cpm, NULL::INT AS loss_reason FROM bids WHERE w < 20 UNION ALL "
            "SELECT 'impression', auction_id, timestamp_ms + 900, NULL, NULL, NULL FROM bids WHERE w < 19 UNION ALL "
            "SELECT 'click', auction_id, timestamp_ms + 9000, NULL, NULL, NULL FROM bids WHERE w < 2 UNION ALL "
            "SELECT 'loss', auction_id, timestamp_ms + 80, NULL, bid_cpm * 1.2, 102 FROM bids WHERE w >= 20 AND q = 0",
            folder / f"outcomes-{i:02}.parquet",
        )
        won, clicked, rows = connection.execute(
            "SELECT count(*) FILTER (w < 20), count(*) FILTER (w < 2), count(*) FROM bids"
        ).fetchone() or (0, 0, 0)
        for name, n in (("won", won), ("clicked", clicked), ("rows", rows)):
            truth[name] += n
    connection.close()
    return truth


def _copy(connection: Any, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def generate_lines(folder: Path, n_bids: int) -> dict[str, int]:
    """The same kind of events as gzip JSON Lines in four files."""
    rng = random.Random(0)
    truth = {"won": 0, "clicked": 0, "rows": n_bids}
    for part in range(4):
        with gzip.open(folder / f"events-{part}.jsonl.gz", "wt", compresslevel=1) as file:
            for i in range(part * n_bids // 4, (part + 1) * n_bids // 4):
                key = {"auction_id": f"{rng.getrandbits(128):032x}", "timestamp_ms": MIDNIGHT_MS + i}
                price = round(rng.lognormvariate(0, 1), 4)
                events = [{"type": "bid", **key, "bid_cpm": price, "currency": "USD", "request": _request(rng, i),
                           "line_item": {"id": f"line{i % 40}"}, "value_per_click": 0.4}]  # fmt: skip
                chance = rng.random()
                if chance < 0.02:
                    events += [{"type": "win", **key, "price_cpm": price}, {"type": "impression", **key}]
                    truth["won"] += 1
                if chance < 0.002:
                    events.append({"type": "click", **key})
                    truth["clicked"] += 1
                elif 0.02 <= chance < 0.265:
                    events.append(
                        {"type": "loss", **key, "loss_reason": 102, "min_bid_to_win_cpm": price * 1.2}
                    )
                file.writelines(json.dumps(event) + "\n" for event in events)
    return truth


def _request(rng: random.Random, i: int) -> dict[str, Any]:
    agent = "Mozilla/5.0 (Linux; Android 14; SM-A546B) AppleWebKit/537.36 Chrome/127.0 Mobile Safari/537.36"
    return {
        "id": f"{rng.getrandbits(64):016x}", "at": 1, "tmax": 120, "bcat": ["IAB25", "IAB26"],
        "imp": [{"id": "1", "tagid": f"t{i % 900}", "bidfloor": 0.1, "secure": 1, "banner": {"w": 320, "h": 50}}],
        "app": {"id": f"{i % 5000}", "bundle": f"app.{rng.randrange(20000)}", "publisher": {"id": f"p{i % 300}"}},
        "device": {"ua": agent, "os": "Android", "osv": "14", "devicetype": 4, "ip": "203.0.113.7", "make": "Samsung",
                   "geo": {"country": "DEU", "utcoffset": 60, "lat": 52.5, "lon": 13.4}},
        "user": {"id": f"{rng.getrandbits(64):016x}"},
    }  # fmt: skip


def child(events: Path, out: Path) -> None:
    """One join, measured from inside its process."""
    start = perf_counter()
    report = join_events(events, out, spec=SPEC, rules=JoinRules())
    seconds = perf_counter() - start
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({
        "seconds": seconds,
        "cpu_seconds": own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime,
        "peak_mb": own.ru_maxrss / 1024,
        "worker_peak_mb": workers.ru_maxrss / 1024,
        "rows": sum(day.n_rows for day in report.days),
        "won": sum(day.n_won for day in report.days),
        "clicked": sum(day.n_clicked for day in report.days),
        "repeated": report.events["repeated"],
    }))  # fmt: skip


def measured(folder: Path, kind: str, n_bids: int) -> dict[str, Any]:
    """Generates, joins in a process of its own, compares, deletes."""
    events = folder / "events"
    events.mkdir()
    try:
        truth = (generate_tables if kind == "tables" else generate_lines)(events, n_bids)
        size_mb = sum(path.stat().st_size for path in events.iterdir() if path.is_file()) / 2**20
        shutil.rmtree(events / "spill", ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.bench_join", "--child", str(events), str(folder / "log")]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        for leftover in (events, folder / "log"):
            shutil.rmtree(leftover, ignore_errors=True)
    correct = all(found[name] == n for name, n in truth.items())
    return {"kind": kind, "bids": n_bids, "input_mb": size_mb, "correct": correct, **found}


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| events | bids | input MB | seconds | processor s | s per million bids | peak MB | correct |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        millions = row["bids"] / 1e6
        lines.append(
            f"| {row['kind']} | {row['bids']:,} | {row['input_mb']:,.0f} | {row['seconds']:.1f} | "
            f"{row['cpu_seconds']:.1f} | {row['cpu_seconds'] / millions:.2f} | {_peak(row):,.0f} | "
            f"{'yes' if row['correct'] else 'NO'} |"
        )
    return "\n".join(lines)


def _peak(row: dict[str, Any]) -> float:
    return float(max(row["peak_mb"], row["worker_peak_mb"]))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time and memory against the number of bids."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tables = [row for row in rows if row["kind"] == "tables"]
    bids = [row["bids"] / 1e6 for row in tables]
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6))
    time.plot(bids, [row["seconds"] for row in tables], "o-", label="elapsed")
    time.plot(bids, [row["cpu_seconds"] / 2 for row in tables], "s--", label="processor time / 2 cores")
    time.set(xlabel="million bids", ylabel="seconds", ylim=0, xlim=0, title="Join: time")
    time.legend(frameon=False)
    memory.plot(bids, [row["peak_mb"] for row in tables], "o-")
    memory.axhline(1024, color="grey", linestyle=":", linewidth=1)
    memory.set(
        xlabel="million bids", ylabel="peak MB", ylim=0, xlim=0, title="Join: peak memory (dotted: 1 GB)"
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--bids", type=int, nargs="*")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    sizes = options.bids or (QUICK_N_BIDS if options.quick else N_BIDS)
    n_lines = QUICK_N_JSON_BIDS if options.quick else N_JSON_BIDS
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench_join.", dir=options.folder) as folder:
        for kind, n_bids in [("lines", n_lines), *(("tables", n) for n in sizes)]:
            rows.append(measured(Path(folder), kind, n_bids))
            print(markdown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    machine = measure.machine(("duckdb", "pyarrow"))
    print(f"{machine}\n\n{markdown(rows)}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "joins": rows}, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
