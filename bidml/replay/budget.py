"""Where a budget ends the bidding: a lease without overdraft.

A bid commits its full price until its outcome is known. Bidding ends at the first win that what is left would not have
covered; bids before it that were not covered and would have lost change nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bidml.fit.observations import Doubles


def affordable(bids: Doubles, wins: npt.NDArray[Any], costs: Doubles, budget: float) -> int:
    """How many auctions from the first on are paid for, of n; all arrays (n,) in one unit of money, like `budget`.

    `wins` > 0 where the bid (perhaps) wins, `costs` what it then costs (0 elsewhere), at most the bid. The more wins
    and the higher the costs, the sooner it ends: the runs of least and greatest cost enclose the true end.

    >>> affordable(np.array([1.0, 1.0, 1.0]), np.array([1, 0, 1]), np.array([0.5, 0.0, 0.5]), budget=1.4)
    2
    """
    committed = np.cumsum(costs) - costs + bids
    # sums of many floats: a budget of just the sum of all costs covers them
    refused = np.flatnonzero((wins > 0) & (committed > budget * (1.0 + 1e-12)))
    return int(refused[0]) if refused.size else len(bids)
