"""The sampled decision log: any bid is priced again to the last bit, and noting one never stops a bid."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from artifacts import complete_blueprint
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.contract import NoBidReason
from bidml.errors import ArtifactError, ConfigError, DataError
from bidml.export import model_bytes
from bidml.score import DecisionLog, Scorer, Staleness, follow
from bidml.score.decision_log import read_decisions
from bidml.score.reader import parse_artifact
from bidml.score.reprice import Repricer
from bidml.score.staleness import Clocks
from bidml.self_check import self_check_of
from training.publication import publish_bytes

TERMS: dict[str, Any] = {"value_per_click": 40.0, "cap_cpm": 90.0, "creative": "320x50", "margin": 0.1}
REQUEST: dict[str, Any] = {
    "id": "auction 1",
    "at": 1,
    "imp": [{"bidfloor": 0.01, "bidfloorcur": "USD"}],
    "device": {"geo": {"country": "DEU", "lat": 52.5, "utcoffset": 60}},
}


def artifact() -> bytes:
    made = complete_blueprint()
    return model_bytes(made, self_check_of(made, {}))


@pytest.fixture(scope="module")
def data() -> bytes:
    return artifact()


@pytest.fixture(scope="module")
def scorer(data: bytes) -> Scorer:
    return Scorer(parse_artifact(data), rates={"USD": 0.9})


@pytest.fixture
def folder(tmp_path: Path, data: bytes) -> Path:
    publish_bytes(tmp_path / "published", data, expected_generation=0, data_end="2026-11-07T00:00:00+00:00")
    return tmp_path / "published"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "id": _JSON,
        "at": st.sampled_from([1, 2, 3, "1"]) | _JSON,
        "imp": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "bidfloor": st.floats(0.0, 1.0) | _JSON,
                    "bidfloorcur": st.sampled_from(["USD", "EUR"]),
                },
            )
            | _JSON,
            max_size=2,
        )
        | _JSON,
        "device": st.fixed_dictionaries(
            {},
            optional={
                "geo": st.fixed_dictionaries(
                    {},
                    optional={
                        "country": st.sampled_from(["DEU", "FRA", "\ud800", ""]) | _JSON,
                        "lat": st.floats(-90, 90) | _JSON,
                        "utcoffset": st.integers(-2000, 2000) | _JSON,
                    },
                )
                | _JSON
            },
        )
        | _JSON,
        "ext": st.fixed_dictionaries({}, optional={"timestamp": st.floats(-1, 1e15) | _JSON}) | _JSON,
    },
)


@settings(max_examples=60)
@given(
    request=_REQUEST | _JSON,
    as_bytes=st.booleans(),
    imp=st.sampled_from([0, 1]),
    terms=st.tuples(st.floats(0.0, 1e3), st.floats(1e-3, 1e3), st.floats(0.0, 2.0), st.floats(0.0, 0.99)),
    now=st.integers(0, 2_000_000_000),
)
def test_a_logged_bid_is_priced_again_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory,
    scorer: Scorer,
    data: bytes,
    request: Any,
    as_bytes: bool,
    imp: int,
    terms: tuple[float, ...],
    now: int,
) -> None:
    """Of any request and terms, as a dict or as bytes, whatever the clock says when it is priced again."""
    path = tmp_path_factory.mktemp("log")
    (path / "model.onnx").write_bytes(data)
    value, cap, pacing, margin = terms
    line = scorer.line_item(
        value_per_click=value, cap_cpm=cap, pacing_multiplier=pacing, margin=margin, creative="320x50"
    )
    asked = json.dumps(request).encode() if as_bytes else request
    with DecisionLog(path / "log", share=1.0) as log:
        decision = log.decide(scorer, asked, line, imp)
    assert log.status() == {"written": 1, "dropped": 0, "unwritable": 0, "write_errors": 0}
    (record,) = read_decisions([path / "log"])
    repriced = Repricer(path / "model.onnx")(record)
    assert repriced.is_equal, repriced
    assert repriced.logged == (*decision, None)


@pytest.mark.parametrize("asked", [b"", b'{"id": "1", ', b"[" * 100_000, b"\xff"])
def test_bytes_that_are_no_json_are_no_bid_again(
    tmp_path: Path, scorer: Scorer, folder: Path, asked: bytes
) -> None:
    """As they were logged, whatever they are."""
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        decision = log.decide(scorer, asked, scorer.line_item(**TERMS))
    (record,) = read_decisions([tmp_path / "log"])
    repriced = Repricer(folder)(record)
    assert repriced.is_equal
    assert repriced.found == (0.0, NoBidReason.INVALID_REQUEST, None) == (*decision, None)


def test_a_request_without_a_time_is_priced_again_at_the_time_it_had(
    tmp_path: Path, scorer: Scorer, folder: Path
) -> None:
    """The model reads the hour; the bidder's clock at that moment is in the record.."""
    line = scorer.line_item(**TERMS)
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        log.bid(scorer, REQUEST, line)
    (record,) = read_decisions([tmp_path / "log"])
    assert abs(record["seconds"] - time.time()) < 60
    hours = {
        Repricer(folder)({**record, "seconds": record["seconds"] + 3600 * h}).explanation.features["hour"]
        for h in range(24)
    }
    assert hours == {float(h) for h in range(24)}
    assert Repricer(folder)(record).is_equal


@pytest.mark.parametrize(
    ("where", "change"),
    [
        (("bid_cpm",), lambda x: float.fromhex(x).__add__(1e-15).hex()),
        (("line_item", "pacing_multiplier"), lambda x: (float.fromhex(x) * (1 + 1e-9)).hex()),
        (("line_item", "fields", "creative"), lambda x: "another"),
        (("request", "device", "geo", "country"), lambda x: "FRA"),
        (("reason",), lambda x: 8),
        (("rates", "USD"), lambda x: (90_000.0).hex()),
    ],
)
def test_a_record_that_was_changed_differs(
    tmp_path: Path, scorer: Scorer, folder: Path, where: tuple[str, ...], change: Any
) -> None:
    """The check is not blind: one bit of the bid, the terms, the request."""
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        log.bid(scorer, {**REQUEST, "ext": {"timestamp": 1_772_366_400_000}}, scorer.line_item(**TERMS))
    (record,) = read_decisions([tmp_path / "log"])
    assert Repricer(folder)(record).is_equal
    *path, last = where
    holder: Any = record
    for key in path:
        holder = holder[key]
    holder[last] = change(holder[last])
    assert not Repricer(folder)(record).is_equal


def test_following_is_noted_with_the_version_that_answered(tmp_path: Path, folder: Path) -> None:
    """Its generation and its cap; a model too old to bid is not noted."""
    now = [1_762_473_600.0]
    clocks = Clocks(monotonic=lambda: now[0], wall=lambda: 1_794_009_600.0)
    policy = Staleness(3600.0, 7200.0, 0.5)
    following = follow(folder, interval_seconds=None, rates={"USD": 0.9}, staleness=policy, clocks=clocks)
    line = following.line_item(value_per_click=4000.0, cap_cpm=9.0, creative="320x50")
    bids = []
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        for _ in range(3):
            bids.append(log.bid(following, REQUEST, line))
            now[0] += 3600.0
            following.check()
    assert bids == [9.0, 4.5, 0.0]
    records = read_decisions([tmp_path / "log"])
    assert [(r["generation"], float.fromhex(r["bid_cpm"])) for r in records] == [(1, 9.0), (1, 4.5)]
    assert all(Repricer(folder)(record).is_equal for record in records)


def test_the_sample_follows_the_request_s_id(tmp_path: Path, scorer: Scorer) -> None:
    """The same auctions in every bidder, the share that was asked for."""
    line = scorer.line_item(**TERMS)
    chosen = []
    for bidder in ("a", "b"):
        with DecisionLog(tmp_path / bidder, share=0.1) as log:
            for i in range(3000):
                log.bid(scorer, {**REQUEST, "id": f"auction {i}"}, line)
        chosen.append([record["request"]["id"] for record in read_decisions([tmp_path / bidder])])
    assert chosen[0] == chosen[1]
    assert 220 < len(chosen[0]) < 380
    with DecisionLog(tmp_path / "none", share=0.0) as log:
        log.bid(scorer, REQUEST, line)
    assert read_decisions([tmp_path / "none"]) == []


def test_noting_never_stops_a_bid(tmp_path: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request JSON cannot say, a queue that is full, a disk that fails: counted, and the bid is the bid."""
    line = scorer.line_item(**TERMS)
    expected = scorer.bid(REQUEST, line)
    odd = {**REQUEST, "user": {"data": {1, 2}}}
    log = DecisionLog(tmp_path / "log", share=1.0, most_waiting=1)
    assert log.bid(scorer, odd, line) == expected
    log._file.close()
    assert {log.bid(scorer, REQUEST, line) for _ in range(2000)} == {expected}
    log.close()
    status = log.status()
    assert status["unwritable"] == 1
    noted = status["dropped"] + status["write_errors"]
    assert noted >= 1990  # a decision during which the second changes is not noted
    assert min(status["dropped"], status["write_errors"]) > 0


def test_files_turn_over_and_a_cut_line_is_left_out(tmp_path: Path, scorer: Scorer) -> None:
    """At most `keep` old files; nothing is lost between them."""
    line = scorer.line_item(**TERMS)
    with DecisionLog(tmp_path / "log", share=1.0, max_bytes=4000, keep=2) as log:
        for i in range(40):
            log.bid(scorer, {**REQUEST, "id": str(i)}, line)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2"]
    records = read_decisions([tmp_path / "log.2", tmp_path / "log.1", tmp_path / "log"])
    ids = [int(record["request"]["id"]) for record in records]
    assert ids == list(range(40 - len(ids), 40))
    whole = (tmp_path / "log.1").read_bytes()
    (tmp_path / "log.1").write_bytes(whole[:-10])
    assert len(read_decisions([tmp_path / "log.1"])) == whole.count(b"\n") - 1


def test_what_cannot_be_priced_again_says_why(tmp_path: Path, scorer: Scorer, data: bytes) -> None:
    """No artifact, another's, a record of something else."""
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        log.bid(scorer, REQUEST, scorer.line_item(**TERMS))
    (record,) = read_decisions([tmp_path / "log"])
    with pytest.raises(ArtifactError, match="at hand"):
        Repricer(tmp_path)(record)
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ArtifactError, match="made it"):
        Repricer(tmp_path / "model.onnx")({**record, "sha256": "0" * 64})
    for broken in ({}, {**record, "rates": 3}, {**record, "bid_cpm": "x"}, {**record, "line_item": {}}):
        with pytest.raises(DataError, match="decision log"):
            Repricer(tmp_path / "model.onnx")(broken)
    with pytest.raises(ConfigError, match="share"):
        DecisionLog(tmp_path / "log", share=2.0)


def test_the_command_prices_a_log_again(
    tmp_path: Path,
    scorer: Scorer,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 0 and the number of decisions; 4 when one differs; 3 for what is no log."""
    from bidml import cli

    with DecisionLog(tmp_path / "log", share=1.0) as log:
        for _ in range(3):
            log.bid(scorer, REQUEST, scorer.line_item(**TERMS))

    def run(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["bidml", "replay-bid", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert run(tmp_path / "log", "--artifacts", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"decisions": 3, "differ": 0}
    assert run(tmp_path / "log", "--artifacts", folder, "--explain") == 0
    assert "surplus" in capsys.readouterr().out
    (record, *_) = read_decisions([tmp_path / "log"])
    with (tmp_path / "log").open("a") as file:
        file.write(json.dumps({**record, "reason": 8}) + "\n")
    assert run(tmp_path / "log", "--artifacts", folder) == 4
    assert "decision 4" in capsys.readouterr().err
    assert run(tmp_path / "none", "--artifacts", folder) == 3
