"""One running desktop as the host sees it."""

import contextlib
import os
import pathlib
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable

from stepjax.envs.desktop.sandbox.cgroups import ControlGroup
from stepjax.envs.desktop.sandbox.processes import DesktopView
from stepjax.envs.desktop.sandbox.spec import SandboxSpec

__all__ = ["Sandbox", "one_line"]

_MAX_FILES = 300_000  # each also takes about 1 kB of the kernel's memory
_LAST_WORDS = 4000
_END_SECONDS = 30.0  # a moment, but for machines with far too much to do


def one_line(text: str, length: int = 300) -> str:
    """The end of a text as one printable line; desktops' words are only data."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    words = " ".join(clean.split())
    return words if len(words) <= length else f"...{words[-length:]}"


class Sandbox:
    """One running desktop; `start_sandbox` makes it.

    Safe to use from several threads.

    Attributes:
      spec: What it was started with.
      socket: Unix socket its server answers on; only this user gets to it.
      token: What the server wants to be shown.
      pid: The process on the host that the desktop lives and dies with.
      folder: Its files on the host, removed by `close`.
    """

    def __init__(
        self,
        *,
        spec: SandboxSpec,
        folder: pathlib.Path,
        token: str,
        process: subprocess.Popen,
        errors: int,
        on_close: Callable[["Sandbox"], None],
    ):
        self.spec = spec
        self.folder = folder
        self.socket = folder / "socket"
        self.token = token
        self.pid = process.pid
        self._process = process
        self._errors = errors  # read end of its standard error, never waits
        self._on_close = on_close
        self._owner = os.getpid()
        self._init: int | None = None  # pidfd of the first process inside
        self._group: ControlGroup | None = None
        self._view: DesktopView | None = None
        self._words = ""
        self._why = ""
        self._closed = False
        self._lock = threading.RLock()

    def attach(self, init_pid: int, group: ControlGroup | None) -> None:
        """Take note of the first process inside and the control group."""
        self._init = os.pidfd_open(init_pid)
        self._group = group

    def open_view(self, init_pid: int) -> None:
        """Start to look at its processes; when its mounts are made."""
        self._view = DesktopView(init_pid)

    def alive(self) -> bool:
        """False once it has ended, or was ended for going beyond its limits."""
        with self._lock:
            if not self._why and self._has_ended():
                self._why = self._describe_end()
            return not self._why

    def why_dead(self) -> str:
        """One line about what ended it, "" while it is alive."""
        return "" if self.alive() else self._why

    def memory_mb(self) -> float:
        """Memory of its processes, shared pages once, and of its files, MB."""
        with self._lock:
            if self._view is None or not self.alive():
                return 0.0
            return self._view.memory_mb() + self._view.files_mb()

    def last_words(self) -> str:
        """End of what its own program wrote to standard error."""
        with self._lock:
            self._listen()
            return one_line(self._words)

    def wait(self, seconds: float) -> None:
        """Wait until it has ended by itself, or the time is up."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def check(self) -> None:
        """End it if it went beyond its limits; the watch calls this."""
        with self._lock:
            if self._closed or not self.alive():
                return
            self._listen()
            trouble = self._trouble()
        if trouble:
            self.end(trouble)

    def end(self, why: str) -> None:
        """End all its processes now; `why` is what `why_dead` will say."""
        with self._lock:
            if self._closed:
                return
            if not self._why:
                self._why = self._describe_end() if self._has_ended() else why
            if self._init is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._init, signal.SIGKILL)
                # The first process of a namespace is only gone after all others.
                _wait_readable(self._init, _END_SECONDS)
            if self._process.poll() is None:
                self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            if self._view is not None:
                self._view.close()
                self._view = None

    def close(self) -> None:
        """End it and remove all it had on the host; never raises, may be repeated."""
        if self._owner != os.getpid():
            return  # a forked child: the desktop is its parent's
        with self._lock:
            if self._closed:
                return
            self.end("it was closed")
            self._listen()
            if self._group is not None:
                self._group.remove()
            shutil.rmtree(self.folder, ignore_errors=True)
            for fd in (self._errors, self._init):
                if fd is not None:
                    os.close(fd)
            self._closed = True
        self._on_close(self)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _has_ended(self) -> bool:
        if self._closed or self._process.poll() is not None:
            return True
        return self._init is not None and _wait_readable(self._init, 0.0)

    def _describe_end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._listen()
        if self._group is not None and self._group.killed_for_memory():
            return f"it used more than its {self.spec.limits.memory_mb} MB of memory"
        code = self._process.returncode
        if code is not None and code < 0:
            how = f"it was ended by signal {-code}"
        else:
            how = f"its program ended with status {code}"
        return f"{how}: {one_line(self._words)}" if self._words.strip() else how

    def _listen(self) -> None:
        """Take what is in the pipe of its standard error, at most 64 kB a time."""
        if self._closed:
            return
        with contextlib.suppress(BlockingIOError):
            new = os.read(self._errors, 65536).decode(errors="replace")
            self._words = (self._words + new)[-_LAST_WORDS:]

    def _trouble(self) -> str:
        """What it does that it must not, "" if nothing."""
        limits = self.spec.limits
        if self._group is not None and self._group.killed_for_memory():
            return f"it used more than its {limits.memory_mb} MB of memory"
        if self._view is None:
            return ""
        usage = self._view.usage()
        if usage.threads >= 0.95 * limits.processes:
            return (
                f"it had {usage.threads} processes and threads, {limits.processes} "
                "are allowed"
            )
        # The exact sum costs more, so it is only taken when the bound allows a breach.
        if usage.resident_mb > limits.memory_mb:
            memory = self._view.memory_mb()
            if memory > limits.memory_mb:
                return f"it used {memory:.0f} MB of memory, {limits.memory_mb} allowed"
        return self._view.full_folder(_MAX_FILES)


def _wait_readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(int(seconds * 1000)))
