"""Names of backends to backends, and settings to the policy that acts in them."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

from experiments.config import ExperimentConfig, PolicyConfig
from experiments.errors import as_usage_error
from stepjax.models.pointer import PointerPolicy, make_pointer_policy
from stepjax.rollout.backend import Backend

__all__ = ["BACKEND_FACTORIES", "make_policy", "open_backend"]


@functools.cache
def make_policy(config: PolicyConfig) -> PointerPolicy:
    """The policy of the given size; the same object for the same size.

    Equal objects let runs of one process share their compilations.
    """
    return make_pointer_policy(
        width=config.width, layers=config.layers, heads=config.heads
    )


def open_backend(config: ExperimentConfig, policy: PointerPolicy) -> Backend:
    """The backend that `config.env` asks for, acting with `policy`.

    Raises:
      UsageError: If it cannot be opened, for example for want of a browser.
    """
    with as_usage_error(ValueError, OSError, ImportError):
        return BACKEND_FACTORIES[config.env.backend](config, policy)


def _open_sim(config: ExperimentConfig, policy: PointerPolicy) -> Backend:
    from stepjax.rollout.sim import SimBackend

    return SimBackend(
        policy.sample,
        max_steps=config.env.max_steps,
        chunk_size=config.env.num_envs or 256,
    )


def _open_miniwob(config: ExperimentConfig, policy: PointerPolicy) -> Backend:
    from stepjax.envs.miniwob import open_miniwob_backend

    return open_miniwob_backend(
        policy.sample,
        chromium=config.env.chromium,
        max_steps=config.env.max_steps,
        num_envs=config.env.num_envs,
    )


BACKEND_FACTORIES: Mapping[
    str, Callable[[ExperimentConfig, PointerPolicy], Backend]
] = MappingProxyType({"sim": _open_sim, "miniwob": _open_miniwob})
"""What opens each backend of `experiments.config.BACKENDS`."""
