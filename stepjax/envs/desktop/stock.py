"""Who is alive, who is spare, what to boot next: bookkeeping of a pool, no locks."""

import collections
import dataclasses
import time
from collections.abc import Callable

from stepjax.envs.desktop.booted import Desktop, DesktopPhase

__all__ = ["SpareCounts", "Stock"]

_MAX_BACKOFF = 10.0
_MAX_TEXT = 300


@dataclasses.dataclass(kw_only=True)
class SpareCounts:
    """Running totals of a pool of desktops.

    Attributes:
      booted: Desktops that booted.
      boot_failures: Boots that failed.
      boot_seconds: Seconds that the successful boots took, in total.
      waits: Times that no spare was ready when one was asked for.
      wait_seconds: Seconds waited for desktops, in total.
      died: Desktops that ended by themselves, as spares or in use.
      killed: Desktops ended because a call of theirs hung.
      reverted: Desktops ended in good order after an episode.
    """

    booted: int = 0
    boot_failures: int = 0
    boot_seconds: float = 0.0
    waits: int = 0
    wait_seconds: float = 0.0
    died: int = 0
    killed: int = 0
    reverted: int = 0

    @property
    def replaced(self) -> int:
        """Desktops that something was wrong with."""
        return self.died + self.killed

    def metrics(self) -> dict[str, float]:
        """The totals as flat names and numbers."""
        return {
            "env/desktops_booted": self.booted,
            "env/desktops_replaced": self.replaced,
            "env/desktop_boot_failures": self.boot_failures,
            "env/desktop_boot_seconds": self.boot_seconds / max(1, self.booted),
            "env/desktop_wait_seconds": self.wait_seconds,
        }


class Stock:
    """Desktops by phase, and the decision what to boot. Callers hold the pool's lock.

    Attributes:
      counts: Running totals.
      desktops: Those that have booted and not yet ended.
      booting: Boots under way, by variant (True where root is needed).
      waiting: Callers that wait for a desktop, by variant.
      not_before: Time before which nothing is booted, after a failure.
      last_failure: What was wrong with the last failed boot, in one line.
    """

    def __init__(
        self,
        *,
        spares: int,
        max_alive: int,
        backoff_seconds: float,
        report: Callable[[str], None],
        notify: Callable[[], None],
    ):
        if spares < 0:
            raise ValueError(f"spares must be >= 0, got {spares}.")
        if max_alive < max(1, spares):
            raise ValueError(
                f"max_alive must be >= 1 and >= spares ({spares}), got {max_alive}."
            )
        self.counts = SpareCounts()
        self.desktops: set[Desktop] = set()
        self.booting: collections.Counter[bool] = collections.Counter()
        self.waiting: collections.Counter[bool] = collections.Counter()
        self.not_before = 0.0
        self.last_failure = "none"
        self._failures_in_row = 0
        self._spares, self._max_alive = spares, max_alive
        self._backoff = backoff_seconds
        self._report, self._notify = report, notify

    @property
    def num_alive(self) -> int:
        """Desktops that exist, those booting and ending included."""
        return len(self.desktops) + self.booting.total()

    def in_phase(self, phase: DesktopPhase) -> list[Desktop]:
        """Desktops in a phase, oldest first."""
        found = [desktop for desktop in self.desktops if desktop.phase is phase]
        return sorted(found, key=lambda desktop: desktop.number)

    def phases(self) -> dict[DesktopPhase, int]:
        """How many desktops are doing what; phases with none are left out."""
        found = collections.Counter(desktop.phase for desktop in self.desktops)
        found[DesktopPhase.BOOTING] += self.booting.total()
        return {phase: found[phase] for phase in DesktopPhase if found[phase]}

    def ready(self, needs_root: bool) -> Desktop | None:
        """The oldest spare of a variant that is alive; dead ones are buried."""
        for desktop in self.in_phase(DesktopPhase.SPARE):
            if not desktop.alive():
                self.bury(desktop)
            elif desktop.needs_root == needs_root:
                return desktop
        return None

    def bury(self, desktop: Desktop) -> None:
        """Have a dead desktop cleared away."""
        desktop.phase = DesktopPhase.ENDING
        self.counts.died += 1
        self._report(f"desktop {desktop.number} died: {desktop.why_dead()}")
        self._notify()

    def wanted(self) -> bool | None:
        """Variant of the next desktop to boot, or None if none is needed or may be."""
        if time.monotonic() < self.not_before:
            return None
        spare = collections.Counter(
            desktop.needs_root for desktop in self.in_phase(DesktopPhase.SPARE)
        )
        for kind in (False, True):
            if self.waiting[kind] > spare[kind] + self.booting[kind]:
                if self.num_alive < self._max_alive:
                    return kind
                if spare[not kind] > self.waiting[not kind]:
                    self._make_room(not kind)
                return None
        enough = spare[False] + self.booting[False] >= self._spares
        return None if enough or self.num_alive >= self._max_alive else False

    def _make_room(self, kind: bool) -> None:
        """End a spare of a variant that nobody waits for."""
        if not self.in_phase(DesktopPhase.ENDING):  # else there will be room anyway
            spares = self.in_phase(DesktopPhase.SPARE)
            unneeded = next(one for one in spares if one.needs_root == kind)
            unneeded.phase = DesktopPhase.ENDING
            self._notify()

    def note_boot(self, desktop: Desktop, seconds: float, *, closed: bool) -> None:
        """Take a desktop in that has just booted; a closed pool only to end it."""
        self._failures_in_row, self.not_before = 0, 0.0
        self.counts.booted += 1
        self.counts.boot_seconds += seconds
        desktop.phase = DesktopPhase.ENDING if closed else DesktopPhase.SPARE
        self.desktops.add(desktop)

    def note_failure(self, error: Exception) -> None:
        """Remember a failed boot, and wait a little longer after each in a row."""
        why = " ".join(str(error).split())[:_MAX_TEXT] or type(error).__name__
        self.last_failure = why
        self.counts.boot_failures += 1
        wait = self._backoff * 2 ** min(self._failures_in_row, 16)
        self._failures_in_row += 1
        self.not_before = time.monotonic() + min(wait, _MAX_BACKOFF)
        self._report(f"a desktop did not boot: {why}")
