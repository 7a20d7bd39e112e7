"""The benchmark's document as Markdown, its targets judged, and as one plot.

python -m benchmarks.score_report RUN.json [--plot FILE.svg]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import measure

DEPTH_5, LEAVES_63 = "300 trees of depth 5", "300 trees of 63 leaves"


def row_of(document: dict[str, Any], group: str, name: str) -> dict[str, Any]:
    """The result of one contender."""
    for row in document["results"]:
        if row["group"] == group and row["name"] == name:
            found: dict[str, Any] = row
            return found
    raise KeyError((group, name))


def targets(document: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """(what, target, measured, met): each row of the goals that the engine was built for."""

    def p50(group: str, name: str) -> float:
        return float(row_of(document, group, name)["warm"]["p50"])

    def bid(group: str) -> float:
        return p50(group, "bidml bid, fresh")

    ort = p50(DEPTH_5, "onnxruntime, features ready") / bid(DEPTH_5)
    trees = f"trees alone: {DEPTH_5}"
    over_fast = p50(trees, "LightGBM SingleRowFast (ctypes)") / p50(trees, "bidml score_vector")
    wide = f"trees alone: {LEAVES_63}"
    vector, over_ort = (
        p50(wide, "bidml score_vector"),
        p50(wide, "onnxruntime run") / p50(wide, "bidml score_vector"),
    )
    from_json, best = p50(DEPTH_5, "bidml bid_json"), p50(DEPTH_5, "bidml best of 50")
    batch = document["batch_ns_per_row"][DEPTH_5]
    others = {name: ns for name, ns in batch.items() if name != "bidml bid_many" and isinstance(ns, float)}
    ahead = min(others.values()) / batch["bidml bid_many"]
    tail = row_of(document, DEPTH_5, "bidml bid, fresh")["warm"]["p99"] / bid(DEPTH_5)
    threads, costs = document["threads"], document["costs"]
    shared, two = threads["bid_many, shared scorer"], threads["bid_many, two scorers"]
    load = max(costs["load"].values(), key=lambda run: run["file_bytes"])
    rows = [
        (f"bid, {DEPTH_5}", "≤ 1.1 µs", f"{bid(DEPTH_5) / 1e3:.2f} µs", bid(DEPTH_5) <= 1_100),
        ("the same file through onnxruntime", "≥ 40 ×", f"{ort:.0f} ×", ort >= 40),
        ("its CTR trees alone, over SingleRowFast", "≥ 25 ×", f"{over_fast:.0f} ×", over_fast >= 25),
        ("p99 of bid", "≤ 3 × p50", f"{tail:.1f} ×", tail <= 3),
        (f"bid, {LEAVES_63}", "≤ 1.9 µs", f"{bid(LEAVES_63) / 1e3:.2f} µs", bid(LEAVES_63) <= 1_900),
        ("bid_json, 1.5 KB", "≤ 1.6 µs", f"{from_json / 1e3:.2f} µs", from_json <= 1_600),
        (f"trees only, {LEAVES_63}", "≤ 1.2 µs", f"{vector / 1e3:.2f} µs", vector <= 1_200),
        ("the same in onnxruntime", "≥ 20 ×", f"{over_ort:.0f} ×", over_ort >= 20),
        ("best of 50 line items", "≤ 40 µs", f"{best / 1e3:.1f} µs", best <= 40_000),
        ("bid_many, per row", "≤ 0.7 µs", f"{batch['bidml bid_many'] / 1e3:.2f} µs", batch["bidml bid_many"] <= 700),
        ("bid_many, over the fastest peer's batch", "> 1 ×", f"{ahead:.1f} ×", ahead > 1),
        ("two threads, shared scorer", "≥ 1.9 ×", _of_threads(shared), _holds(shared)),
        ("two threads, two scorers", "≥ 1.9 ×", _of_threads(two), _holds(two)),
        ("load", "≤ 300 ms for 5 MB", _of_load(load), load["ms"] <= 300),
        ("resident after load", "≤ 3 × file", f"{load['resident_bytes'] / load['file_bytes']:.1f} ×",
         load["resident_bytes"] <= 3 * load["file_bytes"]),
        ("the same as a line", "", _of_line(costs), True),
        ("import bidml.score", "≤ 50 ms", f"{costs['import']['ms']:.0f} ms", costs["import"]["ms"] <= 50),
        ("third-party modules", "none", costs["import"]["third_party_modules"],
         costs["import"]["third_party_modules"] == "[]"),
    ]  # fmt: skip
    for what in ("bid", "bid_json"):
        for name in ("allocations", "system calls"):
            n = costs[what].get(f"{name.replace(' ', '_')}_per_call", "not counted with --quick")
            rows.append((f"{name} of {what}", "0", f"{n:.3f}" if isinstance(n, float) else str(n), n == 0.0))
    return rows


def _of_load(run: dict[str, Any]) -> str:
    return f"{run['ms']:.0f} ms ({run['cpu_ms']:.0f} of the processor) for {run['file_bytes'] / 1e6:.1f} MB"


def _of_line(costs: dict[str, Any]) -> str:
    if "resident" not in costs:
        return "one file only with --quick"
    line = costs["resident"]
    return f"{line['constant_bytes'] / 1e6:.1f} MB + {line['per_byte_of_file']:.1f} × file"


def _of_threads(threads: dict[str, float]) -> str:
    return f"{threads['ratio']:.2f} × on {threads['processors']:.2f} processors"


def _holds(threads: dict[str, float]) -> bool:
    """Twice, or as much as the processors that the machine gave allow."""
    return threads["ratio"] >= 1.9 or threads["ratio"] >= 0.95 * threads["processors"] > 1.2


def markdown(document: dict[str, Any]) -> str:
    """Machine, targets, all contenders, batches, load: the tables of the README."""
    machine, load = document["machine"], document["under_load"]
    n = document["n_requests"]
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; load average "
        f"{machine['load_average']:.1f}; {n:,} requests rotate, {document['n_captured']} of them captured."
    )
    lines = [
        where,
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + ".",
        "",
        "| what | target | measured | met |",
        "|---|--:|--:|---|",
    ]
    lines += [f"| {a} | {b} | {c} | {'yes' if met else '**no**'} |" for a, b, c, met in targets(document)]
    lines += ["", "µs per call, net of a null call:", "", measure.markdown(document["results"]), ""]
    lines += ["| batch of 1,000 rows, ns per row | " + " | ".join(document["batch_ns_per_row"]) + " |"]
    lines += ["|---|" + "--:|" * len(document["batch_ns_per_row"])]
    batches = list(document["batch_ns_per_row"].values())
    for name in dict.fromkeys(name for batch in batches for name in batch):
        cells = [batch.get(name, "") for batch in batches]
        lines.append(
            f"| {name} | " + " | ".join(f"{c:,.0f}" if isinstance(c, float) else str(c) for c in cells) + " |"
        )
    lines += ["", f"At {load['bids_per_s']:,} bids a second, from the intended arrival, µs:", ""]
    lines += ["| | p50 | p90 | p99 | p99.9 | p99.99 | most | achieved per s |", "|---|" + "--:|" * 7]
    for name in ("bid_json", "bid, 256 requests"):
        cells = list(load[name].values())
        lines.append(
            f"| {name} | " + " | ".join(f"{c / 1e3:.1f}" for c in cells[:-1]) + f" | {cells[-1]:,.0f} |"
        )
    lines.append("")
    for shape, heads in document["paths"].items():
        paths = "; ".join(
            f"{head} {row['path']}" + (f" ({row['why']})" if row["why"] else "")
            for head, row in heads.items()
        )
        lines.append(f"Paths, {shape}: {paths}.")
    for row in document["results"]:
        if row["note"]:
            lines.append(f"{row['group']}, {row['name']}: {row['note']}.")
    lines += [f"{name}: {reason}." for name, reason in document["absent"].items()]
    return "\n".join(lines)


def plot(document: dict[str, Any], path: Path) -> None:
    """p50 of every way from a request to a bid, a whisker up to p99, one panel per model, on a log axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.2), sharex=True, layout="constrained")
    for axis, group in zip(axes, [DEPTH_5, LEAVES_63], strict=True):
        rows = [row for row in document["results"] if row["group"] == group and "best" not in row["name"]]
        rows.sort(key=lambda row: -row["warm"]["p50"])
        for at, row in enumerate(rows):
            p50, p99 = row["warm"]["p50"] / 1e3, row["warm"]["p99"] / 1e3
            color = "tab:orange" if row["name"].startswith("bidml") else "tab:gray"
            axis.errorbar(p50, at, xerr=[[0.0], [p99 - p50]], fmt="o", color=color, capsize=3)
            beside = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
            axis.annotate(f"{p50:,.0f}" if p50 >= 100 else f"{p50:.3g}", (p99, at), **beside)
        axis.set(xscale="log", title=f"CTR: {group}", xlabel="µs from request to bid: p50, whisker to p99")
        axis.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
        axis.margins(x=0.12)
        axis.grid(axis="x", which="major", alpha=0.3)
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    with mpl.rc_context({"svg.hashsalt": "bidml latency", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables and plot of a run: what `bench_score --json` wrote.")
    parser.add_argument("document", type=Path)
    parser.add_argument("--plot", type=Path, help="write the plot there (SVG)")
    arguments = parser.parse_args()
    document = json.loads(arguments.document.read_text())
    print(markdown(document))
    if arguments.plot:
        plot(document, arguments.plot)


if __name__ == "__main__":
    main()
