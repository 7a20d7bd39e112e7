"""Configurations: unknown keys, wrong values and wrong files are named, never guessed at."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bidml.errors import ConfigError, SpecError
from bidml.log import Need
from bidml.train import load_config, parse_config
from bidml.train.settings import config_from_options, spec_of_file

ROOT = Path(__file__).resolve().parents[2]
MINIMAL: dict[str, Any] = {"log": {"path": "x.parquet", "format": "parquet"}}
FEATURE = {"name": "country", "kind": "category", "source": "device.geo.country"}


def test_the_documented_defaults_are_the_defaults() -> None:
    """The table of docs/training.md holds each default as TOML."""
    rows = [line.strip("|").split("|") for line in (ROOT / "docs" / "training.md").read_text().splitlines()]
    documented = {
        key.strip(" `"): default.strip(" `")
        for key, default, *_ in (row for row in rows if len(row) == 3)
        if default.strip().startswith("`") and "," not in key
    }
    assert len(documented) >= 12
    for key, default in documented.items():
        value: Any = parse_config(MINIMAL).model_dump(mode="json")
        for part in key.split("."):
            value = value[part]
        assert value == tomllib.loads(f"default = {default}")["default"], key


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"unknown": 1}, "unknown"),
        ({"log": {"path": "x", "format": "parquet", "colums": {}}}, r"log\.colums"),
        ({"log": {"path": "x", "format": "avro"}}, r"log\.format"),
        ({"split": {"holdout": 1.0}}, r"split\.holdout"),
        ({"models": []}, "models"),
        ({"models": ["ctr", "ctr"]}, "models"),
        ({"models": ["cvr"]}, "models"),
        ({"currency": "usd"}, "currency"),
        ({"n_threads": 0}, "n_threads"),
        ({"win": {"family": "weibull"}}, r"win\.family"),
        ({"pricing": {"value_per_click": -1.0}}, r"pricing\.value_per_click"),
    ],
)
def test_a_wrong_config_is_a_config_error_that_names_the_key(change: dict[str, Any], rule: str) -> None:
    """Exit code 2."""
    with pytest.raises(ConfigError, match=rule) as error:
        parse_config(MINIMAL | change)
    assert error.value.exit_code == 2


def test_an_unknown_path_is_a_spec_error() -> None:
    """Exit code 3, before anything is read."""
    with pytest.raises(SpecError, match=r"device\.geo\.contry") as error:
        parse_config(MINIMAL | {"features": [FEATURE | {"source": "device.geo.contry"}]})
    assert error.value.exit_code == 3


def test_paths_are_relative_to_the_file_and_options_win(tmp_path: Path) -> None:
    """As the docs say."""
    file = tmp_path / "job.toml"
    file.write_text('models = ["ctr"]\n[log]\npath = "a.csv"\ntest_path = ["b.csv"]\nformat = "csv"\n')
    config = load_config(file)
    assert config.log.path == str(tmp_path / "a.csv")
    assert config.log.test_path == (str(tmp_path / "b.csv"),)
    assert config.needs == (Need.CTR,)
    other = config_from_options(file, log=[Path("c.csv")], models="win,ctr", value_per_click=2.0)
    assert other.log.path == ("c.csv",)
    assert other.log.format == "csv"
    assert other.needs == (Need.WIN, Need.CTR)
    assert other.pricing.value_per_click == 2.0


def test_a_config_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    """Missing, or not TOML."""
    with pytest.raises(ConfigError, match="can be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("log = [")
    with pytest.raises(ConfigError, match="TOML"):
        load_config(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match="needs a log"):
        config_from_options(None, format="csv")


def test_a_spec_file_has_features_only(tmp_path: Path) -> None:
    """So that a whole config is not taken for a spec."""
    file = tmp_path / "spec.toml"
    file.write_text('[[features]]\nname = "country"\nkind = "category"\nsource = "device.geo.country"\n')
    assert spec_of_file(file).names == ("country",)
    file.write_text(file.read_text() + "[log]\npath = 'x'\n")
    with pytest.raises(ConfigError, match=r"\[\[features\]\]"):
        spec_of_file(file)


def test_provenance_has_no_place_and_no_thread_count() -> None:
    """Equal data and settings give equal artifacts, wherever they lie."""
    one = parse_config(MINIMAL)
    other = parse_config(
        {"log": {"path": "elsewhere", "test_path": "t", "format": "parquet"}, "n_threads": 1}
    )
    assert one.provenance() == other.provenance()
    assert parse_config(MINIMAL | {"random_state": 1}).provenance() != one.provenance()
    assert "family" not in one.provenance()["win"]  # as before there was one
    assert "uncertainty" not in one.provenance()["ctr"]
    assert parse_config(MINIMAL | {"ctr": {"uncertainty": True}}).provenance()["ctr"]["uncertainty"] is True
    log_normal = parse_config(MINIMAL | {"win": {"family": "log_normal"}})
    assert log_normal.provenance()["win"]["family"] == "log_normal"


@pytest.mark.parametrize("name", ["ipinyou_2259", "kddcup2012"])
def test_a_shipped_config_is_valid(name: str) -> None:
    """Those of single runs; tests/training has those of the retraining job."""
    config = load_config(ROOT / "training" / "configs" / f"{name}.toml")
    assert config.spec is None or len(config.spec.names) > 1
