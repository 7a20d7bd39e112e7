"""The long fields of a file, read in bulk by the extension, against the obvious reading of one byte after another."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bidml.score import _native

TAG = 0x0A
# Tags, short and long numbers, zeros that make a number longer than it is, text and halves of it.
PIECES = st.sampled_from(
    [
        b"\x0a",
        b"\x00",
        b"\x05",
        b"\x7f",
        b"\x80",
        b"\x81\x01",
        b"\xff\xff\xff\xff\x7f",
        b"a",
        "Ε".encode(),
        b"\xce",
    ]
)
BYTES = st.lists(PIECES, max_size=14).map(b"".join) | st.binary(max_size=24)


def varint(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """(value, where it ends) of at most 5 bytes."""
    value = 0
    for i in range(5):
        if at + i >= end:
            return None
        value |= (data[at + i] & 0x7F) << (7 * i)
        if data[at + i] < 0x80:
            return value, at + i + 1
    return None


def items(data: bytes, at: int, end: int, most: int, *, of_text: bool) -> tuple[list[int | bytes], int, str]:
    """The run in data[at:end], where it stops, and why it is none."""
    found: list[int | bytes] = []
    while at < end and data[at] == TAG:
        number = varint(data, at + 1, end)
        if number is None or (of_text and number[0] > end - number[1]):
            return [], at, "length" if of_text else "number"
        value, stop = number
        if stop - at > 2 and data[stop - 1] == 0:
            return [], at, "form"
        if len(found) == most:
            return [], at, "many"
        found.append(data[stop : stop + value] if of_text else value)
        at = stop + value if of_text else stop
    return found, at, ""


@given(BYTES, st.integers(0, 6), st.integers(0, 6), st.integers(0, 5))
@example(b"\x0a\xff\xff\xff\xff\x7f\x0a\x80", 0, 1, 5)
@example(b"\x0a\x80\x00", 0, 0, 5)
def test_numbers_in_bulk_are_the_numbers(data: bytes, start: int, cut: int, most: int) -> None:
    """Values, end and problem; nothing outside the part that was named."""
    start, end = min(start, len(data)), max(len(data) - cut, min(start, len(data)))
    raw, stop, problem = _native.read_numbers(data, start, end, TAG, most)
    assert (array("q", raw).tolist(), stop, problem) == items(data, start, end, most, of_text=False)


@given(BYTES, st.integers(0, 6), st.integers(0, 6), st.integers(0, 5))
@example(b"\x0a\x01a\x0a\x02\xce\x95\x0a\x00", 0, 0, 5)
@example(b"\x0a\x01a\x0a\x01\xce", 0, 0, 5)
@example(b"\x0a\x02a", 0, 0, 5)
def test_texts_in_bulk_are_the_texts(data: bytes, start: int, cut: int, most: int) -> None:
    """The same; a text that is no UTF-8 is told with its place."""
    start, end = min(start, len(data)), max(len(data) - cut, min(start, len(data)))
    want, stop, problem = items(data, start, end, most, of_text=True)
    found = _native.read_texts(data, start, end, TAG, most)
    try:
        texts = tuple(bytes(text).decode() for text in want)  # type: ignore[arg-type]
    except UnicodeDecodeError:
        assert (found[0], found[2]) == ((), "text")
        assert start < found[1] <= end
    else:
        assert found == (texts, stop, problem)


@pytest.mark.parametrize(("start", "end"), [(2, 1), (0, 4), (4, 4)])
def test_a_run_outside_its_bytes_is_refused(start: int, end: int) -> None:
    """The extension trusts nobody with an address."""
    for read in (_native.read_numbers, _native.read_texts):
        with pytest.raises(ValueError, match="inside its bytes"):
            read(b"\x0a\x01\x01", start, end, TAG, 9)
