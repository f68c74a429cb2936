"""Tasks of the desktop as tables: the bundled ones, and those of a user's own files."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from stepjax.envs.base import Task
from stepjax.envs.desktop.environment import LoadTask
from stepjax.envs.desktop.tasks.schema import TaskSpec

__all__ = ["DesktopTasks", "bundled_tasks", "file_tasks", "make_task"]

_KEPT_SPECS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesktopTasks:
    """A pool of tasks in the fields of a table of tasks, and what they consist of.

    Attributes:
      names: T task names.
      domains: T applications.
      train_ids: [T_train] int32. Tasks to train on.
      unseen_ids: [T_unseen] int32. Tasks held out.
      infeasible: [T] bool. True where answering FAIL is the right end.
      instruction: Maps a task id and a seed to the task in words.
      load: Maps a name and a seed to the specification of a task.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    train_ids: np.ndarray  # [T_train] int32
    unseen_ids: np.ndarray  # [T_unseen] int32
    infeasible: np.ndarray  # [T] bool
    instruction: Callable[[int, int], str]
    load: LoadTask


def bundled_tasks(names: Iterable[str] | None = None) -> DesktopTasks:
    """Table of the bundled tasks to train on, then of those held out.

    Args:
      names: Tasks to train on, some of `TRAIN_TASKS`; None for all.

    Raises:
      ValueError: If a name is not in `TRAIN_TASKS`, or there is none.
    """
    from stepjax.envs.desktop.tasks import bundled

    known = tuple(bundled.TRAIN_TASKS)
    chosen = known if names is None else tuple(dict.fromkeys(names))
    if not chosen:
        raise ValueError("names must hold at least one task to train on, got none.")
    for name in chosen:
        if name not in known:
            raise ValueError(
                f"{name!r} is no bundled task to train on; choose from "
                f"{', '.join(known)}."
            )
    load = functools.lru_cache(_KEPT_SPECS)(bundled.bundled_task)
    every = chosen + tuple(bundled.UNSEEN_TASKS)
    return _table([load(name, 0) for name in every], every, load, len(chosen))


def file_tasks(
    specs: Sequence[TaskSpec], unseen: Sequence[TaskSpec] = ()
) -> DesktopTasks:
    """Table of tasks that were read from files; their seeds change nothing.

    Args:
      specs: Tasks to train on.
      unseen: Tasks held out.

    Raises:
      ValueError: If there is no task, or two have the same name.
    """
    every = [*specs, *unseen]
    if not specs:
        raise ValueError("specs must hold at least one task, got none.")
    found: dict[str, TaskSpec] = {}
    for spec in every:
        if spec.name in found:
            raise ValueError(
                f"two tasks are called {spec.name!r}: {found[spec.name].source} and "
                f"{spec.source}."
            )
        found[spec.name] = spec

    def load(name: str, seed: int) -> TaskSpec:
        del seed
        if name not in found:
            raise ValueError(f"there is no task {name!r}.")
        return found[name]

    return _table(every, tuple(found), load, len(specs))


def make_task(spec: TaskSpec, name: str, task_id: int = 0) -> Task:
    """The task of one specification, for an environment of your own."""
    return Task(
        task_id=task_id,
        name=name,
        instruction=spec.instruction,
        domain=spec.domain,
        infeasible=spec.infeasible,
    )


def _table(
    specs: Sequence[TaskSpec], names: tuple[str, ...], load: LoadTask, num_train: int
) -> DesktopTasks:
    return DesktopTasks(
        names=names,
        domains=tuple(spec.domain for spec in specs),
        train_ids=np.arange(num_train, dtype=np.int32),
        unseen_ids=np.arange(num_train, len(specs), dtype=np.int32),
        infeasible=np.array([spec.infeasible for spec in specs], dtype=bool),
        instruction=lambda task_id, seed: load(names[task_id], seed).instruction,
        load=load,
    )
