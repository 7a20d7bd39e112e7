"""Every rule a blueprint keeps, so that the graph, the native engine and every formula are defined on it.

The exporter and the reader apply the same rules; only the error differs. Standard library only, and quick:
whole arrays at a time.
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, compress, pairwise
from math import inf, isinf, isnan
from typing import Final

from bidml.blueprint import (
    Blueprint,
    Column,
    CrossLookup,
    CtrBlueprint,
    Head,
    Knots,
    Lookup,
    NodeMode,
    Rewrite,
    Trees,
    Vocabulary,
    WinFamily,
)
from bidml.contract import (
    CVR_RESERVED_NAMES,
    MAX_ABS_LEAF,
    MAX_COLUMNS,
    MAX_CROSSES,
    MAX_DEPTH,
    MAX_KEYS,
    MAX_KNOTS,
    MAX_NODES,
    MAX_TREES,
    RISK_RESERVED_NAMES,
    UNMATCHABLE,
    AuctionType,
    FeatureKind,
    FeatureSpec,
)
from bidml.errors import RefusedError
from bidml.graph_price import CVR_CALIBRATION
from bidml.units import is_currency_code

MAX_KEY_BYTES: Final = 1024  # the bidder matches no longer text
MAX_MEMBER: Final = 2**31 - 1  # LightGBM's categories are C ints
MAX_ABS_PARAMETER: Final = 1e6
MAX_ABS_LOG_BID: Final = 100.0
MIN_FACTOR: Final = 1e-3  # of slope_scale and gamma: inside [MIN, MAX] no price formula overflows
MAX_FACTOR: Final = 1e3
MIN_SLOPE: Final = 1.0 / 32.0  # of a calibration's lines
MAX_SLOPE: Final = 32.0

_TYPECODES: Final = {
    "roots": "q", "column": "q", "mode": "B", "threshold": "d", "true_child": "q", "false_child": "q",
    "true_is_leaf": "q", "false_is_leaf": "q", "missing_true": "q", "membership": "d", "leaf": "d",
}  # fmt: skip


def check_blueprint(blueprint: Blueprint, *, error: type[RefusedError]) -> None:
    """Raises `error` for the first rule that `blueprint` breaks."""
    checker = _Checker(blueprint.spec, error)
    checker.demand(
        blueprint.ctr is not None or blueprint.win is not None,
        "a bid model has a CTR model or a win curve",
        "neither",
        "train one",
    )
    checker.demand(
        is_currency_code(blueprint.currency),
        "a currency is three upper-case letters",
        blueprint.currency,
        'write, for example, "USD"',
    )
    checker.demand(
        blueprint.default_auction_type in tuple(AuctionType),
        "an auction type is 1 or 2",
        blueprint.default_auction_type,
        "correct default_auction_type",
    )
    if blueprint.ctr is not None:
        checker.probability("ctr", blueprint.ctr, "calibration")
        if blueprint.ctr.variance is not None:
            checker.no_feature_named(RISK_RESERVED_NAMES, "a variance")
            checker.head("variance", blueprint.ctr.variance)
    if blueprint.cvr is not None:
        checker.demand(
            blueprint.ctr is not None,
            "a CVR model stands beside a CTR model",
            "no CTR model",
            "train both",
        )
        checker.no_feature_named(CVR_RESERVED_NAMES, "a CVR model")
        checker.demand(
            blueprint.cvr.variance is None,
            "a variance is of a CTR model",
            "one of the CVR model",
            "leave it out",
        )
        checker.probability("cvr", blueprint.cvr, CVR_CALIBRATION)
    if blueprint.win is not None:
        win = blueprint.win
        checker.head("location", win.location)
        checker.head("log_slope", win.log_slope)
        checker.within(
            "win.reference_log_bid_cpm", win.reference_log_bid_cpm, -MAX_ABS_LOG_BID, MAX_ABS_LOG_BID
        )
        checker.within("win.slope_scale", win.slope_scale, MIN_FACTOR, MAX_FACTOR)
        checker.within("win.logit_shift", win.logit_shift, -MAX_FACTOR, MAX_FACTOR)
        checker.within("win.gamma", win.gamma, MIN_FACTOR, MAX_FACTOR)
        checker.demand(
            isinstance(win.family, WinFamily),
            f"the family of a win curve is one of {list(map(str, WinFamily))}",
            win.family,
            "use WinFamily",
        )


class _Checker:
    def __init__(self, spec: FeatureSpec, error: type[RefusedError]) -> None:
        self._kinds = {feature.name: feature.kind for feature in spec.features}
        self._error = error
        # by identity: what is shared is checked once
        self._checked_lookups: dict[int, Lookup | CrossLookup] = {}
        self._checked_vocabularies: dict[int, Vocabulary] = {}
        self._crosses: set[tuple[Vocabulary, Vocabulary]] = set()
        self._n_keys = 0
        self._n_nodes = 0

    def demand(self, holds: bool, rule: str, value: object, remedy: str = "export the model again") -> None:
        """`value`: what broke the rule, or an iterator whose first item did; it is not asked where the rule holds."""
        if not holds:
            found = next(value, None) if isinstance(value, Iterator) else value
            raise self._error(rule, value=found, remedy=remedy)

    def within(self, name: str, value: float, low: float, high: float) -> None:
        self.demand(
            isinstance(value, float | int) and low <= value <= high,
            f"{name} is a number from {low:g} to {high:g}",
            value,
            "train the model again",
        )

    def no_feature_named(self, reserved: Collection[str], beside: str) -> None:
        taken = sorted(set(reserved) & set(self._kinds))
        self.demand(
            not taken, f"beside {beside} no feature is named {sorted(reserved)}", taken, "rename the feature"
        )

    def probability(self, name: str, part: CtrBlueprint, calibration: str) -> None:
        self.head(name, part.head)
        found, most = part.calibration, MAX_ABS_PARAMETER
        self.within(f"{calibration}.positive", found.positive, 0.0, most)
        self.within(f"{calibration}.negative", found.negative, 0.0, most)
        self.within(f"{calibration}.shift", found.shift, -most, most)
        if found.knots is not None:
            self._knots(f"{calibration}.knots", found.knots)

    def _knots(self, name: str, knots: Knots) -> None:
        x, y, remedy = knots.x, knots.y, "fit the calibration again"
        self.demand(
            all(isinstance(values, array) and values.typecode == "d" for values in (x, y)),
            f"{name} are arrays d",
            (type(x), type(y)),
            remedy,
        )
        self.demand(
            2 <= len(x) <= MAX_KNOTS and len(x) == len(y),
            f"{name} are 2 to {MAX_KNOTS}, with as many x as y",
            (len(x), len(y)),
            remedy,
        )
        self.demand(
            _all_within(x, MAX_ABS_PARAMETER) and _all_within(y, MAX_ABS_PARAMETER),
            f"{name} are numbers from {-MAX_ABS_PARAMETER:g} to {MAX_ABS_PARAMETER:g}",
            "another, or NaN",
            remedy,
        )
        self.demand(
            all(map(operator.lt, x, x[1:])),
            f"the x of {name} rise",
            (after for before, after in pairwise(x) if not before < after),
            remedy,
        )
        self.demand(
            all(MIN_SLOPE <= slope <= MAX_SLOPE for slope in knots.lines[2]),
            f"a line of {name} has a slope from {MIN_SLOPE:g} to {MAX_SLOPE:g}",
            (slope for slope in knots.lines[2] if not MIN_SLOPE <= slope <= MAX_SLOPE),
            remedy,
        )

    def head(self, name: str, head: Head) -> None:
        self.within(f"{name}.intercept", head.intercept, -MAX_ABS_PARAMETER, MAX_ABS_PARAMETER)
        self.within(f"{name}.scale", head.scale, -MAX_ABS_PARAMETER, MAX_ABS_PARAMETER)
        self.within(f"{name}.divisor", head.divisor, 1.0, MAX_ABS_PARAMETER)
        remedy = "drop features"
        self.demand(
            len(head.columns) <= MAX_COLUMNS,
            f"{name} has at most {MAX_COLUMNS} columns",
            len(head.columns),
            remedy,
        )
        self.demand(
            len(head.terms) <= MAX_COLUMNS, f"{name} has at most {MAX_COLUMNS} terms", len(head.terms), remedy
        )
        for column in head.columns:
            self._column(name, column)
        for term in head.terms:
            self._lookup(name, term)
            self.demand(
                _all_within(term.values, MAX_ABS_LEAF) and abs(term.default) <= MAX_ABS_LEAF,
                f"the weights of {name}'s term on {term.feature} are finite, at most {MAX_ABS_LEAF:g}",
                "a larger one, or NaN",
                "train the model again",
            )
        if head.trees is None:
            self.demand(
                (len(head.columns), head.scale, head.divisor) == (0, 1.0, 1.0),
                f"{name} without trees has no columns, and scale and divisor 1",
                (len(head.columns), head.scale, head.divisor),
                "leave them out",
            )
        else:
            self._trees(name, head.trees, head.columns)

    def _column(self, name: str, column: Column) -> None:
        if column.lookup is None:
            self.demand(
                self._kinds.get(column.feature) is FeatureKind.NUMBER,
                f"a column of {name} without a lookup is a number of the spec",
                column.feature,
                "give a category a lookup",
            )
        else:
            self.demand(
                column.feature == column.lookup.feature,
                f"a column of {name} and its lookup agree",
                (column.feature, column.lookup.feature),
                "name the same feature",
            )
            self._lookup(name, column.lookup)
        self.demand(
            column.rewrite in tuple(Rewrite), "a rewrite is one of Rewrite", column.rewrite, "use Rewrite"
        )

    def _lookup(self, name: str, lookup: Lookup | CrossLookup) -> None:
        if id(lookup) in self._checked_lookups:
            return
        self._checked_lookups[id(lookup)] = lookup
        what = f"the lookup of {lookup.feature} in {name}"
        if isinstance(lookup, Lookup):
            self._category(what, lookup.feature)
            n_keys, is_typed = len(lookup.keys), isinstance(lookup.keys, tuple)
        else:
            n_keys, is_typed = len(lookup.codes), _is_doubles(lookup.codes)
        self.demand(
            is_typed and _is_doubles(lookup.values),
            f"{what} has a tuple of keys (a cross: an array d of codes) and an array d of values",
            type(lookup.values),
            "convert them",
        )
        self.demand(
            n_keys == len(lookup.values) and n_keys > 0,
            f"{what} has one value per key, and a key",
            (n_keys, len(lookup.values)),
            "make them as long as each other",
        )
        if isinstance(lookup, Lookup):
            self._keys(what, lookup.keys)
        else:
            self._cross(what, lookup)
        self.demand(
            not any(map(isinf, lookup.values)) and not isinf(lookup.default),
            f"the values of {what} are finite or NaN",
            "an infinity",
            "clip the encoding",
        )

    def _cross(self, what: str, cross: CrossLookup) -> None:
        for vocabulary in (cross.first, cross.second):
            if id(vocabulary) in self._checked_vocabularies:
                continue
            self._checked_vocabularies[id(vocabulary)] = vocabulary
            self._category(what, vocabulary.feature)
            keys = vocabulary.keys
            self.demand(
                isinstance(keys, tuple) and len(keys) > 0,
                f"a vocabulary of {what} is a tuple of keys",
                keys,
                "name a key",
            )
            self._keys(what, keys)
        self.demand(
            cross.first.feature != cross.second.feature,
            f"{what} is of two categories",
            cross.first.feature,
            "a category crossed with itself is the category",
        )
        self._crosses.add((cross.first, cross.second))
        self.demand(
            len(self._crosses) <= MAX_CROSSES,
            f"a model has at most {MAX_CROSSES} crosses",
            len(self._crosses),
            "cross fewer categories",
        )
        n, codes = cross.first.n_numbers * cross.second.n_numbers, cross.codes
        self._count(len(codes))
        self.demand(
            all(0.0 <= code < n and code.is_integer() for code in codes),
            f"the codes of {what} are integers from 0 to {n - 1}",
            (code for code in codes if not (0.0 <= code < n and code.is_integer())),
        )
        self.demand(
            all(map(operator.lt, codes, codes[1:])),
            f"the codes of {what} rise",
            (after for before, after in pairwise(codes) if not before < after),
            "sort them",
        )

    def _category(self, what: str, feature: str) -> None:
        self.demand(
            self._kinds.get(feature) is FeatureKind.CATEGORY,
            f"{what} is of a category of the spec",
            feature,
            "declare it in the spec",
        )

    def _count(self, n_keys: int) -> None:
        self._n_keys += n_keys
        self.demand(
            self._n_keys <= MAX_KEYS,
            f"a model has at most {MAX_KEYS} keys",
            self._n_keys,
            "drop rare categories",
        )

    def _keys(self, what: str, keys: tuple[str, ...]) -> None:
        self._count(len(keys))
        self.demand(
            all(map(operator.lt, keys, keys[1:])),
            f"the keys of {what} are distinct and sorted",
            (after for before, after in pairwise(keys) if not before < after),
            "sort them",
        )
        if max(map(len, keys)) * 4 > MAX_KEY_BYTES:
            longest = max(len(key.encode(errors="surrogatepass")) for key in keys)
            self.demand(
                longest <= MAX_KEY_BYTES,
                f"a key of {what} has at most {MAX_KEY_BYTES} bytes",
                longest,
                "shorten the category",
            )
        self.demand(
            UNMATCHABLE not in keys,
            f"a key of {what} is text that the bidder can match",
            UNMATCHABLE,
            "leave it to the default",
        )

    def _trees(self, name: str, t: Trees, columns: Sequence[Column]) -> None:
        for field, typecode in _TYPECODES.items():
            values = getattr(t, field)
            self.demand(
                isinstance(values, array) and values.typecode == typecode,
                f"{name}.{field} is an array {typecode}",
                type(values),
            )
        n, n_columns = t.n_nodes, len(columns)
        self.demand(
            0 < t.n_trees <= MAX_TREES, f"{name} has 1 to {MAX_TREES} trees", t.n_trees, "train fewer trees"
        )
        self._n_nodes += n
        self.demand(
            self._n_nodes <= MAX_NODES,
            f"a model has at most {MAX_NODES} nodes",
            self._n_nodes,
            "train smaller trees",
        )
        sizes = {f: len(getattr(t, f)) for f in _TYPECODES if f not in ("roots", "membership", "leaf")}
        self.demand(set(sizes.values()) == {n}, f"the node arrays of {name} have the same length", sizes)
        self.demand(
            _in_range(t.column, n_columns),
            f"a node of {name} reads one of its {n_columns} columns",
            (column for column in t.column if not 0 <= column < n_columns),
        )
        self.demand(
            set(t.mode) <= {NodeMode.LEQ, NodeMode.MEMBER},
            f"a node of {name} is LEQ or MEMBER",
            sorted(set(t.mode)),
        )
        # LightGBM splits missing values from all others by a threshold of +inf.
        self.demand(
            all(map((-inf).__lt__, t.threshold)),
            f"the thresholds of {name} are numbers above -inf",
            "NaN or -inf",
        )
        for flag in ("missing_true", "true_is_leaf", "false_is_leaf"):
            values = getattr(t, flag)
            self.demand(
                _in_range(values, 2), f"{name}.{flag} is 0 or 1", (x for x in values if x not in (0, 1))
            )
        self.demand(
            _all_within(t.leaf, MAX_ABS_LEAF),
            f"a leaf of {name} is finite, at most {MAX_ABS_LEAF:g}",
            (leaf for leaf in t.leaf if not abs(leaf) <= MAX_ABS_LEAF),
        )
        self._membership(name, t, columns)
        self._structure(name, t, n, len(t.leaf))

    def _membership(self, name: str, t: Trees, columns: Sequence[Column]) -> None:
        """What onnxruntime needs of a set: members that are C ints, at least one, and x an integer."""
        n_members = t.mode.count(NodeMode.MEMBER)
        if not n_members and not t.membership:
            return
        sets = [member for member in t.membership if member == member]
        self.demand(
            len(t.membership) - len(sets) == n_members and t.membership[-1] != t.membership[-1],
            f"each MEMBER node of {name} has one set closed by NaN",
            f"{len(t.membership) - len(sets)} sets for {n_members} nodes",
        )
        ends = [i for i, member in enumerate(t.membership) if member != member]
        self.demand(
            ends[0] > 0 and all(end - start > 1 for start, end in pairwise(ends)),
            f"each set of {name} has a member",
            "an empty set",
        )
        self.demand(
            all(0.0 <= member <= MAX_MEMBER and member.is_integer() for member in sets),
            f"the members of {name}'s sets are integers from 0 to {MAX_MEMBER}",
            "another one",
        )
        plain = {i for i, column in enumerate(columns) if column.rewrite is not Rewrite.TRUNCATE}
        read = {column for column, mode in zip(t.column, t.mode, strict=True) if mode == NodeMode.MEMBER}
        self.demand(
            not plain & read, f"the columns of {name}'s MEMBER nodes are truncated", sorted(plain & read)
        )
        thresholds = [x for x, mode in zip(t.threshold, t.mode, strict=True) if mode == NodeMode.MEMBER]
        self.demand(
            not any(thresholds),
            f"the threshold of a MEMBER node of {name} is 0",
            filter(None, thresholds),
        )

    def _structure(self, name: str, t: Trees, n: int, n_leaves: int) -> None:
        """Children after parents, every node in one tree, every leaf used, depth bounded."""
        self.demand(
            _in_range(t.roots, n),
            f"a root of {name} is one of its {n} nodes",
            (root for root in t.roots if not 0 <= root < n),
        )
        parents: list[int] = []
        children: list[int] = []
        leaves: list[int] = []
        for below, is_leaf in ((t.true_child, t.true_is_leaf), (t.false_child, t.false_is_leaf)):
            is_node = bytes(map(operator.not_, is_leaf))
            leaves.extend(compress(below, is_leaf))
            children.extend(compress(below, is_node))
            parents.extend(compress(range(n), is_node))
        self.demand(
            all(map(operator.lt, parents, children)) and max(children, default=-1) < n,
            f"a child in {name} comes after its parent and exists",
            (f"{c} below {p}" for p, c in zip(parents, children, strict=True) if not p < c < n),
        )
        nodes = [*t.roots, *children]  # inside the bounds, so n distinct ones are all
        self.demand(
            len(nodes) == n == len(set(nodes)),
            f"every node of {name} belongs to one tree",
            (node for i, node in enumerate(sorted(nodes)) if node != i),
        )
        used = set(leaves)
        self.demand(
            len(used) == n_leaves and _in_range(used, n_leaves),
            f"every leaf of {name} is used and exists",
            (
                leaf
                for leaf in chain(sorted(used), range(n_leaves))
                if leaf not in used or not 0 <= leaf < n_leaves
            ),
        )
        self.demand(
            len(leaves) == n_leaves, f"a leaf of {name} is used once", f"{len(leaves)} uses of {n_leaves}"
        )
        # onnxruntime 1.23 takes a root whose two sides have one number for a leaf, also if one is a node.
        alike = [i for i in t.roots if t.true_child[i] == t.false_child[i]]
        self.demand(
            not alike,
            f"the sides of a root of {name}, a node and a leaf, have different numbers",
            iter(alike),
            "number the leaf after those of the node",
        )
        above = [0] * n  # the number of the parent plus 1
        for child, parent in zip(children, parents, strict=True):
            above[child] = parent + 1
        depth = [0]  # at 0 of nothing, then of each node
        for place in above:
            depth.append(depth[place] + 1)
        deepest = max(depth)
        self.demand(
            deepest <= MAX_DEPTH,
            f"a tree of {name} is at most {MAX_DEPTH} nodes deep",
            deepest,
            "train with max_depth",
        )


def _all_within(values: array[float], bound: float) -> bool:
    return len(values) == 0 or (
        not any(map(isnan, values)) and max(values) <= bound and min(values) >= -bound
    )


def _is_doubles(values: object) -> bool:
    return isinstance(values, array) and values.typecode == "d"


def _in_range(values: Collection[int], stop: int) -> bool:
    distinct = set(values)
    return len(distinct) == 0 or (min(distinct) >= 0 and max(distinct) < stop)
