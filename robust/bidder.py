"""A scorer under attack and the contract it is held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robust.models import CAP_CPM, RATES, VALUE_CPM, line_of, scorer_of, wide_blueprint
from robust.outcome import Outcome
from robust.terms import terms_of, violation


class Bidder:
    """A scorer under attack and the contract it is held to."""

    def __init__(self, outcome: Outcome, isa: str = "best") -> None:
        self.outcome = outcome
        self.scorer = scorer_of(wide_blueprint(), isa=isa)
        self.line = line_of(self.scorer)
        self.n_bids = 0

    def decide(self, request: Any, imp: int = 0, *, what: Callable[[], str]) -> None:
        """One trial on what plain dict look-ups can read."""
        self.outcome.trials += 1
        try:
            decision = self.scorer.decide(request, self.line, imp)
            self.n_bids += decision[0] > 0.0
        except BaseException as error:
            self.outcome.broke(f"{what()}: {error!r}", repr(request))
            return
        terms = terms_of(request, imp, "USD", RATES, 1)
        broken = violation(decision, terms, cap_cpm=CAP_CPM, value_cpm=VALUE_CPM)
        if broken:
            self.outcome.broke(f"{what()}: {broken}", repr(request))

    def survive(self, request: Any, imp: int = 0, *, what: str) -> None:
        """One trial on what foreign code decides: no exception, and nothing outside cap."""
        self.outcome.trials += 1
        try:
            for bid in (
                self.scorer.bid(request, self.line, imp),
                self.scorer.decide(request, self.line, imp)[0],
                self.scorer.best(request, [self.line], imp)[1],
                self.scorer.decide_deal(request, self.line, imp)[0],
            ):
                if not 0.0 <= bid <= CAP_CPM:
                    self.outcome.broke(f"{what}: a bid of {bid!r}")
        except BaseException as error:
            self.outcome.broke(f"{what}: {error!r}")
