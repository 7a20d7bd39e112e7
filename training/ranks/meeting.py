"""How ranks find each other: rank 0 listens, the others come, and all must be about the same job.

Every rank brings two connections to rank 0: `data`, on which sums travel, and `life`, which says that it lives. What a
rank is about (code, configuration, window) is compared before anything is read; a difference is an error on all.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bidml.errors import BidmlError, ConfigError, LostRankError
from training.ranks.frames import receive, send

NETWORK_THREAD: Final = "bidml-ranks-lightgbm"
_CHANNELS: Final = ("data", "life")
_HELLO_SECONDS: Final = 10.0
_MOST_HELLO: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a rank is: `port` is LightGBM's."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Patience:
    """How long ranks wait, in seconds: for each other at the start; for a sign of life."""

    meeting: float = 600.0
    silence: float = 120.0


PATIENT: Final = Patience()


@dataclass(frozen=True, slots=True)
class Met:
    """The connections to the other side, by rank (of rank 0: to every other; else: to rank 0), and every rank's IP."""

    data: dict[int, socket.socket]
    life: dict[int, socket.socket]
    ips: tuple[str, ...]


def machines_of(text: str) -> tuple[Machine, ...]:
    """`host:port,host:port,…`, rank 0 first; raises `ConfigError`."""
    found = []
    for part in text.split(","):
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigError("machines are host:port, by rank", value=part, remedy="correct --machines")
        found.append(Machine(host, int(port)))
    if len(set(found)) < len(found):
        raise ConfigError("every rank has a place of its own", value=text, remedy="give each another port")
    return tuple(found)


def meeting_place(machines: tuple[Machine, ...]) -> Machine:
    """Where rank 0 listens for the others: the port above all of LightGBM's."""
    return Machine(machines[0].host, max(machine.port for machine in machines) + 1)


def receive_others(machines: tuple[Machine, ...], about: Mapping[str, Any], patience: Patience) -> Met:
    """Rank 0's side. Raises `LostRankError` when some do not come in time, `ConfigError` for those of another job."""
    place, deadline = meeting_place(machines), time.monotonic() + patience.meeting
    found: dict[tuple[int, str], socket.socket] = {}
    others: dict[int, Mapping[str, Any]] = {}
    wanted = {(rank, channel) for rank in range(1, len(machines)) for channel in _CHANNELS}
    with socket.create_server(("", place.port), backlog=2 * len(machines)) as server:
        while set(found) != wanted:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = sorted({rank for rank, _ in wanted - set(found)})
                absent = _absent(missing, patience)
                _dismiss(found, absent)
                raise absent from None
            _introduce(connection, wanted - set(found), found, others)
    wrong = {rank: _difference(about, other) for rank, other in others.items() if other != about}
    if wrong:
        error = ConfigError(
            "all ranks have the same code, configuration and window",
            value={f"rank {rank}": difference for rank, difference in wrong.items()},
            remedy="deploy one image and one configuration to all",
        )
        _dismiss(found, error)
        raise error
    data, life = ({rank: c for (rank, of), c in found.items() if of == channel} for channel in _CHANNELS)
    own = next(iter(sorted((c.getsockname()[0] for c in data.values()), key=_is_loopback)))
    ips = (own, *(data[rank].getpeername()[0] for rank in range(1, len(machines))))
    for connection in (*data.values(), *life.values()):
        send(connection, {"ips": ips})
    return Met(data, life, ips)


def join_others(
    rank: int, machines: tuple[Machine, ...], about: Mapping[str, Any], patience: Patience
) -> Met:
    """The side of the other ranks; raises what rank 0 raises, and `LostRankError` when there is none."""
    deadline = time.monotonic() + patience.meeting
    connections: list[socket.socket] = []
    try:
        answer = _hello(connections, rank, meeting_place(machines), about, deadline)
        if "error" in answer:
            raise error_from(answer["error"])
    except BaseException:
        for connection in connections:
            connection.close()
        raise
    return Met({0: connections[0]}, {0: connections[1]}, tuple(answer["ips"]))


def error_to_json(error: BaseException, rank: int) -> dict[str, Any]:
    """What the other ranks raise when this one raises `error`."""
    if isinstance(error, BidmlError):
        value = error.value if isinstance(error.value, str) else repr(error.value)
        return {
            "kind": type(error).__name__,
            "rule": error.rule,
            "value": value if isinstance(error, LostRankError) else f"rank {rank}: {value}",
            "remedy": error.remedy,
        }
    return {
        "kind": "LostRankError",
        "rule": "every rank works to the end",
        "value": f"rank {rank}: {type(error).__name__}: {error}",
        "remedy": "see its log, and run the job again",
    }


def error_from(document: Mapping[str, Any]) -> BaseException:
    from bidml import errors

    kind = getattr(errors, str(document.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.BidmlError)):
        kind = LostRankError
    rule, value, remedy = (str(document.get(key, "")) for key in ("rule", "value", "remedy"))
    return kind(rule, value=value, remedy=remedy)


def _introduce(
    connection: socket.socket,
    wanted: set[tuple[int, str]],
    found: dict[tuple[int, str], socket.socket],
    others: dict[int, Mapping[str, Any]],
) -> None:
    """Takes a connection of one of the ranks; whoever else comes is turned away."""
    connection.settimeout(_HELLO_SECONDS)
    try:
        hello, _ = receive(connection, most_body=_MOST_HELLO)
        key = (hello["rank"], hello["channel"])
        if key not in wanted:
            raise KeyError(key)
        others[hello["rank"]] = hello["about"]
    except (OSError, KeyError, TypeError):
        connection.close()
        return
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found[key] = connection


def _hello(
    connections: list[socket.socket], rank: int, place: Machine, about: Mapping[str, Any], deadline: float
) -> dict[str, Any]:
    """Adds a connection for each channel; what rank 0 says once all are there."""
    for channel in _CHANNELS:
        connections.append(_connected(place, deadline))
        send(connections[-1], {"rank": rank, "channel": channel, "about": dict(about)})
    for connection in connections:
        connection.settimeout(max(1.0, deadline - time.monotonic()) + _HELLO_SECONDS)
        try:
            answer, _ = receive(connection)
        except OSError as error:
            raise LostRankError(
                "rank 0 answers", value=str(error), remedy="see its log, and run the job again"
            ) from None
        connection.settimeout(None)
    return answer


def _connected(place: Machine, deadline: float) -> socket.socket:
    while True:
        try:
            connection = socket.create_connection((place.host, place.port), timeout=5.0)
        except OSError as error:
            if time.monotonic() > deadline:
                raise LostRankError(
                    f"rank 0 listens at {place.host}:{place.port}",
                    value=str(error),
                    remedy="start all ranks; see that the port is open between them",
                ) from None
            time.sleep(0.1)
        else:
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection


def _dismiss(found: Mapping[tuple[int, str], socket.socket], error: BaseException) -> None:
    for connection in found.values():
        try:
            send(connection, {"error": error_to_json(error, 0)})
        except OSError:
            continue
        finally:
            connection.close()


def _absent(missing: list[int], patience: Patience) -> LostRankError:
    return LostRankError(
        f"all ranks come within {patience.meeting:g} s",
        value=f"without {missing}",
        remedy="start them all; see that --machines and its ports are right",
    )


def _difference(ours: Mapping[str, Any], theirs: Any) -> Any:
    if not isinstance(theirs, Mapping):
        return theirs
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return {name: json.dumps(theirs.get(name))[:80] for name in names}


def _is_loopback(ip: str) -> bool:
    return ip.startswith("127.")
