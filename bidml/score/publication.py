"""A publication: the folder that a bidder follows. Standard library only.

    <sha256>.onnx    artifacts, named by their content, never changed
    manifest.json    the one that counts, its generation, and the releases before it

Whoever writes (training/publication.py) replaces the manifest by rename, so that a reader sees one whole manifest or
the one before it. Generations only rise; a rollback is a new generation that names an old digest.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bidml.contract import CONTRACT_VERSION, MAX_FILE_BYTES
from bidml.errors import ArtifactError

PUBLICATION_MANIFEST: Final = "manifest.json"
PUBLICATION_VERSION: Final = 1
MAX_PUBLICATION_BYTES: Final = 128 << 10
MAX_HISTORY: Final = 32
MAX_NOTE: Final = 200

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_REMEDY: Final = "publish again, or restore the manifest that training.publish wrote"


@dataclass(frozen=True, slots=True)
class Release:
    """One generation of a publication.

    `sha256` and `n_bytes` are the artifact's; `data_end` is when its training data ends and `published` when it was
    published, in ISO 8601 with a time zone; `note` says why.
    """

    generation: int
    sha256: str
    n_bytes: int
    data_end: str | None
    published: str
    note: str = ""

    def __post_init__(self) -> None:
        _demand("generation", self.generation, _is_integer(self.generation) and self.generation >= 1)
        _demand("sha256", self.sha256, isinstance(self.sha256, str) and bool(_DIGEST.fullmatch(self.sha256)))
        _demand("bytes", self.n_bytes, _is_integer(self.n_bytes) and 0 < self.n_bytes <= MAX_FILE_BYTES)
        _demand("data_end", self.data_end, self.data_end is None or _is_time(self.data_end))
        _demand("published", self.published, _is_time(self.published))
        _demand("note", self.note, isinstance(self.note, str) and len(self.note) <= MAX_NOTE)

    @property
    def file_name(self) -> str:
        return f"{self.sha256}.onnx"

    def to_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "sha256": self.sha256,
            "bytes": self.n_bytes,
            "data_end": self.data_end,
            "published": self.published,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, document: object) -> Release:
        """The inverse of `to_json`; raises `ArtifactError`."""
        keys = {"generation", "sha256", "bytes", "data_end", "published", "note"}
        _demand("keys", document, isinstance(document, dict) and set(document) == keys)
        fields: dict[str, Any] = dict(document)  # type: ignore[call-overload]
        return cls(n_bytes=fields.pop("bytes"), **fields)


@dataclass(frozen=True, slots=True)
class Publication:
    """What a manifest says: the `current` release, and the ones before it, newest first, at most `MAX_HISTORY`."""

    current: Release
    history: tuple[Release, ...] = ()

    def __post_init__(self) -> None:
        generations = [release.generation for release in self.releases]
        falls = all(newer > older for newer, older in itertools.pairwise(generations))
        _demand("history", generations, falls and len(self.history) <= MAX_HISTORY)

    @property
    def releases(self) -> tuple[Release, ...]:
        """The current release, then the history."""
        return (self.current, *self.history)

    @property
    def previous(self) -> int | None:
        """The generation before the current one."""
        return self.history[0].generation if self.history else None

    def to_bytes(self, key: bytes | None = None) -> bytes:
        """The manifest's file, signed when a key is given (HMAC-SHA256 of the rest)."""
        document: dict[str, Any] = {
            "publication": PUBLICATION_VERSION,
            "contract": CONTRACT_VERSION,
            **self.current.to_json(),
            "previous": self.previous,
            "history": [release.to_json() for release in self.history],
        }
        if key is not None:
            document["hmac_sha256"] = _signature(document, key)
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, key: bytes | None = None) -> Publication:
        """The inverse of `to_bytes`; with a key the signature must be there and right. Raises `ArtifactError`."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ArtifactError("a manifest is a JSON object", value=data[:80], remedy=_REMEDY)
        found = document.pop("hmac_sha256", None)
        if key is not None and not (
            isinstance(found, str)
            and found.isascii()
            and hmac.compare_digest(found, _signature(document, key))
        ):
            raise ArtifactError(
                "the manifest is signed with our key",
                value=found,
                remedy="publish with --key-file, or check it",
            )
        versions = (document.pop("publication", None), document.pop("contract", None))
        if versions != (PUBLICATION_VERSION, CONTRACT_VERSION):
            raise ArtifactError(
                f"a manifest is of publication {PUBLICATION_VERSION} and contract {CONTRACT_VERSION}",
                value=versions,
                remedy="publish with this version of bidml, or use the version that published",
            )
        history, previous = document.pop("history", None), document.pop("previous", None)
        _demand("history", history, isinstance(history, list))
        publication = cls(Release.from_json(document), tuple(Release.from_json(row) for row in history))
        _demand("previous", previous, previous == publication.previous)
        return publication


def read_publication(folder: str | Path, *, key: bytes | None = None) -> Publication | None:
    """What `folder` publishes now; None when it has published nothing.

    Raises `ArtifactError` for a manifest that `training.publish` did not write, or not with `key`; `OSError` when the
    file system fails.
    """
    try:
        return Publication.from_bytes(read_manifest_bytes(folder), key)
    except FileNotFoundError:
        return None


def read_manifest_bytes(folder: str | Path) -> bytes:
    """The manifest's file, read once; raises `ArtifactError` when it is too large, `OSError`."""
    return _read_at_most(Path(folder) / PUBLICATION_MANIFEST, MAX_PUBLICATION_BYTES)


def read_release(folder: str | Path, release: Release) -> bytes:
    """The artifact of a release, read once into private memory, checked for size and digest.

    Raises `ArtifactError` when the file is another, `OSError` when it cannot be read.
    """
    data = _read_at_most(Path(folder) / release.file_name, release.n_bytes)
    if len(data) != release.n_bytes or hashlib.sha256(data).hexdigest() != release.sha256:
        raise ArtifactError(
            f"{release.file_name} has {release.n_bytes} bytes and the digest that names it",
            value=f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}",
            remedy="publish the artifact again",
        )
    return data


def data_end_of(provenance: Mapping[str, Any]) -> str | None:
    """When an artifact's training data ends, by its provenance: ISO 8601 with a time zone; None when not told."""
    window = provenance.get("window")
    end = window[1] if isinstance(window, list | tuple) and len(window) == 2 else None
    return end if _is_time(end) else None


def _read_at_most(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ArtifactError(f"{path.name} has at most {limit} bytes", value="more", remedy=_REMEDY)
    return data


def _signature(document: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _demand(name: str, value: object, holds: bool) -> None:
    if not holds:
        raise ArtifactError(
            f"a manifest's {name} is as training.publish writes it", value=value, remedy=_REMEDY
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
