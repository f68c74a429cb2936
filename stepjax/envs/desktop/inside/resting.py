"""When the programs on a desktop have come to rest.

A window comes before its content, and keys pressed while a program still loads are
lost. A picture that stays the same proves nothing: a loading program may show the same
empty frame for seconds. What tells is that nothing computes or waits to.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["await_rest"]

_PAUSE_SECONDS = 0.12
_QUIET_LOOKS = 3
_MOST_TICKS = 2
_WORKING = ("R", "D")


def await_rest(
    seconds: float, *, proc: Path = Path("/proc"), pause: float = _PAUSE_SECONDS
) -> bool:
    """Wait until no other process computes, three looks in a row.

    Args:
      seconds: After which it is given up.
      proc: Where processes are listed.
      pause: Seconds between two looks.

    Returns:
      Whether they came to rest; a video that plays never does.
    """
    until = time.monotonic() + seconds
    before, quiet = None, 0
    while True:
        pids = _pids(proc)
        ticks = sum(_ticks(proc, pid) for pid in pids)
        calm = before is not None and abs(ticks - before) <= _MOST_TICKS
        # Threads are many: they are looked at only if their processes seem to rest.
        quiet = quiet + 1 if calm and not _any_works(proc, pids) else 0
        if quiet >= _QUIET_LOOKS:
            return True
        if time.monotonic() > until:
            return False
        before = ticks
        time.sleep(pause)


def _pids(proc: Path) -> list[str]:
    own = str(os.getpid())
    return [name for name in os.listdir(proc) if name.isdigit() and name != own]


def _fields(path: str) -> list[str]:
    """What stands behind the name, which may hold spaces and parentheses."""
    with (
        contextlib.suppress(OSError),
        open(path, encoding="utf-8", errors="replace") as f,
    ):
        return f.read().rpartition(") ")[2].split()
    return []


def _ticks(proc: Path, pid: str) -> int:
    """Processor time of a process, 0 if it has just ended."""
    fields = _fields(f"{proc}/{pid}/stat")
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0


def _any_works(proc: Path, pids: list[str]) -> bool:
    return any(
        fields[0] in _WORKING
        for pid in pids
        for task in _tasks(f"{proc}/{pid}/task")
        if (fields := _fields(f"{task}/stat"))
    )


def _tasks(folder: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            yield f"{folder}/{name}"
