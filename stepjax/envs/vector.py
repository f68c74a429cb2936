"""The contract of a backend that steps many environments in one call.

A browser with many frames, or a server that answers for many devices, is cheaper to
drive as a whole than as separate environments. A slot is one of its environments.
Slots are independent: what happens in one never shows in another. A fault is not: an
exception or a missed deadline ends every episode running in the vector, and all start
over. A `SlotError` says whose fault it was, so that the others lose no retry.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from stepjax.envs.actions import Action
from stepjax.envs.base import Observation, StepResult, Task

__all__ = ["SlotError", "VectorEnvironment"]


class SlotError(RuntimeError):
    """A fault that the slots named are to blame for.

    Attributes:
      slots: The slots at fault.
    """

    def __init__(self, slots: Sequence[int], message: str):
        super().__init__(message)
        self.slots = tuple(slots)


class VectorEnvironment(Protocol):
    """Many environments behind one handle. Calls come from one thread at a time.

    An implementation may also have `kill() -> None`: it ends whatever processes the
    vector holds, at once, and is the one method called from another thread, while
    a call of this one hangs.

    Attributes:
      num_slots: Environments it holds, numbered from 0.
    """

    num_slots: int

    def reset_many(
        self, slots: Sequence[int], tasks: Sequence[Task], seeds: Sequence[int]
    ) -> list[Observation]:
        """First observations of the slots named, in that order, and only of those."""
        ...

    def step_many(
        self, slots: Sequence[int], actions: Sequence[Action]
    ) -> list[StepResult]:
        """What one action in each of the slots named led to, in that order."""
        ...

    def evaluate_many(self, slots: Sequence[int]) -> list[float]:
        """Reward so far, in [0, 1], of the slots named, in that order."""
        ...

    def screenshot(self, slot: int) -> np.ndarray:
        """Picture of one slot as it is now, [height, width, 3] uint8."""
        ...

    def close(self) -> None:
        """Release everything; called once, also after a fault."""
        ...
