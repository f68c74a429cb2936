"""What this machine has set up on a server, kept in a file that outlives a crash.

The file is also a lock: two runs on one machine cannot share a phone unnoticed. It says
which task is set up, so that whoever comes next can have it torn down.
"""

import fcntl
import json
import logging
import os
import re
from pathlib import Path

__all__ = ["Journal", "default_folder"]

_LOG = logging.getLogger(__name__)
_MOST = 4096  # bytes of the file that are read


def default_folder() -> Path:
    """Where journals are kept: below $XDG_STATE_HOME, else ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "stepjax" / "androidworld"


class Journal:
    """The lock on a server, and the name of the task that is set up on it.

    Args:
      url: The server's address.
      folder: Where to keep it; None for the default. If nothing can be written there,
        it is kept in memory alone, which the log is told.

    Attributes:
      owner: Who may set up and tear down on the server; the latest to say so.

    Raises:
      ValueError: If another run on this machine holds the server.
    """

    def __init__(self, url: str, folder: Path | None = None):
        self.owner: object = None
        self._url = url
        self._task: str | None = None
        self._file = self._open(folder or default_folder())
        if self._file is not None:
            self._task = self._read()

    @property
    def task(self) -> str | None:
        """Name of the task that may be set up on the server, or None."""
        return self._task

    def write(self, task: str | None) -> None:
        """Note which task is being set up, or that none is.

        Args:
          task: Its name, or None.
        """
        self._task = task
        if self._file is None:
            return
        data = {"url": self._url, "pid": os.getpid(), "task": task}
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(data).encode(), 0)
        except OSError as error:
            _LOG.warning("%s: the journal was not written: %s", self._url, error)

    def close(self) -> None:
        """Give the server free; may be called twice."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _open(self, folder: Path) -> int | None:
        name = re.sub(r"[^\w.-]+", "_", self._url) + ".json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            _LOG.warning("%s: no journal is kept: %s", self._url, error)
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _load(file).get("pid")
            os.close(file)
            who = f"process {holder}" if holder else "another process"
            raise ValueError(
                f"{self._url} is in use by {who} on this machine; a phone serves one "
                "run at a time."
            ) from None
        except OSError as error:  # a file system without locks
            _LOG.warning("%s: the journal is not locked: %s", self._url, error)
        return file

    def _read(self) -> str | None:
        """The task an earlier run left; this run's process becomes the holder."""
        left = _load(self._file or 0).get("task")
        task = left if isinstance(left, str) and left else None
        self.write(task)
        return task


def _load(file: int) -> dict:
    try:
        data = json.loads(os.pread(file, _MOST, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
