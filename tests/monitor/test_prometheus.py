"""What Prometheus scrapes is the telemetry, no more and no less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from artifacts import complete_blueprint
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bidml.export import model_bytes
from bidml.monitor.prometheus import TelemetryCollector
from bidml.score import Scorer, follow
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from training.publication import publish_bytes

REQUEST: dict[str, Any] = {"at": 1, "imp": [{}], "device": {"geo": {"country": "Atlantis"}}}
TERMS: dict[str, Any] = {"value_per_click": 40.0, "cap_cpm": 90.0, "creative": "320x50"}
N = 3000


@pytest.fixture(scope="module")
def data() -> bytes:
    made = complete_blueprint()
    return model_bytes(made, self_check_of(made, {}))


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name, label values without bidder) → value, as Prometheus reads the exposition."""
    text = generate_latest(registry).decode()
    return {
        (
            sample.name,
            tuple(value for label, value in sorted(sample.labels.items()) if label != "bidder"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scorer_s_telemetry_is_scraped(data: bytes) -> None:
    """Counts, sums and cumulative buckets; labels on every sample."""
    scorer = Scorer(parse_artifact(data))
    line = scorer.line_item(**TERMS)
    for _ in range(N):
        scorer.bid(REQUEST, line)
    scorer.bid({}, line)
    registry = CollectorRegistry()
    registry.register(TelemetryCollector(scorer, labels={"bidder": "b1"}))
    found, told = samples(registry), scorer.telemetry()
    assert found["bidml_decisions_total", ("bid",)] == N
    assert found["bidml_decisions_total", ("invalid_request",)] == 1
    assert (
        found["bidml_unseen_features_total", ("country",)]
        == found["bidml_looked_at_total", ()]
        == told.looked_at
    )
    assert found["bidml_missing_features_total", ("lat",)] == told.looked_at
    assert found["bidml_pctr_count", ()] == found["bidml_bid_cpm_count", ()] == N
    assert found["bidml_bid_cpm_sum", ()] == pytest.approx(told.bid_cpm.sum)
    buckets = [(float(of[0]), n) for (name, of), n in found.items() if name == "bidml_bid_cpm_bucket"]
    counts = [n for _, n in sorted(buckets)]
    assert counts == sorted(counts)
    assert counts[-1] == N
    bid = told.bid_cpm.sum / N
    assert {n for edge, n in buckets if edge > bid} == {N}
    assert {n for edge, n in buckets if edge <= bid} == {0}
    assert 'bidder="b1"' in generate_latest(registry).decode()


def test_what_is_followed_tells_its_model_and_its_age(tmp_path: Path, data: bytes) -> None:
    """Generation, digest, age; registering reads nothing."""
    publish_bytes(tmp_path / "p", data, expected_generation=0, data_end="2026-11-07T00:00:00+00:00")
    following = follow(tmp_path / "p", interval_seconds=None)
    registry = CollectorRegistry()
    registry.register(TelemetryCollector(following, prefix="dsp"))
    found = samples(registry)
    assert found["dsp_model_generation", ()] == 1
    assert found["dsp_model_info", (following.status()["sha256"],)] == 1
    assert found["dsp_model_state", ("fresh",)] == 1
    assert found["dsp_model_state", ("expired",)] == 0
    assert found["dsp_model_age_seconds", ()] >= 0
    assert found["dsp_swaps_total", ()] == found["dsp_refused_total", ()] == 0
