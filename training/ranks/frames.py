"""Messages on a socket: a small JSON head, then bytes. No pickle; sizes are bounded before anything is allocated."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final

_SIZES: Final = struct.Struct(">4sIQ")
_MAGIC: Final = b"bid1"
_MOST_HEAD: Final = 1 << 20
_MOST_BODY: Final = 1 << 36


class BrokenFrameError(OSError):
    """What came is no message of ours, or ended in the middle."""


def send(connection: socket.socket, head: dict[str, Any], body: bytes | memoryview = b"") -> None:
    text = json.dumps(head).encode()
    connection.sendall(_SIZES.pack(_MAGIC, len(text), len(body)) + text)
    if len(body):
        connection.sendall(body)


def receive(connection: socket.socket, *, most_body: int = _MOST_BODY) -> tuple[dict[str, Any], bytearray]:
    """The next message; raises `BrokenFrameError`, and the socket's own `OSError`s."""
    magic, head_size, body_size = _SIZES.unpack(_exactly(connection, _SIZES.size))
    if magic != _MAGIC or head_size > _MOST_HEAD or body_size > most_body:
        raise BrokenFrameError(f"a message of bidml's ranks was awaited, {magic!r} came")
    try:
        head = json.loads(_exactly(connection, head_size))
    except ValueError as error:
        raise BrokenFrameError(f"the head of a message is JSON: {error}") from None
    if not isinstance(head, dict):
        raise BrokenFrameError(f"the head of a message is an object, {head!r} came")
    return head, _exactly(connection, body_size)


def _exactly(connection: socket.socket, n: int) -> bytearray:
    found = bytearray(n)
    view = memoryview(found)
    while view:
        got = connection.recv_into(view)
        if not got:
            raise BrokenFrameError("the other side closed the connection")
        view = view[got:]
    return found
