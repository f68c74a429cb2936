"""One episode on its way through the pool, and the three calls it needs."""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepjax.envs.actions import Action
from stepjax.envs.base import Observation, StepResult, Task
from stepjax.envs.pool.checks import (
    check_list,
    check_observation,
    check_reward,
    check_step_result,
)
from stepjax.envs.pool.status import TrajectoryStatus

__all__ = [
    "Episode",
    "EpisodeState",
    "Ready",
    "call_evaluate",
    "call_reset",
    "call_step",
    "with_picture",
]


class EpisodeState(enum.Enum):
    """What an episode waits for."""

    NEW = "reset"
    WATCHING = "action"
    PONDERED = "the policy"
    ACTING = "step"
    ENDING = "evaluate"


class Ready(NamedTuple):
    """An observation that waits for an action.

    Attributes:
      episode: Index of the episode in its run.
      step: Actions taken before; 0 also after an episode has started over.
      observation: What the environment showed.
    """

    episode: int
    step: int
    observation: Observation


@dataclasses.dataclass(eq=False, kw_only=True)
class Episode:
    """One episode: what it is, and how far it has come.

    Attributes:
      index: Its place in the run.
      task: What to do.
      seed: Seed of the reset.
      state: What it waits for.
      slot: Slot of its worker.
      steps: Actions taken.
      faults: Attempts lost to faults it may be to blame for.
      avoid: Worker of the last fault, -1 for none.
      error: The last fault in words.
      observation: Latest observation.
      action: Action to take.
      ticket: What the policy calls the question it ponders; -1 for none.
      status: How it ended, once it is ending.
    """

    index: int
    task: Task
    seed: int
    state: EpisodeState = EpisodeState.NEW
    slot: int = -1
    steps: int = 0
    faults: int = 0
    avoid: int = -1
    error: str = ""
    observation: Observation | None = None
    action: Action | None = None
    ticket: int = -1
    status: TrajectoryStatus = TrajectoryStatus.COMPLETED

    def restart(self, worker: int, error: str, *, charge: bool) -> None:
        """Start over, elsewhere if possible."""
        self.state, self.slot, self.steps = EpisodeState.NEW, -1, 0
        self.observation = self.action = None
        self.ticket = -1
        self.avoid, self.error = worker, error
        self.faults += charge

    def stop(self, status: TrajectoryStatus) -> None:
        """No more actions: evaluate."""
        self.state, self.status = EpisodeState.ENDING, status


def call_reset(environment: Any, episodes: Sequence[Episode]) -> list[Observation]:
    """First observations of `episodes`, checked."""
    return check_list(
        environment.reset_many(
            [episode.slot for episode in episodes],
            [episode.task for episode in episodes],
            [episode.seed for episode in episodes],
        ),
        len(episodes),
        check_observation,
    )


def call_step(environment: Any, episodes: Sequence[Episode]) -> list[StepResult]:
    """What the actions of `episodes` led to, checked."""
    return check_list(
        environment.step_many(
            [episode.slot for episode in episodes],
            [episode.action for episode in episodes],
        ),
        len(episodes),
        check_step_result,
    )


def call_evaluate(environment: Any, episodes: Sequence[Episode]) -> list[float]:
    """Rewards of `episodes`, checked."""
    return check_list(
        environment.evaluate_many([episode.slot for episode in episodes]),
        len(episodes),
        check_reward,
    )


def with_picture(environment: Any, slot: int, observation: Observation) -> Observation:
    """The observation with a screenshot, where the environment can give one."""
    if observation.screenshot is not None:
        return observation
    image = environment.screenshot(slot)
    if image is None:
        return observation
    return check_observation(dataclasses.replace(observation, screenshot=image))
