"""What a training run is told: a TOML file, validated, unknown keys refused.

[[features]] declares the feature spec; without it every column of the log that is not its own becomes a feature.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bidml.blueprint import WinFamily
from bidml.contract import AuctionType, FeatureSpec
from bidml.errors import ConfigError
from bidml.fit.maturity import window_seconds
from bidml.log import LogFormat, Need, PriceUnit, TimeUnit
from bidml.units import is_currency_code


class ModelPart(StrEnum):
    """What is trained; an artifact that prices has CTR and win curve, one that pays for conversions all three."""

    CTR = "ctr"
    WIN = "win"
    CVR = "cvr"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LogConfig(_Section):
    """Where the log is and how its names and units become ours; see `bidml.log.read_log`.

    `test_path`: held-out auctions in the same form; without it they are split off the log. `keep_unclicked`,
    `keep_lost`: the shares that are read of the rows without a click, and of the lost auctions, of what `bidml join`
    wrote (`bidml.log.read_sample`); fits and evaluation weigh each row by 1 / share.
    """

    path: str | tuple[str, ...]
    test_path: str | tuple[str, ...] | None = None
    format: LogFormat
    columns: dict[str, str] = Field(default_factory=dict)
    currency: str | None = None
    auction_type: int | None = None
    price_unit: PriceUnit | None = None
    time_unit: TimeUnit = TimeUnit.MILLISECONDS
    numbers: tuple[str, ...] = ()
    delimiter: str = ","
    max_quarantined: float = Field(0.05, ge=0.0, lt=1.0)
    check_units: bool = True
    keep_unclicked: float = Field(1.0, gt=0.0, le=1.0)
    keep_lost: float | None = Field(None, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        is_plain = self.format is LogFormat.PARQUET and not (self.columns or self.numbers or self.price_unit)
        if self.is_sampled and not (is_plain and isinstance(self.path, str) and self.test_path is None):
            raise ValueError(
                "keep_unclicked and keep_lost read one log that bidml join wrote, and no test_path"
            )
        return self

    @property
    def is_sampled(self) -> bool:
        return self.keep_unclicked < 1.0 or (self.keep_lost or 1.0) < 1.0


class SplitConfig(_Section):
    """The held-out rows: the last in time, or, where the log has no times, chosen by a hash of the row's place."""

    holdout: float = Field(0.2, gt=0.0, lt=1.0)


class CtrConfig(_Section):
    """See `bidml.fit.ClickModel`. `negative_sampling_rate`: the share of unclicked impressions that the log kept."""

    preset: str = "latency"
    calibration: str = "beta"
    crosses: tuple[tuple[str, str], ...] | Literal["auto"] = "auto"
    negative_sampling_rate: float = Field(1.0, gt=0.0, le=1.0)
    uncertainty: bool = False


class CvrConfig(_Section):
    """See `bidml.fit.ConversionModel`; the section asks for the model. `window`: how long after a click it counts."""

    window: str = "7D"
    preset: str = "latency"
    calibration: str = "beta"
    rounds: int = Field(3, ge=1)
    min_maturity: float = Field(0.2, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        window_seconds(self.window)
        return self


class WinConfig(_Section):
    """See `bidml.fit.WinRateModel`."""

    family: WinFamily = WinFamily.LOG_LOGISTIC
    slope: str = "boosted"
    base: str = "linear"


class PricingConfig(_Section):
    """Terms for the evaluation in money where the log has none, and the bidder's default auction type."""

    value_per_click: float | None = Field(None, gt=0.0)
    value_per_conversion: float | None = Field(None, gt=0.0)
    cap_cpm: float | None = Field(None, gt=0.0)
    default_auction_type: AuctionType = AuctionType.FIRST_PRICE


class TrainConfig(_Section):
    """One training run. `currency` of the artifact is the log's; `currency` here is for a log without prices."""

    log: LogConfig
    models: tuple[ModelPart, ...] = (ModelPart.CTR, ModelPart.WIN)
    features: tuple[dict[str, str], ...] | None = None
    timestamp_ms_source: str = "ext.timestamp"
    currency: str = "USD"
    split: SplitConfig = SplitConfig()  # type: ignore[call-arg]
    ctr: CtrConfig = CtrConfig()  # type: ignore[call-arg]
    win: WinConfig = WinConfig()
    cvr: CvrConfig | None = None
    pricing: PricingConfig = PricingConfig()  # type: ignore[call-arg]
    random_state: int = 0
    n_threads: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.models or len(set(self.models)) != len(self.models):
            raise ValueError("models names ctr, win, or both")
        if ModelPart.CVR in self.models:
            raise ValueError("conversions are asked for by a section [cvr], not in models")
        if self.cvr is not None and ModelPart.CTR not in self.models:
            raise ValueError("[cvr] stands beside a CTR model: put ctr into models")
        if not is_currency_code(self.currency):
            raise ValueError("currency is an ISO 4217 code such as USD")
        return self

    @property
    def spec(self) -> FeatureSpec | None:
        """The declared features; None when they follow from the log. Raises `SpecError`."""
        if self.features is None:
            return None
        return FeatureSpec.from_json(
            {"features": list(self.features), "timestamp_ms_source": self.timestamp_ms_source}
        )

    @property
    def parts(self) -> tuple[ModelPart, ...]:
        """`models`, and the CVR model that a section [cvr] asks for."""
        return (*self.models, ModelPart.CVR) if self.cvr is not None else self.models

    @property
    def needs(self) -> tuple[Need, ...]:
        needs = {ModelPart.CTR: Need.CTR, ModelPart.WIN: Need.WIN, ModelPart.CVR: Need.CVR}
        return tuple(needs[part] for part in self.parts)

    def provenance(self) -> dict[str, Any]:
        """The effective settings without the places where files lie: equal data and settings, equal artifact."""
        document: dict[str, Any] = self.model_dump(mode="json", exclude={"features"})
        for where in ("path", "test_path"):
            del document["log"][where]
        del document["n_threads"]
        # artifacts keep the bytes they had before there was anything else
        if self.win.family is WinFamily.LOG_LOGISTIC:
            del document["win"]["family"]
        if self.ctr.crosses == "auto":
            del document["ctr"]["crosses"]
        if not self.ctr.uncertainty:
            del document["ctr"]["uncertainty"]
        return document


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration in the TOML file at `path`, with `overrides` (nested like the file) on top.

    Relative log paths are relative to the file. Raises `ConfigError` for what is not TOML, unknown keys and
    values out of range, `SpecError` for a feature that OpenRTB does not know.
    """
    path = Path(path)
    document = read_toml(path)
    section = document.get("log")
    if isinstance(section, dict):
        section |= {key: _beside(path, section[key]) for key in ("path", "test_path") if key in section}
    return parse_config(_merged(document, overrides or {}))


def parse_config(document: Mapping[str, Any]) -> TrainConfig:
    """The configuration in nested mappings; raises `ConfigError`, and `SpecError` for the features."""
    try:
        config = TrainConfig.model_validate(document)
    except ValidationError as error:
        raise config_error(error, remedy="see docs/training.md for the keys") from None
    _ = config.spec  # a wrong feature is refused before anything is read
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """The tables in a TOML file; raises `ConfigError`."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            "the config file can be read", value=str(error), remedy="correct the path"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is TOML", value=str(error), remedy="correct the file") from None


def config_error(error: ValidationError, *, remedy: str) -> ConfigError:
    """What pydantic found first, with its key and value."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "the config"
    return ConfigError(f"{where}: {first['msg']}", value=first["input"], remedy=remedy)


def _beside(config: Path, where: object) -> object:
    if isinstance(where, str):
        return str(config.parent / where)
    return [_beside(config, one) for one in where] if isinstance(where, list) else where


def _merged(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(document)
    for key, value in overrides.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged
