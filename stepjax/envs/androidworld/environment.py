"""A phone with AndroidWorld's tasks, judged by AndroidWorld, as an environment."""

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.androidworld.errors import AndroidWorldError, RefusedError
from stepjax.envs.androidworld.phone import Phone, is_miniwob
from stepjax.envs.androidworld.settings import AndroidWorldSettings
from stepjax.envs.base import Observation, StepResult, Task
from stepjax.envs.desktop.screen_states import ScreenStates

__all__ = ["AndroidWorldEnvironment", "FormatAction"]

FormatAction = Callable[..., Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""`format(action, width=, height=)`: AndroidWorld's JSON, or a ValueError."""

_LOG = logging.getLogger(__name__)
_STATUS = {ActionKind.DONE: "complete", ActionKind.FAIL: "infeasible"}
_MOST_REFUSED = 3  # actions in a row that a sound phone may refuse
_STATUS_BAR = 18  # one part in so many of the screen's height holds the clock


class AndroidWorldEnvironment:
    """One phone (an `Environment`). What AndroidWorld does in its own runs, it does.

    DONE and FAIL end an episode as `status: complete` and `status: infeasible`; both
    leave the verdict to the task's own evaluator. Text of a DONE, or of an ANSWER
    before it, is what questions are judged by. An episode that a limit cuts is worth
    0, even if the phone is as the task wants it. An action that the server refuses, or
    that has no form in its language, changes nothing and costs the agent its step.

    Args:
      phone: Connected; let go of with the environment.
      budget_of: Steps that a task may take, by its name.
      settings: Pace and limits.
      format_action: AndroidWorld's JSON of an action; None for the grammar's.
      states: Names of screens; shared by environments whose hashes are compared.
    """

    def __init__(
        self,
        phone: Phone,
        budget_of: Callable[[str], int],
        *,
        settings: AndroidWorldSettings,
        format_action: FormatAction | None = None,
        states: ScreenStates | None = None,
    ):
        self._phone, self._budget_of, self._settings = phone, budget_of, settings
        self._format = format_action or _default_format()
        self._states = states or ScreenStates()
        self._pause = threading.Event()  # set by `kill`: nothing waits any more
        self._task = ""
        self._budget = self._steps = self._refused = 0
        self._screen = (0, 0)
        self._last: Observation | None = None
        self._reward: float | None = None
        self._ended = False

    def reset(self, task: Task, seed: int) -> Observation:
        """Set `task` up from `seed`, after tearing the last one down.

        Raises:
          AndroidWorldError: If the phone or its server fails, or cannot set it up.
        """
        self._last = self._reward = None
        self._ended, self._steps, self._refused = False, 0, 0
        self._task = task.name
        self._budget = min(self._settings.max_steps, self._budget_of(task.name))
        goal = self._phone.begin(task.name, int(seed))
        return self._look(goal)

    def step(self, action: Action) -> StepResult:
        """Carry out one action.

        Raises:
          RuntimeError: If nothing has been set up.
          AndroidWorldError: If the phone or its server fails.
        """
        last = self._held()
        rest, end = _split_end(action)
        if rest is not None:
            for part in rest.parts or (rest,):
                self._carry_out(_aimed(part, last))
        if end is not None:
            self._finish(end)
        else:
            self._pause.wait(self._settings.settle_seconds)
            last = self._look(last.instruction)
        self._steps += 1
        if is_miniwob(self._task) and not self._ended:
            self._poll()
        over = not self._ended and self._steps >= self._budget
        return StepResult(observation=last, terminated=self._ended, truncated=over)

    def evaluate(self) -> float:
        """AndroidWorld's score in [0, 1]; then the task is torn down.

        Raises:
          RuntimeError: If nothing has been set up.
          AndroidWorldError: If it cannot be judged.
        """
        self._held()
        if self._reward is None:
            reward = self._phone.judge() if self._ended else 0.0
            self._reward = reward
        try:
            self._phone.end()
        except AndroidWorldError as error:
            _LOG.warning("%s; it is tried again before the next task", error)
        return self._reward

    def kill(self) -> None:
        """Cut a call that hangs; safe from any thread."""
        self._pause.set()
        self._phone.abort()

    def close(self) -> None:
        """Tear down what is set up and let go of the phone; may be called twice."""
        self._last = None
        self._phone.end()

    def _held(self) -> Observation:
        if self._last is None:
            raise RuntimeError("AndroidWorldEnvironment: call reset first.")
        return self._last

    def _carry_out(self, action: Action) -> None:
        """One action that does not end the episode."""
        width, height = self._screen
        if action.kind is ActionKind.DRAG and self._drag(action):
            return
        try:
            found = self._format(action, width=width, height=height)
        except ValueError as error:
            # The agent's mistake and not the phone's: a step gone by, not a fault.
            _LOG.info("nothing done for an impossible action: %s", error)
            return
        for data in [found] if isinstance(found, Mapping) else found:
            self._send(data)

    def _send(self, data: Mapping[str, Any]) -> None:
        try:
            self._phone.act(data)
        except RefusedError as error:
            self._refused += 1
            if error.status != 500 or self._refused >= _MOST_REFUSED:
                raise
            _LOG.info("nothing done for an action that was refused: %s", error)
        else:
            self._refused = 0

    def _drag(self, action: Action) -> bool:
        """True if it was done; AndroidWorld's language knows no two places."""
        places = (action.x, action.y, action.to_x, action.to_y)
        if any(place is None for place in places):
            return False
        sizes = self._screen * 2
        x, y, to_x, to_y = (
            min(max(int((place or 0.0) * size), 0), size - 1)
            for place, size in zip(places, sizes, strict=True)
        )
        return self._phone.swipe((x, y), (to_x, to_y))

    def _finish(self, end: Action) -> None:
        """Say how it ended, after the answer if there is one."""
        if end.text and end.kind is ActionKind.DONE:
            self._send({"action_type": "answer", "text": end.text})
        self._send({"action_type": "status", "goal_status": _STATUS[end.kind]})
        self._ended = True

    def _poll(self) -> None:
        """End a page of MiniWoB that has given its reward."""
        reward = self._phone.judge()
        if reward > 0:
            self._reward, self._ended = reward, True

    def _look(self, goal: str) -> Observation:
        image = self._phone.look()
        self._screen = (image.shape[1], image.shape[0])
        widgets = self._phone.widgets(image)
        shown = _shrunk(image, self._settings.shrink)
        below = shown[-(-shown.shape[0] // _STATUS_BAR) :]
        self._last = Observation(
            instruction=goal,
            screenshot=shown,
            widgets=widgets,
            state_hash=self._states.hash_of(self._task, below if len(below) else shown),
        )
        return self._last


def _split_end(action: Action) -> tuple[Action | None, Action | None]:
    """What is to be carried out, and the DONE or FAIL that ends the episode then."""
    if action.kind in _STATUS:
        return None, action
    for index, part in enumerate(action.parts):
        if part.kind in _STATUS:
            before = action.parts[:index]
            rest = dataclasses.replace(action, parts=before) if before else None
            return rest, part
    return action, None


def _aimed(action: Action, seen: Observation) -> Action:
    """The action with a place, where it only names a widget.

    No number of a widget goes on: the server would take it for one of its own.
    """
    widgets, index = seen.widgets or (), action.widget
    if index is None:
        return action
    if action.x is None and 0 <= index < len(widgets):
        left, top, right, bottom = widgets[index].box
        x, y = (left + right) / 2, (top + bottom) / 2
        return dataclasses.replace(action, x=x, y=y, widget=None)
    return dataclasses.replace(action, widget=None)


def _shrunk(image: np.ndarray, by: int) -> np.ndarray:
    """Means of blocks of `by` x `by` pixels; what does not fill a block is cut off."""
    height, width = (side // by * by for side in image.shape[:2])
    if by == 1 or not height or not width:
        return image
    blocks = image[:height, :width].reshape(height // by, by, width // by, by, 3)
    total = blocks.sum(axis=(1, 3), dtype=np.uint32)
    return (total // (by * by)).astype(np.uint8)


def _default_format() -> FormatAction:
    from stepjax.envs.grammars.androidworld import format_android_world

    return format_android_world
