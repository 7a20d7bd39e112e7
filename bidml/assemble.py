"""One blueprint of parts: a LightGBM model text of your own, the CTR model or win curve of an artifact."""

from __future__ import annotations

from array import array
from math import nan
from pathlib import Path
from typing import Any

from bidml.blueprint import Blueprint, Column, CtrBlueprint, Lookup
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError, SpecError
from bidml.lightgbm_trees import head_of_booster
from bidml.score.reader import read_artifact
from bidml.train.settings import spec_of_file

_ONNX_SUFFIX = ".onnx"


def assemble(
    *, ctr: Path | None = None, win: Path | None = None, spec: Path | None = None, currency: str | None = None
) -> Blueprint:
    """The blueprint of a CTR model (artifact, or LightGBM text with its `spec`) and a win curve (artifact).

    Parts of two artifacts must agree in spec and currency. Raises `ConfigError`, `DataError`, `ArtifactError`,
    `ExportError`.
    """
    parts = {
        name: _artifact(path) for name, path in (("ctr", ctr), ("win", win)) if path and _is_artifact(path)
    }
    if ctr is not None and "ctr" not in parts:
        if spec is None:
            raise ConfigError(
                "a LightGBM text needs its feature spec", value="no --spec", remedy="give --spec"
            )
        features = spec_of_file(spec)
        parts["ctr"] = Blueprint(features, ctr_of_text(ctr, features), None, currency or "USD")
    if not parts:
        raise ConfigError(
            "an artifact has a part", value="neither --ctr nor --win", remedy="give one or both"
        )
    ctr_part, win_part = parts.get("ctr"), parts.get("win")
    for name, part in (("ctr", ctr_part), ("win", win_part)):
        if part is not None and getattr(part, name) is None:
            raise DataError(
                f"the {name} artifact has that part", value="it has not", remedy="give another file"
            )
    first = win_part or ctr_part
    assert first is not None
    for what in ("spec", "currency"):
        found = [getattr(part, what) for part in (ctr_part, win_part) if part is not None]
        if any(one != found[0] for one in found):
            raise DataError(
                f"the parts agree in their {what}", value=found, remedy="train them from one spec"
            )
    return Blueprint(
        spec=first.spec,
        ctr=ctr_part.ctr if ctr_part else None,
        win=win_part.win if win_part else None,
        cvr=ctr_part.cvr if ctr_part else None,
        currency=currency or first.currency,
        default_auction_type=first.default_auction_type,
        provenance={name: dict(part.provenance) for name, part in parts.items()},
    )


def ctr_of_text(path: Path, spec: FeatureSpec) -> CtrBlueprint:
    """The CTR model in a LightGBM model file; its feature names are names of the spec.

    A category must have been trained as a pandas categorical: the file tells its texts. Raises `DataError`,
    `SpecError`, `ExportError`.
    """
    import lightgbm as lgb

    try:
        text = path.read_text()
        booster = lgb.Booster(model_str=text)
    except (OSError, UnicodeDecodeError, lgb.basic.LightGBMError) as error:
        raise DataError(
            "a LightGBM model text can be read", value=f"{path}: {error}", remedy="save it again"
        ) from None
    names = booster.feature_name()
    unknown = sorted(set(names) - set(spec.names))
    if unknown:
        raise SpecError(
            "the booster's features are declared in the spec", value=unknown, remedy="declare them"
        )
    texts = _category_texts(booster.pandas_categorical, names, spec)
    return CtrBlueprint(head_of_booster(booster, [_column(spec[name], texts) for name in names]))


def _category_texts(
    categories: list[list[Any]] | None, names: list[str], spec: FeatureSpec
) -> dict[str, list[str]]:
    declared = [name for name in names if spec[name].kind is FeatureKind.CATEGORY]
    given = categories or []
    if len(given) != len(declared):
        raise SpecError(
            "the booster's pandas categoricals are the categories of the spec",
            value=f"{len(given)} categoricals in the file, {declared} in the spec",
            remedy="train on a DataFrame with dtype category, or declare what was trained as number",
        )
    return {name: [str(text) for text in texts] for name, texts in zip(declared, given, strict=True)}


def _column(feature: Feature, texts: dict[str, list[str]]) -> Column:
    if feature.kind is FeatureKind.NUMBER:
        return Column(feature.name)
    codes = sorted(zip(texts[feature.name], map(float, range(len(texts[feature.name]))), strict=True))
    keys = tuple(text for text, _ in codes)
    return Column(feature.name, Lookup(feature.name, keys, array("d", [code for _, code in codes]), nan))


def _is_artifact(path: Path) -> bool:
    return path.suffix == _ONNX_SUFFIX


def _artifact(path: Path) -> Blueprint:
    try:
        return read_artifact(path).blueprint
    except OSError as error:
        raise DataError("the artifact can be read", value=str(error), remedy="correct the path") from None
