"""Tasks set up before their episode begins, on desktops that would only stand by.

An application takes seconds to start. Whoever knows which episodes come next says so
(`expect`); a few of them are set up in the background, and the reset that asks for one
finds it ready. What is not ready, or failed, the reset does itself: nothing depends on
any of this but time.
"""

import collections
import dataclasses
import enum
import logging
import threading
from collections.abc import Callable, Sequence

from stepjax.envs.desktop.booted import Desktop, DesktopPhase
from stepjax.envs.desktop.spares import SparePool
from stepjax.envs.desktop.tasks.schema import TaskSpec

__all__ = ["AheadSetup"]

_LOG = logging.getLogger(__name__)
_TAKE_SECONDS = 60.0

Key = tuple[str, int]  # name and seed


class _State(enum.Enum):
    WAITING = enum.auto()
    PREPARING = enum.auto()
    READY = enum.auto()
    DROPPED = enum.auto()


@dataclasses.dataclass(eq=False)
class _Entry:
    key: Key
    state: _State = _State.WAITING
    desktop: Desktop | None = None


class AheadSetup:
    """Sets expected episodes up in the background; safe to use from any thread."""

    def __init__(
        self,
        spares: SparePool,
        prepare: Callable[[Desktop, TaskSpec], None],
        load: Callable[[str, int], TaskSpec],
        *,
        limit: int,
    ):
        """Threads that wait for something to expect.

        Args:
          spares: Where desktops come from.
          prepare: Sets a task up on a desktop.
          load: Maps a name and a seed to the task.
          limit: Episodes set up, or being set up, at a time; no more than the pool has
            room for besides the environments, or they would wait for each other.

        Raises:
          ValueError: If the limit is not positive.
        """
        if limit < 1:
            raise ValueError(f"limit must be >= 1, got {limit}.")
        self._spares, self._prepare, self._load = spares, prepare, load
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._limit = limit
        self._closed = False
        self._threads = [
            threading.Thread(
                target=self._work, name=f"stepjax-desktop-ahead-{n}", daemon=True
            )
            for n in range(limit)
        ]
        for thread in self._threads:
            thread.start()

    def expect(self, episodes: Sequence[Key]) -> None:
        """Names and seeds of the episodes to come, in order; replaces earlier ones."""
        with self._changed:
            wanted = collections.Counter(episodes)
            kept = []
            for entry in self._entries:
                if entry.state is not _State.WAITING and wanted[entry.key]:
                    wanted[entry.key] -= 1
                    kept.append(entry)
                else:
                    self._drop(entry)
            for key in episodes:
                if wanted[key]:
                    wanted[key] -= 1
                    kept.append(_Entry(key))
            self._entries = kept
            self._changed.notify_all()

    def take(self, name: str, seed: int) -> Desktop | None:
        """A desktop on which the episode is set up, or None: do it yourself then."""
        with self._changed:
            entry = self._find((name, seed))
            if entry is None:
                return None
            self._entries.remove(entry)  # nobody else gets it
            self._changed.notify_all()
            while entry.state is _State.PREPARING:
                self._changed.wait()
            desktop = entry.desktop
        if desktop is None or desktop.alive():
            return desktop
        self._spares.end(desktop)
        return None

    def stop(self) -> None:
        """Give up what is expected, and have the threads end."""
        with self._changed:
            self._closed = True
        self.expect(())

    def join(self) -> None:
        """Wait for the threads; at once if the pool of desktops is closed too."""
        for thread in self._threads:
            thread.join(_TAKE_SECONDS)

    # With the lock held.

    def _find(self, key: Key) -> _Entry | None:
        """The entry of an episode that is furthest."""
        found = [entry for entry in self._entries if entry.key == key]
        return max(found, key=lambda entry: entry.state.value, default=None)

    def _drop(self, entry: _Entry) -> None:
        entry.state = _State.DROPPED
        if entry.desktop is not None:
            self._spares.end(entry.desktop)
            entry.desktop = None

    # Threads.

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            desktop = self._set_up(entry.key)
            with self._changed:
                if desktop is None:
                    entry.state = _State.DROPPED
                elif entry.state is _State.DROPPED:  # no longer expected
                    self._spares.end(desktop)
                else:
                    entry.state, entry.desktop = _State.READY, desktop
                if entry.state is _State.DROPPED and entry in self._entries:
                    self._entries.remove(entry)
                self._changed.notify_all()

    def _next(self) -> _Entry | None:
        """Waits for an episode to set up; None once this is closed."""
        with self._changed:
            while not self._closed:
                waiting = [e for e in self._entries if e.state is _State.WAITING]
                if waiting and len(self._entries) - len(waiting) < self._limit:
                    waiting[0].state = _State.PREPARING
                    return waiting[0]
                self._changed.wait()
            return None

    def _set_up(self, key: Key) -> Desktop | None:
        """A desktop with the task, or None: the reset will say what is wrong."""
        desktop = None
        try:
            spec = self._load(*key)
            desktop = self._spares.take(
                needs_root=spec.needs_root, timeout=_TAKE_SECONDS
            )
            self._prepare(desktop, spec)
            self._spares.note(desktop, DesktopPhase.PREPARED)
            return desktop
        except Exception as error:
            _LOG.info("%s was not set up ahead: %s", key[0], error)
            if desktop is not None:
                self._spares.end(desktop)
            return None
