"""Hot reload: a scorer that is always the newest good one of a publication. Standard library only.

A thread looks at the manifest; a new release is read into private memory, verified, lowered, replays its own rows,
and all line items are made again for it. Then one reference is swapped. A call takes that reference once and uses
nothing else, so it sees exactly one version; the hot path takes no lock. What is refused is refused once and counted,
and the version in service stays. The old version is freed when its last call ends.

Costs: `bid` is the scorer's one C call behind one Python call (about 0.12 µs more, a sixth); who cannot spare that
takes `version = following.version` once per request and calls `version.bid(request, version.lines[line.key])`. A swap
makes each line item again, about 30 µs each, while `line_item` and pacing wait; calls do not.

Threads do not survive `os.fork`: follow after forking.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from bidml.contract import NoBidReason
from bidml.errors import ArtifactError, BidmlError, ConfigError
from bidml.score.explanation import Explanation
from bidml.score.publication import (
    Publication,
    Release,
    data_end_of,
    read_manifest_bytes,
    read_release,
)
from bidml.score.reader import parse_artifact
from bidml.score.scorer import BestDealDecision, BestDecision, DealDecision, Decision, LineItem, Scorer
from bidml.score.staleness import Age, Clocks, Staleness
from bidml.score.telemetry import Telemetry
from bidml.score.version import Version, demand_interchangeable

_KEYS: Final = count()
_LONGEST_WAIT_FOR_AGE: Final = 1.0


class FollowedLine:
    """A line item whose terms outlive the model: made by `Following.line_item`, made again at each swap."""

    __slots__ = ("__weakref__", "_following", "_pacing_multiplier", "key", "terms")

    def __init__(self, following: Following, terms: dict[str, Any], pacing_multiplier: float) -> None:
        self.key = next(_KEYS)
        self.terms = terms
        self._following = following
        self._pacing_multiplier = pacing_multiplier

    @property
    def pacing_multiplier(self) -> float:
        return self._pacing_multiplier

    @pacing_multiplier.setter
    def pacing_multiplier(self, x: float) -> None:
        """Takes effect with the next call, in this version and later ones; raises `ValueError` as `LineItem` does."""
        with self._following._lock:
            self._following.version.lines[self.key].pacing_multiplier = x
            self._pacing_multiplier = x


class Following:
    """The newest good model of a publication, and the line items bound to it; made by `follow`."""

    def __init__(
        self,
        folder: Path,
        load: Callable[[bytes, Release], Scorer],
        *,
        key: bytes | None,
        staleness: Staleness | None,
        clocks: Clocks,
    ) -> None:
        self._folder = folder
        self._load = load
        self._key = key
        self._staleness = staleness
        self._clocks = clocks
        self._lock = threading.Lock()  # line items, pacing and swaps; never a call
        self._looking = threading.Lock()
        self._registered: dict[int, weakref.ref[FollowedLine]] = {}
        self._dropped: deque[int] = deque()
        self._handled = b""
        self._retired: Scorer | None = None
        self._before: Telemetry | None = None  # of the versions that are gone
        self._n_stale = 0
        self._count_lock = threading.Lock()
        self._seen: dict[str, Any] = {"swaps": 0, "refused": 0, "read_errors": 0, "last_problem": None}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.version: Version = self._first_version()

    # ---- the hot path ----

    def bid(
        self, request: object, line: FollowedLine, imp: int = 0, soft_floor_cpm: float | None = None
    ) -> float:
        """`Scorer.bid` with the version in service."""
        version = self.version
        return version.bid(request, version.lines[line.key], imp, soft_floor_cpm)

    def decide(
        self, request: object, line: FollowedLine, imp: int = 0, soft_floor_cpm: float | None = None
    ) -> Decision:
        """`Scorer.decide` with the version in service."""
        version = self.version
        return version.decide(request, version.lines[line.key], imp, soft_floor_cpm)

    def decide_deal(
        self, request: object, line: FollowedLine, imp: int = 0, soft_floor_cpm: float | None = None
    ) -> DealDecision:
        """`Scorer.decide_deal` with the version in service."""
        version = self.version
        return version.decide_deal(request, version.lines[line.key], imp, soft_floor_cpm)

    def best(
        self,
        request: object,
        lines: Sequence[FollowedLine],
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> BestDecision:
        """`Scorer.best` with the version in service: one version for all lines."""
        version = self.version
        of = version.lines
        return version.best(request, [of[line.key] for line in lines], imp, soft_floor_cpm)

    def best_deal(
        self,
        request: object,
        lines: Sequence[FollowedLine],
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> BestDealDecision:
        """`Scorer.best_deal` with the version in service: one version for all lines."""
        version = self.version
        of = version.lines
        return version.best_deal(request, [of[line.key] for line in lines], imp, soft_floor_cpm)

    # ---- the slow side ----

    def explain(
        self, request: object, line: FollowedLine, imp: int = 0, soft_floor_cpm: float | None = None
    ) -> Explanation:
        """`Scorer.explain` with the version in service."""
        version = self.version
        why = version.scorer.explain(request, version.lines[line.key], imp, soft_floor_cpm)
        return self._said(why, version)

    def explain_deal(
        self, request: object, line: FollowedLine, imp: int = 0, soft_floor_cpm: float | None = None
    ) -> Explanation:
        """`Scorer.explain_deal` with the version in service."""
        version = self.version
        why = version.scorer.explain_deal(request, version.lines[line.key], imp, soft_floor_cpm)
        return self._said(why, version)

    @staticmethod
    def _said(why: Explanation, version: Version) -> Explanation:
        if version.age is Age.EXPIRED:
            stale = NoBidReason.STALE_MODEL
            return replace(why, bid_cpm=0.0, win_rate=math.nan, propensity=math.nan, reason=stale, deal=None)
        return why

    def line_item(self, *, cap_cpm: float, pacing_multiplier: float = 1.0, **terms: Any) -> FollowedLine:
        """`Scorer.line_item`, for this version and every later one; raises as that does.

        A later model that reads a field which this line item does not give is refused: give new fields before models
        that need them. Under a later model without a CVR part a line item that pays for conversions does not bid.
        """
        line = FollowedLine(self, {"cap_cpm": cap_cpm, **terms}, pacing_multiplier)
        with self._lock:
            self._forget_dropped()
            version = self.version
            version.lines[line.key] = self._made(version.scorer.line_item, line, version.age)
            self._registered[line.key] = weakref.ref(line, partial(_note, self._dropped, line.key))
        return line

    def check(self) -> bool:
        """Looks at the clock and the folder now; true when another version is in service. Raises nothing."""
        with self._looking:
            before = self.version
            try:
                self._grow_old()
                self._look()
            except (
                OSError
            ) as error:  # a share that is away, an artifact not copied yet: the next look may succeed
                self._seen["read_errors"] += 1
                self._seen["last_problem"] = str(error)
            except Exception as error:  # whatever a candidate does, the version in service stays
                self._seen["refused"] += 1
                self._seen["last_problem"] = str(error)
            return self.version is not before

    def counters(self) -> dict[str, int]:
        """Decisions so far, of all versions, by `NoBidReason` name in lower case.

        A decision that is made while its version is replaced twice may be missing.
        """
        return self.telemetry().decisions

    def telemetry(self) -> Telemetry:
        """What all versions so far have done (`Scorer.telemetry`), and the decisions of a model too old."""
        with self._lock:
            total = self.version.scorer.telemetry()
            for part in (self._before, self._retired.telemetry() if self._retired is not None else None):
                if part is not None:
                    total = total + part
            stale = NoBidReason.STALE_MODEL.name.lower()
            return replace(total, decisions={**total.decisions, stale: self._n_stale})

    def status(self) -> dict[str, Any]:
        """What is in service, its age, and what was met: numbers for a monitor.

        `age_seconds` is None when the data's end is not known. `refused` counts candidates, `read_errors` looks that
        the file system failed; `last_problem` is the text of the last of either.
        """
        version = self.version
        age = self._clocks.monotonic() - version.born
        return {
            "generation": version.release.generation,
            "sha256": version.release.sha256,
            "data_end": version.release.data_end,
            "age_seconds": age if age == age else None,
            "age": version.age.value,
            "line_items": len(version.lines),
            **self._seen,
        }

    def close(self) -> None:
        """Stops looking; the version in service goes on bidding, and no longer ages."""
        self._stop.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads.clear()

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- versions ----

    def _first_version(self) -> Version:
        """The current release, or else the newest good one before it: what a running bidder would have kept."""
        try:
            data = read_manifest_bytes(self._folder)
        except OSError as error:
            raise ConfigError(
                "the folder holds a publication", value=str(error), remedy="publish a model to it first"
            ) from None
        publication = Publication.from_bytes(data, self._key)
        self._handled = data
        problem: Exception | None = None
        for release in publication.releases:
            try:
                return self._candidate(release, None)
            except (BidmlError, OSError) as error:
                problem = problem or error
                self._seen["refused"] += 1
                self._seen["last_problem"] = str(error)
        assert problem is not None
        raise problem

    def _look(self) -> None:
        data = read_manifest_bytes(self._folder)
        if data == self._handled:
            return
        try:
            release = Publication.from_bytes(data, self._key).current
            version = self.version
            if release == version.release:
                pass
            elif release.generation <= version.release.generation:
                raise ArtifactError(
                    f"generations rise; {version.release.generation} is in service",
                    value=release.generation,
                    remedy="publish or roll back with training, which makes a new generation",
                )
            else:
                self._swap(self._candidate(release, version))
        except BidmlError:
            self._handled = data  # refused once
            raise
        self._handled = data

    def _candidate(self, release: Release, now: Version | None) -> Version:
        """A version to replace `now`: verified, self-checked, of its currency, with an age where one is asked."""
        if now is not None and release.sha256 == now.release.sha256:
            scorer = now.scorer
        else:
            scorer = self._load(read_release(self._folder, release), release)
            if now is not None:
                demand_interchangeable(now.scorer, scorer)
        born = self._clocks.born(release.data_end or data_end_of(scorer.provenance))
        if self._staleness is not None and born != born:
            raise ArtifactError(
                "a model that may become stale says when its data ends",
                value=None,
                remedy="publish with --data-end, or train on a log with times",
            )
        return Version(scorer, release, born, self._age_of(born), self._count_stale)

    def _swap(self, version: Version, *, instead_of: Version | None = None) -> None:
        """Makes every line item for `version`, then puts it in service; raises, changing nothing, if one cannot be.

        With `instead_of`, only while that is still in service.
        """
        with self._lock:
            if instead_of is not None and self.version is not instead_of:
                return
            self._forget_dropped()
            for key, reference in self._registered.items():
                line = reference()
                if line is not None:
                    version.lines[key] = self._made(version.scorer.bound_line_item, line, version.age)
            replaced, self.version = self.version, version
            if replaced.scorer is not version.scorer:
                self._seen["swaps"] += 1
                if self._retired is not None:
                    gone = self._retired.telemetry()
                    self._before = gone if self._before is None else self._before + gone
                self._retired = replaced.scorer

    def _made(self, make: Callable[..., LineItem], line: FollowedLine, age: Age) -> LineItem:
        terms = dict(line.terms)
        if age is Age.AGED and self._staleness is not None:
            terms["cap_cpm"] = max(math.ulp(0.0), terms["cap_cpm"] * self._staleness.aged_cap_factor)
        return make(pacing_multiplier=line.pacing_multiplier, **terms)

    def _grow_old(self) -> None:
        version = self.version
        age = self._age_of(version.born)
        if age is not version.age:
            older = Version(version.scorer, version.release, version.born, age, self._count_stale)
            self._swap(older, instead_of=version)

    def _age_of(self, born: float) -> Age:
        if self._staleness is None:
            return Age.FRESH
        return self._staleness.age_at(self._clocks.monotonic() - born)

    def _forget_dropped(self) -> None:
        """Line items that nobody holds any more; their weak references only note it, for they may run anywhere."""
        while self._dropped:
            key = self._dropped.popleft()
            self._registered.pop(key, None)
            self.version.lines.pop(key, None)

    def _count_stale(self) -> None:
        with self._count_lock:
            self._n_stale += 1

    def _start(self, interval_seconds: float) -> None:
        """Two threads, for a share that hangs must not keep a model young."""
        ageing = min(interval_seconds, _LONGEST_WAIT_FOR_AGE)
        for name, seconds, work in (
            ("looks", interval_seconds, Following.check),
            ("ages", ageing, Following._age_now),
        ):
            thread = threading.Thread(
                target=_repeat,
                args=(weakref.ref(self), self._stop, seconds, work),
                name=f"bidml-{name}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def _age_now(self) -> None:
        """The clock alone: `check` may hang on the file system, and holds `_looking` then."""
        if self._staleness is not None:
            self._grow_old()


def follow(
    folder: str | Path,
    *,
    interval_seconds: float | None = 5.0,
    rates: dict[str, float] | None = None,
    strict: bool = False,
    isa: str = "best",
    key: bytes | None = None,
    staleness: Staleness | None = None,
    clocks: Clocks | None = None,
) -> Following:
    """Loads what `folder` publishes (docs/retraining.md) and follows it every `interval_seconds`.

    With `interval_seconds=None` no thread runs: call `check()`. `rates`, `strict`, `isa`: as `Scorer.load`. `key`: the
    manifest must be signed with it. `staleness`: what a model may still do as its data ages; without it, everything.
    Use it in a `with` statement or call `close()`. Raises `ConfigError` when nothing is published, `ArtifactError` when
    no release of the manifest is good.
    """
    if interval_seconds is not None and not interval_seconds > 0.0:
        raise ConfigError(
            "the interval is a number of seconds above 0, or None",
            value=interval_seconds,
            remedy="for example 5.0",
        )

    def load(data: bytes, release: Release) -> Scorer:
        return Scorer.of_artifact(
            parse_artifact(data, sha256=release.sha256), rates=rates, strict=strict, isa=isa
        )

    following = Following(Path(folder), load, key=key, staleness=staleness, clocks=clocks or Clocks())
    if interval_seconds is not None:
        following._start(interval_seconds)
    return following


def _note(dropped: deque[int], key: int, _: object) -> None:
    dropped.append(key)


def _repeat(
    reference: weakref.ref[Following],
    stop: threading.Event,
    seconds: float,
    work: Callable[[Following], object],
) -> None:
    """Until it is closed or nobody holds it."""
    while not stop.wait(seconds):
        following = reference()
        if following is None:
            return
        with suppress(Exception):  # without memory, say: the next time may succeed
            work(following)
        del following
