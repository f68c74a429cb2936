"""AndroidWorld's servers as a backend: your emulators, AndroidWorld's verdicts."""

import contextlib

from experiments.config import EnvConfig, ExperimentConfig
from experiments.desktop_backend import (
    Closing,
    DesktopBackend,
    ReportFn,
    screen_backend,
)
from experiments.errors import UsageError
from experiments.mobile_backend import task_names
from stepjax.models.policy import Policy
from stepjax.rollout.frames import touch_frame_of

__all__ = ["open_androidworld"]

_LEAST_FAULTS = 64
"""Faults in a row that end a run: a task that never sets up must not be enough."""


def open_androidworld(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> DesktopBackend:
    """Emulators behind AndroidWorld's servers at `env.url`.

    Raises:
      UsageError: If a server is not there, or a phone not as the settings say.
      ValueError: If a setting does not fit.
    """
    from stepjax.envs import androidworld

    env = config.env
    urls = _urls(env)
    only = task_names(env.task_list)
    with contextlib.ExitStack() as opened:
        fleet = androidworld.AndroidWorldFleet(
            urls,
            budget_of=androidworld.step_budget,
            settings=androidworld.AndroidWorldSettings(
                family=env.family,
                suite_seed=env.suite_seed,
                max_steps=env.max_steps,
                screen=(env.screen_width, env.screen_height),
            ),
            serials=_split(env.serials),
        )
        opened.callback(fleet.close)
        try:
            offered = fleet.open()
        except androidworld.AndroidWorldError as error:
            raise UsageError(_hint(str(error))) from error
        tasks = androidworld.android_world_tasks(offered, only=only)
        resources = opened.pop_all()
    return screen_backend(
        "androidworld",
        Closing(fleet, resources),
        tasks,
        config,
        policy,
        num_envs=len(urls),
        deadlines=androidworld.DEADLINES,
        max_consecutive_faults=max(_LEAST_FAULTS, 16 * len(urls)),
        report=report,
        draw=touch_frame_of,
    )


def _urls(env: EnvConfig) -> tuple[str, ...]:
    from stepjax.envs.androidworld import split_urls

    if env.url is None:
        raise ValueError(
            "env.url is needed with the androidworld backend: the address of "
            "AndroidWorld's server, such as http://localhost:5000."
        )
    urls = split_urls(env.url)
    if env.num_envs is not None and env.num_envs != len(urls):
        raise ValueError(
            f"env.num_envs must be {len(urls)}, one for each server of env.url, or be "
            f"left out, got {env.num_envs}."
        )
    return urls


def _split(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").replace(",", " ").split())


def _hint(message: str) -> str:
    """The error, with the flags that mend it."""
    if " of the settings;" in message:
        return f"{message} See --env.screen-width and --env.screen-height."
    return message
