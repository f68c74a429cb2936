"""Success and budget of every task over the rounds of a run, as two tables."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.run_data import Run

__all__ = ["TaskHistory", "task_history"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskHistory:
    """One row a task, best at the end of the run first; one column a round.

    Attributes:
      task_ids: [T] int. Task of each row.
      names: T names, or () if the run folder has none.
      rounds: [R] int. Round of each column.
      rate: [T, R] float. Smoothed success after the round; NaN before the first visit.
      trajectories: [T, R] int. How often the task was run in the round.
    """

    task_ids: np.ndarray
    names: tuple[str, ...]
    rounds: np.ndarray
    rate: np.ndarray
    trajectories: np.ndarray


def task_history(run: Run) -> TaskHistory | None:
    """Tables of the run's collected rounds, or None if it logged none.

    The smoothed rate is the logged one, or else the share of successes at the latest
    visit.
    """
    rows = [row for row in run.collected if row.get("task_ids")]
    if not rows:
        return None
    ids = np.array(sorted({int(task) for row in rows for task in row["task_ids"]}))
    where = {int(task): index for index, task in enumerate(ids)}
    rate = np.full((len(ids), len(rows)), np.nan)
    count = np.zeros((len(ids), len(rows)), dtype=int)
    for column, row in enumerate(rows):
        if column:
            rate[:, column] = rate[:, column - 1]
        rates = row.get("rate") or [None] * len(row["task_ids"])
        parts = (row["task_ids"], row["trajectories"], row["successes"], rates)
        for task, tried, solved, known in zip(*parts, strict=True):
            index = where[int(task)]
            count[index, column] = tried
            if tried:
                rate[index, column] = solved / tried if known is None else known
    order = _best_first(rate, count)
    return TaskHistory(
        task_ids=ids[order],
        names=_names(run.task_info, ids[order]),
        rounds=np.array([int(row["round"]) for row in rows]),
        rate=rate[order],
        trajectories=count[order],
    )


def _best_first(rate: np.ndarray, count: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(rate, nan=0.0)
    # Ties at the end (many tasks reach 100%) are broken by who got there earlier.
    return np.lexsort((count.sum(axis=1), -known.mean(axis=1), -known[:, -1]))


def _names(
    task_info: dict[str, Any], ids: Sequence[int] | np.ndarray
) -> tuple[str, ...]:
    names = task_info.get("names", [])
    if len(names) <= max(int(i) for i in ids):
        return ()
    return tuple(str(names[int(i)]) for i in ids)
