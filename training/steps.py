"""What each stage of a retraining job makes, in the order of the data's journey."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bidml.blueprint import Blueprint
from bidml.certify import DEFAULT_EVALUATORS, Certificate, certify
from bidml.errors import DataError, RefusedError
from bidml.export import model_bytes
from bidml.features import raw_columns
from bidml.fit import LeakWarning
from bidml.fit.crew import ALONE, Crew
from bidml.log import QuarantineReport, ReadingReport, write_log
from bidml.log.conform import conform
from bidml.log.share import Share
from bidml.log.tables import read_parquet
from bidml.report import ReportData, model_card, report_with_plots
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from bidml.train.assess import estimates_of, evaluate_models
from bidml.train.config import ModelPart, TrainConfig
from bidml.train.prepare import TrainingData, check, read, training_data
from bidml.train.run import conversions_of, fit_models, maturity_of, self_check_sample
from training.base import Base
from training.config import AlarmConfig, RetrainConfig
from training.drift import Profile, drift, profile_of, refuse_drift
from training.duel import duel_of
from training.intake import Intake, one_copy
from training.sample import n_rows_of, sampled_window
from training.stages import Stage
from training.window import Window

LOG = "log.parquet"
QUARANTINE = "quarantine.parquet"
DATA = "data.json"
PART = "part.onnx"
MODEL = "model.onnx"
METRICS = "metrics.json"
CERTIFICATE = "certificate.json"
PROFILE = "profile.json"
ALARMS = "alarms.json"
REPORT = "report.html"
CARD = "model_card.md"


def read_window(config: RetrainConfig, window: Window, intake: Intake, out: Path, crew: Crew = ALONE) -> None:
    """The window's good rows, each once, in order: log.parquet. The others: quarantine.parquet; counts: data.json.

    With a `crew`, of this rank's share of the auctions; nothing is exchanged.
    """
    share = Share(crew.rank, crew.size) if crew.size > 1 else None
    cut: pd.Timestamp | None = None
    if config.train.log.is_sampled:
        raw, cut = sampled_window(config, window)
        n_rows = n_rows_of(intake.files) if intake.rows is not None else len(raw)
    else:
        raw = read([str(path) for path in intake.files], config.train, share=share)
        n_rows = (share.n_seen if share else len(raw)) + _n_malformed(raw)
    if intake.rows is not None and n_rows != intake.rows:
        raise DataError(
            f"the files hold the {intake.rows:,} rows that their markers promise",
            value=f"{n_rows:,}",
            remedy="a file is missing or was cut short: fetch the days again",
        )
    rows, left_out = one_copy(raw, window)
    min_rows = max(1, config.data.min_rows // crew.size)
    if len(rows) < min_rows:
        raise DataError(
            f"a window has at least {min_rows:,} rows" + (" for each rank" if share else ""),
            value=f"{len(rows):,} ({left_out})",
            remedy="check the window and the log's time zone, take a longer window, or lower data.min_rows",
        )
    log, quarantine = check(rows, config.train)
    write_log(log, out / LOG)
    if len(quarantine.rows):
        write_log(quarantine.rows, out / QUARANTINE)
    data = training_data(_table(out / LOG), quarantine, config.train, held_out=cut)
    document = {
        "data_sha256": data.digest,
        "files_sha256": intake.digest,
        "rows_read": len(raw),
        "rows_used": len(log),
        "left_out": left_out,
        "quarantine": quarantine.to_json(),
        **({"held_out_from": cut.isoformat()} if cut is not None else {}),
    }
    (out / DATA).write_text(_json(document))


def data_of(read_stage: Stage, config: TrainConfig, crew: Crew = ALONE) -> TrainingData:
    """The training data that `read_window` left, on each rank of a `crew`."""
    document = read_stage.json(DATA)
    found, cut = document["quarantine"], document.get("held_out_from")
    rows = read_stage / QUARANTINE
    quarantine = QuarantineReport(
        n_rows=found["n_rows"],
        rows=_table(rows) if rows.exists() else pd.DataFrame(),
        counts=found["counts"],
        examples=found["examples"],
        why=found["why"],
        reading=ReadingReport(**found["reading"]),
    )
    held_out = None if cut is None else pd.Timestamp(cut)
    return training_data(_table(read_stage / LOG), quarantine, config, held_out=held_out, crew=crew)


def check_drift(data: TrainingData, reference: Profile | None, alarms: AlarmConfig, out: Path) -> None:
    """What the data looks like, and how far it is from the champion's: profile.json, alarms.json. May refuse."""
    log = pd.concat([data.train, data.test], ignore_index=True)
    columns = raw_columns(log, data.spec)
    found: dict[str, Any] = {"drift": None, "warnings": ["no champion's data to compare with"]}
    if reference is not None:
        moved = drift(reference, columns, data.spec, log)
        found = {"drift": moved, "warnings": refuse_drift(moved, alarms)}
    (out / PROFILE).write_text(_json(profile_of(columns, data.spec, log)))
    (out / ALARMS).write_text(_json(found))


def fit_part(
    part: ModelPart,
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    *,
    win_part: Path | None = None,
    champion: bytes | None = None,
    crew: Crew = ALONE,
) -> None:
    """One model, as an artifact of that part alone: part.onnx; what its fit warned of: alarms.json. Leaks refuse.

    `win_part`: the artifact of the win curve by which clicks are weighted, where it is fitted already. `champion`: the
    artifact to refresh, instead of a fit from nothing; not with a `crew`.
    """
    moved = None if champion is None else parse_artifact(champion).blueprint
    win = None if win_part is None else parse_artifact(win_part.read_bytes()).blueprint.win
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if part is ModelPart.CVR:  # alone its output is that of a CTR model
            blueprint = replace(_nothing(config, data), ctr=conversions_of(config, data, moved))
        else:
            only = config.model_copy(update={"models": (part,), "cvr": None})
            blueprint = fit_models(
                only, data, lambda _: nullcontext(), known_win=win, champion=moved, crew=crew
            )
    leaks = [str(warning.message) for warning in caught if issubclass(warning.category, LeakWarning)]
    if leaks:
        raise RefusedError(
            "no feature is the outcome itself", value=leaks, remedy="drop the feature from the spec"
        )
    said = sorted({f"{part}: {warning.message}" for warning in caught})
    (out / ALARMS).write_text(_json({"warnings": said}))
    (out / PART).write_bytes(model_bytes(blueprint, self_check_of(blueprint, {})))


def _nothing(config: TrainConfig, data: TrainingData) -> Blueprint:
    return fit_models(config.model_copy(update={"models": (), "cvr": None}), data, lambda _: nullcontext())


def make_model(
    parts: dict[ModelPart, Stage],
    config: TrainConfig,
    window: Window,
    data: TrainingData,
    alarms: AlarmConfig,
    out: Path,
    *,
    base: Base | None = None,
) -> None:
    """The parts put together, judged on held-out auctions, certified: model.onnx, metrics.json, certificate.json.

    `base`: the artifact that was refreshed; the rows that it learnt from count as learnt from.
    """
    found = {part: parse_artifact((stage / PART).read_bytes()).blueprint for part, stage in parts.items()}
    any_part = next(iter(found.values()))
    blueprint = Blueprint(
        spec=data.spec,
        ctr=found[ModelPart.CTR].ctr if ModelPart.CTR in found else None,
        win=found[ModelPart.WIN].win if ModelPart.WIN in found else None,
        cvr=found[ModelPart.CVR].ctr if ModelPart.CVR in found else None,
        currency=data.currency,
        default_auction_type=config.pricing.default_auction_type,
        provenance={
            **any_part.provenance,
            **(base.provenance(len(data.train)) if base else {}),
            "config": config.provenance(),
            "window": [window.start.isoformat(), window.end.isoformat()],
        },
    )
    columns = raw_columns(data.test, data.spec)
    sample = self_check_sample(columns)
    draft = Scorer(parse_artifact(model_bytes(blueprint, self_check_of(blueprint, sample))))
    metrics, _ = evaluate_models(draft, config, data.test, columns, None, maturity=maturity_of(config, data))
    refuse_too_good(metrics, alarms)
    blueprint = replace(blueprint, metrics=metrics)
    model = model_bytes(blueprint, self_check_of(blueprint, sample))
    certificate = certify(model, evaluators=DEFAULT_EVALUATORS)
    (out / METRICS).write_text(_json(metrics))
    (out / CERTIFICATE).write_text(_json(asdict(certificate)))
    (out / MODEL).write_bytes(model)


def refuse_too_good(metrics: dict[str, Any], alarms: AlarmConfig) -> None:
    """Raises `RefusedError` when clicks are told apart better than clicks can be."""
    found = metrics.get("ctr", {}).get("model", {}).get("auc", 0.0)
    if found > alarms.too_good_auc:
        raise RefusedError(
            f"clicks are noisy: a held-out AUC is at most {alarms.too_good_auc:g}",
            value=round(found, 4),
            remedy="look for a feature that is known only after the click",
        )


def write_report(
    model: Stage,
    config: TrainConfig,
    data: TrainingData,
    drift: Stage,
    left_out: dict[str, Any],
    said: list[str],
    title: str,
    out: Path,
    *,
    checks: Sequence[Mapping[str, Any]] = (),
    champion: bytes | None = None,
) -> None:
    """report.html, its plots (*.svg), model_card.md; with the gate's `checks`, and beside the `champion`."""
    artifact = parse_artifact((model / MODEL).read_bytes())
    blueprint = artifact.blueprint
    certificate = Certificate(**model.json(CERTIFICATE))
    predictions = estimates_of(Scorer(artifact), config, data.test, raw_columns(data.test, data.spec))
    moved = drift.json(ALARMS)["drift"]
    report = ReportData(
        title=title,
        currency=blueprint.currency,
        metrics=blueprint.metrics,
        provenance=dict(blueprint.provenance),
        quarantine=left_out["quarantine"],
        certificate=certificate,
        test=data.test,
        pctr=predictions.pctr,
        curve=predictions.curve,
        value_cpm=predictions.value_cpm,
        bid_cpm=predictions.bid_cpm,
        train=data.train,
        psi=moved["psi"] if moved else {},
        checks=checks,
        duel=duel_of((model / MODEL).read_bytes(), champion, data.test, config) if champion else None,
    )
    page, plots = report_with_plots(report)
    (out / REPORT).write_text(page)
    for name, text in plots.items():
        (out / name).write_text(text)
    (out / CARD).write_text(model_card(blueprint, certificate, data=left_out, warnings=said))


def _table(path: Path) -> pd.DataFrame:
    return conform(read_parquet([path]))


def _n_malformed(log: pd.DataFrame) -> int:
    from bidml.log import reading_report

    return reading_report(log).n_malformed


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
