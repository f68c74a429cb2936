"""What the training loop knows of a place where episodes run.

The simulator, web pages and desktops all look like this from above: a table of tasks,
and one call that turns task ids and seeds into `Trajectories`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from stepjax.types import Trajectories

__all__ = ["Backend", "Frame", "TaskTable"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskTable:
    """The pool of tasks a backend offers; a task id is an index into it.

    Attributes:
      names: T short unique names.
      domains: T applications or families, for grouping in reports.
      train_ids: [T_train] int32. Tasks to train on.
      unseen_ids: [T_unseen] int32. Tasks held out; none is a training task.
      infeasible: [T] bool. True where answering FAIL is the right end.
      instruction: Maps a task id and a seed to the task in words, "" where the
        backend knows them only after a reset.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    train_ids: np.ndarray  # [T_train] int32
    unseen_ids: np.ndarray  # [T_unseen] int32
    infeasible: np.ndarray  # [T] bool
    instruction: Callable[[int, int], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of an episode, for reports.

    Attributes:
      image: [height, width, 3] uint8. The screen before the action.
      instruction: The task in words.
      action: The action in words, "" on the closing frame.
      box: Left, top, right, bottom, as shares of the screen, of what the action was
        aimed at, or None.
      touch: Places of a finger on a touch screen, as shares of the screen: one of a
        tap, two of a swipe; empty where nothing was touched.
    """

    image: np.ndarray  # [height, width, 3] uint8
    instruction: str
    action: str
    box: tuple[float, float, float, float] | None = None
    touch: tuple[tuple[float, float], ...] = ()


class Backend(Protocol):
    """A place where episodes run.

    Attributes:
      name: What results are reported under: "sim", "miniwob", ...
      tasks: The tasks it offers.
      max_steps: Step limit L of an episode.
    """

    name: str
    tasks: TaskTable
    max_steps: int

    def collect(
        self,
        params: Any,
        task_ids: np.ndarray,
        seeds: np.ndarray,
        key: Any,
        *,
        temperature: float,
        first_slot: int = 0,
    ) -> Trajectories:
        """Trajectories of one episode for each of `task_ids` [M] and `seeds` [M].

        `task_ids` is int32, `seeds` uint32, `key` a typed PRNG key; temperature 0
        acts greedily. Trajectory m draws as number `first_slot + m` of its round, so
        that processes which share a round collect what a single one would.
        """
        ...

    def replay(self, task_id: int, seed: int, action_tokens: np.ndarray) -> list[Frame]:
        """Pictures of an episode that takes `action_tokens` [L, A], and of its end."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...
