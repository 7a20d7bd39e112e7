"""A configuration from the command line's options, on top of a file or alone."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bidml.contract import FeatureSpec
from bidml.errors import ConfigError
from bidml.train.config import TrainConfig, load_config, parse_config


def config_from_options(
    config: Path | None,
    *,
    log: Sequence[Path] | None = None,
    format: str | None = None,
    test_log: Sequence[Path] | None = None,
    spec: Path | None = None,
    models: str | None = None,
    value_per_click: float | None = None,
) -> TrainConfig:
    """The effective configuration; raises `ConfigError` when neither a file nor a log is given."""
    overrides: dict[str, Any] = {}
    source: dict[str, Any] = {}
    if log:
        source["path"] = [str(path) for path in log]
    if test_log:
        source["test_path"] = [str(path) for path in test_log]
    if format is not None:
        source["format"] = format
    if source:
        overrides["log"] = source
    if models is not None:
        overrides["models"] = [name.strip() for name in models.split(",")]
    if value_per_click is not None:
        overrides["pricing"] = {"value_per_click": value_per_click}
    if spec is not None:
        overrides |= _features(spec)
    if config is not None:
        return load_config(config, overrides)
    if not log or format is None:
        raise ConfigError(
            "train needs a log and its format",
            value="neither --config nor --log with --format",
            remedy="give one",
        )
    return parse_config(overrides)


def spec_of_file(path: Path) -> FeatureSpec:
    """The spec in a TOML file of [[features]]; raises `ConfigError`, `SpecError`."""
    return FeatureSpec.from_json(_features(path))


def _features(path: Path) -> dict[str, Any]:
    """[[features]] and timestamp_ms_source of a TOML file; raises `ConfigError`."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("the spec is a TOML file", value=f"{path}: {error}", remedy="correct it") from None
    known: dict[str, Any] = {
        key: document[key] for key in ("features", "timestamp_ms_source") if key in document
    }
    if set(document) - set(known) or "features" not in known:
        raise ConfigError(
            "a spec file has [[features]] and timestamp_ms_source",
            value=sorted(document),
            remedy="remove the other keys",
        )
    return known
