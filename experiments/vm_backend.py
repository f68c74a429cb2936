"""OSWorld's virtual machines as a backend, or one machine that runs somewhere."""

import contextlib
from typing import Any

from experiments.config import ExperimentConfig
from experiments.desktop_backend import (
    Closing,
    DesktopBackend,
    ReportFn,
    image_size,
    screen_backend,
    task_folder,
)
from experiments.errors import UsageError
from stepjax.models.policy import Policy

__all__ = ["open_vm"]

_SECONDS = 1000.0  # a machine may have to be downloaded, started, reverted


def open_vm(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> DesktopBackend:
    """Machines of one of desktop-env's providers, or the one at `env.url`.

    Raises:
      UsageError: If upstream's evaluators are not installed.
      ValueError: If a setting or a task file does not fit.
    """
    from stepjax.envs.desktop import file_tasks
    from stepjax.envs.desktop.screen_states import ScreenStates
    from stepjax.envs.desktop.tasks.files import load_tasks
    from stepjax.envs.desktop.upstream.errors import UpstreamError
    from stepjax.envs.desktop.upstream.vm import VmEnvironment
    from stepjax.envs.pool import Deadlines

    env = config.env
    if env.url is not None and (env.num_envs or 1) > 1:
        raise ValueError(
            f"env.num_envs must be 1 with env.url (one machine), got {env.num_envs}."
        )
    tasks = file_tasks(load_tasks(task_folder(env), env.task_list))
    states = ScreenStates()
    with contextlib.ExitStack() as opened:
        try:
            machine = _machines(config, opened)
        except UpstreamError as error:
            raise UsageError(" ".join(str(error).split())) from error

        def make(index: int) -> Any:
            del index
            return VmEnvironment(
                machine(), tasks.load, image_size=image_size(env), states=states
            )

        resources = opened.pop_all()
    return screen_backend(
        "vm",
        Closing(make, resources),
        tasks,
        config,
        policy,
        num_envs=env.num_envs or 1,
        deadlines=Deadlines(
            create=_SECONDS, reset=_SECONDS, step=120.0, evaluate=300.0, close=120.0
        ),
        report=report,
    )


def _machines(config: ExperimentConfig, opened: contextlib.ExitStack) -> Any:
    """What makes a machine; what is wrong with the settings is found here."""
    from stepjax.envs.desktop.upstream import Evaluators
    from stepjax.envs.desktop.upstream.install import find_interpreter
    from stepjax.envs.desktop.upstream.machines import (
        PROVIDERS,
        ProviderMachine,
        UrlMachine,
        parse_url,
    )

    env = config.env
    screen = (env.screen_width, env.screen_height)
    if env.url is None:
        if env.provider not in PROVIDERS:
            raise ValueError(
                f"env.provider must be one of {', '.join(PROVIDERS)}, got "
                f"{env.provider!r}."
            )
        find_interpreter(env.evaluators)
        return lambda: ProviderMachine(
            env.provider, folder=env.evaluators, cache=env.cache, screen=screen
        )
    url = env.url
    parse_url(url)
    evaluators = Evaluators(folder=env.evaluators, cache=env.cache, screen=screen)
    opened.callback(evaluators.close)
    return lambda: UrlMachine(url, evaluators=evaluators)
