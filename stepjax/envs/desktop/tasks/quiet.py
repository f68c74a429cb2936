"""When the programs on a desktop have come to rest.

A window comes before its content, and keys pressed while a program still loads are
lost. A picture that stays the same proves nothing: a loading program may show the same
empty frame for seconds. What tells is that nothing computes or waits to.
"""

import time
from typing import Any, Protocol

__all__ = ["ComputingClient", "await_idle"]

_COMMAND = ["/bin/sh", "-c", "exec cat /proc/[0-9]*/task/[0-9]*/stat"]
_OWN_NAMES = {"cat", "sh"}
_WORKING = {"R", "D"}
_PAUSE_SECONDS = 0.12
_QUIET_LOOKS = 3
_MOST_TICKS = 2


class ComputingClient(Protocol):
    """What is asked of the client of a desktop."""

    def execute(
        self, command: list[str], *, timeout: float = 10.0, cwd: str | None = None
    ) -> Any:
        """Run a command to its end: returncode, output, error."""
        ...


def await_idle(client: ComputingClient, *, timeout: float = 20.0) -> bool:
    """Wait until no program of a desktop computes, three looks in a row.

    Args:
      client: Of the desktop.
      timeout: Seconds after which it is given up.

    Returns:
      Whether they came to rest; a video that plays never does.

    Raises:
      DesktopError: If the desktop does not answer.
    """
    until = time.monotonic() + timeout
    before, quiet = None, 0
    while True:
        working, ticks = _look(client.execute(_COMMAND, timeout=10.0).output)
        calm = before is not None and abs(ticks - before) <= _MOST_TICKS
        quiet = quiet + 1 if calm and not working else 0
        if quiet >= _QUIET_LOOKS:
            return True
        if time.monotonic() > until:
            return False
        before = ticks
        time.sleep(_PAUSE_SECONDS)


def _look(text: str) -> tuple[int, int]:
    """Threads that compute or wait to, and the processor time of all, in ticks."""
    working = ticks = 0
    for line in text.splitlines():
        # The name stands in parentheses and may hold spaces and parentheses.
        name, found, rest = line.partition(" (")[2].rpartition(") ")
        fields = rest.split()
        if not found or len(fields) < 13 or name in _OWN_NAMES:
            continue
        working += fields[0] in _WORKING
        ticks += int(fields[11]) + int(fields[12])
    return working, ticks
