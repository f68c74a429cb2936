"""Looking at a desktop with a VNC viewer, though it has no network.

x11vnc runs inside and listens on a Unix socket in the sandbox's own /tmp, which the
host reaches through /proc; a port on the host's loopback is joined to it. Whoever wants
in needs the password. Meant for people who look at a task, not for training.
"""

import contextlib
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["VncError", "serve_vnc"]

_START_SECONDS = 30.0
_CHUNK = 65536


class VncError(RuntimeError):
    """The desktop cannot be served; the message is one line."""


@contextlib.contextmanager
def serve_vnc(sandbox: Any, client: Any, *, port: int = 0) -> Iterator[tuple[int, str]]:
    """Serves a desktop to VNC viewers on this machine for as long as the block runs.

    Args:
      sandbox: The desktop's sandbox.
      client: The desktop's client.
      port: Port on the loopback interface, 0 for any that is free.

    Yields:
      The port and the password, made for this call.

    Raises:
      VncError: If the port is taken, or x11vnc does not start.
    """
    listener = _listen(port)
    with contextlib.closing(listener):
        password = secrets.token_urlsafe(6)  # VNC takes no more than 8 characters
        path = _start_server(sandbox, client, password)
        threading.Thread(
            target=_accept, args=(listener, path), name="stepjax-vnc", daemon=True
        ).start()
        try:
            yield listener.getsockname()[1], password
        finally:
            # Closing alone does not wake a thread that waits in accept.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(4)
    except (OSError, OverflowError) as error:
        listener.close()
        raise VncError(
            f"port {port} cannot be used: {error}; choose another with --port, or 0 "
            "for any that is free."
        ) from error
    return listener


def _start_server(sandbox: Any, client: Any, password: str) -> str:
    """Path, as the host sees it, of the socket x11vnc listens on."""
    name = f"vnc-{secrets.token_hex(8)}"
    secret, inside = f"/tmp/{name}.password", f"/tmp/{name}"
    client.write_file(secret, f"{password}\n".encode())
    client.launch(
        [
            "x11vnc", "-display", ":0", "-unixsock", inside, "-rfbport", "0", "-no6",
            "-passwdfile", f"rm:{secret}", "-forever", "-shared", "-quiet",
        ]
    )  # fmt: skip
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and sandbox.alive():
        for pid in _descendants(sandbox.pid):
            path = f"/proc/{pid}/root{inside}"
            # A link made inside would lead anywhere on the host: only a socket will do.
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    return path
        time.sleep(0.1)
    raise VncError(
        "x11vnc does not start on the desktop; run `scripts/install-desktop --check`."
    )


def _descendants(pid: int) -> Iterator[int]:
    """Processes below a process, and itself, nearest first."""
    waiting = [pid]
    while waiting:
        pid = waiting.pop(0)
        yield pid
        with contextlib.suppress(OSError):  # it has ended
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                waiting += [int(child) for child in file.read().split()]


def _accept(listener: socket.socket, path: str) -> None:
    while True:
        try:
            viewer, _ = listener.accept()
        except OSError:
            return  # no longer served
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(path)
        except OSError:
            viewer.close()
            server.close()
            continue
        for one, other in ((viewer, server), (server, viewer)):
            threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until one side is gone; then the other goes too."""
    with source:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
