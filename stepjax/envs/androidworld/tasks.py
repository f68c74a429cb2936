"""The table of AndroidWorld's tasks: applications, step budgets, a split.

The server names its tasks and says nothing else of them; applications and complexities
are AndroidWorld's own, from `facts`.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence

import numpy as np

from stepjax.envs.androidworld.facts import FACTS
from stepjax.envs.androidworld.phone import is_miniwob

__all__ = ["AndroidWorldTasks", "app_of", "android_world_tasks", "step_budget"]

TRAIN, ALL = 43, 116
"""Of the paper's split: training tasks, and all."""

SPLIT_SEED = 43
"""Seed of the split; the paper does not list its own."""

_STEPS = 10  # a unit of complexity
_MINIWOB_COMPLEXITY = 3.0
_UNKNOWN_COMPLEXITY = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AndroidWorldTasks:
    """Tasks; the fields are those of `stepjax.rollout.backend.TaskTable`.

    Attributes:
      names: T names, sorted.
      domains: T applications.
      train_ids: [T_train] int32.
      unseen_ids: [T_unseen] int32. All others.
      infeasible: [T] bool. False: AndroidWorld's tasks can all be done.
      instruction: "" for any task: goals are known after a reset.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    train_ids: np.ndarray  # [T_train] int32
    unseen_ids: np.ndarray  # [T_unseen] int32
    infeasible: np.ndarray  # [T] bool
    instruction: Callable[[int, int], str]


def step_budget(task: str) -> int:
    """Steps that AndroidWorld gives a task: ten for each unit of its complexity.

    Example:
      >>> step_budget("SystemBluetoothTurnOn")
      10
    """
    if task in FACTS:
        complexity = FACTS[task][0]
    else:
        complexity = _MINIWOB_COMPLEXITY if is_miniwob(task) else _UNKNOWN_COMPLEXITY
    return int(_STEPS * complexity)


def app_of(task: str) -> str:
    """The application that a task is about, the first if there are several.

    Example:
      >>> app_of("SystemBluetoothTurnOn"), app_of("MiniWobClickTest")
      ('settings', 'miniwob')
    """
    if task in FACTS:
        return FACTS[task][1]
    if is_miniwob(task):
        return "miniwob"
    first = re.match(r"[A-Z]?[a-z0-9]+|[A-Z]+", task)
    return first[0].lower() if first else "other"


def android_world_tasks(
    offered: Sequence[str],
    *,
    only: Sequence[str] | None = None,
    seed: int = SPLIT_SEED,
) -> AndroidWorldTasks:
    """A table of tasks, split into those to train on and those held out.

    As in the paper, 43 of 116 are trained on, or that share of another number: one of
    each application if there is room, the rest at random.

    Args:
      offered: What the server has.
      only: Names of tasks to use; None for all.
      seed: Decides the split.

    Raises:
      ValueError: If the server has not all of them, or there are none.
    """
    names = _chosen(offered, only)
    domains = tuple(map(app_of, names))
    train = _split(domains, seed)
    held = np.setdiff1d(np.arange(len(names)), train)
    return AndroidWorldTasks(
        names=names,
        domains=domains,
        train_ids=train.astype(np.int32),
        unseen_ids=held.astype(np.int32),
        infeasible=np.zeros(len(names), bool),
        instruction=lambda task_id, seed: "",
    )


def _chosen(offered: Sequence[str], only: Sequence[str] | None) -> tuple[str, ...]:
    wanted = sorted(set(offered if only is None else only))
    if not wanted:
        raise ValueError("only must name at least one task, got none.")
    for name in wanted:
        if name not in set(offered):
            near = difflib.get_close_matches(name, offered, 1, 0.4)
            hint = f"; {near[0]} is the nearest it has" if near else ""
            raise ValueError(
                f"task {name} is unknown to the server, which has {len(offered)}{hint}."
            )
    return tuple(wanted)


def _split(domains: Sequence[str], seed: int) -> np.ndarray:
    """[T_train] ids to train on, ascending."""
    count = max(1, round(len(domains) * TRAIN / ALL))
    order = np.random.default_rng(seed).permutation(len(domains))
    firsts = list({domains[one]: int(one) for one in order[::-1]}.values())
    first = [one for one in order.tolist() if one in set(firsts)]
    rest = [one for one in order.tolist() if one not in set(firsts)]
    return np.sort(np.array((first + rest)[:count]))
