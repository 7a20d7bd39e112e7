"""A `bidml.fit.crew.Crew` of processes: rank 0 adds what the others send, in order of rank, and all get the same bytes.

Why a star of TCP connections and not files in a shared folder: a fit makes thousands of small sums (a linear model's
batches, Newton steps, category effects), and a folder takes tens of milliseconds for each. Why not LightGBM's network:
it offers no sum of ours. LightGBM trains in a thread of its own, which alone knows the other machines; when a rank dies
its calls may never return, and the job must. Nothing is encrypted, neither here nor in LightGBM: keep the ports inside.
"""

from __future__ import annotations

import itertools
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from bidml.errors import ConfigError, LostRankError
from bidml.fit.crew import Doubles
from training.ranks.frames import receive, send
from training.ranks.meeting import NETWORK_THREAD, PATIENT, Machine, Patience, join_others, receive_others
from training.ranks.watch import Watch

Found = TypeVar("Found")
_TYPES: Final = ("<f8", "<i8")
_LOOK: Final = 0.2


def meet(
    rank: int, machines: Sequence[Machine], about: Mapping[str, Any], patience: Patience = PATIENT
) -> Star:
    """The crew of `machines`, of which this process is `rank`, once all are there and about the same.

    Raises `ConfigError` for a rank that is not in the list and for ranks of different jobs, `LostRankError` for ranks
    that do not come.
    """
    if not (len(machines) > 1 and 0 <= rank < len(machines)):
        raise ConfigError(
            "a rank is one of several machines, from 0",
            value=f"rank {rank} of {len(machines)}",
            remedy="correct --rank or --machines",
        )
    return Star(rank, tuple(machines), json.loads(json.dumps(dict(about))), patience)


class Star:
    """See the module. Use it in a `with`; an exception inside ends the job on every rank, with its kind and text."""

    def __init__(
        self, rank: int, machines: tuple[Machine, ...], about: dict[str, Any], patience: Patience
    ) -> None:
        self.rank = rank
        self.size = len(machines)
        self.network = {"num_machines": self.size, "tree_learner": "data", "pre_partition": True}
        self._machines = machines
        self._patience = patience
        met = (
            receive_others(machines, about, patience)
            if rank == 0
            else join_others(rank, machines, about, patience)
        )
        self._data, self._ips = met.data, met.ips
        self._error: BaseException | None = None
        self._n = 0
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._watch = Watch(rank, met.life, patience.silence, self._end)

    def __enter__(self) -> Star:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._error is None:
            self._watch.tell(error)
        self._work.put(None)
        if self._thread is not None and error is None:
            self._thread.join(timeout=self._patience.silence)
        self._watch.close()
        for connection in self._data.values():
            connection.close()

    def sum(self, values: Doubles) -> Doubles:
        def added(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
            found = parts[0].copy()
            for part in parts[1:]:
                found += part
            return found

        return self._arrays("sum", [np.asarray(values, dtype="<f8")], lambda parts: [added(parts[0])])[0]

    def sums_at(self, keys: npt.NDArray[np.int64], values: Doubles) -> tuple[npt.NDArray[np.int64], Doubles]:
        def added(parts: list[list[npt.NDArray[Any]]]) -> list[npt.NDArray[Any]]:
            at, where = np.unique(np.concatenate(parts[0]), return_inverse=True)
            every = np.concatenate(parts[1])
            sums = [np.bincount(where, weights=column, minlength=len(at)) for column in every.T]
            return [at, np.column_stack(sums)]

        at, sums = self._arrays("sums_at", [keys, values], added)
        return at, sums

    def rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self._arrays("rows", [values], lambda parts: [np.concatenate(parts[0])])[0]

    def counts(
        self, texts: npt.NDArray[Any], n: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        def merged(parts: list[bytes]) -> bytes:
            found: dict[str, int] = {}
            for part in parts:
                for text, count in json.loads(part):
                    found[text] = found.get(text, 0) + count
            return json.dumps(sorted(found.items())).encode()

        pairs = list(zip(texts.tolist(), n.tolist(), strict=True))
        found = json.loads(self._combined("counts", json.dumps(pairs).encode(), merged))
        every = np.empty(len(found), dtype=object)
        every[:] = [text for text, _ in found]
        return every, np.array([count for _, count in found], dtype=np.int64)

    def told(self, message: bytes) -> list[bytes]:
        def listed(parts: list[bytes]) -> bytes:
            return json.dumps([len(part) for part in parts]).encode() + b"\n" + b"".join(parts)

        sizes, _, rest = self._combined("told", message, listed).partition(b"\n")
        ends = np.cumsum([0, *json.loads(sizes)])
        return [rest[start:stop] for start, stop in itertools.pairwise(ends)]

    def in_network(self, work: Callable[[], Found]) -> Found:
        """In the thread that LightGBM's network lives in; when the job ends elsewhere, this returns and it may not."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_network, name=NETWORK_THREAD, daemon=True)
            self._thread.start()
        found: list[Found] = []
        failed: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                found.append(work())
            except BaseException as error:
                failed.append(error)
            finally:
                done.set()

        self._work.put(run)
        while not done.wait(_LOOK):
            self.check()
        if failed:
            self._end_by_lightgbm(failed[0])
        return found[0]

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run_network(self) -> None:
        holder: lgb.Booster | None = None
        while (work := self._work.get()) is not None:
            if holder is None:
                try:
                    holder = self._opened()
                except (lgb.basic.LightGBMError, OSError) as error:
                    failed = _network_failed(error)
                    if self._error is None:
                        self._watch.tell(failed)
                        self._end(failed)
                    return
            work()
        if holder is not None:
            holder.free_network()

    def _opened(self) -> lgb.Booster:
        """A booster that holds the network of this thread open, once for the whole job: LightGBM cannot bind a port
        again that it has just left."""
        port = self._machines[self.rank].port
        _wait_until_free(port, self._patience.meeting)
        holder = lgb.Booster(
            {"verbose": -1}, lgb.Dataset(np.zeros((2, 1)), np.zeros(2), params={"verbose": -1})
        )
        machines = [f"{ip}:{m.port}" for ip, m in zip(self._ips, self._machines, strict=True)]
        minutes = max(1, round(self._patience.meeting / 60.0))
        holder.set_network(",".join(machines), port, minutes, self.size)
        return holder

    def _arrays(
        self,
        name: str,
        arrays: list[npt.NDArray[Any]],
        combine: Callable[[list[list[npt.NDArray[Any]]]], list[npt.NDArray[Any]]],
    ) -> list[npt.NDArray[Any]]:
        def combined(parts: list[bytes]) -> bytes:
            by_rank = [_unpacked(part) for part in parts]
            return _packed(combine([list(each) for each in zip(*by_rank, strict=True)]))

        return _unpacked(self._combined(name, _packed(arrays), combined))

    def _combined(self, name: str, body: bytes, combine: Callable[[list[bytes]], bytes]) -> bytes:
        """What `combine` makes of all ranks' bodies, on rank 0."""
        self.check()
        self._n += 1
        head = {"name": name, "n": self._n}
        try:
            if self.rank:
                send(self._data[0], head, body)
                return bytes(self._next(0, head))
            parts = [body, *(bytes(self._next(rank, head)) for rank in range(1, self.size))]
            found = combine(parts)
            for rank in range(1, self.size):
                send(self._data[rank], head, found)
            return found
        except OSError as error:
            self._await_the_reason()
            raise LostRankError(
                "ranks can talk to each other", value=str(error), remedy="run the job again"
            ) from None

    def _next(self, rank: int, head: dict[str, Any]) -> bytearray:
        came, body = receive(self._data[rank])
        if came != head:
            raise LostRankError(
                "all ranks take the same steps",
                value=f"rank {rank}: {came}, here: {head}",
                remedy="this is an error of bidml: report it",
            )
        return body

    def _end(self, error: BaseException) -> None:
        """Called by the watch: the job is over."""
        self._error = error
        for connection in self._data.values():
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was over already

    def _await_the_reason(self) -> None:
        """A data connection broke: the watch hears why within moments."""
        for _ in range(50):
            self.check()
            time.sleep(0.1)

    def _end_by_lightgbm(self, error: BaseException) -> None:
        if isinstance(error, lgb.basic.LightGBMError):
            self._await_the_reason()
            raise _network_failed(error) from error
        raise error


def _network_failed(error: BaseException) -> LostRankError:
    return LostRankError(
        "LightGBM's network holds", value=str(error), remedy="see that its ports are open; run the job again"
    )


def _wait_until_free(port: int, seconds: float) -> None:
    """A port of a job that has just ended is taken for a minute; LightGBM would not wait."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
        time.sleep(0.5)


def _packed(arrays: list[npt.NDArray[Any]]) -> bytes:
    shapes = []
    for array in arrays:
        assert array.dtype.newbyteorder("<").str in _TYPES, array.dtype
        shapes.append([array.dtype.str, *array.shape])
    return json.dumps(shapes).encode() + b"\n" + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)


def _unpacked(body: bytes) -> list[npt.NDArray[Any]]:
    at = body.index(b"\n") + 1
    found = []
    for kind, *shape in json.loads(body[:at]):
        n = int(np.prod(shape))
        found.append(np.frombuffer(body, dtype=kind, count=n, offset=at).reshape(shape).copy())
        at += n * found[-1].itemsize
    return found
