"""Signs of life between ranks: a thread that says "I live" every second, and notices who no longer says so.

A process that dies closes its connection, which is seen at once; a machine that vanishes or hangs is silent, which is
seen after `silence` seconds. Rank 0 hears all and tells all: one error ends the job everywhere.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from bidml.errors import LostRankError
from training.ranks.frames import receive, send
from training.ranks.meeting import error_from, error_to_json

_EVERY: Final = 1.0
_SEND_SECONDS: Final = 10.0


class Watch:
    """Over the life connections of one rank. `lost` is called once, in the watch's thread, with what went wrong."""

    def __init__(
        self,
        rank: int,
        life: Mapping[int, socket.socket],
        silence: float,
        lost: Callable[[BaseException], None],
    ) -> None:
        self._rank = rank
        self._life = dict(life)
        self._silence = silence
        self._lost = lost
        self._over = threading.Event()
        self._sending = threading.Lock()
        for connection in self._life.values():
            connection.settimeout(_SEND_SECONDS)
        self._thread = threading.Thread(target=self._run, name="bidml-ranks-watch", daemon=True)
        self._thread.start()

    def tell(self, error: BaseException) -> None:
        """Ends the job on the other ranks (rank 0: on all, else through rank 0) with `error`."""
        self._over.set()
        self._send({"error": error_to_json(error, self._rank)})

    def close(self) -> None:
        """After the job; the others must not take it for a death."""
        if not self._over.is_set():
            self._send({"bye": True})
        self._over.set()
        self._thread.join(timeout=2.0 * _SEND_SECONDS)
        for connection in self._life.values():
            connection.close()

    def _run(self) -> None:
        heard = dict.fromkeys(self._life, time.monotonic())
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._life.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while not self._over.is_set() and selector.get_map():
                self._send({})
                until = time.monotonic() + _EVERY
                while (left := until - time.monotonic()) > 0.0 and not self._over.is_set():
                    for key, _ in selector.select(min(left, 0.1)):
                        heard[key.data] = time.monotonic()
                        if not self._hear(key.data):
                            selector.unregister(key.fileobj)
                            del heard[key.data]
                now = time.monotonic()
                for rank, last in heard.items():
                    if now - last > self._silence:
                        self._fail(rank, _silent(rank, self._silence))

    def _hear(self, rank: int) -> bool:
        """Reads what `rank` says; False when it has left."""
        try:
            said, _ = receive(self._life[rank])
        except OSError:
            self._fail(rank, _gone(rank))
            return False
        if "error" in said:
            self._fail(rank, error_from(said["error"]), said["error"])
        return "bye" not in said

    def _fail(self, rank: int, error: BaseException, as_told: dict[str, Any] | None = None) -> None:
        if self._over.is_set():
            return
        self._over.set()
        if self._rank == 0:
            self._send({"error": as_told or error_to_json(error, 0)}, but=rank)
        self._lost(error)

    def _send(self, message: dict[str, Any], *, but: int | None = None) -> None:
        with self._sending:
            for rank, connection in self._life.items():
                if rank != but:
                    try:
                        send(connection, message)
                    except OSError:
                        continue  # its end is seen where it is read


def _gone(rank: int) -> LostRankError:
    return LostRankError(
        "every rank lives to the end",
        value=f"rank {rank} is gone",
        remedy="see its log, and run the job again",
    )


def _silent(rank: int, seconds: float) -> LostRankError:
    return LostRankError(
        f"every rank gives a sign of life within {seconds:g} s",
        value=f"rank {rank} does not",
        remedy="see whether its machine lives, and run the job again",
    )
