"""Whether the compiled runtime belongs to this package: asked at import, before anything of it is used."""

from __future__ import annotations

from bidml import __version__
from bidml.score import _native


def demand_same_version(compiled: str | None) -> None:
    """Raises `ImportError` for an extension of another version, one that a rebuild or an upgrade left behind.

    `compiled`: the version that the extension was built as; None for one that does not say.
    """
    if compiled != __version__:
        raise ImportError(
            f"bidml.score._native is built from bidml {__version__}; found {compiled or 'an older one'}; "
            "run make build in a checkout, or pip install --force-reinstall bidml"
        )


demand_same_version(getattr(_native, "__version__", None))
