"""One model in service, with the line items bound to it. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from bidml.contract import NoBidReason
from bidml.errors import ArtifactError
from bidml.score.publication import Release
from bidml.score.scorer import PARTS, BestDealDecision, BestDecision, DealDecision, Decision, LineItem, Scorer
from bidml.score.staleness import Age

Answer = TypeVar("Answer")


class BoundLines(dict[int, LineItem]):
    """The line items of one version by `FollowedLine.key`."""

    def __missing__(self, key: int) -> LineItem:
        raise TypeError("a line item belongs to the Following that made it; call its line_item")


class Version:
    """One model in service. Its calls are the scorer's own, or say no when the model has expired."""

    __slots__ = (
        "age",
        "best",
        "best_deal",
        "bid",
        "born",
        "decide",
        "decide_deal",
        "lines",
        "release",
        "scorer",
    )

    def __init__(
        self, scorer: Scorer, release: Release, born: float, age: Age, count_stale: Callable[[], None]
    ) -> None:
        self.scorer = scorer
        self.release = release
        self.born = born
        self.age = age
        self.lines = BoundLines()
        self.bid: Callable[..., float] = scorer.bid
        self.decide: Callable[..., Decision] = scorer.decide
        self.decide_deal: Callable[..., DealDecision] = scorer.decide_deal
        self.best: Callable[..., BestDecision] = scorer.best
        self.best_deal: Callable[..., BestDealDecision] = scorer.best_deal
        if age is Age.EXPIRED:
            stale = int(NoBidReason.STALE_MODEL)
            self.bid = _always(0.0, count_stale)
            self.decide = _always(Decision((0.0, stale, math.nan)), count_stale)
            self.decide_deal = _always(DealDecision((0.0, stale, None, math.nan)), count_stale)
            self.best = _always(BestDecision((-1, 0.0, math.nan)), count_stale)
            self.best_deal = _always(BestDealDecision((-1, 0.0, None, math.nan)), count_stale)


def _always(answer: Answer, count_stale: Callable[[], None]) -> Callable[..., Answer]:
    def say_no(request: object, line: object, imp: int = 0, soft_floor_cpm: float | None = None) -> Answer:
        count_stale()
        return answer

    return say_no


def _priced_parts(scorer: Scorer) -> tuple[str, ...]:
    return tuple(part for part in scorer.parts if part in PARTS)


def demand_interchangeable(now: Scorer, candidate: Scorer) -> None:
    """Line items hold money in one currency and want to be priced.

    A model without conversions may follow one with them: line items that pay for some stop bidding.
    """
    for what, wanted, found in (
        ("currency", now.currency, candidate.currency),
        ("parts", _priced_parts(now), _priced_parts(candidate)),
    ):
        if wanted != found:
            raise ArtifactError(
                f"a new model has the {what} of the one in service: {wanted}",
                value=found,
                remedy="publish it to another folder and start bidders there",
            )
