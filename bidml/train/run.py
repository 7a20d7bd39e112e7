"""One training run: a log → a certified artifact, its evaluation and its report, or a refusal that changes nothing.

Everything is computed first; files appear at the end, each by rename, the artifact last. A run directory with a
`model.onnx` is complete.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from bidml import __version__
from bidml.blueprint import Blueprint, CtrBlueprint, WinBlueprint
from bidml.certify import DEFAULT_EVALUATORS, Certificate, certify
from bidml.errors import ConfigError
from bidml.export import model_bytes, write_model
from bidml.features import RawColumns, raw_columns
from bidml.fit import ClickModel, ConversionModel, MarketPriceObservations, WinRateModel
from bidml.fit.crew import ALONE, Crew
from bidml.fit.maturity import Maturity, latest_seconds
from bidml.fit.refresh import at_traffic_level, refresh_clicks, refresh_win_curve
from bidml.fit.win_rate import curve_of
from bidml.log import sample_weights
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from bidml.train.assess import MarketOf, evaluate_models
from bidml.train.config import ModelPart, TrainConfig
from bidml.train.prepare import TrainingData, prepare
from bidml.train.report_files import REPORT, Stages, heard, report_data, write_report_files

ARTIFACT: Final = "model.onnx"

_SAMPLE_ROWS: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """What a run made. `metrics` is also in the artifact and in metrics.json."""

    folder: Path
    metrics: dict[str, Any]
    certificate: Certificate
    n_train: int
    n_test: int
    test: pd.DataFrame

    @property
    def artifact(self) -> Path:
        return self.folder / ARTIFACT

    @property
    def report(self) -> Path:
        return self.folder / REPORT


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    stages: Stages = lambda _: nullcontext(),
    market_of: MarketOf | None = None,
) -> TrainingRun:
    """Runs `config`; writes `model.onnx`, its manifest and the files of `write_report_files` to `out`.

    `market_of` gives the known market of test rows (simulators); without it `true_market_price_cpm` is used where
    the log has it. Raises `ConfigError`, `DataError`, `RefusedError`; then `out` holds nothing new.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigError("the run directory is a folder", value=str(out), remedy="choose another --out")
    with stages("read and check the log"):
        data = prepare(config)
    with stages("extract features"):
        test_columns = raw_columns(data.test, data.spec)
    with heard() as said:
        blueprint = fit_models(config, data, stages)
    with stages("evaluate on held-out auctions"):
        sample = self_check_sample(test_columns)
        draft = Scorer(parse_artifact(model_bytes(blueprint, self_check_of(blueprint, sample))))
        metrics, predictions = evaluate_models(
            draft, config, data.test, test_columns, market_of, maturity=maturity_of(config, data)
        )
    blueprint = replace(blueprint, metrics=metrics)
    with stages("certify"):
        model = model_bytes(blueprint, self_check_of(blueprint, sample))
        certificate = certify(model, evaluators=DEFAULT_EVALUATORS)
    with stages("write the report and the artifact"):
        out.mkdir(parents=True, exist_ok=True)
        report = report_data(out.name, blueprint, certificate, data.quarantine, data.test, predictions)
        write_report_files(out, config, blueprint, replace(report, train=data.train), data.quarantine, said)
        write_model(model, out / ARTIFACT)
    return TrainingRun(out, metrics, certificate, len(data.train), len(data.test), data.test)


def fit_models(
    config: TrainConfig,
    data: TrainingData,
    stages: Stages,
    *,
    known_win: WinBlueprint | None = None,
    champion: Blueprint | None = None,
    crew: Crew = ALONE,
) -> Blueprint:
    """The models that `config` names, fitted on the training side, with their provenance; no metrics yet.

    With a win curve, fitted here or `known_win`, the level of the CTR model is that of the traffic
    (`ClickModel.fit_traffic_level`). With a `champion` nothing is fitted anew: it is moved by these rows
    (`fit.refresh`). With a `crew`, and without a champion, on the training sides of all ranks. Raises `ConfigError` for
    a champion of other features or without a model that `config` names.
    """
    ctr = win = cvr = None
    if champion is not None:
        _check_champion(champion, config, data)
    if ModelPart.WIN in config.models:
        with stages("fit the win curve"):
            win = _fit_wins(config, data, champion.win if champion else None, crew)
    if ModelPart.CTR in config.models:
        with stages("fit the CTR model"):
            ctr = _fit_clicks(config, data, win or known_win, champion.ctr if champion else None, crew)
    if config.cvr is not None:
        with stages("fit the CVR model"):
            cvr = conversions_of(config, data, champion)
    return Blueprint(
        spec=data.spec,
        ctr=ctr,
        win=win,
        cvr=cvr,
        currency=data.currency,
        default_auction_type=config.pricing.default_auction_type,
        provenance={
            "bidml": __version__,
            "config": config.provenance(),
            "data_sha256": data.digest,
            "n_train": data.extent.n_train,
            "n_test": data.extent.n_test,
            "window": list(data.extent.times) if data.extent.times else None,
        },
    )


def _check_champion(champion: Blueprint, config: TrainConfig, data: TrainingData) -> None:
    if champion.spec != data.spec or champion.currency != data.currency:
        raise ConfigError(
            "a champion is refreshed with its own features and currency",
            value={"features": champion.spec.to_json()["features"], "currency": champion.currency},
            remedy="fit anew, without --refresh",
        )
    missing = [part.value for part in config.models if getattr(champion, part.value) is None]
    if missing:
        raise ConfigError("a champion has the models to refresh", value=missing, remedy="fit anew")


def _fit_wins(
    config: TrainConfig, data: TrainingData, champion: WinBlueprint | None, crew: Crew
) -> WinBlueprint:
    log = data.train
    seen = MarketPriceObservations.from_log(log)
    if champion is not None:
        return refresh_win_curve(champion, log, seen, spec=data.spec)
    model = WinRateModel(
        data.spec,
        family=config.win.family,
        slope=config.win.slope,
        base=config.win.base,
        random_state=config.random_state,
        n_jobs=config.n_threads,
    )
    return model.fit(log, seen, crew=crew).to_blueprint()


def _fit_clicks(
    config: TrainConfig,
    data: TrainingData,
    win: WinBlueprint | None,
    champion: CtrBlueprint | None,
    crew: Crew,
) -> CtrBlueprint:
    log = data.train
    shown = log[log["won"]] if "won" in log else log
    if champion is not None:
        model = refresh_clicks(
            champion,
            shown,
            shown["clicked"],
            spec=data.spec,
            sample_weight=sample_weights(shown),
            calibration="isotonic" if config.ctr.calibration == "isotonic" else "platt",
            negative_sampling_rate=config.ctr.negative_sampling_rate,
        )
    else:
        fitted = ClickModel(
            data.spec,
            preset=config.ctr.preset,
            calibration=config.ctr.calibration,
            crosses=config.ctr.crosses,
            negative_sampling_rate=config.ctr.negative_sampling_rate,
            uncertainty=config.ctr.uncertainty,
            random_state=config.random_state,
            n_jobs=config.n_threads,
        )
        fitted.fit(
            shown,
            shown["clicked"],
            timestamp=shown.get("timestamp"),
            sample_weight=sample_weights(shown),
            crew=crew,
        )
        model = fitted.to_blueprint()
    if win is None:
        return model
    curve = curve_of(win, raw_columns(log, data.spec))
    return at_traffic_level(
        model,
        log,
        spec=data.spec,
        won=log["won"],
        clicked=log["clicked"],
        win_rate=curve.win_rate(log["bid_cpm"].to_numpy(dtype=np.float64)),
        sample_weight=sample_weights(log),
        crew=crew,
    )


def conversions_of(config: TrainConfig, data: TrainingData, champion: Blueprint | None) -> CtrBlueprint:
    """A champion's CVR model stays between full fits, for new conversions are few and young; else it is fitted."""
    if champion is not None and champion.cvr is not None:
        return champion.cvr
    return fit_conversions(config, data)


def fit_conversions(config: TrainConfig, data: TrainingData) -> CtrBlueprint:
    """The CVR model of [cvr], on the clicks of the training side, as known at the end of the whole log.

    Raises `DataError` for clicks or conversions without times, and where there are too few of either.
    """
    assert config.cvr is not None
    clicks = data.train[data.train["clicked"].to_numpy(dtype=bool)]
    clicked = ClickModel(
        data.spec,
        preset=config.cvr.preset,
        calibration=config.cvr.calibration,
        random_state=config.random_state,
        n_jobs=config.n_threads,
    )
    model = ConversionModel(
        data.spec,
        window=config.cvr.window,
        model=clicked,
        rounds=config.cvr.rounds,
        min_maturity=config.cvr.min_maturity,
    )
    written = max(latest_seconds(data.train), latest_seconds(data.test))
    model.fit(clicks, clicks["converted"], as_of=pd.Timestamp(written, unit="s", tz="UTC"))
    return model.to_blueprint()


def maturity_of(config: TrainConfig, data: TrainingData) -> Maturity | None:
    """The arrival of conversions in the whole log; None without [cvr]."""
    if config.cvr is None:
        return None
    names = ["timestamp", "clicked", "click_timestamp", "converted", "conversion_timestamp"]
    tables = (table[[name for name in names if name in table]] for table in (data.train, data.test))
    return Maturity.of(pd.concat(tables, ignore_index=True), config.cvr.window)


def self_check_sample(columns: RawColumns) -> dict[str, Any]:
    """Rows for the self-check, evenly from the test side."""
    n = len(next(iter(columns.values())))
    rows = np.unique(np.linspace(0, n - 1, min(n, _SAMPLE_ROWS)).astype(np.int64))
    return {name: cells[rows].tolist() for name, cells in columns.items()}
