"""Hot reload: the newest good model, exactly one version per call, and no bid from a model too old."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from artifacts import complete_blueprint

from bidml.blueprint import Blueprint, Calibration
from bidml.errors import ArtifactError, ConfigError
from bidml.export import model_bytes
from bidml.score import Following, NoBidReason, Scorer, Staleness, follow
from bidml.score.publication import PUBLICATION_MANIFEST, Publication, Release, read_publication
from bidml.score.reader import parse_artifact
from bidml.score.staleness import Age, Clocks
from bidml.score.version import Version
from bidml.self_check import self_check_of
from training.publication import publish_bytes, republish

LONG = bool(os.environ.get("BIDML_LONG_TESTS"))
KEY = b"sixteen bytes or more"
TERMS: dict[str, Any] = {"value_per_click": 40.0, "cap_cpm": 90.0, "creative": "320x50"}
REQUEST = {
    "at": 1,
    "imp": [{"bidfloor": 0.01, "bidfloorcur": "EUR"}],
    "device": {"geo": {"country": "DEU", "lat": 52.5, "utcoffset": 60}},
    "ext": {"timestamp": 1_772_366_400_000},
}
DATA_END = "2026-11-07T00:00:00+00:00"


def blueprint(number: int, **changes: Any) -> Blueprint:
    """Models that bid differently on the same request."""
    whole = complete_blueprint()
    assert whole.ctr is not None
    return replace(
        whole, ctr=replace(whole.ctr, calibration=Calibration(1.25, 0.75, -0.5 - 0.25 * number)), **changes
    )


def artifact(number: int, **changes: Any) -> bytes:
    made = blueprint(number, **changes)
    return model_bytes(made, self_check_of(made, {}))


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    return [artifact(number) for number in range(4)]


def bid_of(model: bytes, **terms: Any) -> float:
    scorer = Scorer(parse_artifact(model))
    return scorer.bid(REQUEST, scorer.line_item(**{**TERMS, **terms}))


def put(folder: Path, model: bytes, **options: Any) -> Publication:
    seen = read_publication(folder, key=options.get("key"))
    generation = seen.current.generation if seen else 0
    return publish_bytes(folder, model, expected_generation=generation, **options)


class Time(Clocks):
    """Clocks that a test sets: `now` is the wall's time, `passed` the monotonic clock's."""

    def __init__(self, now: str) -> None:
        self.now = datetime.fromisoformat(now).timestamp()
        self.passed = 1000.0
        super().__init__(lambda: self.passed, lambda: self.now)


@pytest.fixture
def folder(tmp_path: Path, models: list[bytes]) -> Path:
    put(tmp_path, models[0], data_end=DATA_END)
    return tmp_path


@pytest.fixture
def following(folder: Path) -> Iterator[Following]:
    """Looks only when told."""
    with follow(folder, interval_seconds=None) as made:
        yield made


# ---- following ----


def test_it_bids_as_the_scorer_of_the_current_release(
    folder: Path, following: Following, models: list[bytes]
) -> None:
    """bid, decide, best and explain, before and after a swap and a rollback; line items keep their terms."""
    line, other = following.line_item(**TERMS), following.line_item(**{**TERMS, "value_per_click": 1.0})
    for number, change in enumerate(
        (
            lambda: None,
            lambda: put(folder, models[1]),
            lambda: put(folder, models[2]),
            lambda: republish(folder),
        )
    ):
        change()
        assert following.check() is (number > 0)
        expected = bid_of(models[(0, 1, 2, 1)[number]])
        assert expected > 0.0
        assert following.bid(REQUEST, line) == expected
        assert following.bid(REQUEST, line, 0) == expected
        assert following.decide(REQUEST, line) == (expected, 0)
        assert following.best(REQUEST, [other, line]) == (1, expected)
        assert following.explain(REQUEST, line).bid_cpm == expected
        assert following.bid(REQUEST, line, 7) == 0.0
        assert following.status()["generation"] == number + 1
    assert following.status()["swaps"] == 3
    assert following.counters()["bid"] == 4 * 4
    assert following.counters()["invalid_imp"] == 4


def test_models_of_the_test_bid_differently(models: list[bytes]) -> None:
    """Else nothing here could fail."""
    assert len({bid_of(model) for model in models}) == len(models)


def test_the_thread_sees_a_new_release(folder: Path, models: list[bytes]) -> None:
    """Within an interval or two; `close` ends both threads, and so does letting go."""
    before = threading.active_count()
    with follow(folder, interval_seconds=0.01) as following:
        line = following.line_item(**TERMS)
        put(folder, models[1])
        until = time.monotonic() + 30.0
        while following.status()["generation"] == 1 and time.monotonic() < until:
            time.sleep(0.005)
        assert following.bid(REQUEST, line) == bid_of(models[1])
        assert threading.active_count() == before + 2
    assert threading.active_count() == before
    let_go = follow(folder, interval_seconds=0.01)
    reference = weakref.ref(let_go)
    del let_go
    until = time.monotonic() + 30.0
    while (reference() is not None or threading.active_count() > before) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)
    assert reference() is None
    assert threading.active_count() == before


def test_pacing_survives_a_swap(folder: Path, following: Following, models: list[bytes]) -> None:
    """It is set on the version in service and kept for the next."""
    line = following.line_item(pacing_multiplier=0.5, **TERMS)
    assert following.bid(REQUEST, line) == bid_of(models[0], pacing_multiplier=0.5)
    line.pacing_multiplier = 0.25
    assert following.bid(REQUEST, line) == bid_of(models[0], pacing_multiplier=0.25)
    put(folder, models[1])
    following.check()
    assert following.bid(REQUEST, line) == bid_of(models[1], pacing_multiplier=0.25)
    with pytest.raises(ValueError, match="pacing"):
        line.pacing_multiplier = math.nan
    assert line.pacing_multiplier == 0.25


def test_a_pacer_loses_no_update_to_a_swap(following: Following, models: list[bytes]) -> None:
    """Set while versions are swapped: the last value set is the one in service."""
    line = following.line_item(**TERMS)
    versions = swappable(following, models)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for version in versions:
                following._swap(fresh(version))

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for n in range(2000):
            line.pacing_multiplier = 1.0 / (n + 2)
            assert following.version.lines[line.key].pacing_multiplier == 1.0 / (n + 2)
    finally:
        stop.set()
        swapper.join()


def test_a_dropped_line_item_is_not_made_again(
    folder: Path, following: Following, models: list[bytes]
) -> None:
    """Campaigns come and go; a bidder runs for months."""
    kept = following.line_item(**TERMS)
    for _ in range(100):
        following.line_item(**TERMS)
    put(folder, models[1])
    following.check()
    assert following.status()["line_items"] == 1
    assert following.bid(REQUEST, kept) == bid_of(models[1])


def test_a_line_item_of_another_following_is_an_error(folder: Path, following: Following) -> None:
    """A mistake of the program, found at its first call."""
    with follow(folder, interval_seconds=None) as other:
        line = other.line_item(**TERMS)
        for call in (following.bid, following.decide, following.explain):
            with pytest.raises(TypeError, match="belongs to the Following"):
                call(REQUEST, line)
        with pytest.raises(TypeError, match="belongs to the Following"):
            following.best(REQUEST, [line])


def test_wrong_terms_are_refused_at_once(following: Following) -> None:
    """As the scorer refuses them."""
    with pytest.raises(ConfigError, match="creative"):
        following.line_item(value_per_click=1.0, cap_cpm=1.0)
    assert following.status()["line_items"] == 0


# ---- refusing ----


def bad_candidates(models: list[bytes]) -> dict[str, bytes]:
    whole = models[1]
    ctr_only = replace(blueprint(1), win=None)
    return {
        "truncated": whole[:-1],
        "not a model": b"hello",
        "another currency": artifact(1, currency="USD"),
        "ctr only": model_bytes(ctr_only, self_check_of(ctr_only, {})),
        "a self-check it fails": _with_wrong_rows(models),
    }


def _with_wrong_rows(models: list[bytes]) -> bytes:
    """A file whose rows are another model's: whole, of canonical form, and wrong."""
    return model_bytes(blueprint(1), parse_artifact(models[2]).self_check)


@pytest.mark.parametrize(
    "kind", ["truncated", "not a model", "another currency", "ctr only", "a self-check it fails"]
)
def test_a_bad_candidate_is_refused_once_and_counted(
    folder: Path, following: Following, models: list[bytes], kind: str
) -> None:
    """The version in service stays; the next good release is taken."""
    line = following.line_item(**TERMS)
    put(folder, bad_candidates(models)[kind])
    for _ in range(5):
        assert not following.check()
    status = following.status()
    assert (status["refused"], status["generation"], status["swaps"]) == (1, 1, 0)
    assert status["last_problem"]
    assert following.bid(REQUEST, line) == bid_of(models[0])
    put(folder, models[2])
    assert following.check()
    assert following.bid(REQUEST, line) == bid_of(models[2])


def test_a_model_that_our_line_items_cannot_feed_is_refused(
    folder: Path, following: Following, models: list[bytes]
) -> None:
    """A new model reads a field that the campaigns do not give: none of them may fall silent."""
    line = following.line_item(**TERMS)
    whole = blueprint(1)
    features = tuple(
        replace(feature, source="line_item.audience") if feature.name == "unused_text" else feature
        for feature in whole.spec.features
    )
    changed = replace(whole, spec=replace(whole.spec, features=features))
    put(folder, model_bytes(changed, self_check_of(changed, {})))
    assert not following.check()
    assert following.status()["refused"] == 1
    assert "audience" in str(following.status()["last_problem"])
    assert following.bid(REQUEST, line) == bid_of(models[0])


def test_a_damaged_manifest_is_refused_once(folder: Path, following: Following, models: list[bytes]) -> None:
    """Torn, older, of another key: counted once each."""
    good = (folder / PUBLICATION_MANIFEST).read_bytes()
    put(folder, models[1])
    newer = (folder / PUBLICATION_MANIFEST).read_bytes()
    (folder / PUBLICATION_MANIFEST).write_bytes(newer[:-20])
    assert not any(following.check() for _ in range(3))
    assert following.status()["refused"] == 1
    (folder / PUBLICATION_MANIFEST).write_bytes(newer)
    assert following.check()
    (folder / PUBLICATION_MANIFEST).write_bytes(good)
    assert not any(following.check() for _ in range(3))
    assert following.status()["refused"] == 2
    assert "generations rise" in str(following.status()["last_problem"])
    assert following.status()["generation"] == 2


def test_what_is_away_is_looked_for_again(folder: Path, following: Following, models: list[bytes]) -> None:
    """A share that is gone, an artifact that is copied after its manifest: not refused, but retried."""
    name = f"{put(folder, models[1]).current.sha256}.onnx"
    (folder / name).rename(folder / "away")
    assert not any(following.check() for _ in range(3))
    status = following.status()
    assert (status["refused"], status["read_errors"], status["generation"]) == (0, 3, 1)
    (folder / "away").rename(folder / name)
    assert following.check()
    manifest = folder / PUBLICATION_MANIFEST
    manifest.rename(folder / "away")
    assert not following.check()
    assert following.status()["read_errors"] == 4


def test_a_signed_publication_is_followed_with_its_key_only(tmp_path: Path, models: list[bytes]) -> None:
    """Whoever can write to the folder and has no key changes nothing."""
    put(tmp_path, models[0], key=KEY)
    with pytest.raises(ArtifactError, match="signed"):
        follow(tmp_path, key=b"another key of 16", interval_seconds=None)
    with follow(tmp_path, key=KEY, interval_seconds=None) as following:
        put(tmp_path, models[1], key=KEY)
        genuine = (tmp_path / PUBLICATION_MANIFEST).read_bytes()
        forged = Publication.from_bytes(genuine, KEY)
        (tmp_path / PUBLICATION_MANIFEST).write_bytes(forged.to_bytes())
        assert not following.check()
        assert following.status()["refused"] == 1
        (tmp_path / PUBLICATION_MANIFEST).write_bytes(genuine)
        assert following.check()


def test_a_bidder_that_starts_takes_the_newest_good_release(folder: Path, models: list[bytes]) -> None:
    """As one that ran before would have kept it; with none good it says why."""
    put(folder, models[1])
    put(folder, b"bad")
    put(folder, b"worse")
    with follow(folder, interval_seconds=None) as following:
        assert following.status()["generation"] == 2
        assert following.status()["refused"] == 2
        put(folder, models[2])
        assert following.check()
    with pytest.raises(ConfigError, match="publication"):
        follow(folder / "nothing")
    put(folder / "bad", b"bad")
    with pytest.raises(ArtifactError):
        follow(folder / "bad")
    with pytest.raises(ConfigError, match="interval"):
        follow(folder, interval_seconds=0.0)


# ---- exactly one version per call ----


def swappable(following: Following, models: list[bytes]) -> list[Version]:
    """Versions of the models, to be swapped in without reading files."""
    return [
        Version(
            Scorer(parse_artifact(model)),
            replace(following.version.release),
            math.nan,
            Age.FRESH,
            lambda: None,
        )
        for model in models
    ]


def fresh(version: Version) -> Version:
    """A swap fills a new version's line items."""
    return Version(version.scorer, version.release, version.born, version.age, lambda: None)


def calls_during_swaps(following: Following, models: list[bytes], swaps: int) -> tuple[int, list[str]]:
    """(calls, what was wrong) of threads that call while versions are swapped."""
    lines = [following.line_item(**{**TERMS, "value_per_click": value}) for value in (40.0, 60.0)]
    allowed = [[bid_of(model, value_per_click=value) for value in (40.0, 60.0)] for model in models]
    single = [{bids[i] for bids in allowed} for i in (0, 1)]
    best = {(1, bids[1]) for bids in allowed}
    wrong: list[str] = []
    n_calls = [0, 0, 0]
    stop = threading.Event()

    def call(thread: int) -> None:
        try:
            while not stop.is_set():
                for i in (0, 1):
                    if following.bid(REQUEST, lines[i]) not in single[i]:
                        wrong.append("bid")
                if following.best(REQUEST, lines) not in best:
                    wrong.append("best")
                if following.decide(REQUEST, lines[0])[0] not in single[0]:
                    wrong.append("decide")
                n_calls[thread] += 4
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(len(n_calls))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        versions = swappable(following, models)
        for n in range(swaps):
            following._swap(fresh(versions[n % len(versions)]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    return sum(n_calls), wrong


def test_calls_during_swaps_see_exactly_one_version(following: Following, models: list[bytes]) -> None:
    """10,000 swaps (BIDML_LONG_TESTS=1: 100,000) under three calling threads."""
    swaps = 100_000 if LONG else 10_000
    calls, wrong = calls_during_swaps(following, models, swaps)
    assert wrong == []
    assert calls > 100
    assert following.status()["swaps"] == swaps


def test_the_check_catches_a_swap_of_two_references(
    following: Following, models: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin reads the version twice in one call: the scorer of one, the line item of another."""

    def bid(self: Following, request: object, line: Any, imp: int = 0) -> float:
        scorer = self.version.scorer
        time.sleep(0)
        return scorer.bid(request, self.version.lines[line.key], imp)

    monkeypatch.setattr(Following, "bid", bid)
    assert calls_during_swaps(following, models, 3000)[1] != []


def test_an_old_version_is_freed_when_its_last_call_ends(
    folder: Path, following: Following, models: list[bytes]
) -> None:
    """Two swaps later nothing holds it (the one before the current is kept for its counters)."""
    oldest = weakref.ref(following.version.scorer)
    for number in (1, 2):
        put(folder, models[number])
        following.check()
    gc.collect()
    assert oldest() is None


# ---- stale models ----

POLICY = Staleness(aged_after_seconds=3600.0, expired_after_seconds=7200.0, aged_cap_factor=0.125)


def test_a_model_ages_by_the_monotonic_clock(folder: Path, models: list[bytes]) -> None:
    """Fresh to the cap, aged to a lower cap, expired no bid; the wall clock is asked once."""
    clocks = Time("2026-11-07T00:30:00+00:00")
    tight = {"cap_cpm": 4.0}
    with follow(folder, interval_seconds=None, staleness=POLICY, clocks=clocks) as following:
        line = following.line_item(**{**TERMS, **tight})
        assert following.bid(REQUEST, line) == bid_of(models[0], **tight)
        assert following.status()["age_seconds"] == pytest.approx(1800.0)
        clocks.now -= 1e6  # the wall clock is set back: nothing becomes young
        clocks.passed += 1799.0
        assert not following.check()
        clocks.passed += 1.0
        assert following.check()
        assert following.status()["age"] == "aged"
        assert following.bid(REQUEST, line) == bid_of(models[0], cap_cpm=0.5)
        assert following.bid(REQUEST, following.line_item(**{**TERMS, **tight})) == bid_of(
            models[0], cap_cpm=0.5
        )
        clocks.passed += 3600.0
        assert following.check()
        assert following.bid(REQUEST, line) == 0.0
        assert following.decide(REQUEST, line) == (0.0, NoBidReason.STALE_MODEL)
        assert following.best(REQUEST, [line]) == (-1, 0.0)
        why = following.explain(REQUEST, line)
        assert (why.bid_cpm, why.reason) == (0.0, NoBidReason.STALE_MODEL)
        assert "stale_model" in str(why)
        assert following.counters()["stale_model"] == 3
        put(folder, models[1], data_end="2026-11-07T02:00:00+00:00")
        clocks.now = datetime(2026, 11, 7, 2, 30, tzinfo=UTC).timestamp()
        assert following.check()
        assert following.status()["age"] == "fresh"
        assert following.bid(REQUEST, line) == bid_of(models[1], **tight)
        assert following.status()["swaps"] == 1  # ageing is no swap of models


def test_a_new_generation_of_the_same_artifact_keeps_its_age(folder: Path, models: list[bytes]) -> None:
    """A rollback to old data is old data."""
    clocks = Time("2026-11-07T01:30:00+00:00")
    put(folder, models[1], data_end="2026-11-07T01:00:00+00:00")
    with follow(folder, interval_seconds=None, staleness=POLICY, clocks=clocks) as following:
        assert following.status()["age"] == "fresh"
        republish(folder)
        assert following.check()
        assert following.status()["age"] == "aged"


def test_a_model_without_a_data_end_is_refused_where_age_matters(tmp_path: Path, models: list[bytes]) -> None:
    """An unknown age is not young. The artifact's own provenance is enough."""
    put(tmp_path, models[0])
    with pytest.raises(ArtifactError, match="when its data ends"):
        follow(tmp_path, interval_seconds=None, staleness=POLICY)
    told = artifact(1, provenance={"window": ["2026-11-06T00:00:00+00:00", DATA_END]})
    put(tmp_path, told)
    clocks = Time("2026-11-07T00:30:00+00:00")
    with follow(tmp_path, interval_seconds=None, staleness=POLICY, clocks=clocks) as following:
        assert following.status()["age_seconds"] == pytest.approx(1800.0)
        put(tmp_path, models[2])
        assert not following.check()
        assert following.status()["refused"] == 1


def test_a_hanging_share_does_not_keep_a_model_young(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks hangs; the one that knows the clock does not."""
    hang = threading.Event()
    clocks = Time("2026-11-07T00:30:00+00:00")
    with follow(folder, interval_seconds=0.01, staleness=POLICY, clocks=clocks) as following:
        monkeypatch.setattr("bidml.score.following.read_manifest_bytes", lambda _: hang.wait(60.0) and b"")
        line = following.line_item(**TERMS)
        time.sleep(0.05)
        clocks.passed += 7200.0
        until = time.monotonic() + 30.0
        while following.bid(REQUEST, line) > 0.0 and time.monotonic() < until:
            time.sleep(0.01)
        assert following.decide(REQUEST, line) == (0.0, NoBidReason.STALE_MODEL)
        hang.set()


def test_growing_old_never_undoes_a_swap(following: Following, models: list[bytes]) -> None:
    """An age that was looked up before a swap is of the version before."""
    before = following.version
    new = swappable(following, models)[1]
    following._swap(new)
    following._swap(fresh(before), instead_of=before)
    assert following.version is new


@pytest.mark.parametrize(
    "numbers",
    [
        (0.0, 1.0, 0.5),
        (2.0, 1.0, 0.5),
        (1.0, 2.0, 0.0),
        (1.0, 2.0, 1.5),
        (math.nan, 2.0, 0.5),
        (1.0, math.nan, 1.0),
    ],
)
def test_an_impossible_policy_is_refused(numbers: tuple[float, float, float]) -> None:
    """At the edge."""
    with pytest.raises(ConfigError):
        Staleness(*numbers)


def test_the_real_clock_rises_and_knows_the_data_s_age() -> None:
    """Data that ended now is a few seconds old at most; data from the future is not younger than new."""
    clocks = Clocks()
    for end in (datetime.now(UTC).isoformat(), "2999-01-01T00:00:00+00:00"):
        born = clocks.born(end)
        assert 0.0 <= clocks.monotonic() - born < 60.0
    assert math.isnan(clocks.born(None))


# ---- what it costs ----


def test_following_imports_the_standard_library_only() -> None:
    """As all of bidml.score."""
    program = (
        "import sys\nimport bidml.score\n"
        "heavy = {'numpy', 'pandas', 'onnx', 'lightgbm', 'training', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_following_costs_a_fraction_of_a_bid(following: Following) -> None:
    """One Python call more than the scorer's own; generous for a busy machine."""
    line = following.line_item(**TERMS)
    version = following.version
    native = version.lines[line.key]

    def seconds(call: Any, argument: Any) -> float:
        best = math.inf
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(2000):
                call(REQUEST, argument)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(following.bid, line) < 5.0 * seconds(version.scorer.bid, native)


def test_a_release_is_frozen() -> None:
    """What a manifest says is read, not edited."""
    release = Release(1, "0" * 64, 1, None, DATA_END)
    with pytest.raises(AttributeError):
        release.generation = 2  # type: ignore[misc]
