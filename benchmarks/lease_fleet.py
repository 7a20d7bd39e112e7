"""One budget across a thousand bidders: what leases of a size cost in unspent money, and that none is overspent.

An hour in seconds. Each bidder bids about once a second from its lease and asks for the next one when it runs low.
Messages to the ledger take up to seconds and get lost, outcomes come late or never, bidders die with what they knew
(what they had bid still wins), the ledger is restarted from its stored state. The exchange's bill, ten minutes late,
corrects what the ledger counted for closed leases. The market gives the fleet more than the budget, so that it ends in
the hour. Money is in units of the mean bid, per impression.

    python -m benchmarks.lease_fleet [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from bidml.pacing import BudgetLedger, Lease

SECONDS: Final = 3600
WIN_RATE: Final = 0.15
LEASE_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 60.0
BILL_SECONDS: Final = 600.0
NEVER: Final = 0.01  # of notices, requests and replies
CRASHES_PER_HOUR: Final = 1.0
RESTART_SECONDS: Final = 300
EXPECTED_SPEND_SHARE: Final = 0.6  # of the hour, until the budget would be spent without leases
_MEAN_PRICE: Final = 0.75


@dataclass(frozen=True, slots=True)
class Outcome:
    """`overshoot` and `unspent` are shares of the budget; `spent_by` is when 95 % of it was spent, seconds, or None."""

    n_bidders: int
    leases_per_bidder: float
    lease_amount: float
    spent: float
    budget: float
    bound: float
    overshoot: float
    unspent: float
    spent_by: float | None
    n_crashes: int
    n_restarts: int
    grants_per_second: float


@dataclass(slots=True)
class _Bidder:
    lease: Lease | None = None
    waiting_until: float = 0.0
    life: int = 0  # a crash begins the next one
    held: dict[int, Lease] = field(default_factory=dict)


def simulate(
    *,
    n_bidders: int,
    leases_per_bidder: float,
    seed: int,
    overdraft_share: float = 0.0,
    seconds: int = SECONDS,
    forgets_leases: bool = False,
    ignores_commitments: bool = False,
) -> Outcome:
    """A lease is `1 / (n_bidders · leases_per_bidder)` of the budget. The last two are the broken twins: a ledger that
    restarts without its leases, and bidders that count a bid only when they hear that it was won."""
    rng = np.random.default_rng(seed)
    budget = n_bidders * seconds * EXPECTED_SPEND_SHARE * WIN_RATE * _MEAN_PRICE
    ledger = BudgetLedger(budget, overdraft=overdraft_share * budget)
    amount = budget / (n_bidders * leases_per_bidder)
    fleet = [_Bidder() for _ in range(n_bidders)]
    bills: dict[int, float] = {}  # what the exchange will charge, by lease
    agenda: list[tuple[float, int, Callable[[], None]]] = []
    n_posted, n_grants, n_crashes, n_restarts = 0, 0, 0, 0
    spent, spent_by = 0.0, None
    now = 0.0

    def after(delay: float, task: Callable[[], None]) -> None:
        nonlocal n_posted
        n_posted += 1
        heapq.heappush(agenda, (now + delay, n_posted, task))

    def close(lease_id: int, counted: float | None) -> None:
        """The ledger's end of a lease, once; the bill corrects it later."""
        if lease_id not in ledger.granted:
            return  # closed before, or forgotten by the broken ledger
        of_lease = ledger.granted[lease_id] if counted is None else counted
        ledger.close_lost(lease_id, spent=of_lease)
        after(BILL_SECONDS, lambda: correct(lease_id, of_lease))

    def correct(lease_id: int, counted: float) -> None:
        billed = bills.pop(lease_id, 0.0)
        if counted > billed:
            ledger.refund(min(counted - billed, ledger.spent))

    def ask(bidder: _Bidder) -> None:
        life = bidder.life

        def arrive() -> None:
            nonlocal n_grants
            lease = ledger.grant(amount, now=now, seconds=LEASE_SECONDS)
            if lease is None:
                return
            n_grants += 1
            # what nobody closes in time, the ledger closes: the whole amount counts
            after(LEASE_SECONDS + 2.0 * GRACE_SECONDS, lambda: close(lease.lease_id, None))
            if rng.random() >= NEVER:
                after(rng.exponential(0.1), lambda: receive(lease))

        def receive(lease: Lease) -> None:
            if bidder.life != life:
                return
            retire(bidder)
            bidder.lease = lease
            bidder.held[lease.lease_id] = lease

        if rng.random() >= NEVER:
            after(rng.exponential(0.1), arrive)
        bidder.waiting_until = now + 3.0

    def retire(bidder: _Bidder) -> None:
        lease, life = bidder.lease, bidder.life
        if lease is None:
            return
        bidder.lease = None

        def report() -> None:
            if bidder.life == life:
                del bidder.held[lease.lease_id]
                close(lease.lease_id, lease.paid + lease.committed)

        after(GRACE_SECONDS, report)

    def outcome(bidder: _Bidder, life: int, lease: Lease, bid: float, price: float) -> None:
        if bidder.life == life and lease.lease_id in bidder.held:
            if ignores_commitments:
                lease.committed += bid
            lease.settle(bid, price=price)

    for second in range(seconds):
        while agenda and agenda[0][0] <= second:
            now, _, task = heapq.heappop(agenda)
            task()
        now = float(second)
        if second and second % RESTART_SECONDS == 0:
            n_restarts += 1
            ledger = BudgetLedger.from_json(json.loads(json.dumps(ledger.to_json())))
            if forgets_leases:
                ledger.granted.clear()
        bids = rng.uniform(0.5, 1.5, n_bidders)
        wins = rng.random(n_bidders) < WIN_RATE
        prices = bids * rng.uniform(0.5, 1.0, n_bidders)
        lags = np.minimum(rng.exponential(5.0, n_bidders), 120.0)
        lost = rng.random(n_bidders) < NEVER
        crashed = rng.random(n_bidders) < CRASHES_PER_HOUR / 3600.0
        for i, bidder in enumerate(fleet):
            if crashed[i]:
                n_crashes += 1
                fleet[i] = bidder = _Bidder(life=bidder.life + 1)
            lease, bid = bidder.lease, float(bids[i])
            is_low = (
                lease is None
                or lease.expires_at < now + 3.0
                or lease.amount - lease.paid - lease.committed < 3.0
            )
            if is_low and bidder.waiting_until <= now:
                ask(bidder)
            if lease is None or not lease.commit(bid, now=now):
                continue
            if ignores_commitments:
                lease.committed = 0.0
            price = float(prices[i]) if wins[i] else 0.0
            spent += price
            if spent_by is None and spent >= 0.95 * budget:
                spent_by = now
            bills[lease.lease_id] = bills.get(lease.lease_id, 0.0) + price
            if not lost[i]:
                after(float(lags[i]), _outcome_task(outcome, bidder, lease, bid, price))
    return Outcome(
        n_bidders=n_bidders,
        leases_per_bidder=leases_per_bidder,
        lease_amount=amount,
        spent=spent,
        budget=budget,
        bound=budget + ledger.overshoot_bound,
        overshoot=max(spent - budget, 0.0) / budget,
        unspent=max(budget - spent, 0.0) / budget,
        spent_by=spent_by,
        n_crashes=n_crashes,
        n_restarts=n_restarts,
        grants_per_second=n_grants / seconds,
    )


def _outcome_task(
    outcome: Callable[[_Bidder, int, Lease, float, float], None],
    bidder: _Bidder,
    lease: Lease,
    bid: float,
    price: float,
) -> Callable[[], None]:
    life = bidder.life
    return lambda: outcome(bidder, life, lease, bid, price)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="100 bidders")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    n_bidders = 100 if options.quick else 1000
    found = []
    print(
        "| leases per bidder and budget | amount | grants / s | unspent | 95 % spent by, s | overshoot | bound |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for leases in (2.0, 10.0, 30.0, 100.0):
        for overdraft in (0.0, 0.02):
            o = simulate(n_bidders=n_bidders, leases_per_bidder=leases, seed=0, overdraft_share=overdraft)
            found.append(asdict(o))
            by = "never" if o.spent_by is None else f"{o.spent_by:.0f}"
            print(
                f"| {leases:g} | {o.lease_amount:.1f} | {o.grants_per_second:.1f} | {o.unspent:.2%} | {by} "
                f"| {o.overshoot:.2%} | {o.bound / o.budget - 1.0:.0%} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
