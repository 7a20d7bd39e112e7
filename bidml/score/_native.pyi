"""The compiled runtime (bidml/native)."""

from collections.abc import Sequence
from typing import Any

CONSTANTS: dict[str, float]

class LineItem:
    fields: dict[str, object]
    pacing_multiplier: float
    def __init__(
        self,
        scorer: NativeScorer,
        categories: list[tuple[int, str]],
        numbers: list[tuple[int, float]],
        value_per_click: float,
        cap_cpm: float,
        pacing_multiplier: float,
        /,
    ) -> None: ...
    @property
    def value_per_click(self) -> float: ...
    @property
    def cap_cpm(self) -> float: ...

class NativeScorer:
    def __init__(
        self, blueprint: object, rates: list[tuple[str, float]], strict_error: object, isa: str, /
    ) -> None: ...
    def bid(self, request: object, line: LineItem, imp: int = 0, /) -> float: ...
    def decide(self, request: object, line: LineItem, imp: int = 0, /) -> tuple[float, int]: ...
    def best(self, request: object, lines: Sequence[LineItem], imp: int = 0, /) -> tuple[int, float]: ...
    def _explain(self, request: object, line: LineItem, imp: int, /) -> dict[str, Any]: ...
    def _score_many(
        self,
        n_rows: int,
        categories: list[Sequence[str]],
        numbers: list[object],
        prices: list[object],
        outputs: list[object],
        /,
    ) -> None: ...
    def _extract(self, request: dict[str, Any], imp: dict[str, Any], /) -> tuple[list[str], list[float]]: ...
    def _slots(self) -> dict[str, tuple[bool, int]]: ...
    def _counts(self) -> list[int]: ...
    def _engine_info(self) -> dict[str, Any]: ...

class Engine:
    def __init__(
        self, heads: object, slots: object, n_numbers: int, n_categories: int, isa: str = "best"
    ) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
