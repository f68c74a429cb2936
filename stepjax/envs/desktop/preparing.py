"""Setting a task up on a desktop, to the point where its programs are at rest."""

from collections.abc import Callable
from typing import Any

from stepjax.envs.desktop.booted import Desktop
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.tasks.schema import TaskSpec

__all__ = ["Preparation", "Setup", "await_quiet"]

Setup = Callable[..., None]
"""`setup(spec, client)`: files, programs, windows."""


class Preparation:
    """What has to be done before an agent may look: set up, wait for rest."""

    def __init__(self, settings: DesktopSettings, setup: Setup | None = None):
        """A preparation.

        Args:
          settings: How long to wait.
          setup: `setup(spec, client)`; None for `tasks.setup.run_setup`, without files
            that tasks would download.
        """
        self._settings = settings
        self._setup = setup or _default_setup()

    def __call__(self, desktop: Desktop, spec: TaskSpec) -> None:
        """Set `spec` up on a desktop nobody has used."""
        self._setup(spec, desktop.client)
        await_quiet(desktop.client, self._settings)


def await_quiet(client: Any, settings: DesktopSettings) -> None:
    """Wait until nothing computes any more on a desktop, or it has been long enough.

    A picture that stays the same for a while proves little: splash screens do.
    """
    if settings.quiet_seconds > 0:
        client.rest(timeout=settings.quiet_seconds)


def _default_setup() -> Setup:
    from stepjax.envs.desktop.tasks.setup import run_setup

    return lambda spec, client: run_setup(spec, client, cache=None)
