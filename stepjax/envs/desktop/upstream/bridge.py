"""Ways from upstream's controllers to a desktop's own server.

The controllers speak plain HTTP to an address and a port and know no tokens; the
server of a sandboxed desktop listens on a Unix socket and asks for one. A bridge stands
between: it takes connections, adds the token to each request and passes the bytes on.

`UnixBridge` is what evaluations use: a socket in a folder that only this user may
enter, bound into the evaluators' sandbox. There, and only in that sandbox's own
network, a port leads to it. `LoopbackBridge` opens a port of this host's loopback, for
tools that the user runs; other users' connections are closed, judged by the owner that
the kernel names.
"""

import dataclasses
import logging
import os
import re
import selectors
import socket
import struct
import threading
from pathlib import Path
from typing import Any, cast

__all__ = [
    "Address",
    "LoopbackBridge",
    "ServerAddress",
    "SocketAddress",
    "UnixBridge",
    "address_of",
]

_LOG = logging.getLogger(__name__)

MAX_HEAD_BYTES = 1 << 16
"""Longest request head passed on."""

IDLE_SECONDS = 300.0
"""A connection over which nothing moves for so long is closed."""

_CHUNK = 1 << 16
_DROPPED = re.compile(rb"(?:authorization|connection|proxy-connection):", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SocketAddress:
    """Server of a sandboxed desktop.

    Attributes:
      socket: Its Unix socket.
      token: What it asks for; never shown by `repr`.
    """

    socket: Path
    token: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """A server that asks for no token.

    Attributes:
      host: Name or address.
      port: Port.
    """

    host: str
    port: int


Address = SocketAddress | ServerAddress


def address_of(desktop: Any) -> Address:
    """Address of a desktop's server.

    Args:
      desktop: An `Address`, or what has `socket` and `token`, as a sandbox.

    Raises:
      TypeError: If it is neither.
    """
    if isinstance(desktop, SocketAddress | ServerAddress):
        return desktop
    path, token = getattr(desktop, "socket", None), getattr(desktop, "token", None)
    if path is None or token is None:
        raise TypeError(
            f"desktop must be an address or have socket and token, got {desktop!r}."
        )
    return SocketAddress(socket=Path(path), token=token)


class _Relay:
    """Accepts on `listener`, passes each connection on to `target`."""

    def __init__(self, listener: socket.socket, target: Address):
        self._listener = listener
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._serve, name="bridge", daemon=True).start()

    def close(self) -> None:
        """Take no further connections and cut the open ones."""
        with self._lock:
            self._closed = True
            connections = list(self._open)
        for one in (self._listener, *connections):
            _cut(one)
        self._listener.close()

    def _welcome(self, connection: socket.socket) -> bool:
        """True if whoever connects may."""
        return True

    def _serve(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._handle, args=(connection,), daemon=True
            ).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            try:
                if not self._welcome(connection):
                    _LOG.warning("bridge: a connection of another user was closed")
                    return
                self._pass_on(connection)
            except OSError as error:
                if not self._closed:
                    _LOG.debug("bridge: a connection ended: %s", error)

    def _pass_on(self, connection: socket.socket) -> None:
        connection.settimeout(IDLE_SECONDS)
        head = b""
        if isinstance(self._target, SocketAddress):
            head = _with_token(_read_head(connection), self._target.token)
        server = _connect(self._target)
        with server, self._counted(connection, server):
            if head:
                server.sendall(head)
            _pump(connection, server)

    def _counted(self, *connections: socket.socket) -> "_Counted":
        return _Counted(self._open, self._lock, lambda: self._closed, connections)


class _Counted:
    """Connections that `close` can cut while they are in use."""

    def __init__(self, everyone, lock, closed, connections):
        self._everyone, self._lock = everyone, lock
        self._closed, self._connections = closed, connections

    def __enter__(self) -> None:
        with self._lock:
            if self._closed():
                raise ConnectionAbortedError("the bridge is closed")
            self._everyone.update(self._connections)

    def __exit__(self, *_) -> None:
        with self._lock:
            self._everyone.difference_update(self._connections)


class UnixBridge(_Relay):
    """A bridge that listens at a path; whoever may enter the folder may connect.

    Args:
      path: Where to listen; must not exist.
      target: The server behind it.
    """

    def __init__(self, path: Path, target: Address):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(64)
        self.path = path
        super().__init__(listener, target)

    def close(self) -> None:
        """Take no further connections, cut the open ones, remove the socket."""
        super().close()
        self.path.unlink(missing_ok=True)


class LoopbackBridge(_Relay):
    """A bridge on a port of this host's loopback, open to this user alone.

    Args:
      target: The server behind it.
      port: Port to listen on; 0 for any free one.

    Raises:
      OSError: If the port is in use.
    """

    def __init__(self, target: Address, *, port: int = 0):
        listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = listener.getsockname()[1]
        super().__init__(listener, target)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def _welcome(self, connection: socket.socket) -> bool:
        return _owner(connection.getpeername(), connection.getsockname()) in (
            os.getuid(),
            0,
        )


def _owner(peer: tuple[str, int], here: tuple[str, int]) -> int | None:
    """User whose socket sits at `peer` and talks to `here`, from the kernel's table."""
    wanted = (_table_form(peer), _table_form(here))
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if (fields[1], fields[2]) == wanted:
            return int(fields[7])
    return None


def _table_form(address: tuple[str, int]) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"


def _connect(target: Address) -> socket.socket:
    if isinstance(target, ServerAddress):
        return socket.create_connection((target.host, target.port), IDLE_SECONDS)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.settimeout(IDLE_SECONDS)
        server.connect(str(target.socket))
    except BaseException:
        server.close()
        raise
    return server


def _read_head(connection: socket.socket) -> bytes:
    """Request head and whatever of the body came along with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > MAX_HEAD_BYTES:
            raise ConnectionAbortedError("a request head is too long")
        chunk = connection.recv(_CHUNK)
        if not chunk:
            raise ConnectionAbortedError("a request ended before its head did")
        data += chunk
    return data


def _with_token(data: bytes, token: str) -> bytes:
    """The request with the token, and with the promise that it is the last one.

    The token goes into the first request of a connection only, hence one request each.
    """
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not _DROPPED.match(line)]
    lines += [b"Authorization: Bearer " + token.encode("ascii"), b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _pump(near: socket.socket, far: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(near, selectors.EVENT_READ, far)
        selector.register(far, selectors.EVENT_READ, near)
        while True:
            ready = selector.select(IDLE_SECONDS)
            if not ready:
                raise TimeoutError("nothing moved")
            for key, _ in ready:
                data = cast(socket.socket, key.fileobj).recv(_CHUNK)
                if not data:
                    return
                key.data.sendall(data)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # already gone, which is what is wanted
