"""A demonstrator in place of the policy: scripted solutions, with missteps."""

from collections.abc import Callable, Sequence

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Task
from stepjax.envs.pool import Ready
from stepjax.rollout.encode import encode_action

__all__ = ["Demonstrate", "Guide"]

Demonstrate = Callable[[Task, Observation], Action]
"""`demonstrate(task, observation)`: what one who knows would do."""

_WANDER_SHARE = 0.15


class Guide:
    """Tokens of what the demonstrator does, and now and then of a random click.

    Random clicks show states that a faultless run never reaches. They are carried out
    and not imitated: their token mask is empty.
    """

    def __init__(self, demonstrate: Demonstrate, tasks: Sequence[Task], *, seed: int):
        self._demonstrate = demonstrate
        self._tasks = tasks
        self._seed = seed

    def choose(
        self, ready: Sequence[Ready], raw_words: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [S, 3], which of them to imitate [S, 3], and zeros [S, 3]."""
        tokens = np.zeros((len(ready), 3), np.int32)
        mask = np.zeros((len(ready), 3), bool)
        for at, (entry, words) in enumerate(zip(ready, raw_words, strict=True)):
            rng = np.random.default_rng([self._seed, entry.episode, entry.step])
            count = len(entry.observation.widgets or ())
            known = self._meant(entry, words)
            if count and rng.random() < _WANDER_SHARE:
                tokens[at] = (ActionKind.CLICK, rng.integers(count), 0)
            elif known is None:
                tokens[at] = (ActionKind.WAIT, 0, 0)
            else:
                kind = known[0]
                aims = kind in (ActionKind.CLICK, ActionKind.TYPE)
                tokens[at], mask[at] = known, (True, aims, kind == ActionKind.TYPE)
        return tokens, mask, np.zeros(tokens.shape, np.float32)

    def _meant(self, entry: Ready, words: Sequence[str]) -> np.ndarray | None:
        action = self._demonstrate(self._tasks[entry.episode], entry.observation)
        return encode_action(action, words)
