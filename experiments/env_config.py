"""Settings of the place where the agent acts. Nothing here imports jax."""

import dataclasses
from pathlib import Path

from experiments.setting_checks import at_least, between, one_of

__all__ = ["BACKENDS", "PHONES", "EnvConfig"]

BACKENDS = ("sim", "miniwob", "desktop", "vm", "miniwob-mobile", "androidworld")
"""Environment backends that `experiments.backends` can open."""

PHONES = ("miniwob-mobile", "androidworld")
"""Those of them that act on a phone's screen."""

_LEAST_WIDTH, _LEAST_HEIGHT = 320, 200  # pixels of a screen that windows fit on


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Where the agent acts."""

    backend: str = "sim"
    """Environment: sim (a desktop simulated in JAX), miniwob (real pages in a real
    Chromium), desktop (real applications on sandboxed desktops), vm (OSWorld's own
    virtual machines), miniwob-mobile (real pages on a phone's touch screen) or
    androidworld (AndroidWorld's own servers)."""

    chromium: Path | None = None
    """Chromium to drive (miniwob and miniwob-mobile). None:
    $STEPJAX_CHROMIUM, then PATH."""

    tasks: Path | None = None
    """OSWorld's evaluation_examples folder, or one like it (desktop and vm). None: the
    bundled tasks (desktop only)."""

    task_list: Path | None = None
    """JSON file {domain: [id, ...]} of the tasks in it to use, or of AndroidWorld's
    tasks or miniwob-mobile's pages by name. None: all."""

    cache: Path | None = None
    """Folder with the files that those tasks download. None: tasks that need one
    cannot be set up (desktop), or are downloaded (vm)."""

    evaluators: Path | None = None
    """Virtual environment of OSWorld's own evaluators, which judge those tasks. None:
    $STEPJAX_EVALUATORS, else where scripts/install-desktop --evaluators puts it."""

    provider: str = "docker"
    """Who runs the virtual machines, by desktop-env's name: docker, vmware, aws, ...
    (vm only)."""

    url: str | None = None
    """Address of one OSWorld machine that runs already, such as http://host:5000 (vm);
    addresses of AndroidWorld's servers with commas between (androidworld)."""

    family: str = "android_world"
    """Tasks by AndroidWorld's name for their group (androidworld only)."""

    suite_seed: int | None = None
    """Seed of every task's parameters, 30 in AndroidWorld's own runs (androidworld
    only). None: each episode has its own."""

    serials: str | None = None
    """The servers' phones as adb lists them, with commas between, for quick screenshots
    (androidworld only). None: pictures come through the servers."""

    screen_width: int = 1280
    """Width of the screen in pixels (desktop, vm and miniwob-mobile)."""

    screen_height: int = 800
    """Height of the screen in pixels (desktop, vm and miniwob-mobile)."""

    device_scale: float = 3.0
    """Pixels of the phone's screen that make one CSS pixel (miniwob-mobile only)."""

    from_launcher: bool = False
    """Episodes begin on the phone's launcher, not in the app (miniwob-mobile only)."""

    max_steps: int = 15
    """Most steps of a trajectory."""

    num_envs: int | None = None
    """Environments run side by side. None: the backend decides."""

    def __post_init__(self):
        """Check the fields."""
        one_of("env.backend", self.backend, BACKENDS)
        at_least("env.max_steps", self.max_steps, 1)
        if self.num_envs is not None:
            at_least("env.num_envs", self.num_envs, 1)
        at_least("env.screen_width", self.screen_width, _LEAST_WIDTH)
        at_least("env.screen_height", self.screen_height, _LEAST_HEIGHT)
        self._check_tasks()

    def _check_tasks(self) -> None:
        named = self.backend in PHONES  # they have the tasks themselves
        if self.task_list is not None and self.tasks is None and not named:
            raise ValueError(
                f"env.task_list {self.task_list} names tasks of a folder; give the "
                "folder as env.tasks."
            )
        if self.suite_seed is not None:
            between("env.suite_seed", self.suite_seed, 0, 2**32 - 1)
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise ValueError(
                "env.url must be an address such as http://host:5000, got "
                f"{self.url!r}."
            )
        if self.url is not None and self.backend not in ("vm", "androidworld"):
            raise ValueError(
                f"env.url {self.url} is of no use to env.backend {self.backend}; add "
                "--env.backend androidworld, or vm."
            )
