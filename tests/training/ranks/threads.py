"""Ranks as threads of one process: LightGBM's network is a thread's own, so that they meet as machines do."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from training.ranks.meeting import Machine, Patience
from training.ranks.star import Star, meet

Found = TypeVar("Found")
QUICK = Patience(meeting=20.0, silence=20.0)


def free_machines(n: int) -> tuple[Machine, ...]:
    """Places on this host, with the port above them free, too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            first: int = server.getsockname()[1]
        try:
            for port in range(first, first + n + 1):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return tuple(Machine("127.0.0.1", first + rank) for rank in range(n))


def together(
    n: int,
    job: Callable[[Star], Found],
    *,
    about: Callable[[int], Mapping[str, Any]] = lambda rank: {},
    patience: Patience = QUICK,
) -> list[Found | BaseException]:
    """What `job` returns or raises on each of `n` ranks."""
    machines = free_machines(n)
    found: list[Any] = [None] * n

    def run(rank: int) -> None:
        try:
            with meet(rank, machines, about(rank), patience) as crew:
                found[rank] = job(crew)
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(n)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)  # they wait for each other all the time
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120.0)
    finally:
        sys.setswitchinterval(interval)
    return found
