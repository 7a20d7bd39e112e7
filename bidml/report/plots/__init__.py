"""Plots, each a function of arrays that returns its figure. No global state of matplotlib is touched."""

from bidml.report.plots.landscape import landscape, win_rate_by_bid, win_rate_by_exchange
from bidml.report.plots.money import (
    bids_compared,
    champion_and_challenger,
    estimates,
    importance_in_money,
    shading,
    surplus_curve,
    surplus_of_policies,
)
from bidml.report.plots.operations import drift, latency, pacing, psi
from bidml.report.plots.probability import calibration_by_segment, gain, lift, reliability

__all__ = [
    "bids_compared",
    "calibration_by_segment",
    "champion_and_challenger",
    "drift",
    "estimates",
    "gain",
    "importance_in_money",
    "landscape",
    "latency",
    "lift",
    "pacing",
    "psi",
    "reliability",
    "shading",
    "surplus_curve",
    "surplus_of_policies",
    "win_rate_by_bid",
    "win_rate_by_exchange",
]
