"""A bidder's telemetry for Prometheus (extra `monitor`): read when it is scraped, nothing per bid.

    REGISTRY.register(TelemetryCollector(following))

Counters and histograms of `Scorer.telemetry`, and of `Following.status` where a publication is followed. Histograms
have one edge per octave (per quarter of one for times), the same for every bidder, so that they can be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from bidml.score import Following, LogHistogram, Scorer
from bidml.score.staleness import Age

_PER_OCTAVE: Final = 4


class TelemetryCollector(Collector):
    """Of one scorer or following; `prefix` begins every name, `labels` are on every sample."""

    def __init__(
        self, bidder: Scorer | Following, *, prefix: str = "bidml", labels: Mapping[str, str] | None = None
    ) -> None:
        self._bidder = bidder
        self._prefix = prefix
        self._labels = dict(labels or {})

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the scorer."""
        return []

    def collect(self) -> Iterable[Metric]:
        found = self._bidder.telemetry()
        decisions = {(reason,): n for reason, n in found.decisions.items()}
        yield self._counter("decisions", "Decisions by reason; bid: the bids.", decisions, "reason")
        yield self._counter(
            "moved_bids",
            "Bids that the cap lowered below, or the floor raised above, their optimum.",
            {("lowered",): found.lowered, ("raised",): found.raised},
            "by",
        )
        yield self._counter(
            "explored_bids",
            "Bids that were varied on purpose, not among the moved ones.",
            {(): found.explored},
        )
        yield self._histogram("pctr", "Predicted click rate of scored decisions.", found.pctr)
        yield self._histogram(
            "pcvr", "Predicted conversion rate, where conversions are paid for.", found.pcvr
        )
        yield self._histogram("bid_cpm", "Bids, CPM of the artifact's currency.", found.bid_cpm)
        yield self._histogram(
            "decision_seconds", "Time inside the scorer, of a sample.", found.seconds, step=1
        )
        yield self._counter(
            "looked_at", "Scored decisions whose features were looked at.", {(): found.looked_at}
        )
        for name, says, counts in (
            ("missing_features", "Of those looked at: features that were not there.", found.missing),
            ("unseen_features", "Of those looked at: categories that the model does not know.", found.unseen),
        ):
            yield self._counter(name, says, {(feature,): n for feature, n in counts.items()}, "feature")
        if isinstance(self._bidder, Following):
            yield from self._of_following(self._bidder)

    def _of_following(self, following: Following) -> Iterable[Metric]:
        status = following.status()
        yield self._gauge("model_generation", "The generation in service.", {(): status["generation"]})
        if status["age_seconds"] is not None:
            yield self._gauge(
                "model_age_seconds", "Since the end of its training data.", {(): status["age_seconds"]}
            )
        ages = {(age.value,): float(status["age"] == age.value) for age in Age}
        yield self._gauge("model_state", "1 for what the staleness policy says of it.", ages, "state")
        yield self._gauge("line_items", "Line items that are bound.", {(): status["line_items"]})
        info = {(status["sha256"],): 1.0}
        yield self._gauge("model_info", "The artifact in service.", info, "sha256")
        for name, says in (
            ("swaps", "Models that took over."),
            ("refused", "Releases that were refused."),
            ("read_errors", "Looks that the file system failed."),
        ):
            yield self._counter(name, says, {(): status[name]})

    def _counter(self, name: str, says: str, values: Mapping[Any, float], *labels: str) -> Metric:
        family = CounterMetricFamily(f"{self._prefix}_{name}", says, labels=(*self._labels, *labels))
        for of, value in values.items():
            family.add_metric([*self._labels.values(), *of], value)
        return family

    def _gauge(self, name: str, says: str, values: Mapping[Any, float], *labels: str) -> Metric:
        family = GaugeMetricFamily(f"{self._prefix}_{name}", says, labels=(*self._labels, *labels))
        for of, value in values.items():
            family.add_metric([*self._labels.values(), *of], value)
        return family

    def _histogram(self, name: str, says: str, found: LogHistogram, *, step: int = _PER_OCTAVE) -> Metric:
        """Cumulative counts at every `step`-th edge."""
        family = HistogramMetricFamily(f"{self._prefix}_{name}", says, labels=tuple(self._labels))
        buckets, below = [], 0
        for i, n in enumerate(found.counts[:-1], start=1):
            below += n
            if i % step == 0:
                buckets.append((repr(found.edges[i]), float(below)))
        buckets.append(("+Inf", float(found.count)))
        family.add_metric(list(self._labels.values()), buckets, sum_value=found.sum)
        return family
