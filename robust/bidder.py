"""A scorer under attack and the contract it is held to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from robust.models import CAP_CPM, RATES, VALUE_CPM, line_of, scorer_of, wide_blueprint
from robust.outcome import Outcome
from robust.terms import terms_of, violation

_SOFT_FLOORS_CPM = (None, 0.0, 0.7, CAP_CPM, 1e300)


class Bidder:
    """A scorer under attack and the contract it is held to."""

    def __init__(self, outcome: Outcome, isa: str = "best") -> None:
        self.outcome = outcome
        self.scorer = scorer_of(wide_blueprint(), isa=isa)
        self.line = line_of(self.scorer)
        self.lines = (self.line, line_of(self.scorer, exploration_share=0.9, exploration_sigma=1.5))
        self.n_bids = self.n_explored = 0

    def decide(self, request: Any, imp: int = 0, *, what: Callable[[], str]) -> None:
        """One trial on what plain dict look-ups can read; with and without exploration and soft floors in turn."""
        turn = self.outcome.trials = self.outcome.trials + 1
        soft_floor_cpm = _SOFT_FLOORS_CPM[turn // 2 % len(_SOFT_FLOORS_CPM)]
        try:
            decision = self.scorer.decide(request, self.lines[turn % 2], imp, soft_floor_cpm)
            self.n_bids += decision[0] > 0.0
            self.n_explored += decision.propensity > 0.0
        except BaseException as error:
            self.outcome.broke(f"{what()}: {error!r}", repr(request))
            return
        terms = terms_of(request, imp, "USD", RATES, 1)
        broken = violation(decision, terms, cap_cpm=CAP_CPM, value_cpm=VALUE_CPM)
        if not (
            math.isnan(decision.propensity) or (0.0 < decision.propensity < math.inf and decision[0] > 0.0)
        ):
            broken = f"{decision!r} with the density {decision.propensity!r}"
        if broken:
            self.outcome.broke(f"{what()}, soft floor {soft_floor_cpm}: {broken}", repr(request))

    def survive(self, request: Any, imp: int = 0, *, what: str) -> None:
        """One trial on what foreign code decides: no exception, and nothing outside cap."""
        turn = self.outcome.trials = self.outcome.trials + 1
        line = self.lines[turn % 2]
        try:
            for bid in (
                self.scorer.bid(request, line, imp),
                self.scorer.decide(request, line, imp)[0],
                self.scorer.best(request, [line], imp)[1],
                self.scorer.decide_deal(request, line, imp)[0],
            ):
                if not 0.0 <= bid <= CAP_CPM:
                    self.outcome.broke(f"{what}: a bid of {bid!r}")
        except BaseException as error:
            self.outcome.broke(f"{what}: {error!r}")
