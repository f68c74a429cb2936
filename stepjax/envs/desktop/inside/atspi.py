"""Many questions at once to the applications' accessibility interfaces.

The usual binding asks one thing at a time and waits for each answer, up to 25 s for an
application that hangs. Here all that can be asked is under way at the same time, and
when the time is up, whatever has been answered is what is known.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

from inside.wire import Connection

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

# So many that nobody idles, so few that one who hangs does not use up the room.
_IN_FLIGHT_EACH = 64
_PROPERTIES = "org.freedesktop.DBus.Properties"

Ref = tuple[str, str]
"""Bus name and object path of one accessible object."""

DESKTOP: Ref = ("org.a11y.atspi.Registry", "/org/a11y/atspi/accessible/root")
"""The object whose children are the applications."""

Arguments = tuple[str, tuple[Any, ...]]
"""Types in D-Bus's letters, and the values."""

Ask = tuple[Ref, str, str, Arguments | None]
"""Object, interface (after `org.a11y.atspi.`), method, arguments or None."""

Job = Generator[Sequence[Ask], list[Any], None]
"""Yields questions, gets their answers (None for each that failed)."""


def connect() -> Connection:
    """A connection to the accessibility bus.

    Raises:
      WireError: If it cannot be made.
    """
    end = time.monotonic() + 5.0
    session = Connection(os.environ["DBUS_SESSION_BUS_ADDRESS"])
    try:
        address = session.call(
            "org.a11y.Bus", "/org/a11y/bus", "org.a11y.Bus", "GetAddress", end=end
        )
    finally:
        session.close()
    return Connection(str(address))


def get(ref: Ref, interface: str, name: str) -> Ask:
    """The question for a property."""
    full = f"org.a11y.atspi.{interface}"
    return ref, _PROPERTIES, "Get", ("ss", (full, name))


def states(answer: Any) -> int:
    """Bits of a GetState answer, 0 where there was none."""
    words = answer or ()
    return sum(word << (32 * i) for i, word in enumerate(words[:2]))


class Crew:
    """Jobs that ask in turns, until all have ended or the time is up.

    Attributes:
      complete: False if the time was up first.
    """

    def __init__(self, connection: Connection):
        self.complete = True
        self._connection = connection
        self._waiting: dict[str, deque[tuple[Ask, Callable[[Any], None]]]] = {}
        self._flying: dict[int, tuple[str, Callable[[Any], None]]] = {}
        self._in_flight: Counter[str] = Counter()

    def spawn(self, job: Job) -> None:
        """Start a job; may be called by jobs."""
        self._advance(job, None)

    def run(self, seconds: float) -> None:
        """Let the jobs work.

        Args:
          seconds: When they have passed, the jobs are left as they are.

        Raises:
          WireError: If the bus has gone.
        """
        end = time.monotonic() + seconds
        while self._flying or self._waiting:
            if time.monotonic() >= end:
                self.complete = False
                return
            self._connection.exchange(end, self._answered)

    def _answered(self, serial: int, value: Any) -> None:
        flying = self._flying.pop(serial, None)
        if flying is None:
            return  # a late answer of an earlier round
        name, resume = flying
        self._in_flight[name] -= 1
        resume(value)
        self._pump(name)

    def _advance(self, job: Job, answers: list[Any] | None) -> None:
        try:
            asks = next(job) if answers is None else job.send(answers)
        except StopIteration:
            return
        if not asks:
            raise ValueError("a job must ask for something whenever it yields")
        results: list[Any] = [None] * len(asks)
        left = len(asks)

        def answered(index: int, value: Any) -> None:
            nonlocal left
            results[index] = value
            left -= 1
            if left == 0:
                self._advance(job, results)

        for index, ask in enumerate(asks):
            name = ask[0][0]
            queue = self._waiting.setdefault(name, deque())
            queue.append((ask, lambda value, i=index: answered(i, value)))
        for name in {ask[0][0] for ask in asks}:
            self._pump(name)

    def _pump(self, name: str) -> None:
        """Send what waits for one application, as far as there is room."""
        queue = self._waiting.get(name)
        while queue and self._in_flight[name] < _IN_FLIGHT_EACH:
            ((_, path), interface, method, arguments), resume = queue.popleft()
            if "." not in interface:
                interface = f"org.a11y.atspi.{interface}"
            signature, values = arguments or ("", ())
            serial = self._connection.send(
                name, path, interface, method, signature, values
            )
            self._flying[serial] = (name, resume)
            self._in_flight[name] += 1
        if queue is not None and not queue:
            del self._waiting[name]
