"""Log files from elsewhere: any URI that fsspec knows is copied to the local disk first, and read from there."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Final

from bidml.errors import ConfigError, DataError
from bidml.log.files import Source

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def fetched(source: Source, folder: Path) -> list[str | PathLike[str]]:
    """`source` with the files of every URI (`s3://…`, `gs://…`, a folder, or with wildcards) copied below `folder`.

    Raises `DataError` for a URI without files, and for a file that cannot be read to its end; `ConfigError` when
    fsspec, or its part for the scheme, is not installed.
    """
    given = [source] if isinstance(source, (str, PathLike)) else list(source)
    local: list[str | PathLike[str]] = []
    for i, path in enumerate(given):
        if isinstance(path, str) and "://" in path:
            local += _copied(path, folder / f"{i:05}")
        else:
            local.append(path)
    return local


def _copied(uri: str, folder: Path) -> Iterator[Path]:
    try:
        import fsspec
    except ImportError:
        raise ConfigError("a URI needs fsspec", value=uri, remedy="pip install bidml[remote]") from None
    folder.mkdir(parents=True)
    try:
        files, path = fsspec.core.url_to_fs(uri)
        found = _found(files, path)
        copies = []
        for n, name in enumerate(found):
            # numbered: two files of one name stay two; the name says of what kind a file is
            copies.append(folder / f"{n:05}{''.join(Path(name).suffixes[-2:])}")
            files.get_file(name, str(copies[-1]))
            size = files.size(name)
            if size is not None and copies[-1].stat().st_size != size:
                raise OSError(f"{copies[-1].stat().st_size:,} of {size:,} bytes arrived")
    except ImportError as error:
        raise ConfigError(
            "the scheme of a URI has its package", value=uri, remedy=f"install it ({error})"
        ) from None
    except Exception as error:  # every store has errors of its own
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise
        raise DataError(
            f"a remote log file can be read to its end ({type(error).__name__}: {error})",
            value=uri,
            remedy="check the path, the credentials and the store",
        ) from error
    if not copies:
        raise DataError("a remote log has files", value=uri, remedy="correct the path")
    yield from copies


def _found(files: Any, path: str) -> list[str]:
    """The files of a path, by name, hidden ones left out, as `files_of` does."""
    if any(sign in path for sign in "*?["):
        names = [name for name in files.glob(path) if files.isfile(name)]
    elif files.isdir(path):
        names = files.find(path)
    else:
        names = [path]
    hidden = (".", "_")
    return sorted(name for name in names if not name.rsplit("/", 1)[-1].startswith(hidden))
