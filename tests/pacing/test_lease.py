"""Whatever bidders do and whenever they die, the spend stays within the bound."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bidml.errors import DataError
from bidml.pacing import BudgetLedger


def test_a_lease_refuses_what_it_does_not_cover():
    lease = BudgetLedger(10.0).grant(3.0, now=0.0, seconds=60.0)
    assert lease.commit(2.0, now=1.0)
    assert not lease.commit(1.5, now=2.0)  # 2.0 may still be paid
    lease.settle(2.0, price=0.5)
    assert lease.commit(2.5, now=3.0)
    assert not lease.commit(0.1, now=60.0)  # expired
    assert not any(lease.commit(nonsense, now=4.0) for nonsense in (0.0, -1.0, np.nan, np.inf))
    with pytest.raises(DataError, match="at most its price"):
        lease.settle(2.5, price=2.6)
    with pytest.raises(DataError, match="committed"):
        lease.settle(9.0, price=0.0)


class SpendingMachine(RuleBasedStateMachine):
    """Bidders, crashes and restarts in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = BudgetLedger(100.0, overdraft=5.0)
        self.leases, self.pending, self.paid, self.now = [], [], 0.0, 0.0

    @rule(amount=st.floats(0.0, 80.0), seconds=st.floats(0.0, 50.0))
    def take_lease(self, amount, seconds):
        lease = self.ledger.grant(amount, now=self.now, seconds=seconds)
        if lease is not None:
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), bid=st.floats(0.0, 40.0))
    def bid(self, data, bid):
        lease = data.draw(st.sampled_from(self.leases))
        if lease.commit(bid, now=self.now):
            assert self.now < lease.expires_at
            self.pending.append((lease, bid))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), fraction=st.floats(0.0, 1.0))
    def learn_the_outcome(self, data, fraction):
        at = data.draw(st.integers(0, len(self.pending) - 1))
        lease, bid = self.pending.pop(at)
        lease.settle(bid, price=fraction * bid)
        self.paid += fraction * bid

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), lost=st.booleans())
    def give_back(self, data, lost):
        lease = data.draw(st.sampled_from(self.leases))
        self.leases.remove(lease)
        if lost:
            self.ledger.close_lost(lease.lease_id)
        else:
            self.ledger.close(lease)
        # The worst: every notice still to come is a win at the bid.
        self.paid += sum(bid for owner, bid in self.pending if owner is lease)
        self.pending = [(owner, bid) for owner, bid in self.pending if owner is not lease]

    @rule(seconds=st.floats(0.0, 30.0))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def restart_the_ledger(self):
        self.ledger = BudgetLedger.from_json(json.loads(json.dumps(self.ledger.to_json())))

    @invariant()
    def spend_is_within_the_bound(self):
        worst = self.paid + sum(bid for _, bid in self.pending)
        assert worst <= (self.ledger.budget + self.ledger.overshoot_bound) * (1.0 + 1e-9)
        assert self.ledger.available >= 0.0


TestSpending = SpendingMachine.TestCase
TestSpending.settings = settings(max_examples=40, stateful_step_count=30)


def test_a_ledger_gives_back_what_was_counted_but_not_paid():
    ledger = BudgetLedger(10.0)
    lease = ledger.grant(10.0, now=0.0, seconds=1.0)
    lease.commit(4.0, now=0.5)
    ledger.close(lease)
    assert ledger.available == 6.0
    assert not lease.commit(1.0, now=0.6)
    ledger.refund(4.0)
    assert ledger.available == 10.0
    with pytest.raises(DataError, match="closed once"):
        ledger.close(lease)
    with pytest.raises(DataError, match="refund"):
        ledger.refund(1.0)
