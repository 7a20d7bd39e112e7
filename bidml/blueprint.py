"""A bid model as numbers: what `fit` produces, `export` writes, `score` reads back.

Standard library only. Arrays are `array.array`, so that NumPy and the native engine share their memory. The names of
the tree arrays are those of ONNX `TreeEnsemble` v5 in plain words. Nothing here is checked beyond types: the exporter
refuses what it cannot certify, and the native constructor checks every index again.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final

from bidml.contract import AuctionType, FeatureSpec


class NodeMode(IntEnum):
    """How a node decides, with ONNX's codes. LEQ: `x <= threshold`. MEMBER: `x in set`."""

    LEQ = 0
    MEMBER = 6


class Rewrite(StrEnum):
    """What happens to a number before the trees see it (LightGBM's missing and category rules)."""

    NONE = "none"
    ZERO_IS_MISSING = "zero_is_missing"  # |x| <= 1e-35 becomes NaN
    TRUNCATE = "truncate"  # toward zero: LightGBM casts a category to int


class LocationUnit(StrEnum):
    """What the location head β(x) of a win curve is, see `WinBlueprint`."""

    LOG_ODDS = "log_odds"
    LOG_PRICE = "log_price"


class WinFamily(StrEnum):
    """The distribution G of ln market price, standardised, in the win rate G(z)^gamma; see `WinBlueprint`."""

    LOG_LOGISTIC = "log_logistic"  # G(z) = σ(z)
    LOG_NORMAL = "log_normal"  # G(z) = Φ(z)


LIGHTGBM_ZERO: Final = 1.0000000180025095e-35  # float32(1e-35) as LightGBM compares it


@dataclass(frozen=True, slots=True)
class Trees:
    """A sum of decision trees; every tree has at least one node, children come after their parent.

    Node arrays have shape (n_nodes,), typecodes: `column` q, `mode` B, `threshold` d, `true_child` q, `false_child` q,
    `true_is_leaf` q, `false_is_leaf` q, `missing_true` q. A child is a node index, or a leaf index where
    `*_is_leaf` is 1. NaN goes to the true side where `missing_true` is 1, else to the false side.
    `roots` (n_trees,) q; `leaf` (n_leaves,) d. `membership` d holds, for the MEMBER nodes in node order, each set
    followed by one NaN; the threshold of a MEMBER node is 0.0. A constant tree is a node with two equal leaves.
    """

    roots: array[int]
    column: array[int]
    mode: array[int]
    threshold: array[float]
    true_child: array[int]
    false_child: array[int]
    true_is_leaf: array[int]
    false_is_leaf: array[int]
    missing_true: array[int]
    membership: array[float]
    leaf: array[float]

    @property
    def n_trees(self) -> int:
        return len(self.roots)

    @property
    def n_nodes(self) -> int:
        return len(self.column)


@dataclass(frozen=True, slots=True)
class Lookup:
    """category → double: `values[i]` for `keys[i]`, `default` for every other text. Keys are distinct, sorted."""

    feature: str
    keys: tuple[str, ...]
    values: array[float]
    default: float


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One side of a cross: the text `keys[i]` has the number i, every other text len(keys). Distinct, sorted."""

    feature: str
    keys: tuple[str, ...]

    @property
    def n_numbers(self) -> int:
        """The keys, and all other texts."""
        return len(self.keys) + 1

    def text(self, number: int, other: str) -> str:
        """The key of a number, or `other`."""
        return self.keys[number] if number < len(self.keys) else other


@dataclass(frozen=True, slots=True)
class CrossLookup:
    """A pair of categories → double: `values[i]` for the pair whose code is `codes[i]`, `default` for every other pair.

    The code of a pair is the number of its first text times `second.n_numbers` plus the number of its second, exact in
    double. `codes` and `values` are arrays d, (n_pairs,), codes strictly rising.
    """

    first: Vocabulary
    second: Vocabulary
    codes: array[float]
    values: array[float]
    default: float

    @property
    def feature(self) -> str:
        """Both names; no feature of a spec has such a one."""
        return f"{self.first.feature}*{self.second.feature}"

    @property
    def sides(self) -> tuple[Vocabulary, Vocabulary]:
        return self.first, self.second


@dataclass(frozen=True, slots=True)
class Column:
    """One input column of a head's trees: a number feature, or a category or a cross of two through its lookup.

    `feature` is the lookup's, where there is one.
    """

    feature: str
    lookup: Lookup | CrossLookup | None = None
    rewrite: Rewrite = Rewrite.NONE


@dataclass(frozen=True, slots=True)
class Head:
    """margin = Σ_trees / divisor · scale + intercept + Σ_terms, in this order, in double.

    `columns` are the trees' inputs; `terms` are weights of categories and crosses, added to the margin (linear part).
    `trees` may be None for a purely linear head. `divisor` is 1 but for random forests; `scale` is LightGBM's sigmoid.
    """

    columns: tuple[Column, ...]
    trees: Trees | None
    terms: tuple[Lookup | CrossLookup, ...] = ()
    intercept: float = 0.0
    scale: float = 1.0
    divisor: float = 1.0

    @property
    def lookups(self) -> tuple[Lookup | CrossLookup, ...]:
        """Those of the columns, then the terms."""
        return (*(column.lookup for column in self.columns if column.lookup is not None), *self.terms)


@dataclass(frozen=True, slots=True)
class Knots:
    """An increasing broken line through (x[i], y[i]), of slope 1 before the first knot and behind the last one.

    Arrays d, (n_knots,): log-odds, both strictly rising; two knots at least.
    """

    x: array[float]
    y: array[float]

    @property
    def lines(self) -> tuple[array[float], array[float], array[float]]:
        """(x, y, slope), arrays d, (n_knots + 1,): a point of each line and its slope. Line i is where i knots lie at
        or below."""
        x, y, n = self.x, self.y, len(self.x)
        rises = [(y[i + 1] - y[i]) / (x[i + 1] - x[i]) for i in range(n - 1)]
        return x[:1] + x, y[:1] + y, array("d", [1.0, *rises, 1.0])


@dataclass(frozen=True, slots=True)
class Calibration:
    """Beta calibration of log-odds s: `positive·ln σ(s) − negative·ln σ(−s) + shift` (Kull et al. 2017).

    positive = negative is Platt's affine map; (1, 1, 0) is the identity. Weights are ≥ 0: the map is monotone. With
    `knots`, what comes before the shift goes through their broken line first.
    """

    positive: float = 1.0
    negative: float = 1.0
    shift: float = 0.0
    knots: Knots | None = None


@dataclass(frozen=True, slots=True)
class CtrBlueprint:
    """p = σ(calibration(margin)): pctr of a CTR model, pcvr of a CVR model.

    `variance`, of a CTR model only: the head whose margin, clamped to the contract's range, is the variance of the
    error of these log-odds. Its square root is what a line item that is averse to risk takes off them.
    """

    head: Head
    calibration: Calibration = field(default_factory=Calibration)
    variance: Head | None = None


@dataclass(frozen=True, slots=True)
class WinBlueprint:
    """win_rate(b) = G(z)^gamma,  z = k (ln b − m), from two heads: β(x), the location, and a(x), the log-slope, both
    clamped to the contract's range first. k = slope_scale · e^a. G is of the `family`.

    LOG_PRICE: β is how far the price lies below the reference bid, m = reference_log_bid_cpm − β − logit_shift / k.
    LOG_ODDS: β is z at it (of the log-logistic, the log-odds of winning there), m = reference_log_bid_cpm −
    (slope_scale · β + logit_shift) / k.
    """

    location: Head
    log_slope: Head
    reference_log_bid_cpm: float
    slope_scale: float = 1.0
    logit_shift: float = 0.0
    gamma: float = 1.0
    location_unit: LocationUnit = LocationUnit.LOG_ODDS
    family: WinFamily = WinFamily.LOG_LOGISTIC


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The whole bid model. CTR or win curve may be absent: the file then has only the other's outputs, and no bid.

    `cvr`: P(conversion | click), beside a CTR model only; with it line items may pay for conversions.
    """

    spec: FeatureSpec
    ctr: CtrBlueprint | None
    win: WinBlueprint | None
    currency: str
    default_auction_type: AuctionType = AuctionType.FIRST_PRICE
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    cvr: CtrBlueprint | None = None
