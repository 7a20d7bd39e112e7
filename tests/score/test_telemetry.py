"""What a scorer tells a monitor: every decision once, distributions, what it did not find, and how long it took."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint
from hypothesis import given
from hypothesis import strategies as st

from bidml.export import model_bytes
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.score.telemetry import LogHistogram, Telemetry, _in_seconds
from bidml.self_check import self_check_of

REQUEST: dict[str, Any] = {
    "at": 1,
    "imp": [{"bidfloor": 0.01, "bidfloorcur": "EUR", "instl": 1}],
    "device": {"geo": {"country": "DEU", "lat": 52.5, "utcoffset": 60}, "os": "ios"},
    "ext": {"timestamp": 1_772_366_400_000},
}
N = 4_000
LOOKS = (N / 16 * 0.8, N / 16 * 1.2)  # one in 16, at random: ± 4 standard errors


@pytest.fixture
def scorer() -> Scorer:
    made = complete_blueprint()
    scorer = Scorer(parse_artifact(model_bytes(made, self_check_of(made, {}))))
    scorer.check_itself()
    return scorer


def line_of(scorer: Scorer, **terms: Any) -> Any:
    return scorer.line_item(**{"value_per_click": 40.0, "cap_cpm": 90.0, "creative": "320x50", **terms})


def test_nothing_is_counted_before_the_first_decision(scorer: Scorer) -> None:
    """The rows an artifact replays when it is loaded are not traffic."""
    found = scorer.telemetry()
    assert set(found.decisions.values()) | set(found.missing.values()) | set(found.unseen.values()) == {0}
    assert found.pctr.count == found.bid_cpm.count == found.seconds.count == found.looked_at == 0
    assert math.isnan(found.pctr.quantile(0.5))


@pytest.mark.parametrize("call", ["bid", "decide", "bid_json", "decide_json", "best", "best_json"])
def test_every_call_counts_alike(scorer: Scorer, call: str) -> None:
    """Decisions, the bid's and pctr's buckets, features, time."""
    line = line_of(scorer)
    of = [line] if call.startswith("best") else line
    request: Any = json.dumps(REQUEST).encode() if call.endswith("json") else REQUEST
    for _ in range(N):
        getattr(scorer, call)(request, of)
    found, why = scorer.telemetry(), scorer.explain(REQUEST, line)
    assert found.decisions["bid"] == sum(found.decisions.values()) == N
    for histogram, value in ((found.pctr, why.pctr), (found.bid_cpm, why.bid_cpm)):
        (at,) = np.flatnonzero(histogram.counts)
        assert histogram.count == N
        assert histogram.edges[at] <= value < histogram.edges[at + 1]
        assert histogram.sum == pytest.approx(N * value, rel=1e-12)
    assert LOOKS[0] < found.looked_at == found.seconds.count < LOOKS[1]
    assert 1e-7 < found.seconds.quantile(0.5) < 1e-3


def test_features_that_are_not_there_or_unknown_are_counted(scorer: Scorer) -> None:
    """By feature, of requests and of line items; a feature that no lookup of the model reads is never unknown."""
    odd = {**REQUEST, "device": {"geo": {"country": "Atlantis"}}}
    line = line_of(scorer, creative="never seen")
    for _ in range(N):
        scorer.bid(odd, line)
    found = scorer.telemetry()
    assert LOOKS[0] < found.looked_at < LOOKS[1]
    all_of_them = found.looked_at
    assert found.missing == {
        "hour": 0,
        "country": 0,
        "lat": all_of_them,
        "creative": 0,
        "unused_number": 0,
        "unused_text": all_of_them,
    }
    assert found.unseen == {"country": all_of_them, "creative": all_of_them, "unused_text": 0}
    for _ in range(N):
        scorer.bid(REQUEST, line_of(scorer))
    again = scorer.telemetry()
    assert again.looked_at > 1.5 * all_of_them
    assert (again.missing["lat"], again.unseen["country"]) == (all_of_them, all_of_them)


def test_no_rhythm_of_the_traffic_hides_from_a_close_look(scorer: Scorer) -> None:
    """Every 16th request is odd: as many of those looked at are."""
    line, odd = line_of(scorer), {**REQUEST, "device": {"geo": {"country": "Atlantis"}}}
    for i in range(16 * N):
        scorer.bid(odd if i % 16 == 0 else REQUEST, line)
    found = scorer.telemetry()
    assert found.unseen["country"] / found.looked_at == pytest.approx(1 / 16, rel=0.35)


def test_bids_that_cap_or_floor_moved_are_counted(scorer: Scorer) -> None:
    """Of bids only."""
    optimum = scorer.explain(REQUEST, line_of(scorer)).optimum_cpm
    scorer.bid(REQUEST, line_of(scorer, cap_cpm=1e6))
    high = {**REQUEST, "imp": [{"bidfloor": 1.0001 * optimum, "bidfloorcur": scorer.currency}]}
    scorer.bid(REQUEST, line_of(scorer, cap_cpm=optimum / 2))
    raised = scorer.bid(high, line_of(scorer, cap_cpm=1e6))
    scorer.bid(high, line_of(scorer, cap_cpm=optimum / 2))
    assert raised == pytest.approx(1.0001 * optimum)
    found = scorer.telemetry()
    assert (found.lowered, found.raised, found.decisions["bid"]) == (1, 1, 3)
    assert (found.decisions["floor_above_cap"], found.bid_cpm.count, found.pctr.count) == (1, 3, 4)


def test_a_batch_counts_decisions_and_distributions(scorer: Scorer) -> None:
    """As so many single calls do; not what is scored without a price."""
    columns = dict(scorer.artifact.self_check.columns)
    outputs = {
        "bid_cpm": np.zeros(scorer.artifact.self_check.n_rows),
        "pctr": np.zeros(scorer.artifact.self_check.n_rows),
    }
    scorer.score_many(columns, outputs)
    found = scorer.telemetry()
    bids = outputs["bid_cpm"][outputs["bid_cpm"] > 0]
    assert len(bids) == found.decisions["bid"] == found.bid_cpm.count > 0
    assert found.bid_cpm.sum == pytest.approx(bids.sum())
    assert found.pctr.sum == pytest.approx(outputs["pctr"].sum())
    assert found.looked_at == 0
    scorer.score_many(columns, {"pctr": outputs["pctr"]})
    assert scorer.telemetry() == found


@given(st.lists(st.floats(2.0**-19, 2.0**-1), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_is_less_than_a_bucket_above_the_true_one(values: list[float], q: float) -> None:
    """A bucket is at most a quarter wide. Held to NumPy's histogram and quantile."""
    edges = tuple(math.ldexp(1.0 + i % 4 / 4, -20 + i // 4) for i in range(81))
    histogram = LogHistogram(edges, tuple(np.histogram(values, edges)[0].tolist()), sum(values))
    true = float(np.quantile(values, q, method="inverted_cdf"))
    assert true < histogram.quantile(q) <= 1.25 * true * (1 + 1e-12)


@given(st.lists(st.integers(0, 1000), min_size=112, max_size=112), st.floats(1e-11, 1e-8))
def test_ticks_become_seconds_without_loss(counts: list[int], seconds_per_tick: float) -> None:
    """Every count arrives; the same edges for every machine."""
    found = _in_seconds(4, counts, 12.0, seconds_per_tick=seconds_per_tick)
    assert found.count == sum(counts)
    assert found.edges == _in_seconds(4, [0], 0.0, seconds_per_tick=1.0).edges
    assert found.sum == 12.0 * seconds_per_tick


def test_telemetry_adds_up(scorer: Scorer) -> None:
    """Field by field."""
    line = line_of(scorer)
    for _ in range(100):
        scorer.bid(REQUEST, line)
    once = scorer.telemetry()
    twice: Telemetry = once + once
    assert twice.decisions["bid"] == 200
    assert twice.pctr.count == 200
    assert twice.looked_at == 2 * once.looked_at
    assert twice.bid_cpm.sum == 2 * once.bid_cpm.sum
