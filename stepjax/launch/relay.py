"""A relay on this host between jax and the coordination service of process 0.

When that service vanishes, jax's client aborts its process within a millisecond, with
pages of stack traces. The relay keeps the near end of each connection open when the far
end closes, so that the process lives long enough to say in one line what happened.
"""

import contextlib
import socket
import threading
import time

__all__ = ["start_relay"]

_PIECE = 1 << 16


def start_relay(host: str, port: int, *, timeout: float) -> str:
    """Address on this host that leads to `host:port`, as long as the process lives.

    Args:
      host: The far end.
      port: Its port.
      timeout: Seconds to try to reach it, for each connection.

    Returns:
      `127.0.0.1:port` of the near end; only this host can connect to it.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            near, _ = listener.accept()
            _thread(_link, near, host, port, timeout)

    _thread(serve)
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _link(near: socket.socket, host: str, port: int, timeout: float) -> None:
    far = _reach(host, port, timeout)
    if far is None:
        near.close()
        return
    far.settimeout(None)
    _thread(_copy, near, far, True)
    _copy(far, near, False)


def _reach(host: str, port: int, timeout: float) -> socket.socket | None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            return socket.create_connection((host, port), timeout=10.0)
        except OSError:  # the service is not up yet
            time.sleep(0.1)
    return None


def _copy(source: socket.socket, target: socket.socket, pass_the_end_on: bool) -> None:
    """Bytes from one to the other until either ends."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    if pass_the_end_on:
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def _thread(work, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
