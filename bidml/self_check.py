"""The rows that a file carries about itself: sampled, missing, unseen, extreme, on the model's thresholds.

Made without randomness from the blueprint and the caller's sample: the same model has the same rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from math import inf, nan, nextafter
from typing import Any, Final

from bidml.blueprint import Blueprint, CrossLookup, Head, Lookup, Vocabulary
from bidml.contract import FeatureKind
from bidml.errors import DataError
from bidml.metadata import MAX_SELF_CHECK_ROWS, SelfCheck, input_kinds
from bidml.oracle import evaluate

SAMPLE_ROWS: Final = 96
_UNSEEN: Final = "\u2203 no such category"
_TRAPS: Final = (
    nan,
    0.0,
    -0.0,
    inf,
    -inf,
    1e-35,
    -1e-36,
    5e-324,
    1e300,
    -1e300,
    -0.5,
    0.5,
    2.0**31,
    -1.0,
    1.0,
)

# Cycles of coprime lengths, so that the combinations differ from row to row; mostly auctions one can bid in.
_PRICES: Final[Mapping[str, tuple[float, ...]]] = {
    "value_per_click": (0.5, 2.0, 30.0, 1e-3, 400.0, 0.0, 7.0, 55.0, 0.08, 1.5, nan),
    "floor_cpm": (0.0, 0.05, 0.5, 0.0, 2.0, 0.01, nan),
    "cap_cpm": (8.0, 100.0, 1e6, 3.0, 0.4),
    "pacing_multiplier": (1.0, 0.7, 1.0, 0.25, 1.3, 1.0, 0.9, 1e-6, 1.0, 0.5, 1.0, 0.8, -1.0),
    "auction_type": (1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 3.0),
    "value_per_conversion": (0.0, 40.0, 3.0, 900.0, 0.0, 1e-2, 120.0, 15.0, nan),
    "value_per_impression_cpm": (
        0.0,
        0.0,
        1.5,
        0.0,
        6.0,
        0.0,
        0.02,
        0.0,
        0.0,
        3.0,
        0.0,
        0.0,
        0.4,
        0.0,
        0.0,
        -1.0,
        0.0,
    ),
    "risk_aversion": (
        0.0,
        0.5,
        1.0,
        0.0,
        0.25,
        2.0,
        0.0,
        0.1,
        1.0,
        0.0,
        0.7,
        1.3,
        nan,
        0.5,
        1.5,
        0.0,
        0.3,
        1.0,
        -1.0,
    ),
}


def self_check_of(blueprint: Blueprint, sample_rows: Mapping[str, Any]) -> SelfCheck:
    """At most 256 rows and what the oracle computes for them.

    `sample_rows`: equally long columns by input name; those missing are made up. Raises `DataError` for an
    unknown name or unequal lengths.
    """
    kinds = input_kinds(blueprint)
    sample = _sampled(sample_rows, kinds)
    n_sampled = max(map(len, sample.values()), default=0)
    n_made = MAX_SELF_CHECK_ROWS - n_sampled
    columns: dict[str, tuple[str, ...] | array[float]] = {}
    for i, (name, kind) in enumerate(kinds.items()):
        made: Sequence[Any]
        if name in _PRICES:
            made = _PRICES[name]
        elif kind is FeatureKind.CATEGORY:
            made = ["", _UNSEEN, *_spread(_keys(blueprint, name), n_made)]
        else:
            made = [*_TRAPS, *_beside(_spread(_points(blueprint, name), n_made // 3))]
        start = 0 if name in _PRICES else i  # row 0 has no feature, row 1 none that was seen
        cells = list(islice(cycle(made), MAX_SELF_CHECK_ROWS + start))[start:]
        if name not in _PRICES:
            cells[:2] = made[:2]
        if name in sample:
            cells[MAX_SELF_CHECK_ROWS - n_sampled :] = sample[name]
        columns[name] = tuple(cells) if kind is FeatureKind.CATEGORY else array("d", cells)
    columns |= _with_pairs(_crosses(blueprint), columns, MAX_SELF_CHECK_ROWS - n_sampled)
    return SelfCheck(columns, evaluate(blueprint, columns))


def _with_pairs(
    crosses: Sequence[CrossLookup], columns: Mapping[str, Any], n_made: int
) -> dict[str, tuple[str, ...]]:
    """The columns of crossed categories, with known pairs in every other made row: cycles of keys seldom meet one."""
    cells = {side.feature: list(columns[side.feature]) for cross in crosses for side in cross.sides}
    for i, cross in enumerate(crosses):
        rows = range(2 + 2 * i, n_made, 2 * len(crosses))  # rows 0 and 1 have nothing that was seen
        for row, code in zip(rows, _spread(cross.codes, len(rows)), strict=False):
            for side, number in zip(cross.sides, divmod(int(code), cross.second.n_numbers), strict=True):
                cells[side.feature][row] = side.text(number, _UNSEEN)
    return {feature: tuple(texts) for feature, texts in cells.items()}


def _sampled(rows: Mapping[str, Any], kinds: Mapping[str, FeatureKind]) -> dict[str, list[Any]]:
    unknown = sorted(set(rows) - set(kinds))
    if unknown:
        raise DataError("sample rows have the model's inputs", value=unknown, remedy=f"among {list(kinds)}")
    lengths = {len(column) for column in rows.values()}
    if len(lengths) > 1:
        raise DataError("sample rows have columns of one length", value=sorted(lengths), remedy="align them")
    plain = {
        name: [str(cell) if kinds[name] is FeatureKind.CATEGORY else float(cell) for cell in column]
        for name, column in rows.items()
    }
    return {name: _spread(cells, SAMPLE_ROWS) for name, cells in plain.items()}


def _spread(items: Sequence[Any], n: int) -> list[Any]:
    """At most n of the items, evenly from first to last."""
    if len(items) <= n:
        return list(items)
    return [items[i * (len(items) - 1) // (n - 1)] for i in range(n)]


def _beside(points: Sequence[float]) -> list[float]:
    return [x for point in points for x in (point, nextafter(point, -inf), nextafter(point, inf))]


def _heads(blueprint: Blueprint) -> list[Head]:
    parts = [part for part in (blueprint.ctr, blueprint.cvr) if part is not None]
    heads = [part.head for part in parts] + [part.variance for part in parts if part.variance is not None]
    return heads if blueprint.win is None else [*heads, blueprint.win.location, blueprint.win.log_slope]


def _keys(blueprint: Blueprint, feature: str) -> list[str]:
    texts: list[Lookup | Vocabulary] = []
    for lookup in _lookups(blueprint):
        texts += lookup.sides if isinstance(lookup, CrossLookup) else [lookup]
    return sorted({key for known in texts if known.feature == feature for key in known.keys})


def _crosses(blueprint: Blueprint) -> list[CrossLookup]:
    """One lookup of each pair of vocabularies."""
    crosses = [lookup for lookup in _lookups(blueprint) if isinstance(lookup, CrossLookup)]
    return list({cross.sides: cross for cross in crosses}.values())


def _lookups(blueprint: Blueprint) -> list[Lookup | CrossLookup]:
    return [lookup for head in _heads(blueprint) for lookup in head.lookups]


def _points(blueprint: Blueprint, feature: str) -> list[float]:
    """Thresholds, and members of sets, that this number is compared with."""
    points: set[float] = set()
    for head in _heads(blueprint):
        trees = head.trees
        if trees is None:
            continue
        wanted = {
            i for i, column in enumerate(head.columns) if column.lookup is None and column.feature == feature
        }
        points |= {t for t, column in zip(trees.threshold, trees.column, strict=True) if column in wanted}
        if wanted & {column for column, mode in zip(trees.column, trees.mode, strict=True) if mode}:
            points |= {member for member in trees.membership if member == member}
    return sorted(points)
