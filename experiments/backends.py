"""Names of backends to backends, and settings to the policy that acts in them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from experiments.browsers import pages_per_browser
from experiments.config import EnvConfig, ExperimentConfig, PolicyConfig
from experiments.errors import UsageError, as_usage_error
from stepjax.models.policy import Policy
from stepjax.rollout.backend import Backend, TaskTable

__all__ = [
    "BACKEND_FACTORIES",
    "OpenFn",
    "PIXEL_BACKENDS",
    "empty_prompt",
    "make_policy",
    "open_backend",
]

ReportFn = Callable[[str], None] | None
OpenFn = Callable[[ExperimentConfig, Policy, ReportFn], Backend]

PIXEL_BACKENDS = ("desktop", "vm", "androidworld")
"""Backends whose policy sees screenshots; the others' sees widgets."""

_PAGES_PER_BROWSER = 16


def make_policy(
    config: PolicyConfig, backend: str = "sim", env: EnvConfig | None = None
) -> Policy:
    """The policy of the given size for a backend; the same object for the same.

    Equal objects let runs of one process share their compilations.

    Args:
      config: Which policy.
      backend: Where it acts.
      env: Says how large screens are (qwen-vl only); None for the default.

    Raises:
      UsageError: If a checkpoint or a server cannot be used.
    """
    if config.name == "qwen-vl":
        from experiments.model_setup import make_model_policy

        return make_model_policy(
            config, EnvConfig(backend=backend) if env is None else env
        )
    sizes = (config.width, config.layers, config.heads)
    return _screen_policy(*sizes) if backend in PIXEL_BACKENDS else _pointer(*sizes)


@functools.cache
def _pointer(width: int, layers: int, heads: int) -> Policy:
    from stepjax.models.pointer import make_pointer_policy

    return make_pointer_policy(width=width, layers=layers, heads=heads)


@functools.cache
def _screen_policy(width: int, layers: int, heads: int) -> Policy:
    from stepjax.models.screen import make_screen_policy

    return make_screen_policy(width=width, layers=layers, heads=heads)


def empty_prompt(config: ExperimentConfig) -> Any:
    """What the policy of `config` sees, padding throughout: shapes and dtypes."""
    if config.policy.name == "qwen-vl":
        policy: Any = make_policy(config.policy, config.env.backend, config.env)
        return policy.codec.empty_prompt()
    if config.env.backend in PIXEL_BACKENDS:
        from experiments.desktop_backend import make_codec

        return make_codec(config).empty_prompt()
    from stepjax.rollout.encode import PointerCodec

    return PointerCodec().empty_prompt()


def open_backend(
    config: ExperimentConfig, policy: Policy, *, report: ReportFn = None
) -> Backend:
    """The backend that `config.env` asks for, acting with `policy`.

    Args:
      config: Only `config.env` and the view in `config.policy` matter.
      policy: Who acts.
      report: Told in a few words what a slow backend waits for.

    Raises:
      UsageError: If it cannot be opened, for example for want of a browser.
    """
    name = config.env.backend
    with as_usage_error(ValueError, OSError):
        try:
            return BACKEND_FACTORIES[name](config, policy, report)
        except ModuleNotFoundError as error:
            extra = "desktop" if name in PIXEL_BACKENDS else name.partition("-")[0]
            raise UsageError(
                f"backend {name} needs the Python package {error.name}; "
                f"pip install -e '.[experiments,{extra}]' brings it."
            ) from error


def _open_sim(config: ExperimentConfig, policy: Policy, report: ReportFn) -> Backend:
    if config.policy.name == "qwen-vl":
        return _open_sim_screens(config, policy, report)
    from stepjax.rollout.sim import SimBackend

    del report
    env = config.env
    return SimBackend(
        policy.sample, max_steps=env.max_steps, chunk_size=env.num_envs or 256
    )


def _open_sim_screens(
    config: ExperimentConfig, policy: Any, report: ReportFn
) -> Backend:
    """The simulator drawn, for a policy that sees pictures."""
    from stepjax.rollout.sim_screens import SimScreensBackend

    shown = policy.codec.prompts
    return SimScreensBackend(
        policy.sample,
        codec=policy.codec,
        sampler=policy.sampler,
        size=(shown.width, shown.height),
        max_steps=config.env.max_steps,
        num_envs=config.env.num_envs or 2 * config.policy.slots,
        report=report,
    )


def _open_miniwob(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> Backend:
    from stepjax.envs import miniwob
    from stepjax.envs.miniwob.pages import find_pages
    from stepjax.rollout.host import HostBackend

    env = config.env
    find_pages()  # both say what to install; better now than from a worker
    executable = miniwob.find_chromium(str(env.chromium) if env.chromium else None)
    pages = env.num_envs or 2 * _PAGES_PER_BROWSER
    slots = pages_per_browser(pages, _PAGES_PER_BROWSER)
    table = miniwob.task_table()
    return HostBackend(
        "miniwob",
        lambda index: miniwob.make_vector_environment(
            executable, slots[index], max_steps=env.max_steps
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
        demonstrate=lambda task, seen: miniwob.oracle_action(task.name, seen),
    )


def _open_desktop(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> Backend:
    from experiments.desktop_backend import open_desktop

    return open_desktop(config, policy, report)


def _open_vm(config: ExperimentConfig, policy: Policy, report: ReportFn) -> Backend:
    from experiments.vm_backend import open_vm

    return open_vm(config, policy, report)


def _open_mobile(config: ExperimentConfig, policy: Policy, report: ReportFn) -> Backend:
    from experiments.mobile_backend import open_mobile

    return open_mobile(config, policy, report)


def _open_androidworld(
    config: ExperimentConfig, policy: Policy, report: ReportFn
) -> Backend:
    from experiments.androidworld_backend import open_androidworld

    return open_androidworld(config, policy, report)


BACKEND_FACTORIES: Mapping[str, OpenFn] = MappingProxyType(
    {
        "sim": _open_sim,
        "miniwob": _open_miniwob,
        "desktop": _open_desktop,
        "vm": _open_vm,
        "miniwob-mobile": _open_mobile,
        "androidworld": _open_androidworld,
    }
)
"""What opens each backend of `experiments.config.BACKENDS`."""
