"""A program: publishers are killed (SIGKILL) at random instants; after each, and all the while, the folder is read.

    kill_publishers.py FOLDER KILLS SEED [sound|torn|early]

Prints JSON: kills, reads, torn (reads that found neither a whole old nor a whole new publication), generations, unused
(kills before anything was published). `torn` and `early` are deliberately broken publishers: a manifest written in
place, a manifest before its artifact.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from bidml.errors import ArtifactError, RefusedError
from bidml.score.publication import PUBLICATION_MANIFEST, Publication, Release, read_publication, read_release
from training import publication as writing


def artifact(number: int) -> bytes:
    """Some bytes; what is in an artifact does not matter here."""
    return hashlib.sha256(str(number % 5).encode()).digest() * 2000


def publish_sound(folder: Path, number: int) -> None:
    seen = read_publication(folder)
    with contextlib.suppress(RefusedError):
        writing.publish_bytes(
            folder, artifact(number), expected_generation=seen.current.generation if seen else 0
        )


def publish_in_place(folder: Path, number: int) -> None:
    """Broken: readers see a manifest that is being written."""
    writing.write_atomically = _write_in_place
    publish_sound(folder, number)


def publish_early(folder: Path, number: int) -> None:
    """Broken: readers are sent to an artifact that is not there yet."""
    data = artifact(number)
    seen = read_publication(folder)
    release = Release(
        seen.current.generation + 1 if seen else 1,
        hashlib.sha256(data).hexdigest(),
        len(data),
        None,
        "2026-11-07T00:00Z",
    )
    (folder / release.file_name).unlink(missing_ok=True)
    writing.write_atomically(folder / PUBLICATION_MANIFEST, Publication(release).to_bytes())
    writing.write_atomically(folder / release.file_name, data)


def _write_in_place(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        for start in range(0, len(data), 64):
            file.write(data[start : start + 64])
            file.flush()


PUBLISHERS = {"sound": publish_sound, "torn": publish_in_place, "early": publish_early}


def is_whole(folder: Path) -> bool:
    """One read, as a bidder reads; a release forgotten meanwhile is read again."""
    for _ in range(3):
        try:
            found = read_publication(folder)
            if found is not None:
                read_release(folder, found.current)
            return True
        except FileNotFoundError:
            continue
        except ArtifactError:
            return False
    return False


def main(folder: Path, kills: int, seed: int, publisher: str) -> None:
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"kills": 0, "reads": 0, "torn": 0, "unused": 0}
    for kill in range(kills):
        before = read_generation(folder)
        child = os.fork()
        if child == 0:
            for number in range(10**9):
                PUBLISHERS[publisher](folder, kill + number)
        until = time.monotonic() + rng.uniform(0.0, 0.04)  # a publication takes about 20 ms
        while time.monotonic() < until:
            counts["reads"] += 1
            counts["torn"] += not is_whole(folder)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counts["kills"] += 1
        counts["reads"] += 1
        counts["torn"] += not is_whole(folder)
        counts["unused"] += read_generation(folder) == before
        if publisher != "sound" and counts["torn"]:
            break
    print(json.dumps({**counts, "generations": read_generation(folder)}))


def read_generation(folder: Path) -> int:
    try:
        found = read_publication(folder)
    except ArtifactError:
        return -1
    return found.current.generation if found else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
