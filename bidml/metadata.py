"""The artifact's metadata: canonical JSON, both ways. Standard library only.

Canonical means: sorted keys, no spaces, doubles of the self-check as hexadecimal text. So `metadata_of` is
a function of the blueprint and its self-check rows, and the reader can demand that what it read is what
would be written.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bidml.blueprint import Blueprint, WinFamily
from bidml.contract import (
    CONTRACT_VERSION,
    CTR_OUTPUTS,
    CVR_OUTPUTS,
    GOAL_INPUTS,
    METADATA_CONTRACT,
    METADATA_KEYS,
    METADATA_METRICS,
    METADATA_PRICE,
    METADATA_PROVENANCE,
    METADATA_SELF_CHECK,
    METADATA_SPEC,
    PRICE_INPUTS,
    PRICE_OUTPUTS,
    RISK_INPUTS,
    SD_OUTPUTS,
    WIN_OUTPUTS,
    AuctionType,
    FeatureKind,
    FeatureSpec,
)
from bidml.errors import ArtifactError, ExportError, SpecError

MAX_SELF_CHECK_ROWS: Final = 256
MAX_METADATA_LENGTH: Final = 16 << 20  # of one value

CTR_MARGINS: Final = ("ctr_margin",)
WIN_MARGINS: Final = ("location_margin", "log_slope_margin")
CVR_MARGINS: Final = ("cvr_margin",)
VARIANCE_MARGINS: Final = ("variance_margin",)
MARGINS: Final = CTR_MARGINS + WIN_MARGINS + CVR_MARGINS + VARIANCE_MARGINS
UNIT: Final = "CPM"

TOLERANCE: Final = 1e-12  # between evaluations of one file, after exp and ln
# Near 0 only the absolute difference of these means anything.
_LOGARITHMS: Final = (*MARGINS, "win_location", *SD_OUTPUTS)
_SMALLEST: Final = 1e-290  # the subnormal doubles below are not accurate to 1e-12 themselves
# ln Φ goes with (ln b − m)²: below this the last bit of ln b may be more than 1e-12 of a log-normal win rate.
_SMALLEST_RATE: Final = 1e-50


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """Rows that the file carries about itself.

    `columns`: every input by name, a tuple of str or an array d. `expected`, arrays d: every output, and
    the margins summed in tree order (`MARGINS`). All are (n_rows,).
    """

    columns: Mapping[str, tuple[str, ...] | array[float]]
    expected: Mapping[str, array[float]]

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.columns.values())))


def difference(name: str, want: float, have: float, *, family: WinFamily | None = None) -> float:
    """How far `have` is from `want`, a value of the margin or output `name`: relative; infinite for NaN.

    Relative to 1 where a logarithm is smaller, to 1e-50 where a win rate is that may be log-normal (`family` None: of
    any curve), and to 1e-290 where anything is.
    """
    if want == have:
        return 0.0
    smallest = 1.0 if name in _LOGARITHMS else _SMALLEST
    if name == "win_rate" and family is not WinFamily.LOG_LOGISTIC:
        smallest = _SMALLEST_RATE
    relative = abs(want - have) / max(abs(want), smallest)
    return relative if relative == relative else math.inf


def input_kinds(blueprint: Blueprint) -> dict[str, FeatureKind]:
    """The graph's inputs in order, and whether each is text or a double."""
    kinds = {feature.name: feature.kind for feature in blueprint.spec.features}
    if blueprint.ctr is not None and blueprint.win is not None:
        goals = GOAL_INPUTS if blueprint.cvr is not None else ()
        risks = RISK_INPUTS if blueprint.ctr.variance is not None else ()
        kinds |= dict.fromkeys(PRICE_INPUTS + goals + risks, FeatureKind.NUMBER)
    return kinds


def expected_names(blueprint: Blueprint) -> tuple[str, ...]:
    """The margins and outputs that a self-check of this model records."""
    names: tuple[str, ...] = ()
    if blueprint.ctr is not None:
        names += CTR_MARGINS + CTR_OUTPUTS
        if blueprint.ctr.variance is not None:
            names += VARIANCE_MARGINS + SD_OUTPUTS
    if blueprint.cvr is not None:
        names += CVR_MARGINS + CVR_OUTPUTS
    if blueprint.win is not None:
        names += WIN_MARGINS + WIN_OUTPUTS
    if blueprint.ctr is not None and blueprint.win is not None:
        names += PRICE_OUTPUTS
    return names


def metadata_of(blueprint: Blueprint, self_check: SelfCheck) -> dict[str, str]:
    """`METADATA_KEYS` → JSON text, in that order.

    Raises `ExportError` for provenance or metrics that JSON cannot hold.
    """
    price: dict[str, Any] = {
        "currency": blueprint.currency,
        "default_auction_type": int(blueprint.default_auction_type),
        "gamma": None if blueprint.win is None else blueprint.win.gamma,
        "unit": UNIT,
    }
    if blueprint.win is not None and blueprint.win.family is not WinFamily.LOG_LOGISTIC:
        price["family"] = str(blueprint.win.family)
    check = {
        "columns": {name: _encoded(column) for name, column in self_check.columns.items()},
        "expected": {name: _encoded(column) for name, column in self_check.expected.items()},
    }
    documents = {
        METADATA_CONTRACT: {"version": CONTRACT_VERSION},
        METADATA_SPEC: blueprint.spec.to_json(),
        METADATA_PRICE: price,
        METADATA_PROVENANCE: _free_form("provenance", blueprint.provenance),
        METADATA_METRICS: _free_form("metrics", blueprint.metrics),
        METADATA_SELF_CHECK: check,
    }
    texts = {key: _canonical(documents[key]) for key in METADATA_KEYS}
    for key, text in texts.items():
        if len(text) > MAX_METADATA_LENGTH:
            raise ExportError(
                f"{key} has at most {MAX_METADATA_LENGTH} characters", value=len(text), remedy="record less"
            )
    return texts


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the metadata says, its form checked."""

    spec: FeatureSpec
    currency: str
    default_auction_type: AuctionType
    family: WinFamily
    provenance: Mapping[str, Any]
    metrics: Mapping[str, Any]
    self_check: SelfCheck


def read_metadata(texts: Mapping[str, str]) -> Metadata:
    """The inverse of `metadata_of`, for canonical texts; raises `ArtifactError`."""
    unknown = sorted(set(texts) - set(METADATA_KEYS))
    _demand(not unknown, f"the metadata keys are {list(METADATA_KEYS)}", unknown, "remove the others")
    documents = {}
    for key in METADATA_KEYS:
        _demand(
            key in texts, "an artifact has every metadata key", f"no {key}", "export the model with bidml"
        )
        documents[key] = _parsed(key, texts[key])
    version = documents[METADATA_CONTRACT].get("version")
    _demand(
        version == CONTRACT_VERSION and isinstance(version, int),
        f"this bidml reads artifacts of contract version {CONTRACT_VERSION}",
        version,
        "export the model with this version, or use the version that wrote it",
    )
    try:
        spec = FeatureSpec.from_json(documents[METADATA_SPEC])
    except (SpecError, TypeError) as error:
        raise ArtifactError(
            f"{METADATA_SPEC} is a feature spec", value=str(error), remedy="export the model again"
        ) from None
    price = documents[METADATA_PRICE]
    at = price.get("default_auction_type")
    _demand(isinstance(at, int) and at in (1, 2), "the default auction type is 1 or 2", at)
    assert isinstance(at, int)
    _demand(price.get("unit") == UNIT, f"prices are in {UNIT}", price.get("unit"))
    currency = price.get("currency")
    _demand(isinstance(currency, str), "the currency is text", currency)
    family = price.get("family", str(WinFamily.LOG_LOGISTIC))
    known = list(map(str, WinFamily))
    _demand(
        family in known,
        f"the family of a win curve is one of {known}",
        family,
        "use the version of bidml that wrote it",
    )
    check = documents[METADATA_SELF_CHECK]
    categories = {feature.name for feature in spec.categories()}
    return Metadata(
        spec=spec,
        currency=str(currency),
        default_auction_type=AuctionType(at),
        family=WinFamily(family),
        provenance=documents[METADATA_PROVENANCE],
        metrics=documents[METADATA_METRICS],
        self_check=SelfCheck(
            columns={
                name: _texts(name, column) if name in categories else _doubles(name, column)
                for name, column in _columns(check, "columns")
            },
            expected={name: _doubles(name, column) for name, column in _columns(check, "expected")},
        ),
    )


def _canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _free_form(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        copy = json.loads(_canonical(dict(document)))
        copy_is_equal = copy == dict(document)
        _canonical(copy).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ExportError(f"{name} is JSON without NaN", value=str(error), remedy="use plain types") from None
    if not copy_is_equal:
        raise ExportError(
            f"{name} survives JSON", value=document, remedy="use text keys, lists, and plain types"
        )
    return copy  # type: ignore[no-any-return]


def _parsed(key: str, text: str) -> dict[str, Any]:
    _demand(
        len(text) <= MAX_METADATA_LENGTH, f"{key} has at most {MAX_METADATA_LENGTH} characters", len(text)
    )
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{key} is JSON", value=str(error), remedy="export the model again") from None
    _demand(isinstance(document, dict), f"{key} is a JSON object", type(document).__name__)
    return document  # type: ignore[no-any-return]


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _columns(check: Mapping[str, Any], part: str) -> list[tuple[str, Sequence[object]]]:
    columns = check.get(part)
    _demand(isinstance(columns, dict) and bool(columns), f"the self-check has {part}", type(columns).__name__)
    assert isinstance(columns, dict)
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    _demand(
        len(lengths) == 1 and 1 <= max(lengths) <= MAX_SELF_CHECK_ROWS,
        f"the self-check has columns of equal length, 1 to {MAX_SELF_CHECK_ROWS}",
        sorted(lengths),
    )
    return list(columns.items())


def _encoded(column: tuple[str, ...] | array[float]) -> list[str]:
    return list(column) if isinstance(column, tuple) else [number.hex() for number in column]


def _texts(name: str, column: Sequence[object]) -> tuple[str, ...]:
    _demand(all(isinstance(cell, str) for cell in column), f"the self-check's {name} are text", column)
    return tuple(map(str, column))


def _doubles(name: str, column: Sequence[object]) -> array[float]:
    try:
        return array("d", map(float.fromhex, column))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ArtifactError(
            f"the self-check's {name} are hexadecimal doubles", value=column, remedy="export the model again"
        ) from None


def _demand(holds: bool, rule: str, value: object, remedy: str = "export the model again") -> None:
    if not holds:
        raise ArtifactError(rule, value=value, remedy=remedy)
