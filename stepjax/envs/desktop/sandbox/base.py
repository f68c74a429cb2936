"""What a process shares between its desktops: a folder, a starter, a watch."""

import atexit
import concurrent.futures
import contextlib
import os
import pathlib
import subprocess
import tempfile
import threading

from stepjax.envs.desktop.sandbox import home, leftovers
from stepjax.envs.desktop.sandbox.running import Sandbox
from stepjax.envs.desktop.sandbox.spec import SandboxError

__all__ = ["Base", "current_base"]

_ENDING = "No desktop can be started any more: this process is ending."
_TICK_SECONDS = 0.5
# With less than this share of the machine's memory left, the largest desktop goes.
_MEMORY_RESERVE = 0.03
# Numbers set aside for users that exist for a moment; they own nothing.
_FIRST_ID, _NUM_IDS = 61184, 4336


class Base:
    """Everything desktops of this process have in common.

    Attributes:
      folder: Where their files are.
      unprivileged: User and group they run as if the trainer is root, else None.
      cleaned: What dead processes had left, one line each.
    """

    def __init__(self):
        self.cleaned = leftovers.clean_leftovers()
        root = os.geteuid() == 0
        self.unprivileged = _FIRST_ID + os.getpid() % _NUM_IDS if root else None
        self._own = leftovers.OwnFolder(self.unprivileged)
        self.folder = self._own.path
        self._lock = threading.Lock()
        self._stages: dict[tuple, pathlib.Path] = {}
        self._sandboxes: list[Sandbox] = []
        self._stop = threading.Event()
        # A child is told to end with the *thread* that started it, so one thread that
        # lives as long as the process starts them all.
        self._starter = concurrent.futures.ThreadPoolExecutor(
            1, thread_name_prefix="desktop-starter"
        )
        self._watch = threading.Thread(
            target=self._look_after, name="desktop-watch", daemon=True
        )
        self._watch.start()
        atexit.register(self.close)

    def stage(self, inside: pathlib.Path, golden: pathlib.Path | None) -> pathlib.Path:
        """Read-only files for a desktop, copied at the first call."""
        key = (inside, golden)
        with self._lock:
            if self._stop.is_set():
                raise SandboxError(_ENDING)
            if key not in self._stages:
                folder = self.folder / f"stage-{len(self._stages)}"
                home.make_stage(folder, inside, golden)
                self._stages[key] = folder
            return self._stages[key]

    def new_folder(self) -> pathlib.Path:
        """An empty folder for one desktop that nobody else can look into."""
        return pathlib.Path(tempfile.mkdtemp(prefix="d-", dir=self.folder))

    def spawn(self, command: list[str], fds: list[int], errors: int):
        """Start a program in a session of its own, which ends with this process."""
        try:
            start = self._starter.submit(
                subprocess.Popen, command, pass_fds=fds, start_new_session=True,
                cwd="/", stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            )  # fmt: skip
        except RuntimeError as error:
            raise SandboxError(_ENDING) from error
        return start.result()

    def add(self, sandbox: Sandbox) -> None:
        """Watch over a desktop from now on."""
        with self._lock:
            self._sandboxes.append(sandbox)

    def discard(self, sandbox: Sandbox) -> None:
        """No longer watch over it."""
        with self._lock, contextlib.suppress(ValueError):
            self._sandboxes.remove(sandbox)

    def close(self) -> None:
        """End everything; at exit."""
        with self._lock:  # not while a stage is being made
            self._stop.set()
        for sandbox in list(self._sandboxes):
            sandbox.close()
        self._starter.shutdown(wait=False)
        self._own.remove()

    def forget(self) -> None:
        """In a forked child: all of this is the parent's."""
        atexit.unregister(self.close)
        self._own.forget()

    def _look_after(self) -> None:
        while not self._stop.wait(_TICK_SECONDS):
            with self._lock:
                sandboxes = list(self._sandboxes)
            for sandbox in sandboxes:
                with contextlib.suppress(OSError):  # closed in between
                    sandbox.check()
            if sandboxes and _memory_left() < _MEMORY_RESERVE:
                largest = max(sandboxes, key=Sandbox.memory_mb)
                largest.end("the machine ran out of memory and it had the most")


def _memory_left() -> float:
    """Share of the machine's memory that is free or can be freed."""
    values = {}
    with open("/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            values[name] = int(value.split()[0])
    return values.get("MemAvailable", values["MemTotal"]) / values["MemTotal"]


_current: Base | None = None
_guard = threading.Lock()


def current_base() -> Base:
    """This process's `Base`, made at the first call."""
    global _current
    with _guard:
        if _current is None:
            _current = Base()
        return _current


def _after_fork() -> None:
    global _current, _guard
    _guard = threading.Lock()
    if _current is not None:
        _current.forget()
        _current = None


os.register_at_fork(after_in_child=_after_fork)
