"""Requests as bytes: `bid_json` on every request of the shared data, damaged at every place and in every way.

Held: no exception; `decide_json(x)` is `decide(json.loads(x))`, or an invalid request where `json.loads` refuses;
nothing outside the bytes is read (under the sanitizers each text has its own memory). Python reads two things that a
bidder does not, and the comparison leaves them out: UTF-16 and UTF-32, and nesting beyond 512.
"""

from __future__ import annotations

import gc
import json
import os
import random
from typing import Any

import numpy as np

from bidml.contract import NoBidReason
from robust.corpus import requests
from robust.models import CAP_CPM, line_of, scorer_of, wide_blueprint
from robust.outcome import WHOLE, Effort, Outcome, Share

# With a sanitizer: a text that nothing follows, where the bytes of Python have a NUL.
_HAS_OWN_MEMORY = os.environ.get("PYTHONMALLOC") == "malloc"
_TOKENS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b" ",
        b"\n",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"-",
        b"0",
        b"01",
        b"1e999",
        b"-0.0",
        b"1E+2",
        b"1.",
        b".5",
    ),
    *(
        b"9223372036854775807",
        b"9223372036854775808",
        b"1" * 310,
        b"1" * 4_301,
        b"0.1234567890123456789",
        b"1e-400",
    ),
    *(
        b'"imp"',
        b'"imp":[{"bidfloor":1}],',
        b'"at":2,',
        b'"cur":["EUR"],',
        b'"\\u0069mp":[],',
        b'"\\ud800"',
        b'"\\u12"',
    ),
    *(
        b'"device":{"geo":{"country":"DEU"}},',
        b'"device":1,',
        b'"bidfloor":-1,',
        b'"bidfloorcur":"XXX",',
        b'"w":1.5,',
    ),
    *(
        b"[" * 600,
        b'{"a":' * 600,
        b"/**/",
        b"'",
        b"2.2250738585072011e-308",
        b"1.7976931348623159e308",
        b"4.9e-324",
    ),
)


# Texts that end in the middle of something.
_STARTS = (
    b"",
    b"{",
    b'{"',
    b'{"a":',
    b'{"a":"',
    b'{"imp":[{"tagid":"',
    b'{"imp":[{"bidfloor":',
    b'{"imp":[{}],"cur":["',
)
_ENDS = (
    *(
        b"\\",
        b"\\u",
        b"\\u1",
        b"\\u12",
        b"\\u123",
        b"\\ud83d",
        b"\\ud83d\\",
        b"\\ud83d\\ud",
        b"\\ud83d\\ude00",
    ),
    *(
        b"",
        b'"',
        b"a",
        b"-",
        b"1",
        b"1e",
        b"1.",
        b"1e+",
        b"t",
        b"tru",
        b"nul",
        b"fals",
        b"N",
        b"Na",
        b"Infinit",
        b"-I",
    ),
    *(
        b"\xe2",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xed\xa0",
        b"\xef\xbb",
        b"[",
        b"]",
        b"[1,",
        b'{"a"',
        b"x" * 15,
        b"x" * 16,
    ),
)


def attack(effort: Effort, rng: np.random.Generator, share: Share = WHOLE) -> Outcome:
    gc.disable()
    outcome = Outcome()
    judge = _Judge(outcome)
    corpus = [json.dumps(request, ensure_ascii=i % 2 == 0).encode() for i, request in enumerate(requests())]
    corpus = corpus[:: effort.of(short=10, ci=1, quick=1, long=1)]
    for i, text in enumerate(corpus):
        if share.has(i):
            judge(text)
    for text in (b"[" * 1_000_000, b'{"a":' * 1_000_000, b'{"imp":[{}],"x":"' + b"y" * (16 << 20) + b'"}'):
        judge(text)
    for start in _STARTS:
        for end in _ENDS:
            judge(start + end)
    small = [text for i, text in enumerate(corpus) if len(text) < 1_500 and share.has(i)]
    for text in small[:: max(1, len(small) // effort.of(short=2, ci=20, quick=120, long=3_000))]:
        for length in range(len(text)):
            judge(text[:length])
    for text in small[: effort.of(short=1, ci=1, quick=4, long=200)]:
        for position in range(len(text)):
            for value in range(256):
                judge(text[:position] + bytes((value,)) + text[position + 1 :])
    n = effort.of(short=30_000, ci=200_000, quick=1_200_000, long=100_000_000) // share.of
    _tokens(judge, small, random.Random(int(rng.integers(2**32))), n)
    for kind in (bytearray, memoryview):
        for text in corpus[:100]:
            view: Any = kind(text)
            outcome.demand(judge.native(view) == judge.native(text), f"a {kind.__name__} of {text[:80]!r}")
    outcome.note(f"{judge.n_bids:,} bids, {judge.n_refused:,} refused as JSON")
    return outcome


class _Judge:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.scorer = scorer_of(wide_blueprint())
        self.line = line_of(self.scorer)
        self.n_bids = self.n_refused = 0

    def native(self, text: Any) -> Any:
        return self.scorer.decide_json(text, self.line)

    def __call__(self, text: bytes) -> None:
        self.outcome.trials += 1
        try:
            found = self.native(np.frombuffer(text, np.uint8).copy() if _HAS_OWN_MEMORY else text)
        except BaseException as error:
            self.outcome.broke(f"{text[:300]!r}: {error!r}", text)
            return
        self.n_bids += found[0] > 0.0
        if not 0.0 <= found[0] <= CAP_CPM:
            self.outcome.broke(f"{text[:300]!r}: {found}", text)
        try:
            decoded = json.loads(text)
        except RecursionError:
            return
        except ValueError:
            self.n_refused += 1
            wanted = (0.0, int(NoBidReason.INVALID_REQUEST))
        else:
            wanted = self.scorer.decide(decoded, self.line)
        if found != wanted and not _read_by_python_only(text):
            self.outcome.broke(f"{text[:1500]!r}: bytes say {found}, json.loads says {wanted}", text)


def _read_by_python_only(text: bytes) -> bool:
    if json.detect_encoding(text) not in ("utf-8", "utf-8-sig"):
        return True
    depth = deepest = 0
    for byte in text:
        depth += (byte in b"[{") - (byte in b"]}")
        deepest = max(deepest, depth)
    return deepest > 500


def _tokens(judge: _Judge, corpus: list[bytes], rng: random.Random, n: int) -> None:
    """Tokens put in, texts cut and joined, values doubled."""
    for _ in range(n):
        text = rng.choice(corpus)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(text) + 1)
            match rng.randrange(5):
                case 0:
                    text = text[:at] + rng.choice(_TOKENS) + text[at:]
                case 1:
                    text = text[:at] + rng.choice(_TOKENS) + text[at + rng.randrange(1, 9) :]
                case 2:
                    text = text[:at] + text[at + rng.randrange(1, 30) :]
                case 3:  # keys that come again, values at other places
                    start = rng.randrange(len(text) + 1)
                    text = text[:at] + text[start : start + rng.randrange(60)] + text[at:]
                case _:  # right after a brace or a comma, where a key may stand
                    places = [i + 1 for i, byte in enumerate(text) if byte in b"{,"] or [0]
                    at = rng.choice(places)
                    text = text[:at] + rng.choice(_TOKENS) + text[at:]
        judge(text)
