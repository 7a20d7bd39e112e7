"""Numbers in the bytes of a request: to the last bit, or none."""

from __future__ import annotations

import random

import pytest
from artifacts import complete_blueprint
from decisions import RATES, artifact_of

from bidml.contract import NoBidReason
from bidml.score import LineItem, Scorer


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(complete_blueprint()), rates=RATES)


@pytest.fixture(scope="module")
def line(scorer: Scorer) -> LineItem:
    return scorer.line_item(creative="", value_per_click=1e6, cap_cpm=1e5)


def decided(scorer: Scorer, line: LineItem, floor: str) -> tuple[float, int]:
    text = f'{{"at":1,"imp":[{{"bidfloorcur":"EUR","bidfloor":{floor}}}]}}'
    return scorer.decide_json(text.encode(), line)


def test_decimals_are_read_to_the_last_bit(scorer: Scorer, line: LineItem) -> None:
    """A floor just below the cap is the bid: of 15 to 19 digits, with and without an exponent."""
    chance = random.Random(7)
    for _ in range(3_000):
        digits = f"{chance.randrange(9 * 10**18, 10**19)}"[: chance.randrange(15, 20)]
        for floor in (f"{digits[:5]}.{digits[5:]}", f"{digits[0]}.{digits[1:]}e4"):
            assert decided(scorer, line, floor) == (float(floor), NoBidReason.BID), floor


@pytest.mark.parametrize("floor", ["1e999", "-1e999", "Infinity", "-Infinity", "NaN", "1" + "0" * 400])
def test_a_number_beyond_doubles_is_no_number(scorer: Scorer, line: LineItem, floor: str) -> None:
    """Python's decoder makes infinities of them; a floor that is none is refused."""
    assert decided(scorer, line, floor) == (0.0, NoBidReason.INVALID_FLOOR)
