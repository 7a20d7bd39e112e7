"""The first screen of a report: what a reader must know who reads nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bidml.certify import Certificate

_CALIBRATED: Final = (0.9, 1.1)


@dataclass(frozen=True, slots=True)
class Item:
    """One figure: what it is, its value, what to think of it. `good` is None where there is nothing to judge."""

    name: str
    value: str
    note: str
    good: bool | None = None


def summary_of(
    metrics: Mapping[str, Any],
    certificate: Certificate,
    quarantine: Mapping[str, Any],
    checks: Sequence[Mapping[str, Any]],
    currency: str,
) -> list[Item]:
    """In the order of importance: the gate's verdict, money, calibration, sorting, certificate, rows set aside."""
    items = []
    if checks:
        failed = [str(check["name"]) for check in checks if not check["passed"]]
        note = "; ".join(failed) if failed else f"all {len(checks)} checks passed"
        items.append(Item("Gate", "refused" if failed else "passed", note, not failed))
    if "money" in metrics and "bidml" in metrics["money"]:
        ours = metrics["money"]["bidml"]
        items.append(
            Item(
                "Surplus",
                f"{ours['surplus_cpm']:.3g} {currency}",
                f"per 1000 auctions, {ours['of_oracle']:.1%} of the oracle's",
            )
        )
    for part, name in (("ctr", "Click calibration"), ("win", "Win calibration")):
        if part in metrics:
            model = metrics[part]["model"]
            low, high = (model[f"calibration_{end}"] for end in ("low", "high"))
            ratio = model["calibration_ratio"]
            of_traffic = (
                part == "ctr" and "win" in metrics
            )  # below 1 on impressions that the old policy won: docs/ctr.md
            too_low = high < _CALIBRATED[0] and not of_traffic
            good = False if too_low or low > _CALIBRATED[1] else None
            if good is None and _CALIBRATED[0] <= ratio <= _CALIBRATED[1]:
                good = True
            note = f"predicted ÷ observed, held out; 95 % interval {low:.2f} to {high:.2f}"
            note += "; below 1 is meant: the level is the traffic's" if of_traffic and ratio < 1.0 else ""
            items.append(Item(name, f"{ratio:.3f}", note, good))
    if "ctr" in metrics:
        entropy = metrics["ctr"]["model"]["normalized_entropy"]
        items.append(
            Item(
                "Normalized entropy",
                f"{entropy:.3f}",
                "of clicks; 1 says no more than the base rate",
                entropy < 1.0,
            )
        )
    largest = max((max(found.values()) for found in certificate.differences.values()), default=0.0)
    items.append(
        Item(
            "Certificate",
            f"{len(certificate.differences)} agree",
            f"on {certificate.n_rows} rows to {largest:.0e}: {', '.join(sorted(certificate.differences))}",
            True,
        )
    )
    n, aside = quarantine["n_rows"], quarantine["n_quarantined"]
    items.append(Item("Rows set aside", f"{aside / n:.2%}" if n else "0", f"{aside:,} of {n:,}"))
    return items
