"""A fleet with late, lost and dead messages keeps the budget; its broken twins do not."""

from __future__ import annotations

from benchmarks.lease_fleet import Outcome, simulate


def small_fleet(*, forgets_leases: bool = False, ignores_commitments: bool = False) -> Outcome:
    return simulate(
        n_bidders=20,
        leases_per_bidder=30.0,
        seed=1,
        seconds=1800,
        forgets_leases=forgets_leases,
        ignores_commitments=ignores_commitments,
    )


def test_the_fleet_spends_within_the_bound() -> None:
    """And most of it, through crashes and restarts of the ledger."""
    found = small_fleet()
    assert found.n_crashes > 0
    assert found.n_restarts > 0
    assert found.spent <= found.bound
    assert found.unspent < 0.1


def test_a_ledger_that_forgets_its_leases_overspends() -> None:
    """What the restored state is for."""
    assert small_fleet(forgets_leases=True).overshoot > 0.01


def test_bidders_that_count_only_wins_they_heard_of_overspend() -> None:
    """What committing is for."""
    assert small_fleet(ignores_commitments=True).overshoot > 0.0
