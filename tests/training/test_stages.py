"""Stages are done or not, and done once."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from bidml.errors import DataError
from training.stages import Stage, Workshop


def workshop(folder: Path, code: str = "1") -> Workshop:
    return Workshop(folder, code=code, announce=lambda _: nullcontext())


class Maker:
    """Writes a file; counts how often it was asked."""

    def __init__(self, text: str = "made") -> None:
        self.text = text
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "out").write_text(self.text)


def test_a_stage_is_made_once_for_its_inputs_and_code(tmp_path: Path) -> None:
    """Other inputs, another name, other code: another stage."""
    make = Maker()
    first = workshop(tmp_path).run("fit", {"data": "a"}, make)
    again = workshop(tmp_path).run("fit", {"data": "a"}, make)
    assert (first.was_there, again.was_there, make.calls) == (False, True, 1)
    assert (again / "out").read_text() == "made"
    assert again.digest == first.digest
    workshop(tmp_path).run("fit", {"data": "b"}, make)
    workshop(tmp_path).run("fit2", {"data": "a"}, make)
    workshop(tmp_path, code="2").run("fit", {"data": "a"}, make)
    assert make.calls == 4


def test_the_digest_is_of_what_was_made(tmp_path: Path) -> None:
    """Not of how: equal outputs need not be worked on twice."""

    def digest(folder: str, text: str) -> str:
        return workshop(tmp_path / folder).run("fit", {"from": folder}, Maker(text)).digest

    assert digest("a", "x") == digest("b", "x") != digest("c", "y")


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """And is tried again."""

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise DataError("x", value=1, remedy="y")

    with pytest.raises(DataError):
        workshop(tmp_path).run("fit", {}, fail)
    assert list(tmp_path.iterdir()) == []
    assert not workshop(tmp_path).run("fit", {}, Maker()).was_there


@pytest.mark.parametrize("damage", ["altered", "removed", "added", "list"])
def test_a_damaged_stage_is_made_again(tmp_path: Path, damage: str) -> None:
    """Bit rot, a half-synced disk, somebody's editor."""
    stage: Stage = workshop(tmp_path).run("fit", {}, Maker())
    if damage == "altered":
        (stage / "out").write_text("other")
    elif damage == "removed":
        (stage / "out").unlink()
    elif damage == "added":
        (stage / "more").write_text("x")
    else:
        (stage / "stage.json").write_text("{")
    make = Maker()
    again = workshop(tmp_path).run("fit", {}, make)
    assert (again.was_there, make.calls, (again / "out").read_text()) == (False, 1, "made")


def test_what_a_killed_job_left_is_removed(tmp_path: Path) -> None:
    """Its unfinished stage counts for nothing."""
    (tmp_path / ".making-fit-1").mkdir()
    (tmp_path / ".making-fit-1" / "half").write_text("x")
    workshop(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_old_stages_are_forgotten_but_not_this_job_s(tmp_path: Path) -> None:
    """A job runs every night for years."""
    for night in range(10):
        work = workshop(tmp_path)
        mine = work.run("fit", {"night": night}, Maker())
        work.forget_old()
    assert mine.folder.exists()
    assert len(list(tmp_path.iterdir())) == 4
