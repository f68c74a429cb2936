"""A fallible demonstrator in place of the policy: scripted solutions, and mistakes."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Task
from stepjax.envs.pool import Ready
from stepjax.rollout.encode import encode_action

__all__ = ["HABITS", "Chooser", "Demonstrate", "Guide", "Guides", "PointerGuides"]

Demonstrate = Callable[[Task, Observation], Action]
"""`demonstrate(task, observation)`: what one who knows would do."""

_WANDER_SHARE = 0.15
_ERROR_RANGES = ((0.02, 0.1), (0.25, 0.45), (0.62, 0.88))
_ERROR_SHARES = (0.12, 0.08, 0.8)  # of tasks: well known, shaky, mostly mistaken

HABITS = (_WANDER_SHARE, _ERROR_RANGES, _ERROR_SHARES)
"""Numbers that demonstrations depend on beside their seed."""


class Chooser(Protocol):
    """A demonstrator of a set of episodes."""

    def choose(
        self, ready: Sequence[Ready], contexts: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [S, A], which of them to imitate [S, A], and zeros [S, A].

        `contexts` is what the codec returned beside each prompt.
        """
        ...

    def worth_imitating(self, rewards: np.ndarray) -> np.ndarray:
        """[M] bool: episodes to imitate, given their rewards [M]."""
        ...

    def remarks(self) -> Sequence[str]:
        """What a person should know about the demonstrations, one line each."""
        ...


class Guides(Protocol):
    """What makes the demonstrator of a set of episodes."""

    @property
    def habits(self) -> tuple:
        """What its demonstrations depend on beside tasks and seeds."""
        ...

    def __call__(
        self, tasks: Sequence[Task], seeds: Sequence[int], *, seed: int
    ) -> Chooser:
        """The demonstrator of one episode for each of `tasks` and `seeds`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointerGuides:
    """Demonstrators of the pointer policy.

    Attributes:
      demonstrate: What one who knows would do.
    """

    demonstrate: Demonstrate

    @property
    def habits(self) -> tuple:
        """Numbers that demonstrations depend on beside their seed."""
        return HABITS

    def __call__(
        self, tasks: Sequence[Task], seeds: Sequence[int], *, seed: int
    ) -> "Guide":
        """The demonstrator of one episode for each of `tasks`."""
        del seeds
        return Guide(self.demonstrate, tasks, seed=seed)


class Guide:
    """Tokens of a demonstrator that knows some tasks better than others.

    Every task has an error of its own. In that share of its episodes the demonstrator
    has no idea, clicks the first thing on the screen and gives up; otherwise it does
    what the script says. Both are imitated, so a clone starts with a wide spread of
    success over tasks. Random clicks in between show states that a faultless run never
    reaches; they are carried out and not imitated: their token mask is empty.
    """

    def __init__(self, demonstrate: Demonstrate, tasks: Sequence[Task], *, seed: int):
        self._demonstrate = demonstrate
        self._tasks = tasks
        self._seed = seed
        self._lost = [self._draw_lost(n, task) for n, task in enumerate(tasks)]

    def _draw_lost(self, episode: int, task: Task) -> bool:
        of_task = np.random.default_rng([self._seed, 1, task.task_id])
        low, high = _ERROR_RANGES[of_task.choice(3, p=_ERROR_SHARES)]
        error = of_task.uniform(low, high)
        return bool(np.random.default_rng([self._seed, 2, episode]).random() < error)

    def choose(
        self, ready: Sequence[Ready], contexts: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [S, 3], which of them to imitate [S, 3], and zeros [S, 3]."""
        tokens = np.zeros((len(ready), 3), np.int32)
        mask = np.zeros((len(ready), 3), bool)
        for at, (entry, words) in enumerate(zip(ready, contexts, strict=True)):
            rng = np.random.default_rng([self._seed, 3, entry.episode, entry.step])
            count = len(entry.observation.widgets or ())
            meant = self._meant(entry, words)
            if self._lost[entry.episode]:
                meant = np.array([ActionKind.CLICK, 0, 0])
                if entry.step or not count:
                    meant[0] = ActionKind.DONE
            elif count and rng.random() < _WANDER_SHARE:
                tokens[at] = (ActionKind.CLICK, rng.integers(count), 0)
                continue
            if meant is None:
                tokens[at] = (ActionKind.WAIT, 0, 0)
                continue
            kind = meant[0]
            aims = kind in (ActionKind.CLICK, ActionKind.TYPE)
            tokens[at], mask[at] = meant, (True, aims, kind == ActionKind.TYPE)
        return tokens, mask, np.zeros(tokens.shape, np.float32)

    def worth_imitating(self, rewards: np.ndarray) -> np.ndarray:
        """[M] bool: all episodes, the failed ones too."""
        return np.ones(len(rewards), bool)

    def remarks(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def _meant(self, entry: Ready, words: Sequence[str]) -> np.ndarray | None:
        action = self._demonstrate(self._tasks[entry.episode], entry.observation)
        return encode_action(action, words)
