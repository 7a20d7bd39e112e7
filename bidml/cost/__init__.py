"""What a bid costs on this machine, and which answers cost more than they earn. See docs/cost.md."""

from bidml.cost.answers import ExchangeCost, costs_by_exchange
from bidml.cost.compute import ComputeCost, Prices, measure_compute
from bidml.cost.report import CostReport, cost_report

__all__ = [
    "ComputeCost",
    "CostReport",
    "ExchangeCost",
    "Prices",
    "cost_report",
    "costs_by_exchange",
    "measure_compute",
]
