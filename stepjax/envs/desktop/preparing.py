"""Setting a task up on a desktop, to the point where its screen has come to rest."""

import time
from collections.abc import Callable
from typing import Any

from stepjax.envs.desktop.booted import Desktop
from stepjax.envs.desktop.screen_states import same_screen, small_screen
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.tasks.schema import TaskSpec

__all__ = ["Preparation", "Setup", "await_quiet"]

Setup = Callable[..., None]
"""`setup(spec, client)`: files, programs, windows."""

_LOOK_SECONDS = 0.2
_EQUAL_LOOKS = 3  # two would call a splash screen at rest


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
    """Wait until a few looks in a row show the same, or it has been long enough."""
    until = time.monotonic() + settings.quiet_seconds
    before, equal = None, 1
    while time.monotonic() < until:
        view = client.act((), settle_ms=0, size=settings.image_size)
        small = small_screen(view.image)
        equal = equal + 1 if before is not None and same_screen(small, before) else 1
        if equal >= _EQUAL_LOOKS:
            return
        before = small
        time.sleep(_LOOK_SECONDS)


def _default_setup() -> Setup:
    from stepjax.envs.desktop.tasks.setup import run_setup

    return lambda spec, client: run_setup(spec, client, cache=None)
