"""Demonstrations from scripts: what to do step by step, done by a fallible hand.

A script is a list of actions, or of functions that look at the screen first. What is
carried out is always what the policy's own tokens stand for, so a demonstration never
does what the policy could not.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Task
from stepjax.envs.pool import Ready

__all__ = ["ScriptCodec", "ScriptGuide", "ScriptGuides", "ScriptStep", "expand"]

ScriptStep = Action | Callable[[Observation], Action]
"""An action, or `step(observation)` that says which."""

Script = Callable[[str, int], Sequence[ScriptStep]]
"""`script(name, seed)`: how one task is done."""

_WASTED_SHARE = 0.08
_GIVING_UP = ((0.05, 0.2), (0.6, 0.85))
_GIVING_UP_SHARES = (0.2, 0.8)  # of tasks: well known, mostly given up
_JITTER = (0.003, 0.004)  # shares of the screen: 4 x 3 pixels of 1280 x 800
_INNER = 0.5  # of a widget, around its middle, is what clicks aim at

_ENDS = (ActionKind.DONE, ActionKind.FAIL)
_IDLE = (
    Action(kind=ActionKind.WAIT),
    Action(kind=ActionKind.PRESS, keys=("shift",)),
)


class ScriptCodec(Protocol):
    """A policy's codec that also knows the way back from actions to tokens.

    Attributes:
      num_tokens: A, tokens of an action.
    """

    @property
    def num_tokens(self) -> int:
        """A, tokens of an action."""
        ...

    def encode_action(
        self, action: Action, observation: Observation, context: Any
    ) -> np.ndarray | None:
        """Tokens [A] of an action, or None if the policy has none for it."""
        ...

    def tokens_meant(self, tokens: np.ndarray) -> np.ndarray:
        """[A] bool: which of its tokens an action consists of."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScriptGuides:
    """What makes the demonstrator of a set of episodes.

    Attributes:
      script: How each task is done.
      codec: The policy's encoding.
      about: Whatever else demonstrations depend on, such as the size of the screen;
        its `repr` says whether kept ones still hold.
    """

    script: Script
    codec: ScriptCodec
    about: Any = None

    @property
    def habits(self) -> tuple:
        """Numbers that demonstrations depend on beside their seed."""
        numbers = (_WASTED_SHARE, _GIVING_UP, _GIVING_UP_SHARES, _JITTER, _INNER)
        return (*numbers, self.about)

    def __call__(
        self, tasks: Sequence[Task], seeds: Sequence[int], *, seed: int
    ) -> "ScriptGuide":
        """The demonstrator of one episode for each of `tasks` and `seeds`."""
        return ScriptGuide(self.script, self.codec, tasks, seeds, seed=seed)


class ScriptGuide:
    """Tokens of a demonstrator that follows scripts, and gives up on some tasks.

    Every task has a place in its script where the demonstrator does not know on, and
    ends the episode there in a share of its episodes: small for some tasks, large for
    most. Both ends are imitated, so a clone starts with a wide spread of success over
    tasks. Clicks land somewhere near the middle of their target. Now and then a step is
    wasted that changes nothing; such steps are carried out and not imitated.
    """

    def __init__(
        self,
        script: Script,
        codec: ScriptCodec,
        tasks: Sequence[Task],
        seeds: Sequence[int],
        *,
        seed: int,
    ):
        """A demonstrator.

        Args:
          script: How each task is done.
          codec: The policy's encoding.
          tasks: Task of each episode.
          seeds: Seed of each episode.
          seed: Decides what goes wrong.
        """
        self._unsaid: set[str] = set()
        self._codec = codec
        self._tasks = tasks
        self._seed = seed
        self._scripts = [
            list(script(task.name, int(of_episode)))
            for task, of_episode in zip(tasks, seeds, strict=True)
        ]
        self._ends = [self._draw_end(episode) for episode in range(len(tasks))]
        self._at = [0] * len(tasks)
        self._queue: list[list[Action]] = [[] for _ in tasks]

    def _draw_end(self, episode: int) -> int | None:
        """The step before which an episode is given up, or None."""
        task = self._tasks[episode].task_id
        of_task = np.random.default_rng([self._seed, 1, task])
        low, high = _GIVING_UP[of_task.choice(len(_GIVING_UP), p=_GIVING_UP_SHARES)]
        share, where = of_task.uniform(low, high), of_task.random()
        if np.random.default_rng([self._seed, 2, episode]).random() >= share:
            return None
        # To end before the last step, which is to say DONE, would be no giving up.
        return int(where * max(1, len(self._scripts[episode]) - 1))

    def choose(
        self, ready: Sequence[Ready], contexts: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [S, A], which of them to imitate [S, A], and zeros [S, A]."""
        shape = (len(ready), self._codec.num_tokens)
        tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
        for at, (entry, context) in enumerate(zip(ready, contexts, strict=True)):
            episode, rng = self._begin(entry)
            if rng.random() < _WASTED_SHARE:
                idle = _IDLE[int(rng.integers(len(_IDLE)))]
                found = self._codec.encode_action(idle, entry.observation, context)
                if found is not None:
                    tokens[at] = found
                    continue
            action = self._next(episode, entry.observation, rng)
            found = self._codec.encode_action(action, entry.observation, context)
            if found is None:
                self._give_up(episode, action)
                ended = Action(kind=ActionKind.DONE)
                found = self._codec.encode_action(ended, entry.observation, context)
                if found is not None:
                    tokens[at] = found
                continue
            tokens[at], mask[at] = found, self._codec.tokens_meant(found)
        return tokens, mask, np.zeros(shape, np.float32)

    def worth_imitating(self, rewards: np.ndarray) -> np.ndarray:
        """[M] bool: episodes that went as intended, the given up ones included.

        A script that did not solve its task, for whatever reason, teaches nothing.
        """
        given_up = np.array([end is not None for end in self._ends], bool)
        return given_up | (np.asarray(rewards) > 0)

    def remarks(self) -> Sequence[str]:
        """Actions that scripts hold and the policy has no tokens for."""
        return [f"the policy has no tokens for {what}" for what in sorted(self._unsaid)]

    def _begin(self, entry: Ready) -> tuple[int, np.random.Generator]:
        episode = entry.episode
        if entry.step == 0:  # also when an episode starts over after a fault
            self._at[episode], self._queue[episode] = 0, []
        return episode, np.random.default_rng([self._seed, 3, episode, entry.step])

    def _next(
        self, episode: int, observation: Observation, rng: np.random.Generator
    ) -> Action:
        """The next action of a script, DONE after the last."""
        queue, steps = self._queue[episode], self._scripts[episode]
        while not queue:
            at = self._at[episode]
            if at == self._ends[episode] or at >= len(steps):
                return Action(kind=ActionKind.DONE)
            step = steps[at]
            meant = expand(step(observation) if callable(step) else step)
            # Places now: a widget's index means something on this screen only.
            queue += [_jittered(action, observation, rng) for action in meant]
            self._at[episode] += 1
        return queue.pop(0)

    def _give_up(self, episode: int, action: Action) -> None:
        said = action.text or "+".join(action.keys)
        kind = action.kind.name.lower().replace("_", " ")
        self._unsaid.add(f"{self._tasks[episode].name}: {kind} {said}".rstrip())


def expand(action: Action) -> list[Action]:
    """An action in the small steps of a policy that types only where the focus is.

    Args:
      action: Any.

    Returns:
      The parts of a sequence; a click before text that is aimed somewhere; ENTER after
      text that ends its line. Other actions stay as they are.
    """
    if action.kind == ActionKind.SEQUENCE:
        return [small for part in action.parts for small in expand(part)]
    if action.kind != ActionKind.TYPE:
        return [action]
    steps = []
    if action.widget is not None or action.x is not None:
        steps.append(dataclasses.replace(action, kind=ActionKind.CLICK, text=""))
    text = action.text.removesuffix("\n")
    if text:
        steps.append(Action(kind=ActionKind.TYPE, text=text))
    if text != action.text:
        steps.append(Action(kind=ActionKind.ENTER))
    return steps


def _jittered(
    action: Action, observation: Observation, rng: np.random.Generator
) -> Action:
    """An action at a place near the middle of its target."""
    widgets = observation.widgets or ()
    if action.widget is not None and 0 <= action.widget < len(widgets):
        left, top, right, bottom = widgets[action.widget].box
        x, y = (left + right) / 2, (top + bottom) / 2
        reach = _INNER * (right - left) / 2, _INNER * (bottom - top) / 2
    elif action.x is not None and action.y is not None:
        x, y, reach = action.x, action.y, _JITTER
    else:
        return action
    dx, dy = rng.uniform(-1.0, 1.0, 2) * reach
    x, y = float(np.clip(x + dx, 0.0, 1.0)), float(np.clip(y + dy, 0.0, 1.0))
    return dataclasses.replace(action, x=x, y=y, widget=None)
