"""A run with everything around it: processes, progress, events, episodes, report."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.config import ExperimentConfig, flat_config
from experiments.episode_choice import record_episodes
from experiments.episodes import save_episodes
from experiments.errors import RunError, as_usage_error
from experiments.loop import train
from experiments.observer import ObserverGroup, RunObserver, RunResult, SilentObserver
from experiments.placement import acting_params
from experiments.progress import make_progress
from experiments.report import write_report
from experiments.tensorboard import TensorBoardObserver
from stepjax.launch.cluster import LaunchError, find_cluster
from stepjax.launch.distributed import launched
from stepjax.launch.peers import PeerLostError, Peers
from stepjax.launch.preflight import gather_facts
from stepjax.rollout.backend import Backend

__all__ = ["run_together", "run_with_report"]

_OWN_SETTINGS = (
    "launch.process_id",
    "env.chromium",
    "env.url",
    "env.serials",
    "warm_start.cache_dir",
)
"""Settings in which the processes of a run may differ."""


def run_with_report(about: str, config: ExperimentConfig) -> RunResult:
    """The result of a run that is shown while it goes on and told about at the end.

    Args:
      about: Where the settings come from, for the first line.
      config: All settings.

    Returns:
      The result; `report.html` lies in the run folder.

    Raises:
      UsageError: See `experiments.loop.train`; or if the processes of a run cannot
        start together.
      RunError: See `experiments.loop.train`; or if another process ended.
    """
    _keep_compilations(config)
    with run_together(config) as peers:
        observer: RunObserver = SilentObserver()
        if peers.index == 0:
            events = config.run_dir.expanduser() / "tensorboard"
            observer = ObserverGroup([make_progress(), TensorBoardObserver(events)])

        def tell(backend: Backend, result: RunResult) -> None:
            from experiments.backends import make_policy

            policy = make_policy(config.policy, config.env.backend, config.env)
            last = result.params
            if peers.count == 1:  # several have put them where they act already
                last = acting_params(result, policy)
            params: dict[str, Any] = {
                "before training": result.start_params,
                "after training": last,
            }
            episodes = record_episodes(backend, params, jax.random.key(config.seed))
            save_episodes(result.run_dir / "episodes", episodes)
            write_report(result.run_dir, episodes=episodes)

        return train(config, about=about, observer=observer, at_end=tell, peers=peers)


@contextlib.contextmanager
def run_together(config: ExperimentConfig) -> Iterator[Peers]:
    """A block in which all processes of a run are connected and found alike.

    Args:
      config: The settings; `config.launch` says how the processes find each other.

    Yields:
      The processes; only this one if the settings name no others and neither SLURM nor
      a TPU VM tells of any.

    Raises:
      UsageError: If they cannot start together.
      RunError: If another process ended.
    """
    launch = config.launch
    settings = {
        name: value
        for name, value in flat_config(config).items()
        if name not in _OWN_SETTINGS
    }
    try:
        with as_usage_error(LaunchError):
            cluster = find_cluster(
                launch.coordinator,
                launch.num_processes,
                launch.process_id,
                timeout=launch.timeout,
            )
            facts = gather_facts(settings, folders=[Path(__file__).parent])
            with launched(
                cluster, facts, timeout=launch.timeout, heartbeat=launch.heartbeat
            ) as peers:
                yield peers
    except PeerLostError as error:
        raise RunError(str(error)) from error


def _keep_compilations(config: ExperimentConfig) -> None:
    """Compiled programs are kept between runs, unless the user chose a place."""
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore
    if chosen is None:
        folder = config.warm_start.cache_dir.expanduser() / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
