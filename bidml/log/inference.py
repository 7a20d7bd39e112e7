"""A feature spec for a table that never was an OpenRTB request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import SpecError
from bidml.log.schema import check_feature_names, is_feature_column


def infer_spec(
    log: pd.DataFrame, columns: Sequence[str] | Mapping[str, FeatureKind | str] | None = None
) -> FeatureSpec:
    """A spec of `columns` (default: all that are neither the log's own nor truth), found at `ext.log.<name>`.

    A bidder that serves such a model puts the values there in its request. A mapping declares kinds;
    otherwise a column of floats is a number, and text and integers are categories, because most are ids and
    codes. Raises `SpecError` for a column the log does not have, an outcome, or a name that no feature can
    have.
    """
    if columns is None:
        columns = [name for name in log.columns if is_feature_column(name)]
    kinds = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
    check_feature_names(kinds)
    features = []
    for name, kind in kinds.items():
        if name not in log.columns:
            raise SpecError(
                "a feature is a column of the log", value=name, remedy=f"one of {list(log.columns)}"
            )
        is_float = pd.api.types.is_float_dtype(log[name].dtype)
        inferred = FeatureKind.NUMBER if is_float else FeatureKind.CATEGORY
        features.append(Feature(name, inferred if kind is None else FeatureKind(kind), f"ext.log.{name}"))
    return FeatureSpec(tuple(features))
