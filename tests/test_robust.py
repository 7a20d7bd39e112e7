"""The robustness lane fits the code that it breaks: CI runs a part of it after the tests (.ci/run)."""

from __future__ import annotations

from pathlib import Path

from robust.__main__ import PYTHON
from robust.faults import FAULTS, edits, number_of
from robust.faults_of_pricing import FAULTS_OF_PRICING
from robust.table import ATTACKS

ROOT = Path(__file__).resolve().parents[1]


def test_every_fault_is_an_edit_of_one_place() -> None:
    """After a change of the code that a fault edits: write the fault again, in robust/faults.py."""
    assert len(edits()) > 10  # raises for an edit that does not apply exactly once
    for fault in FAULTS_OF_PRICING:
        assert (ROOT / "bidml" / fault.file).read_text().count(fault.old) == 1, fault.name
    names = [fault.name for fault in (*FAULTS, *FAULTS_OF_PRICING)]
    assert len(set(names)) == len(names) >= 60
    assert len({number_of(name) for name in names}) == len(names)


def test_every_attack_has_twins_that_exist() -> None:
    """A check that nothing has been shown to fail proves nothing."""
    native = {fault.name for fault in FAULTS}
    for attack in ATTACKS:
        assert attack.twins
        source = (ROOT / f"{attack.module.replace('.', '/')}.py").read_text()
        for build, fault in attack.twins:
            known = f'"{fault}":' in source if fault.startswith(PYTHON) else fault in native
            assert known, fault
            assert build.has_faults != fault.startswith(PYTHON), fault
