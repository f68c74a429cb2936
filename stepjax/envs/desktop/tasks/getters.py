"""What an agent left behind, read through the desktop's client.

A getter takes the client and its entry in the task, and returns plain data. What is
not there, is no regular file or is too large is None: the agent's doing, worth 0 and
no fault. A desktop that does not answer is a fault, and raises.
"""

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["GETTERS", "MAX_FILE_BYTES", "MAX_LISTED", "EvaluationClient"]

MAX_FILE_BYTES = 16 * 2**20
"""Largest file that is judged."""

MAX_LISTED = 2000
"""Most entries of a folder that are judged."""

_COMMAND_SECONDS = 20.0
_MAX_DEPTH = 4


class EvaluationClient(Protocol):
    """What is asked of the client of a desktop; `DesktopClient` has it."""

    def execute(
        self, command: list[str], *, timeout: float = 10.0, cwd: str | None = None
    ) -> Any:
        """Run a command to its end: returncode, output, error."""
        ...

    def read_file(self, path: str, *, max_bytes: int = 64 << 20) -> bytes:
        """Content of a file."""
        ...

    def windows(self) -> tuple[str, ...]:
        """Titles of the windows."""
        ...


def _get_rule(client: EvaluationClient, config: dict[str, Any]) -> Any:
    """What the task itself says under `rules`."""
    del client
    return config["rules"]


def _get_vm_file(client: EvaluationClient, config: dict[str, Any]) -> bytes | None:
    """Content of the regular file at `path`."""
    path = config["path"]
    found = client.execute(["/usr/bin/stat", "-L", "-c", "%s %F", path])
    size, _, kind = found.output.strip().partition(" ")
    if found.returncode or not kind.startswith("regular"):
        return None
    if not size.isdecimal() or int(size) > MAX_FILE_BYTES:
        return None
    return client.read_file(path, max_bytes=2 * MAX_FILE_BYTES)


def _get_vm_command_line(
    client: EvaluationClient, config: dict[str, Any]
) -> str | None:
    """What `command` prints, None if it fails."""
    command = config["command"]
    if isinstance(command, str):
        command = ["/bin/bash", "-c", command]
    finished = client.execute(list(command), timeout=_COMMAND_SECONDS)
    return None if finished.returncode else finished.output


def _get_vm_listing(
    client: EvaluationClient, config: dict[str, Any]
) -> dict[str, str] | None:
    """What lies below the folder `path`: "file" or "folder" by relative path.

    Hidden entries are left out, and so is what lies deeper than four folders.
    """
    command = [
        "/usr/bin/find", config["path"], "-mindepth", "1", "-maxdepth", str(_MAX_DEPTH),
        "-name", ".*", "-prune", "-o", "-printf", "%y %P\\0",
    ]  # fmt: skip
    finished = client.execute(command, timeout=_COMMAND_SECONDS)
    if finished.returncode:
        return None
    # A name may hold a line break; what ends an entry no name can hold.
    lines = finished.output.split("\0")
    if len(lines) > MAX_LISTED:
        return None
    kinds = {"d": "folder", "f": "file"}
    entries = (line.partition(" ") for line in lines)
    return {path: kinds.get(kind, "other") for kind, _, path in entries if path}


def _get_vm_windows(client: EvaluationClient, config: dict[str, Any]) -> list[str]:
    """Titles of the open windows."""
    del config
    return list(client.windows())


GETTERS: dict[str, Callable[[EvaluationClient, dict[str, Any]], Any]] = {
    "rule": _get_rule,
    "vm_file": _get_vm_file,
    "vm_command_line": _get_vm_command_line,
    "vm_listing": _get_vm_listing,
    "vm_windows": _get_vm_windows,
}
"""Getters by their name in a task."""
