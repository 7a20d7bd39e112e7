"""Laws of the JSON path: the bytes of a request mean what `json.loads` would make of them, to the last bit."""

from __future__ import annotations

import gzip
import json
import math
import struct
from array import array
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from request_corpus import BASE, CATEGORIES, NUMBERS, TIMESTAMP, captured, line_of, scorer_of, texts_of

from bidml.contract import NoBidReason
from bidml.score import RequestError, Scorer

INVALID = (0.0, int(NoBidReason.INVALID_REQUEST))


@cache
def scorer() -> Scorer:
    return scorer_of(texts_of([BASE]) | {"city": {"Köln", "\U0001f600", ""}})


def decoded(data: bytes) -> Any:
    """`json.loads` of UTF-8; raises ValueError."""
    return json.loads(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogatepass"))


def bits(numbers: list[float]) -> list[bytes]:
    """Told apart: 0.0 and -0.0. Alike: every NaN."""
    return [struct.pack("<d", x) if x == x else b"nan" for x in numbers]


def assert_same(scorer: Scorer, line: Any, data: bytes, imp: int = 0) -> bool:
    """The decision and every raw feature from bytes equal those from the decoded request; whether it was one."""
    found = scorer._extract_json(data, imp)
    try:
        request = decoded(data)
    except (ValueError, RecursionError):
        assert scorer.decide_json(data, line, imp) == INVALID
        assert found is None
        return False
    assert scorer.decide_json(data, line, imp) == scorer.decide(request, line, imp)
    assert scorer.bid_json(bytearray(data), line, imp) == scorer.bid(request, line, imp)
    assert scorer.best_json(memoryview(data), [line, line], imp) == scorer.best(request, (line, line), imp)
    if not isinstance(request, dict):
        assert found is None
        return True
    imps = request.get("imp")
    auctioned = imps[imp] if isinstance(imps, list) and 0 <= imp < len(imps) else None
    categories, numbers = scorer._extract(request, auctioned if isinstance(auctioned, dict) else {})
    is_dated = (
        TIMESTAMP // 10**6 <= numbers[-1] // 10**6 <= 2e6
    )  # else the clock of the machine is read twice
    found_categories, found_numbers = found
    assert found_categories == categories
    assert bits(found_numbers[0 if is_dated else 2 :]) == bits(numbers[0 if is_dated else 2 :])
    return True


def test_every_captured_request_and_fixture_is_read_as_decoded(shared_data: Any) -> None:
    """3,500 real and odd requests, in several spellings, each of their impressions and one beyond."""
    requests = captured(shared_data)
    scorer = scorer_of(texts_of(requests))
    line = line_of(scorer)
    reasons = set()
    for request in requests:
        imps = request.get("imp") if isinstance(request, dict) else None
        for imp in range(min(len(imps), 3) + 1 if isinstance(imps, list) else 1):
            assert_same(
                scorer, line, json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass"), imp
            )
        for options in ({"separators": (",", ":")}, {"indent": 1}):
            assert_same(scorer, line, json.dumps(request, **options).encode())
        reasons.add(scorer.decide(request, line)[1])
    assert {0, 1, 4} <= reasons
    counters = scorer.counters()
    assert counters["bid"] > 1_000


def test_captured_lines_are_read_as_they_came(shared_data: Any) -> None:
    """The bytes of the capture themselves."""
    scorer = scorer_of({})
    line = line_of(scorer)
    with gzip.open(shared_data / "openrtb_adx_captured_2016.jsonl.gz") as lines:
        assert all(assert_same(scorer, line, data) for data in lines)


# ---- made documents ----------------------------------------------------------------------------------------------

NUMBERS_OF_JSON = st.one_of(
    st.floats().map(lambda x: json.dumps(x)),
    st.integers().map(str),
    st.integers(-(2**66), 2**66).map(str),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(
        ["-0", "-0.0", "1e400", "-1e400", "1e-400", "4.9e-324", "2.4703282292062327e-324", "2.47032822920623272e-324",
         "1.7976931348623157e308", "1.7976931348623159e308", "179769313486231580793e289", "9007199254740993",
         "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
         "0.1e1", "1E5", "0e0", "0e999999999999", "123456789012345678", "1.00000000000000011102230246251565404",
         "0.000000000000000000000000000000000000001", "1" * 400, "1" * 308 + ".5", "0." + "0" * 400 + "1e400",
         "1" * 4300, "1" * 4301, "1" * 4301 + ".0", "1" * 4301 + "e0"]
    ),
)  # fmt: skip
BAD_NUMBERS = st.sampled_from(
    ["01", "-", "+1", "1.", ".5", "1e", "1e+", "--1", "0x1", "1_000", "NaN", "-NaN", "Infinity", "-Infinity", "Inf",
     "-01", "\u0661", "1 2", "tru", "nul", "True", "None", "undefined", ""]
)  # fmt: skip
CHARACTERS = st.sampled_from(
    [*"abz09 /", "\\n", "\\\\", '\\"', "\\/", "\\b", "\\f", "\\r", "\\t", "\\u0041", "\\u00e9", "\\u0000",
     "\\ud83d\\ude00", "\\ud83d", "\\ude00", "\\uD83D\\u0041", "é", "漢", "\U0001f600", "\x7f", "\u2028",
     "K\\u00f6ln", "Köln", "com.example"]
)  # fmt: skip
BAD_CHARACTERS = st.sampled_from(
    ["\n", "\x00", "\x1f", "\\x", "\\u12", "\\u12G4", "\\U0041", "\t", "\\u 123"]
)
STRINGS = st.one_of(
    st.lists(CHARACTERS, max_size=6).map("".join),
    st.lists(CHARACTERS, min_size=1, max_size=3).map("".join).map(lambda text: text * 50),
    st.integers(1020, 1030).map(lambda n: "x" * n),
    st.integers(340, 345).map(lambda n: "漢" * n),
    st.integers(255, 259).map(lambda n: "\U0001f600" * n),
    st.tuples(st.sampled_from(["é", "\\u00e9", "漢"]), st.integers(1018, 1026)).map(
        lambda pair: "x" * pair[1] + pair[0]
    ),
    st.sampled_from(["10.1", "USD", "EUR", "com.example", "DEU", "7", "-3", "XXX"]),
).map(lambda text: f'"{text}"')
KEYS = sorted(
    {part for path in [*CATEGORIES.values(), *NUMBERS.values()] for part in path.split(".")}
    | {
        "at",
        "cur",
        "imp",
        "format",
        "w",
        "h",
        "audio",
        "native",
        "video",
        "utcoffset",
        "osv",
        "os",
        "bidfloorcur",
        "x",
        "",
    }
)


def spelled(key: str, at: int | None) -> str:
    """A key as a JSON string, one of its characters escaped."""
    if at is None or not key:
        return f'"{key}"'
    at %= len(key)
    return f'"{key[:at]}\\u{ord(key[at]):04x}{key[at + 1 :]}"'


KEY_STRINGS = st.builds(spelled, st.sampled_from(KEYS), st.sampled_from([None] * 6 + [0, 1, 2]))
SPACE = st.sampled_from(["", "", "", "", " ", "\n", "\t", "\r\n  "])


def documents(scalars: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON texts over the keys that the model reads, with duplicates among them."""

    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        pairs = st.tuples(SPACE, KEY_STRINGS, SPACE, SPACE, inner, SPACE).map(
            lambda p: f"{p[0]}{p[1]}{p[2]}:{p[3]}{p[4]}{p[5]}"
        )
        items = st.tuples(SPACE, inner, SPACE).map("".join)
        return st.one_of(
            st.lists(pairs, max_size=7).map(lambda found: "{" + (",".join(found) or " ") + "}"),
            st.lists(items, max_size=3).map(lambda found: "[" + ",".join(found) + "]"),
        )

    return st.recursive(scalars, grown, max_leaves=12)


SCALARS = st.one_of(NUMBERS_OF_JSON, STRINGS, st.sampled_from(["true", "false", "null", "NaN", "-Infinity"]))
PATHS = sorted(path for path in {*CATEGORIES.values(), *NUMBERS.values()} if not path.startswith("derived."))
OBJECTS = [
    "device",
    "device.geo",
    "app",
    "app.publisher",
    "site",
    "user",
    "ext",
    "imp.banner",
    "imp.pmp",
    "imp.video",
]


def document_at(path: str, value: str) -> str:
    """A request in which `value` stands at `path`."""
    inner = value
    parts = path.split(".")
    for i, part in reversed(list(enumerate(parts))):
        if part == "imp" and i == 0:
            inner = f"[{inner}]"
        inner = "{" + f'"{part}":{inner}' + "}"
    return inner


@st.composite
def requests(draw: st.DrawFn, values: st.SearchStrategy[str]) -> bytes:
    """The base request with keys put before or after what is there: the last of duplicates counts."""
    text = json.dumps(BASE, ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(PATHS + OBJECTS + ["imp", "cur", "at"]))
        inserted = document_at(path, draw(values))[1:-1]
        text = f"{text[:-1]},{inserted}}}" if draw(st.booleans()) else f"{{{inserted},{text[1:]}"
    # and inside the objects
    for name in ("banner", "geo", "device", "pmp", "publisher", "imp"):
        opening = f'"{name}": ' + ("[{" if name == "imp" else "{")
        if draw(st.integers(0, 2)) == 0:
            pair = f"{draw(KEY_STRINGS)}:{draw(values)}"
            text = text.replace(opening, f"{opening}{pair},", 1)
    return text.encode("utf-8", "surrogatepass")


@given(requests(SCALARS), st.integers(-1, 2))
@settings(max_examples=250)
def test_any_scalar_at_any_place_is_read_as_decoded(data: bytes, imp: int) -> None:
    """Texts, numbers and literals where the model reads, among duplicate and escaped keys."""
    assert_same(scorer(), line_of(scorer()), data, imp)


@given(requests(documents(SCALARS)), st.integers(0, 1))
@settings(max_examples=150)
def test_any_value_at_any_place_is_read_as_decoded(data: bytes, imp: int) -> None:
    """Objects and lists where scalars belong, and the other way round."""
    assert_same(scorer(), line_of(scorer()), data, imp)


@given(requests(st.one_of(BAD_NUMBERS, st.lists(st.one_of(BAD_CHARACTERS, CHARACTERS), min_size=1).map(
    lambda parts: '"' + "".join(parts) + '"'))))  # fmt: skip
@settings(max_examples=150)
def test_malformed_scalars_are_refused_where_json_refuses_them(data: bytes) -> None:
    """Half-written numbers, unknown literals, raw control characters, wrong escapes."""
    assert_same(scorer(), line_of(scorer()), data)


@given(documents(SCALARS))
@settings(max_examples=100)
def test_any_document_is_read_as_decoded(text: str) -> None:
    """Whatever is valid JSON, request or not (integers of over 4,300 digits are not)."""
    assert_same(scorer(), line_of(scorer()), text.encode("utf-8", "surrogatepass"))


SURGERY = st.tuples(
    st.sampled_from(["cut", "flip", "insert", "copy", "swap"]),
    st.floats(0, 1),
    st.integers(0, 60),
    st.one_of(
        st.binary(min_size=1, max_size=3),
        st.sampled_from([*(c.encode() for c in '{}[]",:\\eE.-+0 n'), b"\xed\xa0\x80"]),
    ),
)  # fmt: skip


def operated(data: bytes, operations: list[tuple[str, float, int, bytes]]) -> bytes:
    for kind, where, size, new in operations:
        at = int(where * len(data))
        if kind == "cut":
            data = data[:at] + data[at + size :]
        elif kind == "flip" and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ new[0]]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "copy":
            data = data[:at] + data[at : at + size] + data[at:]
        elif kind == "swap":
            data = data[:at] + new + data[at + len(new) :]
    return data


@given(st.booleans(), st.lists(SURGERY, min_size=1, max_size=3))
@settings(max_examples=500)
@example(True, [("cut", 1.0, 0, b"x")])
def test_mutated_bytes_are_read_or_refused_as_decoded(is_ascii: bool, operations: Any) -> None:
    """Cut, flipped, inserted, doubled: never another meaning, never a guess."""
    data = json.dumps(BASE, ensure_ascii=is_ascii, separators=(",", ":")).encode()
    assert_same(scorer(), line_of(scorer()), operated(data, operations))


@pytest.mark.parametrize("is_ascii", [True, False])
def test_every_beginning_of_a_request_is_refused(is_ascii: bool) -> None:
    """A connection that broke anywhere: every prefix is malformed, and nothing beyond it is read."""
    data = json.dumps(BASE, ensure_ascii=is_ascii).encode()
    line = line_of(scorer())
    for n in range(len(data)):
        assert scorer().decide_json(data[:n], line) == INVALID
    assert scorer().decide_json(data, line)[1] == 0


def test_every_byte_in_every_place_of_a_small_request() -> None:
    """All single-byte substitutions."""
    data = b'{"imp":[{"bidfloor":1e-1,"id":"\\u00e9\xc3\xa9"}],"cur":null}'
    line = line_of(scorer())
    n_read = 0
    for at in range(len(data)):
        for byte in range(256):
            n_read += assert_same(scorer(), line, data[:at] + bytes([byte]) + data[at + 1 :])
    assert n_read > 1_000


@pytest.mark.parametrize(
    "sequence",
    [b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xe0\xa0\x80", b"\xed\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
     b"\xf0\x8f\xbf\xbf", b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\x80",
     b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\xbd\xed\xb8\x80"],
)  # fmt: skip
def test_utf8_is_judged_as_python_does(sequence: bytes) -> None:
    """Overlong, surrogate, too large, cut short: in a text that is read, one that is not, and a key."""
    for data in (
        b'{"imp":[{"id":"x%s"}]}',
        b'{"imp":[{"other":"x%s"}]}',
        b'{"imp":[{"i%sd":"x"}]}',
        b'{"imp":[{"id":"%s',
    ):
        assert_same(scorer(), line_of(scorer()), data % sequence)


def test_nesting_is_bounded() -> None:
    """512 levels are read, 513 are refused, as are a million: in a part that is read, and in one that is not."""
    line = line_of(scorer())
    for place in (
        '{"x":%s,"imp":[{}]}',
        '{"imp":[{"ext":%s}]}',
        '{"cur":%s,"imp":[{}]}',
        '{"imp":[{"banner":{"format":[%s]}}]}',
    ):
        outside = place.index("%s")
        depth = place[:outside].count("{") + place[:outside].count("[")
        for opening, closing in (("[", "]"), ('{"a":', "}"), ('{"ext":', "}"), ('{"geo":', "}")):
            for n, is_read in ((512 - depth, True), (513 - depth, False), (100_000, False)):
                inner = opening * n + ("" if opening == "[" else "0") + closing * n
                found = scorer()._extract_json((place % inner).encode(), 0)
                assert (found is not None) == is_read, (place, opening, n)
    assert scorer().decide_json(b"[" * 1_000_000, line) == INVALID
    assert scorer().decide_json(b'{"device":' * 1_000_000, line) == INVALID


def test_a_byte_order_mark_is_allowed_and_other_encodings_are_not() -> None:
    """As json.loads takes UTF-8 with a mark; UTF-16 and UTF-32 are refused."""
    text = json.dumps(BASE)
    assert assert_same(scorer(), line_of(scorer()), b"\xef\xbb\xbf" + text.encode())
    for encoding in ("utf-16", "utf-32", "utf-16-le", "utf-32-be"):
        assert scorer().decide_json(text.encode(encoding), line_of(scorer())) == INVALID


def test_what_has_no_bytes_is_an_error_of_the_caller() -> None:
    """A decoded request or a text goes to bid; the message says so."""
    line = line_of(scorer())
    for wrong in (BASE, "{}", None, 3):
        with pytest.raises(TypeError, match="a JSON request is bytes"):
            scorer().bid_json(wrong, line)
    assert scorer().bid_json(array("B", json.dumps(BASE).encode()), line) == scorer().bid(BASE, line)
    with pytest.raises(TypeError):
        scorer().bid_json(b"{}")


def test_strict_raises_for_bytes_that_are_no_request() -> None:
    """strict=True tells a broken request from a no-bid."""
    strict = scorer_of({}, strict=True)
    line = line_of(strict)
    with pytest.raises(RequestError, match="invalid_request"):
        strict.bid_json(b'{"imp":', line)
    assert strict.bid_json(json.dumps(BASE).encode(), line) > 0.0


def test_decisions_from_bytes_are_counted() -> None:
    """One counter for both ways in."""
    counted = scorer_of({})
    line = line_of(counted)
    counted.bid_json(b"nonsense", line)
    counted.bid_json(json.dumps(BASE).encode(), line)
    assert (counted.counters()["invalid_request"], counted.counters()["bid"]) == (1, 1)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 40), st.booleans())
@settings(max_examples=400)
def test_numbers_are_rounded_as_float_rounds(x: float, n_digits: int, is_halfway: bool) -> None:
    """Short, long, and exactly between two doubles, with a digit beyond."""
    if is_halfway and 0.0 < abs(x) < 1e300:
        middle = (Fraction(x) + Fraction(math.nextafter(x, math.inf))) / 2
        n_places = max(0, middle.denominator.bit_length() - 1)
        digits = str(abs(middle.numerator) * 5**n_places).rjust(n_places + 1, "0")
        at = len(digits) - n_places
        text = f"{'-' if middle < 0 else ''}{digits[:at]}.{digits[at:]}0{'0' * n_digits}{n_digits % 2}"
    else:
        text = f"{x:.{n_digits}e}"
    data = b'{"imp":[{}],"device":{"geo":{"lat":%s}}}' % text.encode()
    _, numbers = scorer()._extract_json(data, 0)
    want = float(text)
    assert bits([numbers[list(NUMBERS).index("lat")]]) == bits([want if math.isfinite(want) else math.nan])
