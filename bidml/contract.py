"""What the exporter promises and the scorer demands: the feature spec, the names in the file, the versions.

Standard library only, because the bidder imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

from bidml.errors import SpecError
from bidml.openrtb import known_path_types

CONTRACT_VERSION: Final = 1
IR_VERSION: Final = 10
OPSET: Final = 21
ML_OPSET: Final = 5

METADATA_CONTRACT: Final = "bidml.contract"
METADATA_SPEC: Final = "bidml.spec"
METADATA_PRICE: Final = "bidml.price"
METADATA_PROVENANCE: Final = "bidml.provenance"
METADATA_METRICS: Final = "bidml.metrics"
METADATA_SELF_CHECK: Final = "bidml.self_check"
METADATA_KEYS: Final = (
    METADATA_CONTRACT,
    METADATA_SPEC,
    METADATA_PRICE,
    METADATA_PROVENANCE,
    METADATA_METRICS,
    METADATA_SELF_CHECK,
)

PRICE_INPUTS: Final = ("value_per_click", "floor_cpm", "cap_cpm", "pacing_multiplier", "auction_type")
GOAL_INPUTS: Final = ("value_per_conversion", "value_per_impression_cpm")  # of a file with a CVR model
RISK_INPUTS: Final = ("risk_aversion",)  # of a file whose CTR model knows its own error
CTR_OUTPUTS: Final = ("pctr",)
SD_OUTPUTS: Final = ("pctr_log_odds_sd",)
CVR_OUTPUTS: Final = ("pcvr",)
WIN_OUTPUTS: Final = ("win_location", "win_shape")
PRICE_OUTPUTS: Final = ("bid_cpm", "win_rate")

# Checked before anything is allocated for a file; generous against any model worth serving.
MAX_FILE_BYTES: Final = 256 << 20
MAX_FEATURES: Final = 256
MAX_COLUMNS: Final = 1024
MAX_TREES: Final = 20_000
MAX_NODES: Final = 4_000_000
MAX_KEYS: Final = 4_000_000
MAX_CROSSES: Final = 64  # pairs of vocabularies in a model
MAX_DEPTH: Final = 512
MAX_ABS_LEAF: Final = 1e6
MAX_KNOTS: Final = 64  # of a calibration
MAX_DEALS: Final = 32  # of an impression's list that are looked at, and of a line item

# What the extractor reports for text that no key can equal: longer than any key, or not Unicode.
UNMATCHABLE: Final = "\ufffd"

# The win curve's heads are clamped to this range before use; inside it every formula is finite.
MAX_ABS_WIN_LOGIT: Final = 60.0
MIN_LOG_SLOPE: Final = -3.0
MAX_LOG_SLOPE: Final = 4.0
HALLEY_STEPS: Final = 4
# And the variance of the log-odds of pctr to this one.
MIN_VARIANCE: Final = 1e-4
MAX_VARIANCE: Final = 100.0

RESERVED_NAMES: Final = frozenset(PRICE_INPUTS + CTR_OUTPUTS + WIN_OUTPUTS + PRICE_OUTPUTS)
# Reserved beside a CVR model only: older files may have features of these names.
CVR_RESERVED_NAMES: Final = frozenset(GOAL_INPUTS + CVR_OUTPUTS)
RISK_RESERVED_NAMES: Final = frozenset(RISK_INPUTS + SD_OUTPUTS)  # the same beside a variance


class FeatureKind(StrEnum):
    """CATEGORY: text (an integer is its decimal text); missing is "". NUMBER: a double; missing is NaN."""

    CATEGORY = "category"
    NUMBER = "number"


class AuctionType(IntEnum):
    """OpenRTB `at`."""

    FIRST_PRICE = 1
    SECOND_PRICE = 2


class NoBidReason(IntEnum):
    """Why the hot path returned 0.0. The values are stable: counters and decision logs use them."""

    BID = 0
    INVALID_REQUEST = 1
    INVALID_IMP = 2
    INVALID_FLOOR = 3
    UNKNOWN_CURRENCY = 4
    UNSUPPORTED_AUCTION_TYPE = 5
    PRIVATE_AUCTION = 6
    FLOOR_ABOVE_CAP = 7
    VALUE_BELOW_FLOOR = 8
    NO_VALUE = 9
    STALE_MODEL = 10  # said by bidml.score.follow; a scorer itself knows no clock
    NO_CONVERSION_MODEL = 11  # the line item pays for conversions, the model in service predicts none
    NO_UNCERTAINTY_MODEL = 12  # the line item is averse to risk, the model in service does not know its error

    @property
    def nbr(self) -> int:
        """The OpenRTB no-bid reason code: 2 invalid request, 0 unknown (commercial reasons have no code)."""
        return (
            2
            if self in (NoBidReason.INVALID_REQUEST, NoBidReason.INVALID_IMP, NoBidReason.INVALID_FLOOR)
            else 0
        )


DERIVED: Final[Mapping[str, FeatureKind]] = {
    "hour_of_day": FeatureKind.NUMBER,
    "weekday": FeatureKind.NUMBER,
    "banner_size": FeatureKind.CATEGORY,
    "app_or_site": FeatureKind.CATEGORY,
    "inventory": FeatureKind.CATEGORY,
    "ad_format": FeatureKind.CATEGORY,
    "os_version_major": FeatureKind.NUMBER,
}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LINE_ITEM_FIELD = re.compile(r"line_item\.[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Feature:
    """One raw feature: its name (the ONNX input), kind, and where it is found.

    `source` is an OpenRTB path from the root of the request (`device.geo.country`; `imp` is the auctioned
    impression), `line_item.<field>`, or `derived.<name>` with a name of `DERIVED`. In a table it is the column
    `name`. Raises `SpecError` for an unknown path: a typing error must not become an always-missing feature.
    """

    name: str
    kind: FeatureKind
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", _feature_kind(self.kind))
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in RESERVED_NAMES:
            raise SpecError(
                "a feature name is lower-case letters, digits and _, at most 64, and not a price input or output",
                value=self.name,
                remedy="rename the feature",
            )
        _check_source(self)

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "kind": self.kind.value, "source": self.source}


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """All raw features, in the order of the ONNX inputs, and the path of the request's time in epoch ms.

    A request that carries no time is dated by the clock of the bidder.
    """

    features: tuple[Feature, ...]
    timestamp_ms_source: str = "ext.timestamp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        if not 0 < len(self.features) <= MAX_FEATURES:
            raise SpecError(
                f"a spec declares 1 to {MAX_FEATURES} features",
                value=len(self.features),
                remedy="edit [[features]]",
            )
        names = self.names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise SpecError(
                "a feature name is declared once", value=repeated, remedy="rename or remove the second one"
            )
        _check_request_path(self.timestamp_ms_source, "timestamp_ms_source")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def __getitem__(self, name: str) -> Feature:
        for feature in self.features:
            if feature.name == name:
                return feature
        raise SpecError(
            "a feature must be declared in the spec", value=name, remedy=f"one of {list(self.names)}"
        )

    def categories(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.kind is FeatureKind.CATEGORY)

    def numbers(self) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.kind is FeatureKind.NUMBER)

    def to_json(self) -> dict[str, Any]:
        return {
            "features": [feature.to_json() for feature in self.features],
            "timestamp_ms_source": self.timestamp_ms_source,
        }

    @classmethod
    def from_json(cls, document: object) -> FeatureSpec:
        """The inverse of `to_json`; raises `SpecError` for anything else than such a document."""
        if not isinstance(document, Mapping) or not set(document) <= {"features", "timestamp_ms_source"}:
            raise SpecError(
                "a spec has the keys features and timestamp_ms_source",
                value=document,
                remedy="remove the others",
            )
        rows = document.get("features")
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            raise SpecError(
                "features is a list of tables",
                value=rows,
                remedy="write [[features]] with name, kind, source",
            )
        features = []
        for row in rows:
            if not isinstance(row, Mapping) or set(row) != {"name", "kind", "source"}:
                raise SpecError(
                    "a feature has exactly name, kind and source", value=row, remedy="complete the table"
                )
            features.append(Feature(**row))
        return cls(tuple(features), document.get("timestamp_ms_source", "ext.timestamp"))


def _feature_kind(kind: object) -> FeatureKind:
    try:
        return FeatureKind(kind)  # type: ignore[arg-type]
    except ValueError:
        raise SpecError("a feature is a category or a number", value=kind, remedy="set kind") from None


def _check_source(feature: Feature) -> None:
    source = feature.source
    if not isinstance(source, str):
        raise SpecError(f"the source of {feature.name} is text", value=source, remedy="write a path")
    if source.startswith("derived."):
        name = source.removeprefix("derived.")
        if DERIVED.get(name) is not feature.kind:
            raise SpecError(
                f"the source of {feature.name} names a derived {feature.kind}",
                value=source,
                remedy=f"one of {sorted(key for key, kind in DERIVED.items() if kind is feature.kind)}",
            )
    elif source.startswith("line_item."):
        if not _LINE_ITEM_FIELD.fullmatch(source):
            raise SpecError(
                "a line-item field is lower-case letters, digits and _",
                value=source,
                remedy="rename the field",
            )
    else:
        _check_request_path(source, f"the source of {feature.name}")


def _check_request_path(path: object, what: str) -> None:
    if not isinstance(path, str) or known_path_types(path) is None:
        raise SpecError(
            f"{what} is a path of an OpenRTB 2.x bid request, or below an ext object",
            value=path,
            remedy="correct the path, for example device.geo.country or ext.my_field",
        )
