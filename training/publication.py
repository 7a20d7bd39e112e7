"""The writing side of a publication: one publisher at a time, an artifact before the manifest that names it.

Under an exclusive `flock` on `.lock`: the manifest is read, its generation compared with the one the publisher saw,
the artifact written under its digest, read back and compared; then the manifest is replaced by rename. File and
folder are forced to the disk at each step, and success is returned only after the last. A publisher killed anywhere
leaves the old publication or the new one; what it left half-written is removed by the next.

Limits: all publishers run on file systems where `flock` excludes them (a local disk, NFSv4). Readers need no lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bidml.atomic import sync_file, sync_folder, write_atomically
from bidml.errors import ArtifactError, ConfigError, RefusedError
from bidml.score.publication import (
    MAX_HISTORY,
    PUBLICATION_MANIFEST,
    Publication,
    Release,
    read_publication,
    read_release,
)

LOCK: Final = ".lock"
LOCK_SECONDS: Final = 10.0


class StaleGenerationError(RefusedError):
    """The publication is no longer the one that the publisher saw: another was quicker."""


def publish_bytes(
    folder: str | Path,
    data: bytes,
    *,
    expected_generation: int,
    data_end: str | None = None,
    note: str = "",
    key: bytes | None = None,
    lock_seconds: float = LOCK_SECONDS,
) -> Publication:
    """Makes `data` the current release of `folder`, which was at `expected_generation` (0: nothing published).

    `data` is not looked into: `training.publish` has it checked. When it is the current release already, nothing
    changes but that it is forced to the disk once more. Raises `StaleGenerationError`, `RefusedError` when another
    publisher holds the lock for `lock_seconds`, `ArtifactError` for a damaged manifest, `OSError`; after an error the
    folder holds the old publication, or the new one whole.
    """
    folder = Path(folder)
    digest = hashlib.sha256(data).hexdigest()
    _make_folder(folder)

    def release_after(current: Publication | None, generation: int) -> Release:
        release = Release(generation, digest, len(data), data_end, _now(), note)
        _store(folder, release, data)
        return release

    return _commit(folder, digest, release_after, expected_generation, key, lock_seconds)


def republish(
    folder: str | Path,
    *,
    generation: int | None = None,
    expected_generation: int | None = None,
    note: str = "",
    key: bytes | None = None,
    lock_seconds: float = LOCK_SECONDS,
) -> Publication:
    """Rolls back: a new generation with the artifact of an old one.

    `generation`: which; by default the last one before the current artifact was first published. Raises as
    `publish_bytes`, `ConfigError` when there is no such release, `ArtifactError` when its file is not what it was.
    """
    folder = Path(folder)
    current = read_publication(folder, key=key)
    if current is None:
        raise ConfigError(
            "there is a publication to roll back",
            value=str(folder),
            remedy="name the folder of manifest.json",
        )
    target = release_before(current) if generation is None else release_of(current, generation)
    read_release(folder, target)

    def release_after(current: Publication | None, generation: int) -> Release:
        why = f"rollback to generation {target.generation}" + (f": {note}" if note else "")
        return Release(generation, target.sha256, target.n_bytes, target.data_end, _now(), why)

    seen = current.current.generation if expected_generation is None else expected_generation
    return _commit(folder, target.sha256, release_after, seen, key, lock_seconds)


def release_before(publication: Publication) -> Release:
    """The newest release before the current artifact was first published; raises `ConfigError`."""
    releases = publication.releases
    first = max(i for i, release in enumerate(releases) if release.sha256 == publication.current.sha256)
    if first + 1 == len(releases):
        raise ConfigError(
            "there is a release before the current artifact's first",
            value=[release.generation for release in releases],
            remedy="name a generation",
        )
    return releases[first + 1]


def release_of(publication: Publication, generation: int) -> Release:
    """The release of a generation in the manifest; raises `ConfigError`."""
    for release in publication.releases:
        if release.generation == generation:
            return release
    raise ConfigError(
        "the manifest knows the generation",
        value=generation,
        remedy=f"one of {[release.generation for release in publication.releases]}",
    )


def _commit(
    folder: Path,
    digest: str,
    release_after: Callable[[Publication | None, int], Release],
    expected_generation: int,
    key: bytes | None,
    lock_seconds: float,
) -> Publication:
    with _locked(folder, lock_seconds):
        current = read_publication(folder, key=key)
        seen = current.current.generation if current else 0
        if seen != expected_generation:
            raise StaleGenerationError(
                f"the publication is at generation {expected_generation}, as when this publisher began",
                value=seen,
                remedy="look at what was published meanwhile; judge the candidate against it, then publish again",
            )
        if current is not None and current.current.sha256 == digest:
            read_release(folder, current.current)
            for path in (folder / current.current.file_name, folder / PUBLICATION_MANIFEST):
                sync_file(path)
            sync_folder(folder)
            return current
        _remove_parts(folder)
        release = release_after(current, seen + 1)
        history = current.releases[:MAX_HISTORY] if current else ()
        publication = Publication(release, history)
        write_atomically(folder / PUBLICATION_MANIFEST, publication.to_bytes(key))
        if read_publication(folder, key=key) != publication:
            raise ArtifactError(
                "the folder publishes what was written",
                value=str(folder),
                remedy="something else writes here: find it before publishing again",
            )
        _remove_forgotten(folder, publication)
        return publication


def _store(folder: Path, release: Release, data: bytes) -> None:
    """The artifact under its digest, on the disk and read back; what lies there whole already stays."""
    path = folder / release.file_name
    try:
        read_release(folder, release)
        sync_file(path)
        sync_folder(folder)
    except (FileNotFoundError, ArtifactError):
        write_atomically(path, data)
        read_release(folder, release)


def _make_folder(folder: Path) -> None:
    """The folder and its name are on the disk; the lock, made next, tells later publishers so."""
    if not (folder / LOCK).exists():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


@contextmanager
def _locked(folder: Path, seconds: float) -> Iterator[None]:
    """Excludes other publishers; the lock goes with its process, however that ends."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait_for(lock, folder, time.monotonic() + seconds)
        yield
    finally:
        with suppress(OSError):  # what was done is done; the system closes it with the process
            os.close(lock)


def _wait_for(lock: int, folder: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise RefusedError(
                    "one publisher is at work at a time",
                    value=f"{folder / LOCK} is held",
                    remedy="wait for the other, or find out why it hangs",
                ) from None
            time.sleep(0.02)


def _remove_parts(folder: Path) -> None:
    """What a killed publisher left."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(".part"):
            with suppress(OSError):
                os.unlink(folder / name)


def _remove_forgotten(folder: Path, publication: Publication) -> None:
    """Artifacts that no release of the manifest names any more."""
    kept = {release.file_name for release in publication.releases}
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.endswith(".onnx") and name not in kept:
                with suppress(OSError):
                    os.unlink(folder / name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
