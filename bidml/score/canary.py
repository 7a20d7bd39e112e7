"""A share of the traffic to a challenger, the rest at the same time to the champion. Standard library only.

Two publications are followed. Which arm an auction belongs to is the hash of a salt and of what is split (the
request's id, or a user's), so every bidder agrees, a retry stays where it was, and another salt splits afresh. The arms
are compared by `training.canary`; it ends a canary by publishing the champion's artifact to the challenger's folder
(rolled back: both arms bid alike within one look at the manifest) or the challenger's to the champion's (promoted). No
bidder is restarted or told anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final

from bidml.errors import ConfigError
from bidml.score.following import FollowedLine, Following
from bidml.score.scorer import BestDealDecision, BestDecision, DealDecision, Decision

CONTROL: Final = "control"
CHALLENGER: Final = "challenger"


class CanaryLine:
    """A line item of both arms; made by `Canary.line_item`."""

    __slots__ = ("challenger", "control")

    def __init__(self, control: FollowedLine, challenger: FollowedLine) -> None:
        self.control = control
        self.challenger = challenger

    @property
    def pacing_multiplier(self) -> float:
        return self.control.pacing_multiplier

    @pacing_multiplier.setter
    def pacing_multiplier(self, x: float) -> None:
        """One budget: both arms are paced alike; raises `ValueError` as `LineItem` does."""
        self.challenger.pacing_multiplier = x
        self.control.pacing_multiplier = x


class Canary:
    """Bids with `challenger` in a `share` of the auctions and with `control` in the others.

    Raises `ConfigError` for a share outside [0, 1] or an empty salt.
    """

    def __init__(self, control: Following, challenger: Following, *, share: float, salt: str) -> None:
        if not (0.0 <= share <= 1.0 and salt):
            raise ConfigError(
                "a canary has a share in [0, 1] and a salt of its own",
                value=(share, salt),
                remedy='for example share=0.05, salt="2026-11-08"',
            )
        self.control = control
        self.challenger = challenger
        self._threshold = round(share * 2**32)
        self._salt = zlib.crc32(salt.encode())

    def line_item(self, *, cap_cpm: float, pacing_multiplier: float = 1.0, **terms: Any) -> CanaryLine:
        """`Following.line_item` of both arms."""
        return CanaryLine(
            *(
                arm.line_item(cap_cpm=cap_cpm, pacing_multiplier=pacing_multiplier, **terms)
                for arm in (self.control, self.challenger)
            )
        )

    def arm_of(self, unit: str) -> str:
        """Where an auction (or a user) belongs: CONTROL or CHALLENGER. Log it with the bid."""
        hashed = _mixed(zlib.crc32(unit.encode(errors="surrogatepass"), self._salt))
        return CHALLENGER if hashed < self._threshold else CONTROL

    def bid(
        self,
        request: object,
        line: CanaryLine,
        unit: str,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> float:
        """The bid of the arm that `unit` belongs to: `Following.bid`."""
        if self.arm_of(unit) is CHALLENGER:
            return self.challenger.bid(request, line.challenger, imp, soft_floor_cpm)
        return self.control.bid(request, line.control, imp, soft_floor_cpm)

    def decide(
        self,
        request: object,
        line: CanaryLine,
        unit: str,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> Decision:
        """`Following.decide` of the unit's arm."""
        if self.arm_of(unit) is CHALLENGER:
            return self.challenger.decide(request, line.challenger, imp, soft_floor_cpm)
        return self.control.decide(request, line.control, imp, soft_floor_cpm)

    def decide_deal(
        self,
        request: object,
        line: CanaryLine,
        unit: str,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> DealDecision:
        """`Following.decide_deal` of the unit's arm, for a line item with `deals`."""
        if self.arm_of(unit) is CHALLENGER:
            return self.challenger.decide_deal(request, line.challenger, imp, soft_floor_cpm)
        return self.control.decide_deal(request, line.control, imp, soft_floor_cpm)

    def best(
        self,
        request: object,
        lines: Sequence[CanaryLine],
        unit: str,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> BestDecision:
        """`Following.best` of the unit's arm."""
        if self.arm_of(unit) is CHALLENGER:
            return self.challenger.best(request, [line.challenger for line in lines], imp, soft_floor_cpm)
        return self.control.best(request, [line.control for line in lines], imp, soft_floor_cpm)

    def best_deal(
        self,
        request: object,
        lines: Sequence[CanaryLine],
        unit: str,
        imp: int = 0,
        soft_floor_cpm: float | None = None,
    ) -> BestDealDecision:
        """`Following.best_deal` of the unit's arm, for line items with `deals`."""
        if self.arm_of(unit) is CHALLENGER:
            return self.challenger.best_deal(
                request, [line.challenger for line in lines], imp, soft_floor_cpm
            )
        return self.control.best_deal(request, [line.control for line in lines], imp, soft_floor_cpm)

    def close(self) -> None:
        self.control.close()
        self.challenger.close()

    def __enter__(self) -> Canary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mixed(x: int) -> int:
    """A CRC is linear: units that differ alike would hash alike. The finaliser of MurmurHash3 (Appleby) is not."""
    x ^= x >> 16
    x = x * 0x85EBCA6B & 0xFFFFFFFF
    x ^= x >> 13
    x = x * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16
