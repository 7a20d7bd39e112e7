"""Which attacks there are, on which builds, and the faults that each is shown to catch."""

from __future__ import annotations

from dataclasses import dataclass

from robust.builds import ASAN, BROKEN, PLAIN, Build


@dataclass(frozen=True)
class Attack:
    """`twins`: builds with one fault under which the attack must find something."""

    name: str
    module: str
    builds: tuple[Build, ...]
    twins: tuple[tuple[Build, str], ...]


ATTACKS = (
    Attack(
        "requests",
        "robust.hostile_requests",
        (PLAIN,),
        (
            (BROKEN, "floor above cap"),
            (BROKEN, "doubled after the guard"),
            (BROKEN, "an error is left behind"),
            (BROKEN, "a reference is kept"),
            (BROKEN, "a key where it was last, unseen"),
        ),
    ),
    Attack(
        "json",
        "robust.hostile_json",
        (PLAIN, ASAN),
        tuple(
            (BROKEN, fault)
            for fault in ("JSON: the first of two keys", "JSON: leading zeros", "JSON: what comes after")
        ),
    ),
    Attack(
        "files",
        "robust.hostile_files",
        (PLAIN,),
        (
            (PLAIN, "python: any graph is accepted"),
            (PLAIN, "python: any digest is accepted"),
        ),
    ),
    Attack(
        "graphs",
        "robust.hostile_graphs",
        (PLAIN, ASAN),
        (
            (PLAIN, "python: no structure is checked"),
            (PLAIN, "python: sparse initializers are read"),
            (PLAIN, "python: metadata in any form"),
        ),
    ),
    Attack(
        "price",
        "robust.price",
        (PLAIN,),
        (
            (BROKEN, "doubled after the guard"),
            (BROKEN, "floor above cap"),
            (BROKEN, "infinite value"),
            (BROKEN, "second price taken for first"),
            (BROKEN, "negative times negative"),
        ),
    ),
    Attack("memory", "robust.memory", (PLAIN,), ((PLAIN, "python: a byte is kept of every fourth bid"),)),
    Attack(
        "processes",
        "robust.processes",
        (PLAIN,),
        ((PLAIN, "python: exit by abort"), (PLAIN, "python: a bid of another model")),
    ),
)
