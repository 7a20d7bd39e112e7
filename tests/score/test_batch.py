"""Batches: each row is the row alone, into the caller's buffers; what would be misread is refused."""

from __future__ import annotations

import threading
from array import array
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint
from decisions import artifact_of

from bidml.blueprint import Blueprint
from bidml.contract import PRICE_INPUTS
from bidml.errors import DataError
from bidml.metadata import TOLERANCE, difference, expected_names
from bidml.oracle import evaluate
from bidml.score import Scorer

N_ROWS = 500


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(complete_blueprint()))


@pytest.fixture
def columns() -> dict[str, Any]:
    """Raw features and prices, some missing."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "hour": rng.integers(0, 24, N_ROWS).astype(float),
        "country": [str(text) for text in rng.choice(["", "DEU", "USA", "Ελλάδα", "FRA"], N_ROWS)],
        "lat": np.where(rng.random(N_ROWS) < 0.3, np.nan, rng.normal(size=N_ROWS) * 5),
        "creative": ["320x50", "other"] * (N_ROWS // 2),
        "unused_number": array("d", [0.0]) * N_ROWS,
        "unused_text": [""] * N_ROWS,
        "value_per_click": rng.lognormal(0, 2, N_ROWS),
        "floor_cpm": rng.choice([0.0, 0.1, 2.0, np.nan], N_ROWS),
        "cap_cpm": 8.0,
        "pacing_multiplier": 1,
        "auction_type": rng.choice([1.0, 2.0], N_ROWS),
    }
    return found


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"floor_cpm": np.nan}, "invalid_floor"),
        ({"floor_cpm": -0.5}, "invalid_floor"),
        ({"auction_type": 3.0}, "unsupported_auction_type"),
        ({"cap_cpm": 0.0}, "floor_above_cap"),
        ({"cap_cpm": np.nan}, "floor_above_cap"),
        ({"value_per_click": np.nan}, "no_value"),
        ({"value_per_click": np.inf}, "no_value"),
        ({"value_per_click": -1.0, "pacing_multiplier": -1.0}, "no_value"),
    ],
)
def test_a_row_without_a_price_is_counted_by_its_reason(
    wrong: dict[str, float], reason: str, columns: dict[str, Any]
) -> None:
    """No later check hides an earlier one."""
    scorer = Scorer(artifact_of(complete_blueprint()))
    columns |= {"floor_cpm": 0.0, **wrong}
    out = np.full(N_ROWS, -7.0)
    scorer.bid_many(columns, out=out)
    assert not out.any()
    assert scorer.counters()[reason] == N_ROWS


def test_a_batch_is_what_the_oracle_says_of_each_row(scorer: Scorer, columns: dict[str, Any]) -> None:
    """Every output and margin; asking for a part gives the same part."""
    names = expected_names(complete_blueprint())
    found = {name: np.full(N_ROWS, -7.0) for name in names}
    scorer.score_many(columns, found)
    whole = {
        name: [column] * N_ROWS if isinstance(column, int | float) else column
        for name, column in columns.items()
    }
    wanted = evaluate(complete_blueprint(), whole)
    for name in names:
        for row in range(N_ROWS):
            assert difference(name, wanted[name][row], found[name][row]) <= TOLERANCE, (name, row)
    assert 0.3 < np.mean(found["bid_cpm"] > 0.0) < 1.0
    for name in names:
        alone = array("d", bytes(8 * N_ROWS))
        scorer.score_many(columns, {name: alone})
        assert alone.tolist() == found[name].tolist()
    bids = np.empty(N_ROWS)
    scorer.bid_many(columns, out=bids)
    assert bids.tolist() == found["bid_cpm"].tolist()


def test_a_batch_bids_as_bid_does(scorer: Scorer, columns: dict[str, Any]) -> None:
    """The hot path and the batch are one arithmetic, to the last bit."""
    bids = array("d", bytes(8 * N_ROWS))
    scorer.bid_many(columns, out=bids)
    for row in range(N_ROWS):
        line = scorer.line_item(
            creative=columns["creative"][row],
            value_per_click=float(columns["value_per_click"][row]),
            cap_cpm=8.0,
        )
        lat, floor = float(columns["lat"][row]), float(columns["floor_cpm"][row])
        request = {
            "at": int(columns["auction_type"][row]),
            "imp": [{"bidfloor": floor, "bidfloorcur": "EUR"}],
            "device": {"geo": {"country": columns["country"][row], "lat": lat}},
            "ext": {"timestamp": int(columns["hour"][row]) * 3_600_000},
        }
        assert scorer.bid(request, line) == bids[row]


def test_bids_are_counted(scorer: Scorer, columns: dict[str, Any]) -> None:
    """One decision per row; features alone decide nothing."""
    before = sum(scorer.counters().values())
    scorer.bid_many(columns, out=array("d", bytes(8 * N_ROWS)))
    scorer.score_many(columns, {"pctr": array("d", bytes(8 * N_ROWS))})
    assert sum(scorer.counters().values()) - before == N_ROWS


def test_any_buffer_of_doubles_is_read_in_place_and_others_are_converted(
    scorer: Scorer, columns: dict[str, Any]
) -> None:
    """float32, half, big-endian, integers, lists, strided views, NumPy texts, one number for all."""
    wanted, found = np.empty(N_ROWS), np.empty(N_ROWS)
    columns["lat"] = np.arange(N_ROWS) % 64 / 8.0
    scorer.bid_many(columns, out=wanted)
    lat = columns["lat"]
    for same in (
        lat.astype("f4"), lat.astype("f2"), lat.astype(">f8"), lat.tolist(), array("d", lat), array("f", lat),
        np.repeat(lat, 2)[::2], memoryview(lat), tuple(lat),
    ):  # fmt: skip
        scorer.bid_many(columns | {"lat": same}, out=found)
        assert found.tolist() == wanted.tolist()
    for same in (
        columns["hour"].astype(int),
        columns["hour"].astype("u1"),
        [int(hour) for hour in columns["hour"]],
    ):
        scorer.bid_many(columns | {"hour": same}, out=found)
        assert found.tolist() == wanted.tolist()
    for texts in (
        np.array(columns["country"]),
        np.array(columns["country"], dtype=object),
        tuple(columns["country"]),
    ):
        scorer.bid_many(columns | {"country": texts}, out=found)
        assert found.tolist() == wanted.tolist()
    for cap in (8, np.float32(8), np.int64(8), np.full(N_ROWS, 8.0)):
        scorer.bid_many(columns | {"cap_cpm": cap}, out=found)
        assert found.tolist() == wanted.tolist()


def test_no_rows_are_no_work(scorer: Scorer, columns: dict[str, Any]) -> None:
    """An empty batch is a batch."""
    empty = {
        name: column if isinstance(column, int | float) else column[:0] for name, column in columns.items()
    }
    scorer.bid_many(empty, out=array("d"))


@pytest.mark.parametrize(
    ("name", "column", "rule"),
    [
        ("lat", None, "has the column lat"),
        ("value_per_click", None, "has the column value_per_click"),
        ("lat", [1.0], "one value per row"),
        ("lat", np.zeros((N_ROWS, 2)), "one value per row"),
        ("country", ["DEU"], "one value per row"),
        ("country", "DEU" * 200, "sequence of texts"),
        ("country", 7, "sequence of texts"),
        ("country", [1] * N_ROWS, "is str"),
        ("country", [None] * N_ROWS, "is str"),
        ("country", [b"DEU"] * N_ROWS, "is str"),
        ("lat", ["1.5"] * N_ROWS, "one number"),
        ("lat", [None] * N_ROWS, "one number"),
        ("lat", np.array(["1.5"] * N_ROWS), "one number"),
        ("lat", np.zeros(N_ROWS, bool), "True and False"),
        ("lat", True, "True and False"),
        ("lat", 10**400, "one number"),
        ("lat", object(), "one number"),
    ],
)
def test_a_column_that_would_be_misread_is_refused(
    scorer: Scorer, columns: dict[str, Any], name: str, column: Any, rule: str
) -> None:
    """`DataError` that names it; an integer category would silently have been missing."""
    if column is None:
        del columns[name]
    else:
        columns[name] = column
    out = array("d", [-7.0]) * N_ROWS
    with pytest.raises(DataError, match=rule):
        scorer.bid_many(columns, out=out)
    assert set(out) == {-7.0}


@pytest.mark.parametrize(
    "out",
    [
        array("f", bytes(4 * N_ROWS)), bytes(8 * N_ROWS), [0.0] * N_ROWS, None, np.empty(N_ROWS, "f4"),
        np.empty(N_ROWS, ">f8"), np.empty(2 * N_ROWS)[::2], array("d", bytes(8)), np.empty((N_ROWS, 2)),
    ],
    ids=lambda out: type(out).__name__,
)  # fmt: skip
def test_a_buffer_that_cannot_take_the_results_is_refused(
    scorer: Scorer, columns: dict[str, Any], out: Any
) -> None:
    """Writable, contiguous, of doubles, one per row."""
    with pytest.raises(DataError):
        scorer.bid_many(columns, out=out)


def test_buffers_of_several_lengths_and_unknown_outputs_are_refused(
    scorer: Scorer, columns: dict[str, Any]
) -> None:
    """And so is asking for nothing."""
    with pytest.raises(DataError, match="one length"):
        scorer.score_many(columns, {"pctr": np.empty(N_ROWS), "bid_cpm": np.empty(N_ROWS - 1)})
    for outputs in ({}, {"pctrr": np.empty(N_ROWS)}):
        with pytest.raises(DataError, match="an output is known"):
            scorer.score_many(columns, outputs)


def test_half_an_artifact_scores_its_half(columns: dict[str, Any]) -> None:
    """Its outputs need no prices; a bid is refused."""
    whole = complete_blueprint()
    features = {name: column for name, column in columns.items() if name not in PRICE_INPUTS}
    for parts, names in (({"win": None}, ["pctr"]), ({"ctr": None}, ["win_location", "win_shape"])):
        blueprint = Blueprint(
            **{"spec": whole.spec, "ctr": whole.ctr, "win": whole.win, "currency": "EUR"} | parts
        )
        half = Scorer(artifact_of(blueprint))
        found = {name: np.empty(N_ROWS) for name in names}
        half.score_many(features, found)
        wanted = evaluate(blueprint, features)
        assert all(np.allclose(found[name], wanted[name], rtol=1e-12, atol=1e-12) for name in names)
        with pytest.raises(DataError, match="CTR model and a win curve"):
            half.bid_many(features, out=np.empty(N_ROWS))


def test_batches_run_beside_each_other(scorer: Scorer, columns: dict[str, Any]) -> None:
    """Four threads, the GIL released, one result."""
    wanted = np.empty(N_ROWS)
    scorer.bid_many(columns, out=wanted)
    results = [np.empty(N_ROWS) for _ in range(4)]

    def work(out: Any) -> None:
        for _ in range(50):
            scorer.bid_many(columns, out=out)

    threads = [threading.Thread(target=work, args=(out,)) for out in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(out.tolist() == wanted.tolist() for out in results)
