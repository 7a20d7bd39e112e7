"""May a challenger replace the champion? Both are read as a bidder reads them, and judged on the same auctions.

Every check has a value, where it is an estimate an interval, a bound from `GateConfig`, and a verdict; one failed
check refuses. Nothing is thrown away after the first failure: all that can be computed is reported. Without a champion
the checks that compare are left out, those that judge a model by itself remain.
"""

from __future__ import annotations

from training.gate.judge import judge
from training.gate.verdict import Check, Verdict

__all__ = ["Check", "Verdict", "judge"]
