"""What a crew of processes promises: the same bytes on every rank, and one end for all."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import numpy as np
import pytest

from bidml.errors import ConfigError, DataError, LostRankError
from bidml.fit.crew import ALONE, mean, sampled, total
from tests.training.ranks.threads import QUICK, free_machines, together
from training.ranks.frames import BrokenFrameError, receive, send
from training.ranks.meeting import Machine, Patience, machines_of, meeting_place
from training.ranks.star import Star, meet

TEXTS = np.array(["", "b", "a", "\udc80", "Ελλάδα", "a", "b", "a"], dtype=object)


def test_sums_over_ranks_are_those_of_one_machine() -> None:
    """Of integers exactly, whatever the split; and every rank gets the same bytes also where sums round."""
    whole = np.arange(24.0).reshape(12, 2)
    rough = np.random.default_rng(0).normal(size=(3, 5)) * 10.0 ** np.arange(5)
    keys = np.array([5, 2, 5, 9, 2, 7, 1, 1, 1, 9, 5, 2])

    def job(crew: Star) -> tuple[Any, ...]:
        mine = slice(crew.rank, None, crew.size)
        at, where = np.unique(keys[mine], return_inverse=True)
        local = np.array([np.bincount(where, weights=column) for column in whole[mine].T]).T
        texts, n = np.unique(TEXTS[mine].astype(str), return_counts=True)
        return (
            crew.sum(whole[mine].sum(axis=0)).tolist(),
            [found.tolist() for found in crew.sums_at(at, local)],
            np.sort(crew.rows(whole[mine]), axis=0).tolist(),
            [found.tolist() for found in crew.counts(texts.astype(object), n)],
            mean(crew, whole[mine][:, 0]),
            total(crew, 1.0, crew.rank),
            crew.told(b"\x00" * crew.rank),
            crew.sum(rough[crew.rank]).tobytes(),
            sampled(crew, keys[mine], most=6).tolist(),
        )

    found = together(3, job)
    assert found[0] == found[1] == found[2]
    assert isinstance(found[0], tuple), found[0]
    every, at_keys, rows, texts, middle, totals, told, _, sample = found[0]
    assert every == whole.sum(axis=0).tolist()
    distinct, where = np.unique(keys, return_inverse=True)
    assert at_keys[0] == distinct.tolist()
    assert at_keys[1] == np.array([np.bincount(where, weights=column) for column in whole.T]).T.tolist()
    assert rows == whole.tolist()
    assert texts == [["", "a", "b", "Ελλάδα", "\udc80"], [1, 3, 2, 1, 1]]
    assert (middle, totals, told) == (whole[:, 0].mean(), [3.0, 3.0], [b"", b"\x00", b"\x00\x00"])
    assert len(sample) == 6
    assert sampled(ALONE, keys, most=2) is keys


def test_ranks_of_different_jobs_do_not_begin() -> None:
    """Another configuration on one of them is an error on each."""
    found = together(3, lambda crew: crew.told(b""), about=lambda rank: {"config": "b" if rank == 2 else "a"})
    assert [type(error) for error in found] == [ConfigError] * 3
    assert all("rank 2" in str(error) for error in found)


def test_an_error_on_one_rank_is_raised_on_all() -> None:
    """Of the same kind, with its text, so that all exit alike; also where another is about to wait for it."""

    def job(crew: Star) -> list[bytes]:
        if crew.rank == 2:
            raise DataError("a log has rows", value="none", remedy="look")
        return crew.told(b"")

    found = together(3, job)
    assert [type(error) for error in found] == [DataError] * 3
    assert {str(error) for error in found[:2]} == {"a log has rows; found rank 2: none; look"}


def test_an_unexpected_error_ends_the_others_as_a_lost_rank() -> None:
    """They may try again: exit code 1."""

    def job(crew: Star) -> list[bytes]:
        if crew.rank == 0:
            raise ZeroDivisionError
        return crew.told(b"")

    found = together(2, job)
    assert [type(error) for error in found] == [ZeroDivisionError, LostRankError]
    assert isinstance(found[1], LostRankError)
    assert found[1].exit_code == 1


def test_ranks_that_take_different_steps_are_stopped() -> None:
    """Never a sum of two different things."""
    found = together(2, lambda crew: crew.told(b"") if crew.rank else crew.sum(np.zeros(1)))
    assert [type(error) for error in found] == [LostRankError] * 2


def test_a_job_that_lightgbm_never_ends_does_not_hang() -> None:
    """Its thread stays behind; the rank raises what ended the others."""
    stuck = threading.Event()

    def job(crew: Star) -> None:
        if crew.rank == 1:
            time.sleep(0.3)
            raise DataError("a", value="b", remedy="c")
        crew._thread = threading.Thread(target=stuck.wait, daemon=True)
        crew.in_network(stuck.wait)

    began = time.monotonic()
    try:
        found = together(2, job)
    finally:
        stuck.set()
    assert [type(error) for error in found] == [DataError, DataError]
    assert time.monotonic() - began < 10.0


def test_a_rank_that_never_comes_is_missed_in_time() -> None:
    """And named, on the ranks that came."""
    machines = free_machines(3)
    errors: list[BaseException] = []

    def rank_1() -> None:
        try:
            meet(1, machines, {}, Patience(1.0, 5.0))
        except LostRankError as error:
            errors.append(error)

    thread = threading.Thread(target=rank_1)
    thread.start()
    with pytest.raises(LostRankError, match=r"without \[2\]"):
        meet(0, machines, {}, Patience(1.0, 5.0))
    thread.join()
    assert "without [2]" in str(errors[0])


class Puppet(threading.Thread):
    """Rank 1 of two as a test plays it: it says hello, and then what it is told to."""

    def __init__(self, machines: tuple[Machine, ...]) -> None:
        super().__init__()
        self._place = meeting_place(machines)
        self.connections: list[socket.socket] = []
        self.start()

    def run(self) -> None:
        for channel in ("data", "life"):
            self.connections.append(connected(self._place))
            send(self.connections[-1], {"rank": 1, "channel": channel, "about": {}})
        for connection in self.connections:
            receive(connection)


def connected(place: Machine) -> socket.socket:
    for _ in range(100):
        try:
            return socket.create_connection((place.host, place.port), timeout=5.0)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("nobody listens")


def test_a_silent_rank_is_given_up() -> None:
    """A machine that vanished closes nothing; one that dies closes its connection, and is missed at once."""
    for ends_it, seconds in ((False, 1.5), (True, 60.0)):
        machines = free_machines(2)
        puppet = Puppet(machines)
        began = time.monotonic()

        def job(machines: tuple[Machine, ...], patience: Patience, puppet: Puppet, ends_it: bool) -> None:
            with meet(0, machines, {}, patience) as crew:
                puppet.join()
                for connection in puppet.connections if ends_it else ():
                    connection.close()
                crew.told(b"")

        with pytest.raises(LostRankError, match="rank 1"):
            job(machines, Patience(10.0, seconds), puppet, ends_it)
        assert time.monotonic() - began < 20.0
        for connection in puppet.connections:
            connection.close()


def test_strangers_are_turned_away() -> None:
    """A scanner, a rank that is none, a rank that came already: the meeting goes on without them."""
    machines = free_machines(2)
    place = meeting_place(machines)

    def strange() -> None:
        for first in (b"GET / HTTP/1.0\r\n\r\n" + b" " * 64, b""):
            connection = connected(place)
            connection.sendall(first)
            connection.close()
        for hello in ({"rank": 7, "channel": "data"}, {"rank": [], "channel": "data", "about": {}}, {}):
            connection = connected(place)
            send(connection, hello)
            with pytest.raises(OSError):  # noqa: PT011  (closed: a reset, or an end)
                receive(connection)
            connection.close()

    found: list[Any] = []

    def rank_0() -> None:
        with meet(0, machines, {}, QUICK) as crew:
            found.append(crew.told(b"0"))

    thread = threading.Thread(target=rank_0)
    thread.start()
    strange()
    with meet(1, machines, {}, QUICK) as crew:
        assert crew.told(b"1") == [b"0", b"1"]
    thread.join()
    assert found == [[b"0", b"1"]]


def test_frames_are_bounded_before_anything_is_allocated() -> None:
    """A head or a body that claims too much, no object, half a message."""
    for raw in (b"bid1" + b"\xff" * 12, b"bid1" + (2).to_bytes(4, "little") + bytes(8) + b"[]", b"bid1\x00"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(raw)
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(BrokenFrameError):
                receive(ours)


@pytest.mark.parametrize("text", ["", "a", "a:0", "a:70000", "a:1,", "a:1,a:1", ":80"])
def test_machines_are_hosts_and_ports_each_once(text: str) -> None:
    with pytest.raises(ConfigError):
        machines_of(text)
    assert machines_of("a:1, b-1.c:65535") == (Machine("a", 1), Machine("b-1.c", 65535))


@pytest.mark.parametrize(("rank", "text"), [(2, "a:1,b:1"), (-1, "a:1,b:1"), (0, "a:1")])
def test_a_rank_is_one_of_several(rank: int, text: str) -> None:
    with pytest.raises(ConfigError, match="rank"):
        meet(rank, machines_of(text), {})
