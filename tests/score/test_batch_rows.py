"""Laws of batches: a row of a batch gets what it gets alone, whatever stands around it."""

from __future__ import annotations

import random
from array import array
from typing import Any

import pytest
from request_corpus import BASE, CATEGORIES, NUMBERS, captured, scorer_of, texts_of

from bidml.errors import DataError
from bidml.score import RawExtractor, Scorer

OUTPUTS = ("bid_cpm", "win_rate", "pctr", "win_location", "win_shape", "ctr_margin", "location_margin")


def rows_of(scorer: Scorer, requests: list[Any]) -> dict[str, list[Any]]:
    """Raw columns of the requests, with prices that usually bid."""
    columns: dict[str, list[Any]] = RawExtractor(scorer.blueprint.spec).columns(
        requests, [{"creative": f"c{i % 5}"} for i in range(len(requests))]
    )
    rng = random.Random(1)
    prices = {
        "value_per_click": [rng.choice([0.0, 0.5, 2.0, 30.0, float("nan")]) for _ in requests],
        "floor_cpm": [rng.choice([0.0, 0.1, 2.0]) for _ in requests],
        "cap_cpm": [rng.choice([0.5, 50.0]) for _ in requests],
        "pacing_multiplier": [rng.choice([1.0, 0.3]) for _ in requests],
        "auction_type": [rng.choice([1.0, 1.0, 2.0, 3.0]) for _ in requests],
    }
    return columns | prices


def scored(scorer: Scorer, columns: dict[str, Any], n: int) -> dict[str, array[float]]:
    outputs = {name: array("d", bytes(8 * n)) for name in OUTPUTS}
    scorer.score_many(columns, outputs)
    return outputs


@pytest.mark.parametrize("isa", ["best", "scalar"])
def test_a_row_of_a_batch_scores_as_alone(isa: str, shared_data: Any) -> None:
    """Blocks, repeated objects, equal texts in different objects, long and wide texts: to the last bit."""
    requests = [r for r in captured(shared_data)[::9] if isinstance(r, dict)] + [BASE] * 3
    scorer = scorer_of(texts_of(requests), isa=isa)
    columns = rows_of(scorer, requests)
    n = len(requests)
    odd = ["x" * 1_024, "x" * 1_030, "漢" * 342, "é" * 900, "\ud800"]
    columns["page"] = [odd[i % 5] if i % 3 == 0 else text for i, text in enumerate(columns["page"])]
    columns["city"] = [
        random.Random(i).choice(["", "Köln", "K" + "öln", "漢" * 341, "\ud800x", "7"]) for i in range(n)
    ]
    whole = scored(scorer, columns, n)
    for i in range(n):
        alone = scored(scorer, {name: column[i : i + 1] for name, column in columns.items()}, 1)
        assert {name: out[0] for name, out in alone.items()} == {
            name: whole[name][i] for name in OUTPUTS
        } or any(out[0] != out[0] for out in alone.values())
    assert any(whole["bid_cpm"])


def test_shuffled_rows_and_shared_objects_change_nothing() -> None:
    """The same values in another order, each text one object or many."""
    rng = random.Random(3)
    words = [f"word {i}" for i in range(300)]
    scorer = scorer_of({name: set(words[::2]) for name in CATEGORIES})
    n = 1_000
    columns: dict[str, Any] = {
        name: [rng.choice(words[: rng.choice([2, 300])]) for _ in range(n)] for name in CATEGORIES
    }
    columns |= {name: array("d", [rng.uniform(-10, 400) for _ in range(n)]) for name in NUMBERS}
    columns |= {
        "creative": ["c"] * n,
        "value_per_click": 2.0,
        "floor_cpm": 0.0,
        "cap_cpm": 1e3,
        "pacing_multiplier": 1.0,
    }
    columns |= {"auction_type": 1.0}
    expected = scored(scorer, columns, n)["bid_cpm"]
    assert len(set(expected)) > n // 2
    copied = {
        name: ["".join(list(text)) for text in column] if name in CATEGORIES else column
        for name, column in columns.items()
    }
    assert scored(scorer, copied, n)["bid_cpm"] == expected
    order = rng.sample(range(n), n)
    shuffled = {
        name: column if isinstance(column, float) else [column[i] for i in order]
        for name, column in columns.items()
    }
    assert list(scored(scorer, shuffled, n)["bid_cpm"]) == [expected[i] for i in order]


def test_a_text_that_is_no_text_is_refused_wherever_it_stands() -> None:
    """In the first block or a later one."""
    scorer = scorer_of({})
    n = 100
    columns: dict[str, Any] = {name: ["x"] * n for name in [*CATEGORIES, "creative"]} | dict.fromkeys(
        NUMBERS, 1.0
    )
    for at in (0, 31, 32, 99):
        for wrong in (None, 3, b"x"):
            changed = columns | {"page": ["x"] * at + [wrong] + ["x"] * (n - at - 1)}
            with pytest.raises(DataError, match="a category of a batch is str"):
                scorer.score_many(changed, {"pctr": array("d", bytes(8 * n))})
    scorer.score_many(columns, {"pctr": array("d", bytes(8 * n))})
