"""Budget control: a multiplier of the value, and the authority to spend.

pacer = BudgetPacer(budget, TrafficForecast.fit(past_days), DualDescent())
line_item.pacing_multiplier = pacer.begin(window)
pacer.report(window, spend=spend, n_auctions=n)

Standard library only: a pacer may run beside the bidder.
"""

from bidml.pacing.controllers import Controller, DualDescent, Pid, controller_from_json
from bidml.pacing.forecast import TrafficForecast
from bidml.pacing.lease import BudgetLedger, Lease
from bidml.pacing.pacer import BudgetPacer, TargetCost, min_pacing

__all__ = [
    "BudgetLedger",
    "BudgetPacer",
    "Controller",
    "DualDescent",
    "Lease",
    "Pid",
    "TargetCost",
    "TrafficForecast",
    "controller_from_json",
    "min_pacing",
]
