"""Authority to spend: no lease, no bid; and what can be overspent is a number.

A ledger holds the budget. Bidders take leases from it, small amounts with an expiry. A bid commits its price until its
outcome is known: a lease refuses a bid when what is paid, what is committed and this bid would exceed its amount. A bid
is never paid above its price, so a lease spends at most its amount, and all leases of a ledger at most its budget plus
`overdraft`: a number that the operator chooses, 0 by default, for those who would rather overspend a little than hold
back for bids that mostly lose. A ledger that is restored from its state has forgotten no lease: what was out stays
taken until it is settled. A lost bidder's lease is settled with everything committed counted as paid.

Times are seconds on one clock, given by the caller. One thread owns a lease; the ledger is guarded by its owner.
Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bidml.errors import ConfigError, DataError


@dataclass(slots=True)
class Lease:
    """Permission to spend `amount` until `expires_at`; money per impression, not CPM.

    `paid + committed ≤ amount` holds after every call but a `settle` at a price above the bid, which is refused.
    """

    lease_id: int
    amount: float
    expires_at: float
    paid: float = 0.0
    committed: float = 0.0

    def commit(self, bid: float, *, now: float) -> bool:
        """True: bid, the price is set aside. False: do not bid (expired, spent, or `bid` is not a positive number)."""
        if not (now < self.expires_at and 0.0 < bid <= self.amount - self.paid - self.committed):
            return False
        self.committed += bid
        return True

    def settle(self, bid: float, *, price: float) -> None:
        """The outcome of a committed bid: `price` paid, 0 for a loss; also after expiry.

        Raises `DataError` for a price above the bid, or a bid that was not committed.
        """
        if not (0.0 <= price <= bid):
            raise DataError(
                "a bid is paid at most its price", value=(bid, price), remedy="check the win notice"
            )
        if bid > self.committed * (1.0 + 1e-9) + 1e-12:
            raise DataError(
                "a bid is committed before it is settled",
                value=(bid, self.committed),
                remedy="settle a bid once",
            )
        self.committed = max(self.committed - bid, 0.0)
        self.paid += price


@dataclass(slots=True)
class BudgetLedger:
    """The budget and its leases: granted + spent ≤ budget + overdraft, always."""

    budget: float
    overdraft: float = 0.0
    spent: float = 0.0
    granted: dict[int, float] = field(default_factory=dict)
    next_id: int = 1

    def __post_init__(self) -> None:
        if not (0.0 < self.budget < math.inf and 0.0 <= self.overdraft < math.inf):
            raise ConfigError(
                "a budget is above 0 and an overdraft at least 0",
                value=(self.budget, self.overdraft),
                remedy="correct them",
            )

    @property
    def available(self) -> float:
        """What can still be granted."""
        return max(self.budget + self.overdraft - self.spent - sum(self.granted.values()), 0.0)

    @property
    def overshoot_bound(self) -> float:
        """The most by which the spend can exceed the budget."""
        return self.overdraft

    def grant(self, amount: float, *, now: float, seconds: float) -> Lease | None:
        """A lease of at most `amount` for `seconds`; None when the budget is spent or all out, or for nonsense."""
        amount = min(amount, self.available)
        if not (amount > 0.0 and 0.0 < seconds < math.inf and self.spent < self.budget):
            return None
        lease = Lease(self.next_id, amount, now + seconds)
        self.granted[lease.lease_id] = amount
        self.next_id += 1
        return lease

    def close(self, lease: Lease) -> None:
        """Takes a lease back; it commits nothing more. What it has committed counts as paid: notices may never come.

        Raises `DataError` for a lease that is not out.
        """
        self.close_lost(lease.lease_id, spent=lease.paid + lease.committed)
        lease.expires_at = -math.inf

    def close_lost(self, lease_id: int, *, spent: float | None = None) -> None:
        """The same without the lease: a bidder that died, or does not answer.

        `spent` None counts the whole amount, which is safe at any time; a number is, once the lease has expired.
        """
        if lease_id not in self.granted:
            raise DataError("a lease is closed once", value=lease_id, remedy=f"out: {sorted(self.granted)}")
        amount = self.granted.pop(lease_id)
        self.spent += amount if spent is None else spent

    def refund(self, amount: float) -> None:
        """Corrects `spent` when bids that were counted as paid at closing turn out lost."""
        if not 0.0 <= amount <= self.spent:
            raise DataError("a refund is at most what was spent", value=amount, remedy="check the notices")
        self.spent -= amount

    def to_json(self) -> dict[str, Any]:
        return {
            "budget": self.budget,
            "overdraft": self.overdraft,
            "spent": self.spent,
            "granted": [[lease_id, amount] for lease_id, amount in self.granted.items()],
            "next_id": self.next_id,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> BudgetLedger:
        """The inverse of `to_json`. Raises `DataError` for another document."""
        try:
            state = dict(document)
            state["granted"] = {int(lease_id): float(amount) for lease_id, amount in state["granted"]}
            return cls(**state)
        except (KeyError, TypeError, ValueError):
            raise DataError(
                "the state of a ledger is what to_json made",
                value=document,
                remedy="take the spend from billing and start anew",
            ) from None
