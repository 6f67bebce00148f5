"""Messages over a stream socket: a 4-byte length, then strict JSON. Used on both sides of a session's channel.

The far side is untrusted: a message has a largest size and a largest number of lists and objects (an empty one takes
two bytes of text and sixty of memory), NaN and infinities are refused both ways, and anything that is not a JSON
object is a ``WireError``. Left out: pickles, on purpose.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_HEADER = struct.Struct("!I")
_MOST_CONTAINERS = 1_000_000
_NO_MESSAGE = 1 << 30  # a length from here on is no length


class WireError(RuntimeError):
    """The other side sent something that is not a message, or is gone."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def send(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send one message. Raises ValueError for NaN or infinities, TypeError for what JSON cannot say, OSError."""
    body = json.dumps(message, allow_nan=False).encode("ascii")
    channel.sendall(_HEADER.pack(len(body)) + body)


class TooLarge(WireError):
    """A message is larger than it may be."""


def receive(channel: socket.socket, largest: int = 64 << 20) -> tuple[dict[str, Any], int]:
    """Receive one message of at most ``largest`` bytes; it, and the bytes it took.

    Raises:
        WireError: closed, too large, or not a JSON object. TimeoutError where the socket has a timeout.
    """
    (size,) = _HEADER.unpack(_exactly(channel, _HEADER.size))
    if size >= _NO_MESSAGE:
        raise WireError("what was sent is not a message")
    if size > largest:
        raise TooLarge(f"a message of {size} bytes, more than the {largest} allowed")
    body = _exactly(channel, size)
    if body.count(b"[") + body.count(b"{") > _MOST_CONTAINERS:
        raise TooLarge(f"a message of more than {_MOST_CONTAINERS} lists and objects")
    try:
        message = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a JSON message: {error}") from None
    if not isinstance(message, dict):
        raise WireError("not a JSON object")
    return message, size


def _exactly(channel: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = channel.recv(min(size - len(received), 1 << 20))
        if not part:
            raise WireError("the channel is closed")
        received += part
    return bytes(received)
