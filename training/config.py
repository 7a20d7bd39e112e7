"""What a retraining job is told: a TOML file, validated, unknown keys refused.

[train] is a whole training configuration (docs/training.md); the other sections are the job's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bidml.errors import ConfigError
from bidml.train.config import TrainConfig, config_error, parse_config, read_toml


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Where a day of the log lies below `train.log.path`, and when it is complete.

    `days`: a folder or file per day, with {date} as YYYY-MM-DD, or per hour, with {hour} as HH, too; without it the
    whole path is read and the window selected. `marker`: a file in each such folder that says that it is complete; if
    it holds JSON with `rows`, so many rows must be there. `wait_minutes`: how long to wait for it. `maturity_hours`:
    clicks come late; the job refuses before the window's end lies so far back. `min_rows`: a shorter log is refused.
    `keep_held_out`: the share of the held-out auctions that a sampled log (`train.log.keep_lost`) is judged by.
    """

    days: str | None = None
    marker: str | None = None
    wait_minutes: float = Field(0.0, ge=0.0, le=24 * 60)
    maturity_hours: float = Field(0.0, ge=0.0)
    min_rows: int = Field(1000, ge=1)
    keep_held_out: float = Field(1.0, gt=0.0, le=1.0)


class AlarmConfig(_Section):
    """When data or a model is not to be believed.

    PSI (population stability index) of a feature between the champion's training data and this: above `psi_warn` it
    is told, above `psi_refuse` the job refuses. Ratios of CTR and of the median price to the champion's, in either
    direction, above `max_ratio` refuse. A held-out AUC of clicks above `too_good_auc` refuses: something leaks.
    """

    psi_warn: float = Field(0.1, gt=0.0)
    psi_refuse: float = Field(1.0, gt=0.0)
    max_ratio: float = Field(3.0, gt=1.0)
    too_good_auc: float = Field(0.97, gt=0.5, le=1.0)


class GateConfig(_Section):
    """The bounds of `training.gate`; see docs/retraining.md for what each check measures."""

    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    min_surplus_lift: float = Field(-0.025, ge=-1.0)
    max_log_loss_increase: float = Field(0.03, ge=0.0)
    max_win_log_loss_increase: float = Field(0.02, ge=0.0)
    max_log_loss_decrease: float = Field(0.3, gt=0.0)
    min_mixture_share: float = Field(0.35, ge=0.0, le=0.5)
    min_information_kept: float = Field(0.5, ge=0.0, le=1.0)
    calibration_tolerance: float = Field(0.1, ge=0.0)
    max_calibration_error: float = Field(0.3, gt=0.0)
    segment_tolerance: float = Field(0.3, ge=0.0)
    segment_min_events: float = Field(100.0, gt=0.0)
    max_bid_ratio: float = Field(1.5, gt=1.0)
    max_bid_moved: float = Field(0.25, ge=0.0, le=1.0)
    max_cap_share_increase: float = Field(0.05, ge=0.0, le=1.0)
    max_no_bid_increase: float = Field(0.1, ge=0.0, le=1.0)
    max_unseen_increase: float = Field(0.1, ge=0.0, le=1.0)
    min_rows_ratio: float = Field(0.5, ge=0.0)
    max_latency_ratio: float = Field(2.5, gt=0.0)
    random_state: int = 0


class PublishConfig(_Section):
    """`folder`: the publication that bidders follow, where the champion comes from. `key_file`: docs/retraining.md."""

    folder: str
    key_file: str | None = None


class MlflowConfig(_Section):
    """Where runs are told of; without the section, nowhere.

    `tracking_uri`: any of MLflow's; by default a sqlite database in the job's `out`, no server. `registry_uri`: by
    default the same. `experiment` and `model`: names of the experiment and of the registered model.
    """

    tracking_uri: str | None = None
    registry_uri: str | None = None
    experiment: str = Field("bidml", min_length=1)
    model: str = Field("bidml", min_length=1, pattern=r"^[^'/:]+$")


class RetrainConfig(_Section):
    """One job. Without [publish] the artifact is judged alone and left in the run directory."""

    train: TrainConfig
    data: DataConfig = DataConfig()  # type: ignore[call-arg]
    alarms: AlarmConfig = AlarmConfig()  # type: ignore[call-arg]
    gate: GateConfig = GateConfig()  # type: ignore[call-arg]
    publish: PublishConfig | None = None
    mlflow: MlflowConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data.keep_held_out < 1.0 and not self.train.log.is_sampled:
            raise ValueError("data.keep_held_out goes with train.log.keep_unclicked or keep_lost below 1")
        return self


def load_retrain_config(path: str | Path) -> RetrainConfig:
    """The configuration in the TOML file at `path`; relative paths in it are relative to the file.

    Raises `ConfigError` for what is not TOML, unknown keys and values out of range, `SpecError` for the features.
    """
    path = Path(path)
    document = read_toml(path)
    for section, keys in (
        (document.get("train", {}).get("log"), ("path",)),
        (document.get("publish"), ("folder", "key_file")),
    ):
        if isinstance(section, dict):
            section |= {
                key: str(path.parent / section[key]) for key in keys if isinstance(section.get(key), str)
            }
    return parse_retrain_config(document)


def parse_retrain_config(document: Mapping[str, Any]) -> RetrainConfig:
    """The configuration in nested mappings; raises `ConfigError`, and `SpecError` for the features."""
    sections = dict(document)
    train = sections.pop("train", None)
    if not isinstance(train, Mapping):
        raise ConfigError("[train] is a training configuration", value=train, remedy="see docs/training.md")
    parsed = parse_config(train)
    if not isinstance(parsed.log.path, str) or parsed.log.test_path is not None:
        raise ConfigError(
            "a job reads one path and holds out its window's end",
            value={"path": parsed.log.path, "test_path": parsed.log.test_path},
            remedy="give one train.log.path, no test_path",
        )
    try:
        return RetrainConfig.model_validate({**sections, "train": parsed})
    except ValidationError as error:
        raise config_error(error, remedy="see docs/retraining.md for the keys") from None
