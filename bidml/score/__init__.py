"""The runtime: load one artifact, answer requests. Standard library and bidml's own extension only.

scorer = Scorer.load("models/champion.onnx")
line = scorer.line_item(campaign_id="c42", value_per_click=0.45, cap_cpm=8.0)
bid_cpm = scorer.bid(request, line)  # 0.0 = no bid
"""

import bidml.score.compiled  # noqa: F401  (first: refuses an extension of another version)
from bidml.contract import NoBidReason
from bidml.score.canary import Canary, CanaryLine
from bidml.score.decision_log import DecisionLog
from bidml.score.explanation import Explanation
from bidml.score.following import FollowedLine, Following, follow
from bidml.score.raw import RawExtractor
from bidml.score.scorer import (
    BestDealDecision,
    BestDecision,
    DealDecision,
    Decision,
    LineItem,
    RequestError,
    Scorer,
)
from bidml.score.staleness import Staleness
from bidml.score.telemetry import LogHistogram, Telemetry

__all__ = [
    "BestDealDecision",
    "BestDecision",
    "Canary",
    "CanaryLine",
    "DealDecision",
    "Decision",
    "DecisionLog",
    "Explanation",
    "FollowedLine",
    "Following",
    "LineItem",
    "LogHistogram",
    "NoBidReason",
    "RawExtractor",
    "RequestError",
    "Scorer",
    "Staleness",
    "Telemetry",
    "follow",
]
