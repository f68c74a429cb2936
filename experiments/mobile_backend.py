"""Phones in browsers as a backend: MiniWoB++ pages behind a touch screen."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.browsers import pages_per_browser
from experiments.config import EnvConfig, ExperimentConfig
from stepjax.envs.actions import Action
from stepjax.envs.base import Observation, Task
from stepjax.rollout.backend import TaskTable
from stepjax.rollout.frames import touch_frame_of
from stepjax.rollout.host import HostBackend

__all__ = ["open_mobile", "task_names"]

ReportFn = Callable[[str], None] | None

_PHONES_PER_BROWSER = 6
_BROWSERS = 2


def open_mobile(config: ExperimentConfig, policy: Any, report: ReportFn) -> HostBackend:
    """Phones in browsers, with MiniWoB++ pages.

    A policy with a codec of its own is shown screenshots, any other the widgets.

    Raises:
      FileNotFoundError: If there is no Chromium.
      ImportError: If the pages are not installed.
      ValueError: If the screen is too small or too large, or a page unknown.
    """
    from stepjax.envs import mobile
    from stepjax.envs.miniwob import find_chromium
    from stepjax.envs.miniwob.pages import find_pages
    from stepjax.envs.pool import Deadlines

    env = config.env
    screen = _screen(env)
    find_pages()  # both say what to install; better now than from a worker
    table = _table(env)
    executable = find_chromium(str(env.chromium) if env.chromium else None)
    phones = env.num_envs or _BROWSERS * _PHONES_PER_BROWSER
    slots = pages_per_browser(phones, _PHONES_PER_BROWSER)
    codec = getattr(policy, "codec", None)
    return HostBackend(
        "miniwob-mobile",
        lambda index: mobile.make_mobile_environment(
            executable,
            slots[index],
            screen=screen,
            max_steps=env.max_steps,
            from_launcher=env.from_launcher,
            pictures=codec is not None,
        ),
        TaskTable(
            **{
                field.name: getattr(table, field.name)
                for field in dataclasses.fields(TaskTable)
            }
        ),
        policy.sample,
        num_envs=len(slots),
        max_steps=env.max_steps,
        report=report,
        codec=codec,
        sampler=getattr(policy, "sampler", None),
        demonstrate=None if codec else _oracle,
        deadlines=Deadlines(create=180.0, reset=120.0, step=120.0),
        draw=touch_frame_of,
    )


def _oracle(task: Task, seen: Observation) -> Action:
    from stepjax.envs.mobile import mobile_oracle_action

    return mobile_oracle_action(task.name, seen)


def _table(env: EnvConfig) -> Any:
    from stepjax.envs.mobile import mobile_task_table

    names = task_names(env.task_list)
    try:
        return mobile_task_table(names)
    except ValueError as error:
        raise ValueError(f"env.task_list {env.task_list}: {error}") from error


def _screen(env: EnvConfig) -> Any:
    from stepjax.envs.mobile import PhoneScreen

    try:
        return PhoneScreen(
            width=env.screen_width, height=env.screen_height, scale=env.device_scale
        )
    except ValueError as error:
        raise ValueError(
            f"{error} These are --env.screen-width, --env.screen-height and "
            "--env.device-scale."
        ) from error


def task_names(file: Path | None) -> list[str] | None:
    """Names of the tasks to use, from a JSON file {application: [name, ...]}.

    Args:
      file: The file; None for all tasks.

    Raises:
      ValueError: If it cannot be read, or holds something else.
    """
    if file is None:
        return None
    try:
        data = json.loads(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"env.task_list {file} cannot be read: {error}") from error
    rows = list(data.values()) if isinstance(data, dict) else None
    if not rows or not all(isinstance(row, list) for row in rows):
        raise ValueError(
            f"env.task_list {file} must hold {{application: [task, ...]}} as JSON."
        )
    names = [name for row in rows for name in row]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"env.task_list {file} must name tasks, got {names!r:.80}.")
    return names
