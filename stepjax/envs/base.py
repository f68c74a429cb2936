"""The contract between environments and whoever drives them.

An environment lives on the host, may be slow, may break. Its reward comes only from
`evaluate`, at the end. `stepjax.envs.pool` adds deadlines, replacement and retries.
"""

import dataclasses
from typing import Protocol

import numpy as np

from stepjax.envs.actions import Action

__all__ = ["Environment", "Observation", "StepResult", "Task", "Widget"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to do.

    Attributes:
      task_id: Index in the pool of tasks, in [0, T).
      name: Short unique name.
      instruction: What the agent is told, when it is known before the reset; else "".
      domain: Application or family, for grouping in reports.
      infeasible: True if answering FAIL is the right end.
    """

    task_id: int
    name: str
    instruction: str
    domain: str
    infeasible: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Widget:
    """One thing on the screen that can be seen or acted on.

    Attributes:
      role: A `stepjax.envs.words.ROLES` entry.
      label: Its visible name.
      value: Its current value or text, "" if none.
      box: Left, top, right, bottom as shares of the screen, each in [0, 1].
      on: Checked, selected or expanded.
      focused: Has the keyboard focus.
      disabled: Visible but inert.
      ref: Backend's own handle; opaque to everyone else.
    """

    role: str
    label: str
    value: str = ""
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    on: bool = False
    focused: bool = False
    disabled: bool = False
    ref: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """What the agent sees.

    Attributes:
      instruction: The task in words.
      screenshot: [height, width, 3] uint8, or None where the backend gives none.
      widgets: What is on the screen, in reading order, or None.
      state_hash: Equal for equal states, in [0, 2**32); 0 where unknown.
    """

    instruction: str
    screenshot: np.ndarray | None = None
    widgets: tuple[Widget, ...] | None = None
    state_hash: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one action led to.

    Attributes:
      observation: What the agent sees now.
      terminated: The task ended by itself or by DONE / FAIL.
      truncated: A limit cut the episode.
    """

    observation: Observation
    terminated: bool = False
    truncated: bool = False


class Environment(Protocol):
    """One desktop, page or phone. Methods may block and may raise; the pool copes."""

    def reset(self, task: Task, seed: int) -> Observation:
        """Set `task` up from `seed` and return the first observation."""
        ...

    def step(self, action: Action) -> StepResult:
        """Carry out one action."""
        ...

    def evaluate(self) -> float:
        """Reward of the episode so far, in [0, 1]."""
        ...

    def close(self) -> None:
        """Release everything; called once, also after a fault."""
        ...
