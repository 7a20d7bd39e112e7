"""The closed loop of benchmarks/thompson.py: what its policies add to log-odds, and what its figures mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import expit

from benchmarks.thompson import GREEDY, Memory, Policy, Regime, days_of, run
from bidml.features import Doubles

TINY = Regime(auctions=400, candidates=2, warm_days=1, win_rate=0.5, ctr=0.2, apps=20, campaigns=4)
SHAPE = (3, 2)
numbers = npst.arrays(np.float64, SHAPE, elements=st.floats(-30.0, 30.0))


@given(numbers, numbers.map(np.abs), numbers, st.booleans(), st.booleans())
def test_a_draw_of_scale_0_is_greedy_to_the_bit(
    log_odds: Doubles, sd: Doubles, z: Doubles, blind: bool, keeps_mean: bool
) -> None:
    """Whatever else a policy says."""
    policy = Policy(draw=0.0, blind=blind, keeps_mean=keeps_mean)
    np.testing.assert_array_equal(policy.believed(log_odds, sd, z), log_odds)


@given(numbers, st.floats(0.01, 3.0), numbers, st.floats(0.0, 1.0), st.floats(-1.0, 1.0))
def test_where_all_is_equally_uncertain_blind_policies_see_as_much(
    log_odds: Doubles, sd: float, z: Doubles, draw: float, optimism: float
) -> None:
    """So what a policy is ahead of its blind rival, it owes to the differences of sd."""
    everywhere = np.full(SHAPE, sd)
    told, blind = (
        Policy(draw=draw, optimism=optimism, blind=each).believed(log_odds, everywhere, z)
        for each in (False, True)
    )
    np.testing.assert_allclose(told, blind, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_a_level_draw_leaves_the_mean_alone(sd: float) -> None:
    """Of rare clicks; a plain draw raises it by e^(sd²/2)."""
    z = np.random.default_rng(1).standard_normal(400_000)
    s, spread = np.full(len(z), -7.0), np.full(len(z), sd)
    level, plain = (
        float(expit(Policy(draw=1.0, keeps_mean=keeps).believed(s, spread, z)).mean() / expit(-7.0))
        for keeps in (True, False)
    )
    assert level == pytest.approx(1.0, abs=0.01)
    assert plain == pytest.approx(np.exp(sd**2 / 2.0), rel=0.01)


def test_clicks_are_seen_where_we_won_alone() -> None:
    """And by who `sees_losses`, wherever a bid was made."""
    day = next(iter(days_of(TINY, 1, 5)))
    chosen = np.ones(len(day), dtype=np.int64)
    for bid, sees_losses in ((day.logged_bid_cpm, False), (day.logged_bid_cpm, True), (0.0 * day.coin, True)):
        memory = Memory()
        memory.add(day, chosen, bid, sees_losses=sees_losses)
        won, clicked = memory.won[0], memory.clicked[0]
        assert len(memory.rows[0]) == len(won) == (bid > 0.0).sum()
        assert not (clicked & ~won).any()
        shown = bid > 0.0 if sees_losses else (bid > 0.0) & (bid >= day.prices.market_price_cpm)
        assert won.sum() == shown.sum()
        assert clicked.sum() == (shown & (day.coin < day.pctr[:, 1])).sum()


@pytest.mark.filterwarnings("ignore")
def test_a_loop_without_additions_is_greed() -> None:
    """To the bit, and no policy earns more than who knows pctr; another one earns something else."""
    policies = {GREEDY: Policy(), "scale 0": Policy(draw=0.0, blind=True), "thompson": Policy(draw=1.0)}
    found = run(TINY, 2, 5, policies)
    assert found["scale 0"] == found[GREEDY]
    assert found[GREEDY]["earned"] == found[GREEDY]["plain"] != found["thompson"]["earned"]
    assert all(each["earned"] <= 100.0 for each in found.values())
