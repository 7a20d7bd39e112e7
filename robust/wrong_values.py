"""What may stand in any field of a request: the fourteen of the plain sort, and everything else that Python has."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

GONE = object()  # the field is deleted
FOURTEEN: tuple[Any, ...] = (
    None, True, "", "1.5", 0, -1, 2**63, -0.0, float("nan"), float("inf"), 1.7e308, [], {}, [{}],
)  # fmt: skip


class Text(str):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("a text that cannot be compared")

    def __hash__(self) -> int:
        raise RuntimeError("a text that cannot be hashed")


class _Int(int):
    def __index__(self) -> int:
        raise RuntimeError("an int that is no index")

    def __float__(self) -> float:
        raise RuntimeError("an int that is no float")


class _Float(float):
    def __float__(self) -> float:
        raise RuntimeError("a float that is no float")


class Foreign:
    """Answers nothing."""

    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __index__(self) -> int:
        raise RuntimeError("no index")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no attribute")


class LyingDict(dict):  # type: ignore[type-arg]
    """Its methods lie; its contents count."""

    def get(self, key: object, default: object = None) -> Any:
        raise RuntimeError("no get")

    def __getitem__(self, key: object) -> Any:
        raise RuntimeError("no item")

    def __missing__(self, key: object) -> Any:
        raise RuntimeError("nothing is missing")


class _List(list):  # type: ignore[type-arg]
    def __getitem__(self, index: object) -> Any:
        raise RuntimeError("no item")

    def __len__(self) -> int:
        return 1 << 40


def nested(depth: int, *, in_dicts: bool) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = {"geo": found} if in_dicts else [found]
    return found


def wrong_values() -> list[Any]:
    """What may stand in any field."""
    return [
        *(
            None,
            True,
            False,
            "",
            "1.5",
            "1e999",
            "nan",
            "\0",
            "\ud800",
            "é" * 1024,
            "Ω" * 1025,
            "\U0001f600" * 300,
        ),
        *(
            "x" * 1024,
            "x" * 1025,
            b"1",
            0,
            -1,
            1,
            2,
            3,
            2**31,
            2**53 + 1,
            2**62,
            2**63 - 1,
            2**63,
            -(2**63),
            2**64,
        ),
        *(
            10**308,
            10**309,
            10**4999,
            0.0,
            -0.0,
            0.5,
            1.0,
            2.0,
            -1.5,
            5e-324,
            1.7e308,
            float("inf"),
            float("-inf"),
        ),
        *(float("nan"), [], [None], [{}], [1, 2], {}, (), (1,), {"w": 1}, Decimal("1.5"), Fraction(1, 2), 1j),
        *(np.float64(0.25), np.float64("nan"), np.int64(1), np.str_("USA"), np.array([1.0]), object, len),
        *(
            Text("USA"),
            _Int(1),
            _Float(0.25),
            Foreign(),
            LyingDict(w=320, h=50),
            _List([{}]),
            OrderedDict(w=1),
        ),
        *(defaultdict(dict), nested(100, in_dicts=True), nested(100, in_dicts=False), range(3), iter(())),
    ]


def places(found: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every field below a request."""
    open_ = [found]
    while open_:
        container = open_.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            yield container, key
            if type(container[key]) in (dict, list):
                open_.append(container[key])
