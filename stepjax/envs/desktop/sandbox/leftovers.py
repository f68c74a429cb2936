"""The folder a process keeps its desktops' files in, and removing dead ones'.

Each process that starts desktops has one folder in the temporary folder and holds a
lock on a file in it. The kernel drops the lock with the process, however it ended, so
a folder whose lock is free belongs to nobody: what it lists is ended and removed.
"""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import stat
import tempfile
import time

from stepjax.envs.desktop.sandbox import cgroups
from stepjax.envs.desktop.sandbox.spec import SandboxError

__all__ = ["OwnFolder", "clean_leftovers", "note_sandbox", "start_time"]

PREFIX = "stepjax-desktop-"
_LOCK = "lock"
_STATE = "state.json"
_YOUNG_SECONDS = 60.0  # a folder without a lock may still be in the making


def start_time(pid: int) -> int:
    """Clock tick at which a process started, a pid's true name; 0 if none runs."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return 0 if fields[0] == "Z" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def note_sandbox(folder: pathlib.Path, pids: list[int], groups: list[str]) -> None:
    """Write down what a desktop consists of, for whoever has to clean up after it.

    Args:
      folder: The desktop's own folder.
      pids: Its processes on the host: the starter and the first one inside.
      groups: Folders of its control groups.
    """
    state = {"pids": {str(pid): start_time(pid) for pid in pids}, "groups": groups}
    (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")


class OwnFolder:
    """This process's folder, locked for as long as the process lives.

    Attributes:
      path: The folder.
    """

    def __init__(self, group_id: int | None):
        """Make and lock it.

        Args:
          group_id: Group that must be able to pass through, if it is not the owner.

        Raises:
          SandboxError: If the temporary folder does not take it.
        """
        try:
            made = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
            self.path = pathlib.Path(made)
            self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if group_id is not None:
                os.chown(self.path, -1, group_id)
                self.path.chmod(0o710)
        except OSError as error:
            raise SandboxError(
                f"The temporary folder {tempfile.gettempdir()} takes no files "
                f"({error.strerror}); free some room, or name another with TMPDIR."
            ) from error

    def remove(self) -> None:
        """Remove it with all that is in it."""
        for _ in range(20):  # a thread may be starting a desktop in it
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                break
            time.sleep(0.02)
        os.close(self._lock)

    def forget(self) -> None:
        """Let go of the lock in a forked child: it is the parent's."""
        os.close(self._lock)


def clean_leftovers() -> list[str]:
    """End and remove what dead processes of this user left.

    Returns:
      One line for each folder removed.
    """
    done = []
    for folder in sorted(pathlib.Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        try:
            about = folder.lstat()
            if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid():
                line = _clean_folder(folder, time.time() - about.st_mtime)
                done += [line] if line else []
        except FileNotFoundError:
            continue  # another process cleans up at the same time
    return done


def _clean_folder(folder: pathlib.Path, age: float) -> str:
    """What was removed, "" if the folder belongs to a living process."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if age < _YOUNG_SECONDS:
            return ""
        shutil.rmtree(folder, ignore_errors=True)
        return f"removed {folder}"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ""
    else:
        ended = sum(_end_sandbox(state) for state in folder.glob(f"*/{_STATE}"))
        shutil.rmtree(folder, ignore_errors=True)
        return f"removed {folder}" + (f", ended {ended} desktops" if ended else "")
    finally:
        os.close(lock)


def _end_sandbox(path: pathlib.Path) -> bool:
    """True if something of a desktop still ran; nothing does afterwards."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        pids = {int(pid): int(start) for pid, start in state["pids"].items()}
        groups = [str(group) for group in state["groups"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # it died while writing: nothing was started yet
    running = [pid for pid, start in pids.items() if start and start_time(pid) == start]
    for pid in running:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 5.0
    while any(start_time(pid) == pids[pid] for pid in running):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    cgroups.remove_groups(groups)
    return bool(running)
