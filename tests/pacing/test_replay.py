"""The acceptance target of pacing, on real prices and clicks: one campaign at one budget; the benchmark runs all."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pacing_replay import replay_campaign, summary


@pytest.mark.parametrize("auction_type", [1, 2])
def test_a_paced_budget_buys_what_hindsight_would(auction_type: int, shared_data: Path):
    outcomes = replay_campaign(2997, auction_type, shared_data, budget_shares=[1 / 16])
    by_policy = {outcome.policy: outcome for outcome in outcomes if outcome.clock == "auctions"}
    for policy in ("dual", "dual_late"):
        paced = by_policy[policy]
        assert paced.percent_of_best >= 98.0
        assert 0.95 * paced.budget <= paced.spend <= paced.budget
        for static in ("static", "linear", "ortb"):
            assert paced.percent_of_best > by_policy[static].percent_of_best + 10.0
    assert by_policy["dual_x4"].percent_of_best > by_policy["pid_x4"].percent_of_best
    assert all(outcome.spend <= outcome.budget for outcome in outcomes)
    assert len(summary(outcomes)) == 2
