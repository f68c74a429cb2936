"""The desktops of a run: one pool of spares, and environments that share it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepjax.envs.desktop.ahead import AheadSetup
from stepjax.envs.desktop.booted import Boot, Desktop, boot_desktop
from stepjax.envs.desktop.environment import DesktopEnvironment
from stepjax.envs.desktop.preparing import Preparation, Setup
from stepjax.envs.desktop.sandbox.spec import SandboxSpec
from stepjax.envs.desktop.screen_states import ScreenStates
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.spares import SparePool
from stepjax.envs.desktop.table import DesktopTasks
from stepjax.envs.desktop.tasks.schema import TaskSpec

__all__ = ["DesktopFleet"]

_ENVS_PER_SPARE = 4


class DesktopFleet:
    """Makes environments for a pool of environments, and owns what they share.

    Attributes:
      tasks: The tasks they offer.
      spares: The desktops.

    Example:
      A backend of four desktops::

        fleet = DesktopFleet(bundled_tasks(), num_envs=4)
        backend = HostBackend("desktop", fleet, table, sample_fn, num_envs=4)
    """

    def __init__(
        self,
        tasks: DesktopTasks,
        *,
        num_envs: int,
        spares: int | None = None,
        ahead: int | None = None,
        sandbox: SandboxSpec | None = None,
        settings: DesktopSettings | None = None,
        cache: Path | None = None,
        boot: Boot | None = None,
        setup: Setup | None = None,
        report: Callable[[str], None] | None = None,
        **pieces: Any,
    ):
        """A fleet whose first spares boot at once.

        Args:
          tasks: The tasks it offers.
          num_envs: Environments that will use it.
          spares: Desktops kept ready besides; None for one for every four.
          ahead: Desktops on which expected tasks are set up, besides those; 0 for none,
            None for as many as there are spares.
          sandbox: Size and limits of a desktop; None for the defaults.
          settings: How environments look at their desktop; None for the defaults.
          cache: Folder with the files that task files download.
          boot: Boots a desktop; None for `boot_desktop`.
          setup: `setup(spec, client)`; None for `tasks.setup.run_setup`.
          report: Takes a line about each dead desktop and failed boot, from a thread
            of the pool; None for the log.
          **pieces: Further arguments of `DesktopEnvironment`.

        Raises:
          ValueError: If a number is out of range.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be >= 1, got {num_envs}.")
        if spares is None:
            spares = -(-num_envs // _ENVS_PER_SPARE)
        ahead = spares if ahead is None else ahead
        if ahead < 0:
            raise ValueError(f"ahead must be >= 0, got {ahead}.")
        self.tasks = tasks
        self._settings = settings or DesktopSettings()
        self._setup = setup or _setup_with(cache)
        self._states = ScreenStates()
        self._pieces = pieces
        self._ahead = None
        self.spares = SparePool(
            boot or functools.partial(_boot, sandbox or SandboxSpec()),
            spares=spares,
            max_alive=num_envs + spares + ahead,
            report=report,
        )
        if ahead:
            prepare = Preparation(self._settings, self._setup)
            self._ahead = AheadSetup(self.spares, prepare, tasks.load, limit=ahead)

    def __call__(self, index: int) -> DesktopEnvironment:
        """The environment of a place in a pool of environments."""
        del index
        return DesktopEnvironment(
            self.spares,
            self.tasks.load,
            settings=self._settings,
            states=self._states,
            setup=self._setup,
            ahead=self._ahead,
            **self._pieces,
        )

    def __enter__(self) -> "DesktopFleet":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Wait for the first desktop, to find out early whether any boots.

        Raises:
          NoDesktopError: If none does; the message says why.
          TimeoutError: If none is ready in time.
        """
        try:
            self.spares.wait_ready(timeout)
        except BaseException:
            self.close()
            raise

    def expect(self, episodes: Sequence[tuple[str, int]]) -> None:
        """Say which episodes come next, so that spare desktops are set up for them.

        Args:
          episodes: Names and seeds in the order in which they will begin; replaces what
            was expected before.
        """
        if self._ahead is not None:
            self._ahead.expect(episodes)

    def status_line(self) -> str:
        """What the desktops are doing, in a few words for progress."""
        return self.spares.status_line()

    def metrics(self) -> dict[str, float]:
        """Totals since the start, as flat names and numbers."""
        return self.spares.counts.metrics()

    def close(self) -> None:
        """End all desktops; may be called twice."""
        if self._ahead is not None:
            self._ahead.stop()
        self.spares.close()
        if self._ahead is not None:
            self._ahead.join()


def _setup_with(cache: Path | None) -> Setup:
    def setup(spec: TaskSpec, client: Any) -> None:
        from stepjax.envs.desktop.tasks.setup import run_setup

        run_setup(spec, client, cache=cache)

    return setup


def _boot(spec: SandboxSpec, needs_root: bool) -> Desktop:
    return boot_desktop(dataclasses.replace(spec, needs_root=needs_root))
