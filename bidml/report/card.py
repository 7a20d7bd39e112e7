"""What people should know about an artifact before they bid with it, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bidml.blueprint import Blueprint
from bidml.certify import Certificate
from bidml.report.tables import markdown, tables_of


def model_card(
    blueprint: Blueprint,
    certificate: Certificate,
    *,
    data: Mapping[str, Any],
    warnings: Sequence[str],
) -> str:
    """The card of an artifact; the same input gives the same text.

    `data`: `left_out` (reason → rows) and `quarantine` (a quarantine report's JSON). `warnings`: of the fits, of drift.
    """
    provenance = blueprint.provenance
    window = provenance.get("window") or ["unknown", "unknown"]
    parts = (("CTR", blueprint.ctr), ("CVR", blueprint.cvr), ("win curve", blueprint.win))
    agree = f"{', '.join(sorted(certificate.differences))} agree"
    largest = max(max(found.values()) for found in certificate.differences.values())
    lines = [
        f"# Model {certificate.sha256[:12]}",
        "",
        f"Prices bids in {blueprint.currency}; trained by bidml {provenance.get('bidml')}.",
        "",
        "| | |",
        "|---|---|",
        f"| artifact | sha256 `{certificate.sha256}` |",
        f"| parts | {', '.join(name for name, part in parts if part is not None)} |",
        f"| data | from {window[0]} to {window[1]} |",
        f"| rows | {provenance.get('n_train'):,} to learn, {provenance.get('n_test'):,} held out |",
        f"| data digest | `{provenance.get('data_sha256')}` |",
        f"| certificate | {certificate.n_rows} rows, {agree}; largest relative difference {largest:.1e} |",
        "",
        "## On held-out auctions",
        "",
    ]
    for table in tables_of(blueprint.metrics, currency=blueprint.currency):
        lines += [markdown(table), ""]
    lines += ["## What was left out", ""]
    lines += [f"- {name}: {count:,}" for name, count in data["left_out"].items() if count]
    lines += [f"- quarantined, {rule}: {count:,}" for rule, count in data["quarantine"]["counts"].items()]
    lines += ["- nothing"] if lines[-1] == "" else []
    lines += ["", "## Warnings", ""]
    lines += [f"- {warning}" for warning in warnings] or ["- none"]
    lines += [
        "",
        "## Limits",
        "",
        "- It knows the traffic of its window; a feature's new values are priced as unseen ones.",
        "- Held-out metrics are of the last part of the window, on auctions that the logging policy bid in.",
        "",
        "## Features",
        "",
        "| name | kind | source |",
        "|---|---|---|",
    ]
    lines += [f"| {f.name} | {f.kind} | `{f.source}` |" for f in blueprint.spec.features]
    lines += [
        "",
        "## Configuration",
        "",
        "```json",
        json.dumps(provenance.get("config"), indent=1, sort_keys=True),
        "```",
        "",
    ]
    return "\n".join(lines)
