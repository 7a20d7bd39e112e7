"""A sampled log of decisions from which any bid is priced again, bit for bit (bidml/score/reprice.py).

One JSON object a line: the artifact's digest, the request, the line item's terms and pacing at that moment, the
clock, the bid. What is sampled depends on the request's id alone, so that bids, wins and clicks of one auction are
sampled together. The bidder's thread serialises a sampled request and queues it; another writes. A full queue or a disk
that fails drops records, counts them, and never stops a bid. Standard library only.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import random
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from bidml.errors import ConfigError
from bidml.score.exploration import propensity_text
from bidml.score.following import FollowedLine, Following
from bidml.score.scorer import DealDecision, Decision, LineItem, Scorer
from bidml.score.staleness import Age

Answer = TypeVar("Answer", Decision, DealDecision)

VERSION: Final = 1
_STOP: Final = ""


class DecisionLog:
    """Asks a scorer, or what follows a publication, and notes a `share` of the decisions in `path`.

    At `max_bytes` the file becomes `path`.1, that `path`.2, up to `keep`. Raises `ConfigError` for a share outside
    [0, 1], `OSError` when the file cannot be opened. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        share: float,
        max_bytes: int = 64 << 20,
        keep: int = 4,
        most_waiting: int = 10_000,
    ) -> None:
        if not 0.0 <= share <= 1.0:
            raise ConfigError("the sampled share lies in [0, 1]", value=share, remedy="for example 0.001")
        self._path = Path(path)
        self._threshold = round(share * 2**32)
        self._max_bytes = max_bytes
        self._keep = keep
        self._waiting: queue.Queue[str] = queue.Queue(most_waiting)
        self._seen = {"written": 0, "dropped": 0, "unwritable": 0, "write_errors": 0}
        self._file = self._path.open("ab")
        self._writer = threading.Thread(target=self._write, name="bidml-decisions", daemon=True)
        self._writer.start()

    # ---- the hot path ----

    def bid(
        self,
        bidder: Scorer | Following,
        request: object,
        line: LineItem | FollowedLine,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> float:
        """`bidder.bid`, noted when the request is sampled; the bytes of a request go to `bid_json`."""
        return self.decide(bidder, request, line, imp, soft_floor_cpm)[0]

    def decide(
        self,
        bidder: Scorer | Following,
        request: object,
        line: LineItem | FollowedLine,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> Decision:
        """`bidder.decide`, noted when the request is sampled; the bytes of a request go to `decide_json`."""
        scorer, bound, generation, is_stale = _bound(bidder, line)
        if is_stale:
            return bidder.decide(request, line, imp, soft_floor_cpm)  # type: ignore[arg-type]
        decide = scorer.decide_json if _is_bytes(request) else scorer.decide
        return self._noted(decide, scorer, request, bound, imp, soft_floor_cpm, generation)

    def decide_deal(
        self,
        bidder: Scorer | Following,
        request: object,
        line: LineItem | FollowedLine,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> DealDecision:
        """The same for `bidder.decide_deal`; the bytes of a request go to `decide_deal_json`."""
        scorer, bound, generation, is_stale = _bound(bidder, line)
        if is_stale:
            return bidder.decide_deal(request, line, imp, soft_floor_cpm)  # type: ignore[arg-type]
        decide = scorer.decide_deal_json if _is_bytes(request) else scorer.decide_deal
        return self._noted(decide, scorer, request, bound, imp, soft_floor_cpm, generation)

    def _noted(
        self,
        decide: Callable[..., Answer],
        scorer: Scorer,
        request: object,
        line: LineItem,
        imp: int,
        soft_floor_cpm: float | None,
        generation: int | None,
    ) -> Answer:
        if not self._is_sampled(request):
            return decide(request, line, imp, soft_floor_cpm)
        before = (int(time.time()), line.pacing_multiplier)
        decision = decide(request, line, imp, soft_floor_cpm)
        if before == (int(time.time()), line.pacing_multiplier):  # else it is not known which held
            self._note(scorer, request, line, imp, soft_floor_cpm, generation, before, decision)
        return decision

    def _is_sampled(self, request: object) -> bool:
        """By the hash of its id; of bytes, of all of them; without either, at random."""
        try:
            name = request if _is_bytes(request) else request.get("id")  # type: ignore[attr-defined]
            if isinstance(name, str):
                name = name.encode(errors="surrogatepass")
            hashed = zlib.crc32(name)  # type: ignore[arg-type]
        except Exception:  # whatever the request is
            hashed = random.getrandbits(32)
        return hashed < self._threshold

    def _note(
        self,
        scorer: Scorer,
        request: Any,
        line: LineItem,
        imp: int,
        soft_floor_cpm: float | None,
        generation: int | None,
        held: tuple[int, float],
        decision: Decision | DealDecision,
    ) -> None:
        try:
            if _is_bytes(request):
                asked: dict[str, Any] = {"request_base64": base64.b64encode(bytes(request)).decode()}
            else:
                asked = {"request": json.loads(json.dumps(request))}
            record = {
                "version": VERSION,
                "sha256": scorer.sha256,
                "generation": generation,
                "seconds": held[0],
                "rates": {code: rate.hex() for code, rate in scorer.rates.items()},
                "line_item": {
                    "value_per_click": line.value_per_click.hex(),
                    "value_per_conversion": line.value_per_conversion.hex(),
                    "value_per_impression_cpm": line.value_per_impression_cpm.hex(),
                    "cap_cpm": line.cap_cpm.hex(),
                    "pacing_multiplier": held[1].hex(),
                    "fields": line.fields,
                },
                "imp": imp,
                **asked,
                "bid_cpm": decision[0].hex(),
                "reason": decision[1],
            }
            if len(decision) == 3:  # by deals
                record |= {"deals": list(line.deals), "deal": decision[2]}
            if soft_floor_cpm is not None:  # json keeps a double's bits, and what is none
                record["soft_floor_cpm"] = soft_floor_cpm
            if line.risk_aversion:
                record["risk_aversion"] = line.risk_aversion.hex()
            if line.exploration.share:
                record |= {
                    "exploration": line.exploration.to_json(),
                    "propensity": propensity_text(decision.propensity),
                }
            self._waiting.put_nowait(json.dumps(record, separators=(",", ":")))
        except queue.Full:
            self._seen["dropped"] += 1
        except Exception:  # a request that JSON cannot say
            self._seen["unwritable"] += 1

    # ---- the slow side ----

    def status(self) -> dict[str, int]:
        """Records `written`; `dropped` for a full queue; `unwritable` as JSON; `write_errors` of the disk."""
        return dict(self._seen)

    def close(self) -> None:
        """Writes what waits."""
        if self._writer.is_alive():
            self._waiting.put(_STOP)
            self._writer.join()

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self) -> None:
        while (record := self._waiting.get()) != _STOP:
            try:
                self._file.write(record.encode() + b"\n")
                if self._waiting.empty():
                    self._file.flush()
                if self._file.tell() >= self._max_bytes:
                    self._rotate()
                self._seen["written"] += 1
            except (OSError, ValueError):
                self._seen["write_errors"] += 1
        try:
            self._file.close()
        except OSError:
            self._seen["write_errors"] += 1

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._keep, 0, -1):
            older = self._path if number == 1 else Path(f"{self._path}.{number - 1}")
            if older.exists():
                os.replace(older, f"{self._path}.{number}")
        self._file = self._path.open("ab")


def _is_bytes(request: object) -> bool:
    return isinstance(request, bytes | bytearray | memoryview)


def _bound(
    bidder: Scorer | Following, line: LineItem | FollowedLine
) -> tuple[Scorer, LineItem, int | None, bool]:
    """The scorer that answers now, its line item, its generation, and whether it is too old to bid."""
    if isinstance(bidder, Following):
        version = bidder.version
        bound = version.lines[line.key]  # type: ignore[union-attr]
        return version.scorer, bound, version.release.generation, version.age is Age.EXPIRED
    return bidder, line, None, False  # type: ignore[return-value]


def read_decisions(paths: Sequence[str | Path]) -> list[Mapping[str, Any]]:
    """The records of log files, in order; a last line that was cut short is left out."""
    records = []
    for path in paths:
        *lines, _ = Path(path).read_bytes().split(b"\n")
        records += [json.loads(line) for line in lines]
    return records
