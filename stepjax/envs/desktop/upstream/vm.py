"""OSWorld's virtual machines as an environment, through desktop-env or a server's url.

A thin adapter, which has not been run against a real virtual machine: its contract is
tested on stand-ins and on this project's own desktop server.
"""

import dataclasses
import io
from collections.abc import Callable

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task
from stepjax.envs.desktop.screen_states import ScreenStates
from stepjax.envs.desktop.tasks.schema import TaskSpec
from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.machines import Machine
from stepjax.envs.grammars.pyautogui import format_pyautogui

__all__ = ["VmEnvironment"]

MAX_PIXELS = 16384 * 16384 // 4
"""Largest screen believed."""

_ENDS = {ActionKind.DONE: "DONE", ActionKind.FAIL: "FAIL"}


class VmEnvironment:
    """One virtual machine (an `Environment`).

    DONE and FAIL end an episode. An action that the machine has no form for changes
    nothing and costs the agent its step. There are no widgets.

    Args:
      machine: The machine; closed with the environment.
      load: `load(name, seed)` gives the task of that name.
      image_size: Width and height of screenshots; None for the screen's own.
      states: Names of screens; shared by environments whose hashes are compared.
    """

    def __init__(
        self,
        machine: Machine,
        load: Callable[[str, int], TaskSpec],
        *,
        image_size: tuple[int, int] | None = None,
        states: ScreenStates | None = None,
    ):
        self._machine, self._load = machine, load
        self._image_size = image_size
        self._states = states or ScreenStates()
        self._spec: TaskSpec | None = None
        self._name = ""
        self._screen = (0, 0)
        self._ended_by: ActionKind | None = None
        self._last: Observation | None = None

    def reset(self, task: Task, seed: int) -> Observation:
        """Revert the machine, if it can be, and set `task` up.

        Raises:
          ValueError: If there is no such task, or an asset is missing.
          UpstreamError: If it cannot be set up.
        """
        self._spec, self._ended_by, self._last = None, None, None
        self._name = task.name
        spec = self._load(task.name, int(seed))
        png = self._machine.reset(spec)
        self._spec = spec
        return self._observe(spec, png)

    def step(self, action: Action) -> StepResult:
        """Carry out one action.

        Raises:
          RuntimeError: If nothing has been set up.
          UpstreamError: If the machine does not answer.
        """
        spec, last = self._held()
        program, self._ended_by = self._program(action)
        if program:
            last = self._observe(spec, self._machine.act(program))
        if self._ended_by is not None:
            last = self._observe(spec, self._machine.act(_ENDS[self._ended_by]))
        return StepResult(observation=last, terminated=self._ended_by is not None)

    def evaluate(self) -> float:
        """Score of the episode so far, as upstream judges it.

        Raises:
          RuntimeError: If nothing has been set up.
          UpstreamError: If it cannot be judged.
        """
        spec, _ = self._held()
        return self._machine.evaluate(spec, self._ended_by)

    def close(self) -> None:
        """Let go of the machine."""
        self._machine.close()

    def _held(self) -> tuple[TaskSpec, Observation]:
        if self._spec is None or self._last is None:
            raise RuntimeError("VmEnvironment: call reset first.")
        return self._spec, self._last

    def _program(self, action: Action) -> tuple[str, ActionKind | None]:
        """What to run, "" for nothing, and how the episode ends then."""
        end = None
        for index, part in enumerate(action.parts or (action,)):
            if part.kind in _ENDS:
                end = part.kind
                parts = action.parts[:index]
                action = dataclasses.replace(action, parts=parts)
                if not parts:
                    return "", end
                break
        if action.kind is ActionKind.WAIT and action.amount is None:
            return "WAIT", end
        width, height = self._screen
        try:
            return format_pyautogui(action, width=width, height=height), end
        except ValueError:  # the agent's mistake, not the machine's
            return "", end

    def _observe(self, spec: TaskSpec, png: bytes) -> Observation:
        image, self._screen = _decode(png, self._image_size)
        self._last = Observation(
            instruction=spec.instruction,
            screenshot=image,
            state_hash=self._states.hash_of(self._name, image),
        )
        return self._last


def _decode(
    png: bytes, size: tuple[int, int] | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Picture [H, W, 3] uint8 of the size asked for, and the size of the screen."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            "Desktops need pillow: pip install 'stepjax[desktop]'."
        ) from None
    try:
        with Image.open(io.BytesIO(png), formats=("PNG", "JPEG")) as picture:
            screen = picture.size
            if screen[0] * screen[1] > MAX_PIXELS:
                raise UpstreamError(f"a screenshot of {screen[0]} x {screen[1]} pixels")
            shown = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UpstreamError(f"the machine sent no picture: {error}") from error
    if size is not None and size != screen:
        shown = shown.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(shown), screen
