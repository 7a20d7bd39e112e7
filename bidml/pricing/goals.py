"""What an impression is worth, by the goal of the line item: CPM, whatever is paid for.

Probabilities are calibrated. `margin` in [0, 1) is what the DSP keeps of the value. Everything broadcasts, (n,).
Money is in the line item's currency until `net_value_cpm` turns it into the exchange's.
"""

from __future__ import annotations

import numpy as np

from bidml.pricing.arrays import Doubles, Numbers, double, sigmoid
from bidml.units import IMPRESSIONS_PER_CPM


def value_cpm(pctr: Numbers, value_per_click: Numbers, margin: Numbers = 0.0) -> Doubles:
    """What an impression is worth: 1000 · pctr · value_per_click · (1 − margin), CPM.

    The margin is taken off the value per click first, as a line item of the scorer does.

    >>> value_cpm(0.01, 0.5, margin=0.2).round(9).tolist()
    4.0
    """
    worth = double(value_per_click) * (1.0 - double(margin))
    return np.asarray(float(IMPRESSIONS_PER_CPM) * double(pctr) * worth)


def value_of_impressions_cpm(goal_cpm: Numbers, margin: Numbers = 0.0) -> Doubles:
    """CPM goal: goal · (1 − margin)."""
    return np.asarray(double(goal_cpm) * (1.0 - double(margin)))


def value_of_viewable_impressions_cpm(
    pview: Numbers, viewable_goal_cpm: Numbers, margin: Numbers = 0.0
) -> Doubles:
    """Viewable-CPM goal: pview · goal · (1 − margin), pview = P(viewable given impression)."""
    return np.asarray(double(pview) * value_of_impressions_cpm(viewable_goal_cpm, margin))


def value_of_conversions_cpm(
    pctr: Numbers,
    pcvr: Numbers,
    value_per_conversion: Numbers,
    *,
    p_view_through: Numbers = 0.0,
    margin: Numbers = 0.0,
) -> Doubles:
    """CPA or revenue goal: 1000 · (pctr · pcvr + p_view_through) · value_per_conversion · (1 − margin).

    pcvr = P(conversion given click); p_view_through = P(conversion without a click, given impression). For a revenue
    goal the value per conversion is E[basket] · the share of it that advertising may cost.

    >>> value_of_conversions_cpm(0.01, 0.05, 40.0).round(9).tolist()
    20.0
    """
    p = double(pctr) * double(pcvr) + double(p_view_through)
    return value_cpm(p, value_per_conversion, margin)


def cautious_pctr(log_odds: Numbers, log_odds_sd: Numbers, risk_aversion: Numbers) -> Doubles:
    """σ(log_odds − risk_aversion · log_odds_sd): the pctr that a line item averse to risk is priced at.

    A lower bound in log-odds: inside (0, 1) and right at 1e-8, where `risk_averse_value_cpm` of a wide distribution is
    0. An aversion of 0 is σ(log_odds).

    >>> cautious_pctr(-5.0, 0.5, [0.0, 1.0]).round(5).tolist()
    [0.00669, 0.00407]
    """
    return np.asarray(sigmoid(double(log_odds) - double(risk_aversion) * double(log_odds_sd)))


def net_value_cpm(value_cpm: Numbers, *, fee: Numbers = 0.0, rate: Numbers = 1.0) -> Doubles:
    """The value to bid with, in the exchange's currency: value · (1 − fee) / rate.

    `fee` in [0, 1) is the share of what we pay in all that goes to others than the exchange: a bid b costs
    b / (1 − fee). `rate`: units of the line item's currency per unit of the exchange's, as in `Scorer.load`.
    """
    return np.asarray(double(value_cpm) * (1.0 - double(fee)) / double(rate))


def risk_averse_value_cpm(value_cpm: Numbers, sd_cpm: Numbers, aversion: Numbers) -> Doubles:
    """max(value − aversion · sd, 0): for those who must not lose money on uncertain values (arXiv 1701.02433)."""
    return np.asarray(np.maximum(double(value_cpm) - double(aversion) * double(sd_cpm), 0.0))
