"""Many questions at once to the applications' accessibility interfaces.

The usual binding asks one thing at a time and waits for each answer, up to 25 s for an
application that hangs. Here all that can be asked is under way at the same time, and
when the time is up, whatever has been answered is what is known.
"""

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from gi.repository import Gio, GLib  # pyright: ignore[reportMissingImports]

__all__ = ["DESKTOP", "STATES", "Ask", "Crew", "Ref", "connect", "get", "states"]

STATES = (
    "invalid active armed busy checked collapsed defunct editable enabled expandable "
    "expanded focusable focused has_tooltip horizontal iconified modal multi_line "
    "multiselectable opaque pressed resizable selectable selected sensitive showing "
    "single_line stale transient vertical visible manages_descendants indeterminate "
    "required truncated animated invalid_entry supports_autocompletion "
    "selectable_text is_default visited checkable has_popup read_only"
).split()
"""Names of AT-SPI's states, by bit."""

_IN_FLIGHT = 128
_PROPERTIES = "org.freedesktop.DBus.Properties"

Ref = tuple[str, str]
"""Bus name and object path of one accessible object."""

DESKTOP: Ref = ("org.a11y.atspi.Registry", "/org/a11y/atspi/accessible/root")
"""The object whose children are the applications."""

Ask = tuple[Ref, str, str, Any]
"""Object, interface (after `org.a11y.atspi.`), method, arguments or None."""

Job = Generator[list[Ask], list[Any], None]
"""Yields questions, gets their answers (None for each that failed)."""


def connect():
    """A connection to the accessibility bus."""
    session = Gio.bus_get_sync(Gio.BusType.SESSION, None)
    (address,) = session.call_sync(
        "org.a11y.Bus", "/org/a11y/bus", "org.a11y.Bus", "GetAddress",
        None, None, 0, 5000, None,
    ).unpack()  # fmt: skip
    flags = Gio.DBusConnectionFlags
    return Gio.DBusConnection.new_for_address_sync(
        address,
        flags.AUTHENTICATION_CLIENT | flags.MESSAGE_BUS_CONNECTION,
        None,
        None,
    )


def get(ref: Ref, interface: str, name: str) -> Ask:
    """The question for a property."""
    full = f"org.a11y.atspi.{interface}"
    return ref, _PROPERTIES, "Get", GLib.Variant("(ss)", (full, name))


def states(answer: Any) -> int:
    """Bits of a GetState answer, 0 where there was none."""
    words = answer or ()
    return sum(word << (32 * i) for i, word in enumerate(words[:2]))


class Crew:
    """Jobs that ask in turns, until all have ended or the time is up.

    Attributes:
      complete: False if the time was up first.
    """

    def __init__(self, connection: Any):
        self.complete = True
        self._connection = connection
        self._cancel = Gio.Cancellable()
        self._loop = GLib.MainLoop()
        self._waiting: deque[tuple[Ask, Callable[[Any], None]]] = deque()
        self._in_flight = 0
        self._deadline = 0.0

    def spawn(self, job: Job) -> None:
        """Start a job; may be called by jobs."""
        self._advance(job, None)

    def run(self, seconds: float) -> None:
        """Let the jobs work."""
        self._deadline = time.monotonic() + seconds
        if self._in_flight or self._waiting:
            timer = GLib.timeout_add(max(1, int(seconds * 1000)), self._time_is_up)
            self._loop.run()
            if self.complete:
                GLib.source_remove(timer)
        self._cancel.cancel()
        self._waiting.clear()

    def _time_is_up(self) -> bool:
        self.complete = False
        self._loop.quit()
        return False

    def _advance(self, job: Job, answers: list[Any] | None) -> None:
        try:
            asks = next(job) if answers is None else job.send(answers)
        except StopIteration:
            return
        results: list[Any] = [None] * len(asks)
        left = len(asks)

        def answered(index: int, value: Any) -> None:
            nonlocal left
            results[index] = value
            left -= 1
            if left == 0:
                self._advance(job, results)

        if not asks:
            raise ValueError("a job must ask for something whenever it yields")
        for index, ask in enumerate(asks):
            self._waiting.append((ask, lambda value, i=index: answered(i, value)))
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._in_flight < _IN_FLIGHT:
            ask, answered = self._waiting.popleft()
            self._send(ask, answered)

    def _send(self, ask: Ask, answered: Callable[[Any], None]) -> None:
        (name, path), interface, method, arguments = ask
        if "." not in interface:
            interface = f"org.a11y.atspi.{interface}"
        self._in_flight += 1

        def done(connection: Any, result: Any) -> None:
            if self._cancel.is_cancelled():
                return  # late answers of an earlier round
            self._in_flight -= 1
            try:
                value = connection.call_finish(result).unpack()[0]
            except (GLib.Error, IndexError):
                value = None  # the object has gone, or never had this interface
            # A timer alone would starve: answers come before it in the main loop.
            if time.monotonic() > self._deadline:
                self._time_is_up()
                return
            answered(value)
            self._pump()
            if self._in_flight == 0 and not self._waiting:
                self._loop.quit()

        self._connection.call(
            name, path, interface, method, arguments, None,
            Gio.DBusCallFlags.NO_AUTO_START, 20_000, self._cancel, done,
        )  # fmt: skip
