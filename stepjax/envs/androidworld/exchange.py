"""HTTP over TCP with the standard library, each exchange under one deadline.

Every request has a connection of its own: AndroidWorld's server drops idle ones after
five seconds, and a request must never be lost on one that is about to go.
"""

import dataclasses
import http.client
import socket
import ssl
import threading
import time
import urllib.parse
from typing import Any, Protocol

from stepjax.envs.androidworld.errors import (
    BrokenAnswerError,
    ServerTimeoutError,
    UnreachableError,
)

__all__ = ["Address", "Exchange", "Reply", "Sink", "parse_address"]

_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server is.

    Attributes:
      host: Its name or number.
      port: Its TCP port.
      path: What stands before every route, "" or "/like/this".
      secure: Whether it is spoken to over TLS.
    """

    host: str
    port: int
    path: str = ""
    secure: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * self.secure}://{host}:{self.port}{self.path}"


def parse_address(url: str) -> Address:
    """The address that a URL names.

    Args:
      url: Such as `http://host:5000`.

    Raises:
      ValueError: If it is no such URL.

    Example:
      >>> str(parse_address("http://localhost:5000/"))
      'http://localhost:5000'
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        port = parts.port
    except ValueError:
        parts = port = None
    sound = (
        parts is not None
        and parts.scheme in ("http", "https")
        and parts.hostname
        and not (parts.username or parts.password or parts.query or parts.fragment)
        and url.isascii()
        and not any(sign.isspace() or not sign.isprintable() for sign in url.strip())
    )
    if parts is None or not sound or not parts.hostname or port == 0:
        raise ValueError(
            "url must be the address of AndroidWorld's server, such as "
            f"http://localhost:5000, got {url!r}."
        )
    secure = parts.scheme == "https"
    return Address(
        host=parts.hostname,
        port=port or (443 if secure else 80),
        path=parts.path.rstrip("/"),
        secure=secure,
    )


class Sink(Protocol):
    """Takes an answer's body as it comes, so that it is never there as a whole."""

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """A server's answer.

    Attributes:
      status: HTTP's number.
      kind: Its content type, "" if it names none.
      body: The bytes; empty where a sink took them.
    """

    status: int
    kind: str
    body: bytes


class Exchange:
    """Sends requests to one server, one at a time.

    Args:
      address: Of the server.
    """

    def __init__(self, address: Address):
        self.address = address
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None

    def ask(
        self,
        method: str,
        route: str,
        body: bytes | None = None,
        *,
        timeout: float,
        max_bytes: int,
        sink: Sink | None = None,
    ) -> Reply:
        """Ask once; nothing is tried again.

        Args:
          method: GET or POST.
          route: Path and query.
          body: JSON to send along, or None.
          timeout: Seconds after which the exchange is over, whatever has come.
          max_bytes: A longer body is an error.
          sink: Takes the body of an answer with status 200.

        Raises:
          UnreachableError: If there is no connection.
          ServerTimeoutError: If the time runs out.
          BrokenAnswerError: If the answer is not HTTP, too long, or cut short.
        """
        name = f"{self.address}: {method} {route.partition('?')[0]}"
        deadline = time.monotonic() + timeout
        connection = self._connect(name, deadline, timeout)
        try:
            headers = {"Connection": "close", "Accept": "application/json"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, self.address.path + route, body, headers)
            return _read(connection.getresponse(), max_bytes, sink)
        except TimeoutError:
            raise ServerTimeoutError(
                f"{name}: no whole answer in {timeout:g} s"
            ) from None
        except (http.client.RemoteDisconnected, ConnectionError) as error:
            raise BrokenAnswerError(f"{name}: the server hung up") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenAnswerError(
                f"{name}: no proper answer: {type(error).__name__}: {error}"
            ) from error
        finally:
            with self._lock:
                self._sock = None
            connection.close()

    def abort(self) -> None:
        """Cut the exchange under way, if any; safe from any thread."""
        with self._lock:
            if self._sock is not None:
                try:
                    self._sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended by itself

    def _connect(
        self, name: str, deadline: float, timeout: float
    ) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.address.host, self.address.port)
        try:
            connection.sock = sock = _open(self.address, deadline)
        except TimeoutError:
            text = f"{name}: no connection in {timeout:g} s"
            raise UnreachableError(text) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnreachableError(f"{name}: no connection: {reason}") from error
        with self._lock:
            self._sock = sock
        return connection


class _Limited:
    """A socket on which nothing lasts beyond `deadline`."""

    deadline = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read, in what time is left."""
        self.limit()
        return super().recv_into(*args, **kwargs)  # pyright: ignore

    def limit(self) -> None:
        """Put the time that is left on the socket."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)  # pyright: ignore


class _Tcp(_Limited, socket.socket):
    pass


class _Tls(_Limited, ssl.SSLSocket):
    pass


def _open(address: Address, deadline: float) -> _Tcp | _Tls:
    """A connection; the last error if no address of the host answers."""
    places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failed: OSError = OSError(f"{address.host} has no address")
    for family, kind, protocol, _, place in places:
        sock = _Tcp(family, kind, protocol)
        sock.deadline = deadline
        try:
            sock.limit()
            sock.connect(place)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _secured(sock, address, deadline) if address.secure else sock
        except OSError as error:
            sock.close()
            failed = error
    raise failed


def _secured(sock: _Tcp, address: Address, deadline: float) -> _Tls:
    context = ssl.create_default_context()
    context.sslsocket_class = _Tls
    tls: Any = context.wrap_socket(sock, server_hostname=address.host)
    tls.deadline = deadline
    return tls


def _read(
    response: http.client.HTTPResponse, max_bytes: int, sink: Sink | None
) -> Reply:
    parts: list[bytes] = []
    size = 0
    takes = sink is not None and response.status == 200
    while part := response.read1(_CHUNK):
        size += len(part)
        if size > max_bytes:
            raise http.client.HTTPException(f"more than {max_bytes} bytes came")
        if takes and sink is not None:
            sink.feed(part)
        else:
            parts.append(part)
    if response.length:
        raise http.client.HTTPException(f"{response.length} bytes are missing")
    kind = response.headers.get_content_type() if response.headers else ""
    return Reply(status=response.status, kind=kind, body=b"".join(parts))
