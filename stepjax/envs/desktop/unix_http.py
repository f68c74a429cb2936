"""HTTP over a Unix socket with the standard library, each exchange under one deadline.

The usual clients count every read on its own, so that a server that drips is never
given up; here the socket itself knows when the whole exchange must be over.
"""

import http.client
import select
import socket
import threading
import time
from collections.abc import Mapping
from email.message import Message
from typing import Any

__all__ = ["Reply", "UnixHttp", "form_body"]

_BOUNDARY = "stepjax-7c0c7d8b9e1f4a55a1d2"


class _Socket(socket.socket):
    """A Unix socket on which nothing lasts beyond `deadline`."""

    deadline = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.limit()
        return super().recv_into(*args, **kwargs)

    def limit(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)


class _Connection(http.client.HTTPConnection):
    """A connection that is a Unix socket."""

    def __init__(self, path: str):
        super().__init__("desktop")
        self._path = path
        self.deadline = 0.0

    def connect(self) -> None:
        self.sock = _Socket(socket.AF_UNIX)
        try:
            self.limit()
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise

    def limit(self) -> None:
        """Put the deadline on the socket, before something is written."""
        if isinstance(self.sock, _Socket):
            self.sock.deadline = self.deadline
            self.sock.limit()

    def stale(self) -> bool:
        """Whether the server has hung up, or says something unasked."""
        return self.sock is None or bool(select.select([self.sock], [], [], 0)[0])


class Reply:
    """A server's whole reply.

    Attributes:
      status: HTTP's number.
      headers: Names (in any case) and values.
      body: The bytes.
    """

    def __init__(self, status: int, headers: Message, body: bytes):
        self.status = status
        self.headers = headers
        self.body = body


class UnixHttp:
    """Sends requests to one Unix socket; connections are kept, threads may share it.

    Args:
      path: The socket.
      headers: Sent with every request.
    """

    def __init__(self, path: str, headers: Mapping[str, str]):
        self._path = path
        self._headers = dict(headers)
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        body: bytes,
        content_type: str,
        *,
        timeout: float,
        max_bytes: int,
    ) -> Reply:
        """Ask once; nothing is tried again.

        Args:
          method: GET or POST.
          path: What to ask for.
          body: What to send along.
          content_type: What that is.
          timeout: Seconds after which the exchange is over, whatever has come.
          max_bytes: A longer body is an error.

        Raises:
          OSError: If the server cannot be reached, hangs up or lets the time run out.
          http.client.HTTPException: If what it says is not HTTP, or cut short.
        """
        connection = self._take()
        connection.deadline = time.monotonic() + timeout
        try:
            connection.limit()
            headers = {**self._headers, "Content-Type": content_type}
            connection.request(method, path, body, headers)
            connection.limit()
            reply = _read(connection, max_bytes)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        return reply

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def _take(self) -> _Connection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if not connection.stale():
                    return connection
                connection.close()
        return _Connection(self._path)


def _read(connection: _Connection, max_bytes: int) -> Reply:
    response = connection.getresponse()
    parts: list[bytes] = []
    size = 0
    while part := response.read1(1 << 20):
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise http.client.HTTPException(f"more than {max_bytes} bytes came")
    if response.length:
        raise http.client.HTTPException(f"{response.length} bytes are missing")
    response.close()  # else the connection takes no other request
    return Reply(response.status, response.headers, b"".join(parts))


def form_body(fields: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A form with files, and its content type.

    Args:
      fields: Names and contents.

    Example:
      >>> form_body({"a": b"1"})[1].partition(";")[0]
      'multipart/form-data'
    """
    mark = _BOUNDARY
    while any(mark.encode() in content for content in fields.values()):
        mark += "x"
    parts: list[bytes] = []
    for name, content in fields.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    parts.append(f"--{mark}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={mark}"
