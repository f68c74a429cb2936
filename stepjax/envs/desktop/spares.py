"""Desktops booted ahead of time, so that a reset only has to take one.

A reset takes a spare; the desktop it leaves behind is ended in the background and a
new one booted in its place.
"""

import atexit
import concurrent.futures.thread  # noqa: F401 # its exit hook must run after ours
import logging
import queue
import threading
import time
from collections.abc import Callable

from stepjax.envs.desktop.booted import Boot, Desktop, DesktopPhase
from stepjax.envs.desktop.stock import SpareCounts, Stock

__all__ = ["NoDesktopError", "SparePool"]

_LOG = logging.getLogger(__name__)
_OPEN: "set[SparePool]" = set()


class NoDesktopError(RuntimeError):
    """No desktop can be had: booting fails, or the pool is closed."""


class SparePool:
    """Desktops for several environments at once; every method is safe in any thread.

    Example::

        with SparePool(boot, spares=2, max_alive=6) as pool:
            picture = pool.take().client.view().image
    """

    def __init__(
        self,
        boot: Boot,
        *,
        spares: int = 1,
        max_alive: int = 4,
        boot_threads: int = 2,
        check_seconds: float = 1.0,
        max_failures: int = 3,
        backoff_seconds: float = 0.5,
        close_timeout: float = 60.0,
        report: Callable[[str], None] | None = None,
    ):
        """A pool whose threads start at once, and boot the first spares.

        Args:
          boot: Boots a desktop, given whether it needs root; may take long or raise.
          spares: Desktops kept ready.
          max_alive: Desktops alive at any time, spares, booting and ending included.
          boot_threads: Desktops booting at the same time.
          check_seconds: Seconds between looks at whether spares are still alive.
          max_failures: Failed boots that one `take` waits through.
          backoff_seconds: Wait after a failed boot, doubled for each further one.
          close_timeout: Seconds that `close` waits for boots under way.
          report: Takes a line about each dead desktop and failed boot, from a thread
            of the pool; None for the log.

        Raises:
          ValueError: If a number is out of range.
        """
        for name, value in (
            ("boot_threads", boot_threads),
            ("max_failures", max_failures),
        ):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}.")
        self._boot = boot
        self._check_seconds, self._max_failures = check_seconds, max_failures
        self._close_timeout = close_timeout
        self._report = report or _LOG.warning
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._stock = Stock(
            spares=spares,
            max_alive=max_alive,
            backoff_seconds=backoff_seconds,
            report=self._lines.put,
            notify=self._changed.notify_all,
        )
        targets = [(self._end_desktops, "end")]
        targets += [(self._boot_desktops, f"boot-{n}") for n in range(boot_threads)]
        self._threads = [
            threading.Thread(target=target, name=f"stepjax-desktop-{name}", daemon=True)
            for target, name in targets
        ]
        _OPEN.add(self)
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "SparePool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> SpareCounts:
        """Running totals."""
        return self._stock.counts

    @property
    def num_alive(self) -> int:
        """Desktops that exist, those booting and ending included."""
        with self._changed:
            return self._stock.num_alive

    def take(self, *, needs_root: bool = False, timeout: float = 60.0) -> Desktop:
        """A desktop nobody has used, ready or as soon as one has booted.

        Args:
          needs_root: Ask for the variant in which sudo works.
          timeout: Seconds to wait at most.

        Returns:
          The desktop; it belongs to the caller until `end`.

        Raises:
          NoDesktopError: If boots fail one after the other, or the pool is closed.
          TimeoutError: If none is ready in time.
        """
        with self._changed:
            failures = self.counts.boot_failures + self._max_failures
            desktop = self._await(needs_root, timeout, failures)
            desktop.phase = DesktopPhase.SETTING_UP
            self._changed.notify_all()  # a new spare may be needed
            return desktop

    def note(self, desktop: Desktop, phase: DesktopPhase) -> None:
        """Note what a desktop is doing now, unless it is being ended."""
        with self._changed:
            if desktop.phase is not DesktopPhase.ENDING:
                desktop.phase = phase

    def end(self, desktop: Desktop, *, hangs: bool = False) -> None:
        """Have a desktop ended in the background; more than once does no harm.

        Args:
          desktop: One that `take` returned.
          hangs: It is ended because it no longer answers.
        """
        with self._changed:
            if desktop.phase is DesktopPhase.ENDING:
                return
            if not desktop.alive():
                self._stock.bury(desktop)
            else:
                desktop.phase = DesktopPhase.ENDING
                self.counts.killed += hangs
                self.counts.reverted += not hangs
                self._changed.notify_all()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait until a desktop is ready, to find out early whether any can be.

        Raises:
          NoDesktopError: If a boot fails before one has succeeded.
          TimeoutError: If none is ready in time.
        """
        with self._changed:
            if not self.counts.booted:
                self._await(False, timeout, max_failures=1)

    def phases(self) -> dict[DesktopPhase, int]:
        """How many desktops are doing what; phases with none are left out."""
        with self._changed:
            return self._stock.phases()

    def status_line(self) -> str:
        """For progress, such as "desktops: 1 booting, 3 acting; 2 replaced"."""
        parts = [f"{count} {phase.value}" for phase, count in self.phases().items()]
        line = f"desktops: {', '.join(parts) or 'none'}"
        replaced = self.counts.replaced
        return f"{line}; {replaced} replaced" if replaced else line

    def close(self) -> None:
        """End all desktops, also those in use, and all threads; may be called twice."""
        with self._changed:
            self._closed = True
            for desktop in self._stock.desktops:
                desktop.phase = DesktopPhase.ENDING
            self._changed.notify_all()
        until = time.monotonic() + self._close_timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        left = [thread.name for thread in self._threads if thread.is_alive()]
        if left:
            _LOG.warning("desktops are still ending: %s", ", ".join(left))
        else:
            _OPEN.discard(self)

    def _await(self, needs_root: bool, timeout: float, max_failures: int) -> Desktop:
        """A ready desktop; gives up at a total of failed boots. Holds the lock."""
        stock, started, waited = self._stock, time.monotonic(), False
        stock.waiting[needs_root] += 1
        self._changed.notify_all()
        try:
            while not self._closed:
                desktop = stock.ready(needs_root)
                if desktop is not None:
                    return desktop
                waited = True
                if stock.counts.boot_failures >= max_failures:
                    raise NoDesktopError(f"no desktop boots: {stock.last_failure}")
                left = started + timeout - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"no desktop was ready within {timeout:g} s "
                        f"({self.status_line()}; last failure: {stock.last_failure})"
                    )
                self._changed.wait(left)
            raise NoDesktopError("the pool of desktops is closed")
        finally:
            stock.waiting[needs_root] -= 1
            stock.counts.waits += waited
            stock.counts.wait_seconds += time.monotonic() - started

    # Threads.

    def _boot_desktops(self) -> None:
        while (kind := self._next_boot()) is not None:
            started = time.monotonic()
            desktop, failure = None, None
            try:
                desktop = self._boot(kind)
            except Exception as error:
                failure = error
            with self._changed:
                self._stock.booting[kind] -= 1
                if desktop is not None:
                    desktop.needs_root = kind
                    seconds = time.monotonic() - started
                    self._stock.note_boot(desktop, seconds, closed=self._closed)
                elif failure is not None:
                    self._stock.note_failure(failure)
                self._changed.notify_all()
            del desktop, failure

    def _next_boot(self) -> bool | None:
        """Waits for something to boot; None once the pool is closed."""
        with self._changed:
            while not self._closed:
                kind = self._stock.wanted()
                if kind is not None:
                    self._stock.booting[kind] += 1
                    return kind
                pause = self._stock.not_before - time.monotonic()
                self._changed.wait(pause if pause > 0 else None)
            return None

    def _end_desktops(self) -> None:
        while (ending := self._next_to_end()) is not None:
            while not self._lines.empty():
                _guarded(self._report, self._lines.get())
            for desktop in ending:
                _guarded(desktop.close)
                with self._changed:
                    self._stock.desktops.discard(desktop)
                    self._changed.notify_all()

    def _next_to_end(self) -> list[Desktop] | None:
        """Waits for desktops to end or lines to tell, and looks after the spares."""
        with self._changed:
            while True:
                ending = self._stock.in_phase(DesktopPhase.ENDING)
                if ending or not self._lines.empty():
                    return ending
                if self._closed and not self._stock.num_alive:
                    return None
                self._changed.wait(self._check_seconds)
                for desktop in self._stock.in_phase(DesktopPhase.SPARE):
                    if not desktop.alive():
                        self._stock.bury(desktop)


def _close_all() -> None:
    for pool in list(_OPEN):
        pool.close()


# Sandboxes are started through an executor, and end when its thread does. Executors end
# before atexit's functions are called, so that would look as if all desktops had died.
getattr(threading, "_register_atexit", atexit.register)(_close_all)


def _guarded(function: Callable[..., None], *arguments: object) -> None:
    """Call from a thread that must go on whatever happens."""
    try:
        function(*arguments)
    except Exception as error:
        _LOG.warning("%s failed: %r", getattr(function, "__qualname__", "call"), error)
