"""A share of the traffic by hash: the share that was asked for, the same everywhere, each arm its own model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import complete_blueprint

from bidml.blueprint import Calibration
from bidml.errors import ConfigError
from bidml.export import model_bytes
from bidml.score import follow
from bidml.score.canary import CHALLENGER, CONTROL, Canary
from bidml.self_check import self_check_of
from training.publication import publish_bytes

TERMS: dict[str, Any] = {"value_per_click": 40.0, "cap_cpm": 900.0, "creative": "320x50"}
REQUEST: dict[str, Any] = {"at": 1, "imp": [{}], "device": {"geo": {"country": "DEU"}}}


def artifact(shift: float) -> bytes:
    made = complete_blueprint()
    assert made.ctr is not None
    made = replace(made, ctr=replace(made.ctr, calibration=Calibration(1.25, 0.75, shift)))
    return model_bytes(made, self_check_of(made, {}))


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    for name, shift in (("champion", -0.5), ("challenger", -1.5)):
        publish_bytes(tmp_path / name, artifact(shift), expected_generation=0, data_end=None)
    arms = (follow(tmp_path / name, interval_seconds=None) for name in ("champion", "challenger"))
    with Canary(*arms, share=0.1, salt="one") as made:
        yield made


def test_the_share_is_the_one_that_was_asked_for_whatever_units_are_called(canary: Canary) -> None:
    """Numbers in a row, random names, another salt: each within chance of a tenth; salts split independently."""
    again = Canary(canary.control, canary.challenger, share=0.1, salt="two")
    n = 20_000
    for names in ([str(i) for i in range(n)], [f"user-{i * 7919 % 10**9:x}-{i}" for i in range(n)]):
        chosen = [[each.arm_of(name) is CHALLENGER for name in names] for each in (canary, again)]
        for arm in chosen:
            assert abs(sum(arm) - n / 10) < 5 * (n * 0.09) ** 0.5
        both = sum(a and b for a, b in zip(*chosen, strict=True))
        assert abs(both - n / 100) < 5 * (n * 0.0099) ** 0.5
    assert canary.arm_of("\ud800") in (CONTROL, CHALLENGER)
    everything = Canary(canary.control, canary.challenger, share=1.0, salt="x")
    nothing = Canary(canary.control, canary.challenger, share=0.0, salt="x")
    assert {everything.arm_of(str(i)) for i in range(999)} == {CHALLENGER}
    assert {nothing.arm_of(str(i)) for i in range(999)} == {CONTROL}


def test_each_arm_bids_with_its_own_model_and_one_pacing(canary: Canary) -> None:
    """bid, decide and best; a rolled back challenger bids as the champion, without a word to the bidder."""
    line = canary.line_item(**TERMS)
    line.pacing_multiplier = 0.5
    assert (
        line.control.pacing_multiplier == line.challenger.pacing_multiplier == line.pacing_multiplier == 0.5
    )
    units = [str(i) for i in range(200)]
    expected = {
        CONTROL: canary.control.bid(REQUEST, line.control),
        CHALLENGER: canary.challenger.bid(REQUEST, line.challenger),
    }
    assert len(set(expected.values())) == 2
    for unit in units:
        bid = expected[canary.arm_of(unit)]
        assert canary.bid(REQUEST, line, unit) == bid
        assert canary.decide(REQUEST, line, unit) == (bid, 0)
        assert canary.best(REQUEST, [line], unit) == (0, bid)


def test_a_share_or_salt_that_is_none_is_refused(canary: Canary) -> None:
    """Rule, value, remedy."""
    for share, salt in ((1.5, "x"), (0.1, ""), (float("nan"), "x")):
        with pytest.raises(ConfigError, match="canary"):
            Canary(canary.control, canary.challenger, share=share, salt=salt)
