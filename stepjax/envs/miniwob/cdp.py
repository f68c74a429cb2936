"""DevTools protocol over a pair of pipes: no port is opened, and no package is needed.

Messages are JSON texts ended by a zero byte. The browser ends by itself when the pipe
closes, which the system does when this process dies, however it dies.
"""

import json
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["BrowserError", "Command", "DevTools"]

Command = tuple[str, str, dict[str, Any]]
"""A session, a method and its parameters."""

_CRASHES = ("Inspector.targetCrashed", "Target.targetCrashed")
_CHUNK = 1 << 20


class BrowserError(RuntimeError):
    """The browser ended, hung past a deadline, or refused a command."""


class DevTools:
    """One connection to a browser; calls come from one thread at a time.

    Attributes:
      timeout: Deadline of a call, in seconds.
      session: Whom commands are for that name no session; "" for the browser itself.
      event_session: Where the event comes from that a handler is called about.
    """

    def __init__(self, read_fd: int, write_fd: int, *, timeout: float = 30.0):
        """A connection over two open pipe ends, which it then owns.

        Args:
          read_fd: Where the browser's messages arrive.
          write_fd: Where commands go.
          timeout: Deadline of a call, in seconds.
        """
        self.timeout = timeout
        self.session = self.event_session = ""
        self._read_fd, self._write_fd = read_fd, write_fd
        self._buffer = bytearray()
        self._last_id = 0
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {}
        os.set_blocking(write_fd, False)
        os.set_blocking(read_fd, False)

    def on(self, event: str, handler: Callable[[dict[str, Any]], None]) -> None:
        """Call `handler(params)` whenever `event` arrives during a call."""
        self._handlers[event] = handler

    def call(
        self, method: str, params: dict[str, Any] | None = None, *, timeout: float = 0.0
    ) -> dict[str, Any]:
        """Result of one command.

        Args:
          method: Such as "Runtime.evaluate".
          params: Its parameters.
          timeout: Deadline in seconds; 0 for the connection's own.

        Raises:
          BrowserError: If the browser ends, misses the deadline, or answers an error.
        """
        deadline = time.monotonic() + (timeout or self.timeout)
        wanted = self.send(method, params, deadline=deadline)
        while True:
            message = self._receive(deadline, method)
            if message.get("id") == wanted:
                break
            self._handle(message)
        if "error" in message:
            raise BrowserError(f"{method}: {message['error'].get('message')}")
        return message["result"]

    def send(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        deadline: float | None = None,
        session: str | None = None,
    ) -> int:
        """Number of a command sent without waiting for its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params or {}}
        session = self.session if session is None else session
        if session:
            message["sessionId"] = session
        deadline = deadline or time.monotonic() + self.timeout
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            self._wait([], [self._write_fd], deadline, method)
            try:
                data = data[os.write(self._write_fd, data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise BrowserError(f"{method}: the browser has ended.") from error
        return self._last_id

    def gather(self, commands: Sequence[Command]) -> list[dict[str, Any]]:
        """Results of commands that are under way at the same time, in their order.

        Those of one session are begun in order; nothing is said about others.

        Raises:
          BrowserError: If the browser ends, misses the deadline, or answers an error.
        """
        deadline = time.monotonic() + self.timeout
        wanted = {
            self.send(method, params, deadline=deadline, session=session): at
            for at, (session, method, params) in enumerate(commands)
        }
        results: list[dict[str, Any]] = [{}] * len(commands)
        while wanted:
            first = commands[next(iter(wanted.values()))][1]
            message = self._receive(deadline, first)
            at = wanted.pop(message.get("id", 0), None)
            if at is None:
                self._handle(message)
            elif "error" in message:
                raise BrowserError(
                    f"{commands[at][1]}: {message['error'].get('message')}"
                )
            else:
                results[at] = message["result"]
        return results

    def close(self) -> None:
        """Close both pipes, which also ends a healthy browser; safe to call twice."""
        for fd in (self._read_fd, self._write_fd):
            if fd >= 0:
                os.close(fd)
        self._read_fd = self._write_fd = -1

    def _handle(self, message: dict[str, Any]) -> None:
        event = message.get("method", "")
        if event in _CRASHES:
            raise BrowserError("The browser's page crashed.")
        handler = self._handlers.get(event)
        if handler is not None:
            self.event_session = message.get("sessionId", "")
            handler(message.get("params", {}))

    def _receive(self, deadline: float, method: str) -> dict[str, Any]:
        searched = 0
        while (end := self._buffer.find(b"\0", searched)) < 0:
            searched = len(self._buffer)
            self._wait([self._read_fd], [], deadline, method)
            try:
                chunk = os.read(self._read_fd, _CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise BrowserError(f"{method}: the pipe broke.") from error
            if not chunk:
                raise BrowserError(f"{method}: the browser has ended.")
            self._buffer += chunk
        message = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return message

    def _wait(
        self, reads: list[int], writes: list[int], deadline: float, method: str
    ) -> None:
        if min(reads + writes) < 0:
            raise BrowserError(f"{method}: the browser has been closed.")
        poller = select.poll()  # select() cannot watch descriptors above 1023
        for fd in reads:
            poller.register(fd, select.POLLIN)
        for fd in writes:
            poller.register(fd, select.POLLOUT)
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(1000 * left):
            raise BrowserError(f"{method}: no answer from the browser in time.")
