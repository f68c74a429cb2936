"""One simulated desktop behind the host's environment protocol."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task, Widget
from stepjax.envs.sim.dynamics import (
    ended,
    reset,
    state_hash,
    step,
    success,
    take_task,
)
from stepjax.envs.sim.render import render
from stepjax.envs.sim.state import INSTRUCTION_WORDS, MAX_STEPS, SimPool, SimState
from stepjax.envs.sim.tasks import task_table
from stepjax.envs.sim.widgets import list_widgets
from stepjax.envs.words import word_id

__all__ = [
    "SimEnvironment",
    "action_tokens",
    "sim_task",
]

_LIMIT = 3
_KEYS = {
    "enter": ActionKind.ENTER,
    "return": ActionKind.ENTER,
    "esc": ActionKind.ESCAPE,
    "escape": ActionKind.ESCAPE,
    "pagedown": ActionKind.SCROLL_DOWN,
    "pageup": ActionKind.SCROLL_UP,
}


@functools.lru_cache(maxsize=1)
def _compiled():
    """The simulator's functions, compiled once for a process."""

    def start(
        pool: SimPool, task_id: jax.Array, seed: jax.Array, most: jax.Array
    ) -> SimState:
        task = take_task(pool, task_id)
        limit = jnp.minimum(task.step_limit, most)
        return reset(pool, dataclasses.replace(task, step_limit=limit), seed)

    def judge(pool: SimPool, state: SimState):
        return success(pool, state), state_hash(pool, state), ended(state)

    return jax.jit(start), jax.jit(step), jax.jit(judge)


def action_tokens(
    action: Action, widgets: tuple[Widget, ...], words: np.ndarray
) -> np.ndarray:
    """An action as the three tokens the simulator takes.

    Args:
      action: Any action. What the simulator cannot do is a WAIT: a SEQUENCE of several
        parts, held keys, drags, horizontal scrolling, keys other than Enter, Escape,
        Page Up and Page Down. A double or triple click is a click.
      widgets: What is on the screen.
      words: [I] int32. Word ids of the instruction.

    Returns:
      [3] int32. A click that hits nothing, or a text the instruction does not hold,
      becomes an index outside the range, which does nothing.
    """
    if action.kind == ActionKind.SEQUENCE and len(action.parts) == 1:
        action = action.parts[0]
    kind = action.kind
    if kind in (ActionKind.DOUBLE_CLICK, ActionKind.TRIPLE_CLICK):
        kind = ActionKind.CLICK
    if kind == ActionKind.CLICK and action.keys:
        kind = ActionKind.WAIT
    if kind == ActionKind.PRESS and len(action.keys) == 1:
        kind = _KEYS.get(action.keys[0].lower(), ActionKind.WAIT)
    if kind == ActionKind.BACK:
        kind = ActionKind.ESCAPE
    if kind > ActionKind.FAIL:
        kind = ActionKind.WAIT
    widget = word = 0
    if kind in (ActionKind.CLICK, ActionKind.TYPE):
        widget = _aim(action, widgets)
    if kind == ActionKind.TYPE:
        matches = np.flatnonzero(words == word_id(action.text))
        typed = matches.size and word_id(action.text)
        word = int(matches[0]) if typed else INSTRUCTION_WORDS
    return np.array([kind, widget, word], np.int32)


def _aim(action: Action, widgets: tuple[Widget, ...]) -> int:
    """Index of the widget meant: by index, by place, or the focused one."""
    if action.widget is not None:
        return action.widget if 0 <= action.widget < len(widgets) else len(widgets)
    for index, widget in enumerate(widgets):
        if action.x is None or action.y is None:
            if widget.focused:
                return index
            continue
        left, top, right, bottom = widget.box
        if left <= action.x <= right and top <= action.y <= bottom:
            return index
    return len(widgets)


class SimEnvironment:
    """A simulated desktop as an `Environment`, for the pool and for replays.

    Example:
      >>> from stepjax.envs import sim
      >>> env = SimEnvironment(sim.load_world())
      >>> task = sim_task(3)
      >>> env.reset(task, seed=0).instruction == task.instruction
      True
    """

    def __init__(
        self,
        pool: SimPool,
        *,
        screenshots: bool = False,
        size: tuple[int, int] = (640, 400),
        max_steps: int = MAX_STEPS,
    ) -> None:
        """A desktop of `pool`; screenshots, if wanted, of `size`: width, height."""
        self._pool = pool
        self._max_steps = np.int32(max_steps)
        self._screenshots = screenshots
        self._size = size
        self._instruction = ""
        self._state: SimState | None = None
        self._widgets: tuple[Widget, ...] = ()

    def reset(self, task: Task, seed: int) -> Observation:
        """First observation of a task of the pool.

        Raises:
          ValueError: `task.task_id` is not in the pool.
        """
        num_tasks = self._pool.tasks.task_id.shape[0]
        if not 0 <= task.task_id < num_tasks:
            raise ValueError(
                f"task_id is {task.task_id}, must be in [0, {num_tasks}): take tasks"
                " from `sim_task`"
            )
        start, _, _ = _compiled()
        self._instruction = task_table().instructions[task.task_id]
        task_id, low = np.int32(task.task_id), np.uint32(seed % 2**32)
        return self._look(start(self._pool, task_id, low, self._max_steps))

    def step(self, action: Action) -> StepResult:
        """What the desktop looks like after one action.

        Raises:
          RuntimeError: Nothing was reset yet.
        """
        _, advance, _ = _compiled()
        before = self._running()
        words = np.asarray(before.task.words)
        tokens = action_tokens(action, self._widgets, words)
        after = advance(self._pool, before, jnp.asarray(tokens))
        outcome = int(after.outcome)
        return StepResult(
            observation=self._look(after),
            terminated=0 < outcome < _LIMIT,
            truncated=outcome == _LIMIT,
        )

    def evaluate(self) -> float:
        """1.0 if the episode is over and did what was asked, else 0.0.

        Raises:
          RuntimeError: Nothing was reset yet.
        """
        return float(_compiled()[2](self._pool, self._running())[0])

    def close(self) -> None:
        """Forget the desktop."""
        self._state = None

    def _running(self) -> SimState:
        if self._state is None:
            raise RuntimeError("no desktop is set up: call `reset` first")
        return self._state

    def _look(self, state: SimState) -> Observation:
        """The observation of a desktop that becomes the current one."""
        self._state = state
        self._widgets = list_widgets(self._pool, state)
        image = None
        if self._screenshots:
            width, height = self._size
            image = render(self._pool, state, width=width, height=height)
        return Observation(
            instruction=self._instruction,
            screenshot=image,
            widgets=self._widgets,
            state_hash=int(_compiled()[2](self._pool, state)[1]),
        )


def sim_task(task_id: int) -> Task:
    """A task of the pool as the host describes it.

    Raises:
      IndexError: `task_id` is not in the pool.
    """
    table = task_table()
    return Task(
        task_id=task_id,
        name=table.names[task_id],
        instruction=table.instructions[task_id],
        domain=table.domains[task_id],
        infeasible=bool(table.infeasible[task_id]),
    )
