"""Frames over TCP: a kind, a length, a payload. No payload is ever executed."""

import socket
import struct
import threading
import time
from collections.abc import Sequence

__all__ = [
    "FAILED",
    "HELLO",
    "PARTS",
    "PING",
    "REFUSED",
    "WELCOME",
    "ForeignSpeechError",
    "Wire",
    "join_parts",
    "split_parts",
]

HELLO, WELCOME, REFUSED = b"H", b"W", b"N"
PING, PARTS, FAILED = b"P", b"G", b"F"

_MAGIC = b"SJX1"
_HEAD = struct.Struct("!cQ")
_COUNT = struct.Struct("!Q")
_PIECE = 1 << 20  # bytes asked of the kernel at once


class ForeignSpeechError(ConnectionError):
    """What arrived was not written by this package."""


class Wire:
    """A connection to one other process; any thread may send, one thread receives.

    Attributes:
      address: The other end, for messages.
    """

    def __init__(self, connection: socket.socket):
        """A wire over an open connection, which it owns."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = str(connection.getpeername()[0])
        self._socket = connection
        self._sending = threading.Lock()

    def patience(self, seconds: float | None) -> None:
        """Let `receive` and `send` fail after so many seconds without a byte."""
        self._socket.settimeout(seconds)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one frame.

        Raises:
          OSError: If the other end is gone or takes nothing for too long.
        """
        with self._sending:
            self._send_all(_MAGIC + _HEAD.pack(kind, len(payload)))
            self._send_all(payload)

    def _send_all(self, data: bytes) -> None:
        # Unlike `sendall`, whose timeout bounds the whole however fast it goes.
        left = memoryview(data)
        while left:
            left = left[self._socket.send(left[:_PIECE]) :]

    def ended(self) -> bool:
        """Whether the other end closed the connection and all it sent was received."""
        patience = self._socket.gettimeout()
        self._socket.settimeout(0.0)
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(patience)

    def receive(
        self, limit: int | None = None, *, within: float | None = None
    ) -> tuple[bytes, bytes]:
        """Kind and payload of the next frame.

        Args:
          limit: Most bytes of a payload to accept.
          within: Seconds that the whole frame may take, in place of the patience
            between two bytes, which it replaces for good.

        Raises:
          ForeignSpeechError: If the other end speaks otherwise, or at greater length.
          OSError: If the other end is gone or silent for too long.
        """
        strange = ForeignSpeechError(f"{self.address} is not a process of this run")
        deadline = None if within is None else time.monotonic() + within
        if self._exactly(len(_MAGIC), deadline) != _MAGIC:
            raise strange
        kind, size = _HEAD.unpack(self._exactly(_HEAD.size, deadline))
        if limit is not None and size > limit:
            raise strange
        return kind, self._exactly(size, deadline)

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        found = bytearray()
        while len(found) < size:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("timed out")
                self._socket.settimeout(left)
            piece = self._socket.recv(min(size - len(found), _PIECE))
            if not piece:
                raise ConnectionError("connection closed")
            found += piece
        return bytes(found)

    def close(self) -> None:
        """End the connection; a thread that receives on it is woken."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other end was faster
        self._socket.close()


def join_parts(parts: Sequence[bytes]) -> bytes:
    """Several payloads as one; `split_parts` undoes it."""
    lengths = [_COUNT.pack(len(part)) for part in parts]
    return b"".join([_COUNT.pack(len(parts)), *lengths, *parts])


def split_parts(joined: bytes) -> list[bytes]:
    """What `join_parts` joined.

    Raises:
      ForeignSpeechError: If the lengths do not add up.

    Example:
      >>> split_parts(join_parts([b"a", b"", b"bc"]))
      [b'a', b'', b'bc']
    """
    try:
        (count,) = _COUNT.unpack_from(joined)
        lengths = [
            _COUNT.unpack_from(joined, _COUNT.size * (1 + index))[0]
            for index in range(min(count, len(joined)))
        ]
    except struct.error as error:
        raise ForeignSpeechError("a message is cut short") from error
    at, parts = _COUNT.size * (1 + count), []
    for length in lengths:
        parts.append(joined[at : at + length])
        at += length
    if at != len(joined):
        raise ForeignSpeechError("a message is cut short")
    return parts
