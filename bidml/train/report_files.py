"""The files in which a run is read: metrics for machines, a report and a model card for people."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bidml.atomic import write_atomically
from bidml.blueprint import Blueprint
from bidml.certify import Certificate
from bidml.log import QuarantineReport, write_log
from bidml.report import ReportData, html_report, model_card
from bidml.train.config import TrainConfig
from bidml.train.evaluate import Estimates

METRICS: Final = "metrics.json"
REPORT: Final = "report.html"
CARD: Final = "model_card.md"

Stages = Callable[[str], AbstractContextManager[object]]
"""Announces a stage by name; the context is the stage's duration."""


def report_data(
    name: str,
    blueprint: Blueprint,
    certificate: Certificate,
    quarantine: QuarantineReport,
    test: pd.DataFrame,
    estimates: Estimates,
) -> ReportData:
    """What the report of an artifact shows; the metrics are the blueprint's, `estimates` belong to `test`."""
    return ReportData(
        title=f"bidml: {name}",
        currency=blueprint.currency,
        metrics=blueprint.metrics,
        provenance=dict(blueprint.provenance),
        quarantine=quarantine.to_json(),
        certificate=certificate,
        test=test,
        pctr=estimates.pctr,
        curve=estimates.curve,
        value_cpm=estimates.value_cpm,
        bid_cpm=estimates.bid_cpm,
    )


def write_report_files(
    out: Path,
    config: TrainConfig,
    blueprint: Blueprint,
    report: ReportData,
    quarantine: QuarantineReport,
    said: Sequence[str],
) -> None:
    """`metrics.json`, `report.html`, `model_card.md`, `config.json`; `quarantine.parquet` where rows were set aside.

    `said`: the warnings of the fits, for the card. Each file appears by rename.
    """
    document = {
        "metrics": dict(blueprint.metrics),
        "provenance": dict(blueprint.provenance),
        "quarantine": report.quarantine,
        "certificate": asdict(report.certificate),
    }
    card = model_card(
        blueprint, report.certificate, data={"left_out": {}, "quarantine": report.quarantine}, warnings=said
    )
    write_atomically(out / METRICS, _json(document))
    write_atomically(out / "config.json", _json(config.model_dump(mode="json")))
    if len(quarantine.rows):
        write_log(quarantine.rows, out / "quarantine.parquet")
    write_atomically(out / CARD, card.encode())
    write_atomically(out / REPORT, html_report(report).encode())


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collects the texts of warnings, and passes the warnings on at the end."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    for warning in caught:
        said.append(str(warning.message))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
