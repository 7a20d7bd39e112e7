"""Attacks on the runtime: `make robust` in minutes, `make robust-long` in hours; docs/reliability.md says what holds.

Not below `tests/`, because it is not a test-suite: it builds the extension several times over (AddressSanitizer, broken
on purpose), runs every attack in a process of its own, where a crash is a result and not an end, and counts trials
instead of cases. What an attack finds is fixed and its input kept in `tests/score/test_attacks_that_worked.py`.

An attack is a module with `attack(effort, rng) -> Outcome`. Each one has twins: builds or patches with one deliberate
fault, under which it must find something; an attack that cannot fail proves nothing.
"""
