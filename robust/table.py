"""Which attacks there are, on which builds, and the faults that each is shown to catch."""

from __future__ import annotations

from dataclasses import dataclass

from robust.builds import ASAN, BROKEN, PLAIN, TSAN, Build


@dataclass(frozen=True)
class Attack:
    """`twins`: builds with one fault under which the attack must find something.

    `other_builds` are attacked with a lower effort, `n_shares` processes share the work on `build`, and `preload` is a
    library that they load first, from `robust/<preload>.c`.
    """

    name: str
    module: str
    build: Build
    twins: tuple[tuple[Build, str], ...]
    other_builds: tuple[Build, ...] = ()
    n_shares: int = 1
    preload: str = ""


def _twins(build: Build, *faults: str) -> tuple[tuple[Build, str], ...]:
    return tuple((build, fault) for fault in faults)


# The longest first: two processes at a time then end at about the same time.
ATTACKS = (
    Attack(
        "files",
        "robust.hostile_files",
        PLAIN,
        _twins(
            PLAIN,
            "python: any graph is accepted",
            "python: any digest is accepted",
            "python: bounds are not checked",
        )
        + _twins(ASAN, "a text beyond its message is read"),
        (ASAN,),
        n_shares=2,
    ),
    Attack(
        "requests",
        "robust.hostile_requests",
        PLAIN,
        _twins(
            BROKEN,
            "floor above cap",
            "doubled after the guard",
            "floor in any currency",
            "a bool is a number",
            "unknown currency is ours",
            "a key where it was last, unseen",
            "varied above the cap",
        ),
        (ASAN,),
        n_shares=2,
    ),
    Attack(
        "price",
        "robust.price",
        PLAIN,
        _twins(
            BROKEN,
            "doubled after the guard",
            "above cap",
            "infinite value",
            "second price taken for first",
            "negative times negative",
        ),
        n_shares=2,
    ),
    Attack(
        "json",
        "robust.hostile_json",
        PLAIN,
        _twins(
            BROKEN,
            "JSON: the first of two keys",
            "JSON: leading zeros",
            "JSON: what comes after",
        )
        + _twins(ASAN, "JSON: reads beyond the end"),
        (ASAN,),
    ),
    Attack(
        "out of memory",
        "robust.out_of_memory",
        PLAIN,
        _twins(
            PLAIN,
            "python: the file is blamed",
            "python: a reload that failed is not tried again",
            "python: a process without memory aborts",
        ),
        preload="malloc_shim",
    ),
    Attack(
        "differential",
        "robust.differential",
        PLAIN,
        _twins(
            BROKEN,
            "NaN ranks one too low",
            "scalar: on a threshold goes up",
            "zero is 1e-35 exactly",
            "divisor forgotten",
        ),
        n_shares=2,
    ),
    Attack(
        "threads",
        "robust.threads",
        TSAN,
        _twins(
            TSAN,
            "pacing is read without an atom",
            "one scratch row for all threads",
            "a batch counts without the GIL",
        ),
    ),
    Attack(
        "memory",
        "robust.memory",
        PLAIN,
        _twins(
            PLAIN,
            "python: a byte is kept of every fourth bid",
            "python: a bid asks for 600 bytes and gives them back",
        ),
        preload="malloc_shim",
    ),
    Attack(
        "processes",
        "robust.processes",
        PLAIN,
        _twins(PLAIN, "python: exit by abort", "python: a bid of another model")
        + _twins(BROKEN, "the end does not wait"),
    ),
    Attack(
        "objects",
        "robust.hostile_objects",
        PLAIN,
        _twins(BROKEN, "an error is left behind", "a reference is kept", "doubled after the guard"),
        (ASAN,),
    ),
    Attack(
        "deals",
        "robust.hostile_deals",
        PLAIN,
        _twins(
            BROKEN,
            "a fixed price above the cap",
            "a deal at the open auction's floor",
            "a deal for any line item",
            "the open auction of a private one",
        ),
        (ASAN,),
    ),
    Attack(
        "graphs",
        "robust.hostile_graphs",
        ASAN,
        _twins(
            PLAIN,
            "python: no structure is checked",
            "python: sparse initializers are read",
            "python: metadata in any form",
        ),
    ),
    Attack(  # last: of what "files" leaves
        "accepted files",
        "robust.accepted_files",
        ASAN,
        _twins(ASAN, "a column before the first is read"),
    ),
)
