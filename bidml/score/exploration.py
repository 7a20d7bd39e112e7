"""Bids that a line item varies on purpose: its terms, and the key of its randomness. Standard library only.

The rule is in bidml/native/exploration.h, the reason in docs/howto.md, the offline twin is `bidml.pricing.explore`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

from bidml.errors import ConfigError

DEFAULT_SIGMA: Final = 0.4
MOST_SIGMA: Final = 10.0


@dataclass(frozen=True, slots=True)
class Exploration:
    """On a `share` of the auctions ln bid is normal around the intended one with spread `sigma`, within the bounds.

    Which auctions, and how far: by their id, hashed with `salt` and the line item's fields. Raises `ConfigError`.
    """

    share: float
    sigma: float = DEFAULT_SIGMA
    salt: str = ""

    def __post_init__(self) -> None:
        for name, value, least, most, rule in (
            ("share", self.share, 0.0, 1.0, "in [0, 1]"),
            ("sigma", self.sigma, math.ulp(0.0), MOST_SIGMA, f"above 0 and at most {MOST_SIGMA:g}"),
        ):
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not (is_number and least <= value <= most):
                raise ConfigError(
                    f"exploration_{name} is a number {rule}",
                    value=value,
                    remedy="for example exploration_share=0.1, exploration_sigma=0.4",
                )
        if not isinstance(self.salt, str):
            raise ConfigError("exploration_salt is text", value=self.salt, remedy='for example "2026-11"')
        object.__setattr__(self, "share", float(self.share))
        object.__setattr__(self, "sigma", float(self.sigma))

    def key(self, fields: Mapping[str, Any]) -> tuple[int, int]:
        """Of SipHash, low and high word: the salt and the fields, so that line items explore apart."""
        try:
            text = json.dumps([self.salt, fields], sort_keys=True)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "the fields of a line item that explores are text and numbers",
                value=str(error),
                remedy="correct them",
            ) from None
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")

    def to_json(self) -> dict[str, str]:
        """To the bit."""
        return {"share": self.share.hex(), "sigma": self.sigma.hex(), "salt": self.salt}

    @classmethod
    def from_json(cls, found: Mapping[str, str]) -> Exploration:
        return cls(float.fromhex(found["share"]), float.fromhex(found["sigma"]), found["salt"])


NONE: Final = Exploration(0.0)


def propensity_text(x: float) -> str | None:
    """A density in hexadecimal; None where the bid was not varied."""
    return None if math.isnan(x) else x.hex()
