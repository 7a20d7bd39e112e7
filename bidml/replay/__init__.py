"""Was it better? A policy replayed on logged auctions, and its value estimated off-policy. See docs/evaluation.md."""

from bidml.replay.auctions import ReplayAuctions
from bidml.replay.bidders import Predictions, predict, scorer_bidder, value_bidder
from bidml.replay.budget import affordable
from bidml.replay.outcomes import Outcomes, outcomes
from bidml.replay.result import Bounded, ReplayResult
from bidml.replay.run import Bidder, replay

__all__ = [
    "Bidder",
    "Bounded",
    "Outcomes",
    "Predictions",
    "ReplayAuctions",
    "ReplayResult",
    "affordable",
    "outcomes",
    "predict",
    "replay",
    "scorer_bidder",
    "value_bidder",
]
