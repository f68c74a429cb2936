"""What a run says about itself: its first line, its tasks, failures of environments."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from experiments.config import ExperimentConfig
from experiments.errors import RunError
from experiments.evaluation import Evaluation
from stepjax.models.qwen_vl.server_http import ServerError
from stepjax.rollout.backend import Backend

__all__ = [
    "CountingBackend",
    "environment_failures",
    "first_line",
    "per_task",
    "task_table",
]

_KINDS = {
    "sim": "sim, a simulated desktop (its scores are not OSWorld scores)",
    "miniwob": "miniwob, MiniWoB++ pages in Chromium",
    "desktop": "desktop, real applications on sandboxed desktops",
    "vm": "vm, OSWorld's virtual machines",
    "miniwob-mobile": "miniwob-mobile, MiniWoB++ pages on a phone's screen in Chromium "
    "(its scores are not AndroidWorld scores)",
    "androidworld": "androidworld, AndroidWorld's servers",
}


@runtime_checkable
class CountingBackend(Protocol):
    """A backend that counts faults, replacements and the like."""

    def metrics(self) -> dict[str, float]:
        """Totals by name, `env/...`."""
        ...


def first_line(
    config: ExperimentConfig, backend: str, about: str, run_dir: Any, resuming: bool
) -> str:
    """The first line of a run: which backend, which method and why, which folder.

    Args:
      config: All settings.
      backend: Name of the backend.
      about: Where the settings come from, "" if nobody says.
      run_dir: The run folder.
      resuming: Whether the run goes on.

    Returns:
      One line.
    """
    where = f"{'going on in' if resuming else 'run folder'} {run_dir}"
    parts = [f"backend {_KINDS.get(backend, backend)}", f"method {config.algo.method}"]
    return "; ".join([*parts, about, where] if about else [*parts, where])


@contextlib.contextmanager
def environment_failures() -> Iterator[None]:
    """A block in which a backend that gives up ends the run in one line.

    Raises:
      RunError: For a plain RuntimeError or a `ServerError`, with its text.
    """
    try:
        yield
    except RuntimeError as error:
        # Others, such as jax's own, are bugs to look at.
        if type(error) not in (RuntimeError, ServerError):
            raise
        text = " ".join(str(error).split())
        raise RunError(f"{text}; the last checkpoint is whole, run again.") from error


def task_table(backend: Backend) -> dict[str, Any]:
    """Content of `tasks.json`: lists with one entry per task of the pool.

    Args:
      backend: The tasks' backend.

    Returns:
      `names`, `domains`, `split` ("train", "unseen" or "") and `infeasible`.
    """
    table = backend.tasks
    splits = np.full(len(table.names), "", dtype=object)
    splits[table.train_ids] = "train"
    splits[table.unseen_ids] = "unseen"
    return {
        "names": list(table.names),
        "domains": list(table.domains),
        "split": splits.tolist(),
        "infeasible": np.asarray(table.infeasible).tolist(),
    }


def per_task(found: Evaluation) -> dict[str, list]:
    """An evaluation for `tasks.jsonl`: `task_ids`, and `success`, null if unknown."""
    return {
        "task_ids": found.task_ids.tolist(),
        "success": [
            None if np.isnan(share) else round(float(share), 4)
            for share in found.success
        ],
    }
