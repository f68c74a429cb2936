"""Greedy evaluation: how often each task is solved, training and unseen tasks apart."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from experiments.success import solved
from experiments.team import Team
from stepjax.rollout.backend import Backend, TaskTable

__all__ = ["Evaluation", "evaluate", "evaluation_seeds", "mean_scores", "summarize"]

_HIGH_BIT = np.uint32(2**31)  # training seeds lie below it
_GOOD = 0.6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Success of every evaluated task.

    Attributes:
      task_ids: [E] int32. Each once.
      success: [E] float. Share of solved episodes; NaN if none was valid.
      metrics: `eval/...` means over groups of tasks.
    """

    task_ids: np.ndarray
    success: np.ndarray
    metrics: dict[str, float]


def evaluate(
    backend: Backend,
    params: Any,
    key: jax.Array,
    *,
    episodes_per_task: int,
    team: Team | None = None,
) -> Evaluation:
    """Success of greedy episodes on every training and unseen task of a backend.

    Args:
      backend: Where to act.
      params: Of the policy.
      key: Decides the episodes; the same key gives the same episodes. Not consumed.
      episodes_per_task: Episodes of each task, each with a seed of its own.
      team: The processes that share the episodes; this one alone by default.

    Returns:
      The evaluation, the same on every process.
    """
    team = Team() if team is None else team
    table = backend.tasks
    task_ids = np.concatenate([table.train_ids, table.unseen_ids]).astype(np.int32)
    repeated = np.repeat(task_ids, episodes_per_task)
    seeds = evaluation_seeds(key, len(repeated))
    found = team.collect(backend, params, repeated, seeds, key, temperature=0.0)
    valid, reward = team.gather("evaluation", (found.valid, found.reward))
    shape = (len(task_ids), episodes_per_task)
    tried = valid.reshape(shape).sum(axis=1)
    wins = (valid & solved(reward)).reshape(shape).sum(axis=1)
    scores = np.where(valid, reward, 0.0).reshape(shape).sum(axis=1)
    with np.errstate(invalid="ignore"):
        success, score = wins / tried, scores / tried
    metrics = summarize(table, task_ids, success) | mean_scores(table, task_ids, score)
    return Evaluation(task_ids=task_ids, success=success, metrics=metrics)


def evaluation_seeds(key: jax.Array, count: int) -> np.ndarray:
    """[count] uint32 seeds that no training round ever uses."""
    bits = np.asarray(jax.random.bits(key, (count,), np.uint32))
    return bits | _HIGH_BIT


def summarize(
    table: TaskTable, task_ids: np.ndarray, success: np.ndarray
) -> dict[str, float]:
    """Means over feasible training, feasible unseen and infeasible tasks.

    Args:
      table: The backend's tasks.
      task_ids: [E] int. Tasks evaluated.
      success: [E] float. Success of each, NaN if unknown.

    Returns:
      `eval/train_success`, `eval/unseen_success`, `eval/infeasible_success`, the last
      also by split (`eval/train_infeasible_success`, ...), and for the first two the
      number of tasks above 60%, `eval/train_above_60` and
      `eval/unseen_above_60`. A group without any known success has no mean.
    """
    infeasible = table.infeasible[task_ids]
    trained = np.isin(task_ids, table.train_ids)
    train = trained & ~infeasible
    unseen = np.isin(task_ids, table.unseen_ids) & ~infeasible
    means = {
        "eval/train_success": _mean(success[train]),
        "eval/unseen_success": _mean(success[unseen]),
        "eval/infeasible_success": _mean(success[infeasible]),
        "eval/train_infeasible_success": _mean(success[infeasible & trained]),
        "eval/unseen_infeasible_success": _mean(success[infeasible & ~trained]),
    }
    return {name: mean for name, mean in means.items() if not math.isnan(mean)} | {
        "eval/train_above_60": int(np.sum(success[train] > _GOOD)),
        "eval/unseen_above_60": int(np.sum(success[unseen] > _GOOD)),
    }


def mean_scores(
    table: TaskTable, task_ids: np.ndarray, score: np.ndarray
) -> dict[str, float]:
    """Mean rewards, infeasible tasks included, as OSWorld and AndroidWorld give them.

    Args:
      table: The backend's tasks.
      task_ids: [E] int. Tasks evaluated.
      score: [E] float. Mean reward of each, NaN if unknown.

    Returns:
      `eval/train_score` and `eval/unseen_score`, where any is known.
    """
    trained = np.isin(task_ids, table.train_ids)
    unseen = np.isin(task_ids, table.unseen_ids)
    means = {
        "eval/train_score": _mean(score[trained]),
        "eval/unseen_score": _mean(score[unseen]),
    }
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
