"""Was it better? A policy replayed on logged auctions, and its value estimated off-policy. See docs/evaluation.md."""

from bidml.replay.artifact import replay_artifact
from bidml.replay.auctions import ReplayAuctions
from bidml.replay.bidders import Predictions, predict, scorer_bidder, value_bidder
from bidml.replay.budget import affordable
from bidml.replay.off_policy import OffPolicyResult, OverlapWarning, Propensity, off_policy_value
from bidml.replay.outcomes import Outcomes, expected_outcomes, outcomes
from bidml.replay.result import Bounded, ReplayResult
from bidml.replay.run import Bidder, replay

__all__ = [
    "Bidder",
    "Bounded",
    "OffPolicyResult",
    "Outcomes",
    "OverlapWarning",
    "Predictions",
    "Propensity",
    "ReplayAuctions",
    "ReplayResult",
    "affordable",
    "expected_outcomes",
    "off_policy_value",
    "outcomes",
    "predict",
    "replay",
    "replay_artifact",
    "scorer_bidder",
    "value_bidder",
]
