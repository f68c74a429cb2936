"""HTTP on an inherited Unix socket: a token, a deadline for every route, size limits.

The standard library's parser with our own limits; it takes a third of a framework's
memory and start-up time, of which there is one per desktop.
"""

import hmac
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from inside.forms import FormError

__all__ = ["VERSION", "Answer", "Request", "Route", "Server", "json_answer"]

VERSION = "1"
"""Of the routes; the host's client refuses another."""

_MAX_BODY = 256 << 20
_MAX_UNWANTED = 1 << 20
_MAX_STUCK = 64
_IDLE = 600.0


class Request:
    """What a route gets.

    Attributes:
      body: The bytes sent along.
      content_type: What they are.
      deadline: Time (`time.monotonic`) by which the answer must be there.
    """

    def __init__(self, body: bytes, content_type: str, deadline: float):
        self.body = body
        self.content_type = content_type
        self.deadline = deadline

    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.monotonic())


class Answer:
    """What a route gives.

    Attributes:
      status: HTTP's number.
      content_type: What the body is.
      body: The bytes, or several to be sent one after the other.
    """

    def __init__(self, status: int, content_type: str, *body: bytes):
        self.status = status
        self.content_type = content_type
        self.body = body


class Route:
    """One path's function and its deadline.

    Attributes:
      function: Makes the answer.
      seconds: How long it may take.
    """

    def __init__(self, function: Callable[[Request], Answer], seconds: float):
        self.function = function
        self.seconds = seconds


def json_answer(data: Any, status: int = 200) -> Answer:
    """An answer in JSON."""
    return Answer(status, "application/json", json.dumps(data).encode())


def _error(status: int, message: str) -> Answer:
    return json_answer({"status": "error", "message": message}, status)


class Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """Answers requests on a socket that already listens.

    Args:
      listener: The listening Unix socket.
      token: What requests must show.
      routes: By method and path.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        listener: socket.socket,
        token: str,
        routes: dict[tuple[str, str], Route],
    ):
        super().__init__("", _Handler)
        self.socket = listener
        self.routes = routes
        self._token = f"Bearer {token}".encode()
        self._stuck = threading.Semaphore(_MAX_STUCK)

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, str]:
        """The next connection."""
        connection, _ = self.socket.accept()
        return connection, ""

    def shutdown_request(self, request: socket.socket) -> None:
        """Close a connection."""
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""

    def allowed(self, header: str) -> bool:
        """Whether the authorization header holds the token."""
        return hmac.compare_digest(header.encode("utf-8", "replace"), self._token)

    def answer(self, route: Route, body: bytes, content_type: str) -> Answer:
        """A route's answer, or an error once its time is up.

        The route runs in a thread of its own: one that hangs, as the X server may make
        it, is left behind.

        Args:
          route: What to call.
          body: What was sent along.
          content_type: What it is.
        """
        if not self._stuck.acquire(blocking=False):
            return _error(503, "too many requests hang")
        request = Request(body, content_type, time.monotonic() + route.seconds)
        answers: list[Answer] = []
        done = threading.Event()

        def work() -> None:
            try:
                answers.append(_call(route, request))
            finally:
                self._stuck.release()
                done.set()

        threading.Thread(target=work, daemon=True).start()
        # The route should notice its deadline itself, and can say more about it.
        done.wait(route.seconds + 1.0)
        return answers[0] if answers else _error(504, "the deadline has passed")


def _call(route: Route, request: Request) -> Answer:
    try:
        return route.function(request)
    except FormError as error:
        return _error(400, str(error))
    except TimeoutError as error:
        return _error(504, str(error) or "the deadline has passed")
    except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
        return _error(500, f"{type(error).__name__}: {error}"[:2000])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    wbufsize = 1 << 16
    server: Server

    def do_GET(self) -> None:  # noqa: N802
        self._answer()

    def do_POST(self) -> None:  # noqa: N802
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def version_string(self) -> str:
        return "stepjax-desktop"

    def _answer(self) -> None:
        answer = self._refusal()
        if answer is None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            path = self.path.partition("?")[0]
            route = self.server.routes[self.command, path]
            kind = self.headers.get("Content-Type", "")
            answer = self.server.answer(route, body, kind)
        else:
            self._throw_body_away()
            self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(sum(map(len, answer.body))))
        self.send_header("X-Stepjax-Version", VERSION)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        for part in answer.body:
            self.wfile.write(part)
        self.wfile.flush()

    def _throw_body_away(self) -> None:
        """Read a body that is not wanted: who is still sending hears no answer."""
        length = self.headers.get("Content-Length", "0")
        if length.isdecimal() and int(length) <= _MAX_UNWANTED:
            self.rfile.read(int(length))

    def _refusal(self) -> Answer | None:
        """Why a request is not even read, or None."""
        if not self.server.allowed(self.headers.get("Authorization", "")):
            return _error(401, "the token is missing or wrong")
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal():
            return _error(411, "the body needs a Content-Length")
        if int(length) > _MAX_BODY:
            return _error(413, f"the body must have at most {_MAX_BODY} bytes")
        if (self.command, self.path.partition("?")[0]) not in self.server.routes:
            return _error(404, f"no route {self.command} {self.path[:200]}")
        return None
