"""Phones as backends: MiniWoB++ pages behind a touch screen, AndroidWorld's servers."""

import contextlib
import dataclasses

from experiments.config import EnvConfig, ExperimentConfig
from experiments.desktop_backend import (
    Closing,
    DesktopBackend,
    ReportFn,
    screen_backend,
)
from experiments.errors import UsageError
from stepjax.models.policy import Policy
from stepjax.rollout.backend import TaskTable
from stepjax.rollout.frames import touch_frame_of
from stepjax.rollout.host import HostBackend

__all__ = ["open_androidworld", "open_mobile"]

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
        draw=touch_frame_of,
    )


def _screen(env: EnvConfig):
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


def open_androidworld(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> DesktopBackend:
    """Emulators behind AndroidWorld's servers at `env.url`.

    Raises:
      UsageError: If a server is not there, or not as the others.
      ValueError: If a setting does not fit.
    """
    from stepjax.envs import androidworld

    env = config.env
    if env.url is None:
        raise ValueError(
            "env.url is needed with the androidworld backend: the address of "
            "AndroidWorld's server, such as http://localhost:5000."
        )
    urls = androidworld.split_urls(env.url)
    settings = androidworld.AndroidWorldSettings(
        family=env.family, max_steps=env.max_steps
    )
    with contextlib.ExitStack() as opened:
        fleet = androidworld.AndroidWorldFleet(
            urls,
            budget_of=androidworld.step_budget,
            settings=settings,
            serials=tuple((env.serials or "").replace(",", " ").split()),
        )
        opened.callback(fleet.close)
        try:
            names = fleet.open()
        except androidworld.AndroidWorldError as error:
            raise UsageError(" ".join(str(error).split())) from error
        tasks = androidworld.android_world_tasks(names)
        resources = opened.pop_all()
    return screen_backend(
        "androidworld",
        Closing(fleet, resources),
        tasks,
        config,
        policy,
        num_envs=len(urls),
        deadlines=androidworld.DEADLINES,
        report=report,
        draw=touch_frame_of,
    )
