"""A run with everything around it: progress, TensorBoard events, episodes, report."""

from typing import Any

import jax
import numpy as np

from experiments.config import ExperimentConfig
from experiments.episode_choice import record_episodes
from experiments.episodes import save_episodes
from experiments.loop import train
from experiments.observer import ObserverGroup, RunResult
from experiments.progress import make_progress
from experiments.report import write_report
from experiments.tensorboard import TensorBoardObserver
from stepjax.rollout.backend import Backend

__all__ = ["run_with_report"]


def run_with_report(about: str, config: ExperimentConfig) -> RunResult:
    """The result of a run that is shown while it goes on and told about at the end.

    Args:
      about: Where the settings come from, for the first line.
      config: All settings.

    Returns:
      The result; `report.html` lies in the run folder.

    Raises:
      UsageError: See `experiments.loop.train`.
      RunError: See `experiments.loop.train`.
    """
    _keep_compilations(config)
    events = config.run_dir.expanduser() / "tensorboard"
    observer = ObserverGroup([make_progress(), TensorBoardObserver(events)])

    def tell(backend: Backend, result: RunResult) -> None:
        params: dict[str, Any] = {
            "before training": result.start_params,
            "after training": jax.tree.map(np.asarray, result.params),
        }
        episodes = record_episodes(backend, params, jax.random.key(config.seed))
        save_episodes(result.run_dir / "episodes", episodes)
        write_report(result.run_dir, episodes=episodes)

    return train(config, about=about, observer=observer, at_end=tell)


def _keep_compilations(config: ExperimentConfig) -> None:
    """Compiled programs are kept between runs, unless the user chose a place."""
    chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore
    if chosen is None:
        folder = config.warm_start.cache_dir.expanduser() / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
