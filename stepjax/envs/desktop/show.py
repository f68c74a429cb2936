"""One task as the agent would find it: a picture of it, or a look through VNC."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepjax.envs.desktop.booted import Desktop
from stepjax.envs.desktop.environment import DesktopEnvironment
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.spares import SparePool
from stepjax.envs.desktop.table import make_task
from stepjax.envs.desktop.tasks.schema import TaskSpec
from stepjax.envs.desktop.vnc import serve_vnc

__all__ = ["Shown", "find_task", "show_task"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """What became of showing a task.

    Attributes:
      out: Where the picture lies.
      width: Of the picture, in pixels.
      height: Of the picture, in pixels.
      seconds: From asking for the desktop to the picture.
    """

    out: Path
    width: int
    height: int
    seconds: float


def find_task(task: str, seed: int) -> TaskSpec:
    """A bundled task by name, or the task of a JSON file by path.

    Raises:
      ValueError: If there is neither, or the file is malformed.
    """
    if task.endswith(".json"):
        from stepjax.envs.desktop.tasks.files import load_task

        return load_task(Path(task))
    from stepjax.envs.desktop.tasks import bundled

    known = (*bundled.TRAIN_TASKS, *bundled.UNSEEN_TASKS)
    if task not in known:
        raise ValueError(
            f"there is no task {task!r}; see `python -m stepjax.envs.desktop list`, or "
            "give the path of a task's .json file."
        )
    return bundled.bundled_task(task, seed)


def show_task(
    spec: TaskSpec,
    boot: Callable[[bool], Desktop],
    *,
    out: Path,
    seed: int = 0,
    vnc_port: int | None = None,
    report: Callable[[str], None] = print,
    hold: Callable[[], None] | None = None,
    **pieces: Any,
) -> Shown:
    """The picture of a task that was set up on a desktop of its own.

    Args:
      spec: The task.
      boot: Boots the desktop, as for `SparePool`.
      out: File for the picture; its folder must exist.
      seed: Seed of the reset.
      vnc_port: Serve the desktop on this loopback port until interrupted, 0 for any
        that is free; None not to.
      report: Takes what there is to say.
      hold: Returns when serving is to end; None to wait for an interrupt.
      **pieces: Further arguments of `DesktopEnvironment`.

    Raises:
      ValueError: If `out` cannot be a picture.
      OSError: If it cannot be written.
      NoDesktopError: If no desktop boots.
      DesktopError: If the task cannot be set up.
      VncError: If the desktop cannot be served.
    """
    from PIL import Image  # pyright: ignore[reportMissingImports] # optional

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out must end in .png or .jpg, got {out}.")
    if not out.parent.is_dir():
        raise ValueError(f"--out: there is no folder {out.parent}.")
    started = time.monotonic()
    held: list[Desktop] = []

    def boot_and_hold(needs_root: bool) -> Desktop:
        held.append(boot(needs_root))
        return held[-1]

    with SparePool(boot_and_hold, spares=0, max_alive=1, max_failures=1) as pool:
        environment = DesktopEnvironment(
            pool, lambda name, seed: spec, settings=DesktopSettings(), **pieces
        )
        screen = environment.reset(make_task(spec, spec.name), seed).screenshot
        if screen is None:
            raise ValueError("the desktop gave no picture.")
        seconds = time.monotonic() - started
        Image.fromarray(screen).save(out)
        height, width = screen.shape[:2]
        if vnc_port is not None:
            _serve(held[-1], vnc_port, report, hold or _until_interrupted)
    return Shown(out=out, width=width, height=height, seconds=seconds)


def _serve(
    desktop: Desktop,
    port: int,
    report: Callable[[str], None],
    hold: Callable[[], None],
) -> None:
    with serve_vnc(desktop.sandbox, desktop.client, port=port) as (where, password):
        report(
            f"VNC on localhost:{where}, password {password} (shown this once). Ctrl-C "
            "ends it."
        )
        hold()


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600.0)
    except KeyboardInterrupt:
        return
