"""Phones in browsers as a backend: MiniWoB++ pages behind a touch screen."""

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.config import EnvConfig, ExperimentConfig
from stepjax.models.policy import Policy
from stepjax.rollout.backend import TaskTable
from stepjax.rollout.frames import touch_frame_of
from stepjax.rollout.host import HostBackend

__all__ = ["open_mobile"]

ReportFn = Callable[[str], None] | None

_PHONES_PER_BROWSER = 6
_BROWSERS = 2


def open_mobile(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> HostBackend:
    """Phones in browsers, with MiniWoB++ pages.

    Raises:
      FileNotFoundError: If there is no Chromium.
      ImportError: If the pages are not installed.
      ValueError: If the screen is too small or too large.
    """
    from stepjax.envs import mobile
    from stepjax.envs.miniwob import find_chromium
    from stepjax.envs.miniwob.pages import find_pages
    from stepjax.envs.pool import Deadlines

    env = config.env
    find_pages()  # both say what to install; better now than from a worker
    executable = find_chromium(str(env.chromium) if env.chromium else None)
    screen = _screen(env)
    phones = env.num_envs or _BROWSERS * _PHONES_PER_BROWSER
    slots = min(phones, _PHONES_PER_BROWSER)
    table = mobile.mobile_task_table()
    return HostBackend(
        "miniwob-mobile",
        lambda index: mobile.make_mobile_environment(
            executable,
            slots,
            screen=screen,
            max_steps=env.max_steps,
            from_launcher=env.from_launcher,
        ),
        TaskTable(
            **{
                field.name: getattr(table, field.name)
                for field in dataclasses.fields(TaskTable)
            }
        ),
        policy.sample,
        num_envs=-(-phones // slots),
        max_steps=env.max_steps,
        report=report,
        demonstrate=lambda task, seen: mobile.mobile_oracle_action(task.name, seen),
        deadlines=Deadlines(create=180.0, reset=120.0, step=120.0),
        draw=touch_frame_of,
    )


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
