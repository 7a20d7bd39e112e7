"""The science of the price in NumPy: values, win curves, optimal bids, and what errors cost. See docs/pricing.md."""

from bidml.pricing.arrays import Doubles
from bidml.pricing.bid import first_price_optimum_cpm, optimal_bid_cpm, surplus_cpm
from bidml.pricing.curve import WinCurve
from bidml.pricing.exploration import density_around, draw_around_cpm, explore, explore_by_id
from bidml.pricing.goals import (
    cautious_pctr,
    net_value_cpm,
    risk_averse_value_cpm,
    value_cpm,
    value_of_conversions_cpm,
    value_of_impressions_cpm,
    value_of_viewable_impressions_cpm,
)
from bidml.pricing.mechanisms import (
    bid_in_ticks_cpm,
    deal_bid_cpm,
    mixed_auction_bid_cpm,
    second_price_surplus_cpm,
    soft_floor_bid_cpm,
)
from bidml.pricing.sensitivity import Sensitivity, sensitivity, uncertain_curve

__all__ = [
    "Doubles",
    "Sensitivity",
    "WinCurve",
    "bid_in_ticks_cpm",
    "cautious_pctr",
    "deal_bid_cpm",
    "density_around",
    "draw_around_cpm",
    "explore",
    "explore_by_id",
    "first_price_optimum_cpm",
    "mixed_auction_bid_cpm",
    "net_value_cpm",
    "optimal_bid_cpm",
    "risk_averse_value_cpm",
    "second_price_surplus_cpm",
    "sensitivity",
    "soft_floor_bid_cpm",
    "surplus_cpm",
    "uncertain_curve",
    "value_cpm",
    "value_of_conversions_cpm",
    "value_of_impressions_cpm",
    "value_of_viewable_impressions_cpm",
]
