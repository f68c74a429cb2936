"""Names of backends to backends, and settings to the policy that acts in them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

from experiments.config import EnvConfig, ExperimentConfig, PolicyConfig
from experiments.errors import as_usage_error
from stepjax.models.pointer import PointerPolicy, make_pointer_policy
from stepjax.rollout.backend import Backend, TaskTable

__all__ = ["BACKEND_FACTORIES", "OpenFn", "make_policy", "open_backend"]

ReportFn = Callable[[str], None] | None
OpenFn = Callable[[EnvConfig, PointerPolicy, ReportFn], Backend]

_PAGES_PER_BROWSER = 16


@functools.cache
def make_policy(config: PolicyConfig) -> PointerPolicy:
    """The policy of the given size; the same object for the same size.

    Equal objects let runs of one process share their compilations.
    """
    return make_pointer_policy(
        width=config.width, layers=config.layers, heads=config.heads
    )


def open_backend(
    config: ExperimentConfig, policy: PointerPolicy, *, report: ReportFn = None
) -> Backend:
    """The backend that `config.env` asks for, acting with `policy`.

    Args:
      config: Only `config.env` matters.
      policy: Who acts.
      report: Told in a few words what a slow backend waits for.

    Raises:
      UsageError: If it cannot be opened, for example for want of a browser.
    """
    with as_usage_error(ValueError, OSError, ImportError):
        return BACKEND_FACTORIES[config.env.backend](config.env, policy, report)


def _open_sim(env: EnvConfig, policy: PointerPolicy, report: ReportFn) -> Backend:
    from stepjax.rollout.sim import SimBackend

    del report
    return SimBackend(
        policy.sample, max_steps=env.max_steps, chunk_size=env.num_envs or 256
    )


def _open_miniwob(env: EnvConfig, policy: PointerPolicy, report: ReportFn) -> Backend:
    from stepjax.envs import miniwob
    from stepjax.envs.miniwob.pages import find_pages
    from stepjax.rollout.host import HostBackend

    find_pages()  # both say what to install; better now than from a worker
    executable = miniwob.find_chromium(str(env.chromium) if env.chromium else None)
    pages = env.num_envs or 2 * _PAGES_PER_BROWSER
    slots = min(pages, _PAGES_PER_BROWSER)
    table = miniwob.task_table()
    return HostBackend(
        "miniwob",
        lambda index: miniwob.make_vector_environment(
            executable, slots, max_steps=env.max_steps
        ),
        TaskTable(
            **{
                field.name: getattr(table, field.name)
                for field in dataclasses.fields(TaskTable)
            }
        ),
        policy.sample,
        num_envs=-(-pages // slots),
        max_steps=env.max_steps,
        report=report,
        demonstrate=lambda task, seen: miniwob.oracle_action(task.name, seen),
    )


BACKEND_FACTORIES: Mapping[str, OpenFn] = MappingProxyType(
    {"sim": _open_sim, "miniwob": _open_miniwob}
)
"""What opens each backend of `experiments.config.BACKENDS`."""
