"""Values by goal: units, margins, and that fees and currencies cannot change which auctions are worth it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.errors import ConfigError
from bidml.pricing import (
    WinCurve,
    net_value_cpm,
    optimal_bid_cpm,
    risk_averse_value_cpm,
    surplus_cpm,
    value_cpm,
    value_of_conversions_cpm,
    value_of_impressions_cpm,
    value_of_viewable_impressions_cpm,
)

rates = st.floats(1e-8, 1.0)
money = st.floats(1e-3, 1e3)
margins = st.floats(0.0, 0.99)


@given(pctr=rates, pcvr=rates, worth=money, margin=margins)
def test_a_conversion_goal_is_a_click_goal_at_the_worth_of_a_click(pctr, pcvr, worth, margin):
    by_conversion = value_of_conversions_cpm(pctr, pcvr, worth, margin=margin)
    assert by_conversion == pytest.approx(value_cpm(pctr, pcvr * worth, margin), rel=1e-12)
    assert value_of_conversions_cpm(pctr, pcvr, worth, p_view_through=0.001) > by_conversion


@given(pview=rates, goal=money, margin=margins)
def test_certain_views_and_clicks_are_worth_their_goal(pview, goal, margin):
    assert value_of_viewable_impressions_cpm(1.0, goal, margin) == value_of_impressions_cpm(goal, margin)
    assert value_of_viewable_impressions_cpm(pview, goal) <= goal
    assert value_cpm(1.0, goal / 1000.0, margin) == pytest.approx(
        value_of_impressions_cpm(goal, margin), rel=1e-12
    )


@given(value=money, fee=st.floats(0.0, 0.9), rate=st.floats(0.01, 100.0))
def test_the_net_value_maximises_the_gross_surplus(value, fee, rate):
    """A bid b in the exchange's currency costs b · rate / (1 − fee) of ours."""
    curve = WinCurve(np.log(value / rate) - 1.0, 2.0)
    bid = optimal_bid_cpm(net_value_cpm(value, fee=fee, rate=rate), curve)
    earned = surplus_cpm(value, bid * rate / (1.0 - fee), curve.win_rate(bid))
    for other in (0.9 * bid, 1.1 * bid):
        assert earned >= surplus_cpm(value, other * rate / (1.0 - fee), curve.win_rate(other)) * (1.0 - 1e-12)


def test_risk_aversion_lowers_the_value_and_never_below_zero():
    np.testing.assert_array_equal(
        risk_averse_value_cpm([2.0, 2.0, 1.0], [0.5, 0.0, 3.0], 1.0), [1.5, 2.0, 0.0]
    )


def test_text_is_not_a_value():
    with pytest.raises(ConfigError, match="numbers"):
        value_cpm("much", 1.0)
