"""Every file that the attack "files" saw accepted, once more under the sanitizers.

The reader is Python of the standard library: a file that it refuses never reaches the extension, so that of 10^6 files
only the accepted ones can do harm there. The shares of "files" leave them below `build/robust/accepted`; this attack
waits for all, loads each and scores its rows.
"""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np

from robust.builds import HOME
from robust.outcome import Effort, Outcome, Share

LEFT = HOME / "accepted"
_LONGEST_WAIT_S = 1_800


def forget() -> None:
    """Before the attack "files": what another run has left says nothing about this one."""
    shutil.rmtree(LEFT, ignore_errors=True)


def leave(files: list[bytes], share: Share) -> None:
    """Written by rename, with the number of shares in the name."""
    LEFT.mkdir(parents=True, exist_ok=True)
    partial = LEFT / f"{share.index}.partial"
    partial.write_bytes(b"".join(struct.pack("<I", len(data)) + data for data in files))
    partial.replace(LEFT / f"{share.index}-of-{share.of}")


def _files() -> Iterator[bytes]:
    until = time.monotonic() + _LONGEST_WAIT_S
    while not (found := sorted(LEFT.glob("*-of-*"))) or len(found) < int(found[0].name.rpartition("-")[2]):
        if time.monotonic() > until:
            raise TimeoutError("the attack on files has left none: it must run before")
        time.sleep(1.0)
    for path in found:
        with path.open("rb") as left:
            while head := left.read(4):
                yield left.read(struct.unpack("<I", head)[0])


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    from bidml.score.reader import parse_artifact
    from robust.hostile_files import ISAS, out_of_bounds

    outcome = Outcome()
    for data in islice(_files(), effort.of(short=200, ci=None, quick=None, long=None)):
        outcome.trials += 1
        outside = out_of_bounds(parse_artifact(data), isa=ISAS[outcome.trials % len(ISAS)])
        if outside:
            outcome.broke(outside, data)
    return outcome
