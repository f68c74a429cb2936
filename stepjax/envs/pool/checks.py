"""Checks of what an environment returns: garbage is a fault, not training data."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from stepjax.envs.base import Observation, StepResult, Widget

__all__ = [
    "GarbageError",
    "check_list",
    "check_observation",
    "check_reward",
    "check_step_result",
]

T = TypeVar("T")
_MAX_WIDGETS = 100_000
_BOX_SLACK = 1e-3


class GarbageError(ValueError):
    """An environment returned something that its contract rules out.

    Attributes:
      position: Which entry of a list was garbage, or None for the whole.
    """

    position: int | None = None


def check_list(value: Any, length: int, check: Callable[[Any], T]) -> list[T]:
    """`value` with `check` applied to its entries, if it is a list of that length.

    Raises:
      GarbageError: If it is not, or from `check`, with the position set.
    """
    if not isinstance(value, list | tuple) or len(value) != length:
        raise GarbageError(f"expected a list of {length} entries")
    out = []
    for position, entry in enumerate(value):
        try:
            out.append(check(entry))
        except GarbageError as error:
            error.position = position
            raise
    return out


def check_observation(value: Any) -> Observation:
    """`value`, if it is an observation as its class describes it.

    Raises:
      GarbageError: If anything about it is impossible.
    """
    if not isinstance(value, Observation):
        raise GarbageError(f"expected an Observation, got {type(value).__name__}")
    if not isinstance(value.instruction, str):
        raise GarbageError("the instruction is not text")
    if not isinstance(value.state_hash, int | np.integer) or not (
        0 <= value.state_hash < 2**32
    ):
        raise GarbageError("state_hash is not a whole number in [0, 2**32)")
    if value.screenshot is not None:
        _check_screenshot(value.screenshot)
    if value.widgets is not None:
        if not isinstance(value.widgets, tuple) or len(value.widgets) > _MAX_WIDGETS:
            raise GarbageError("widgets is not a tuple, or is absurdly long")
        for index, widget in enumerate(value.widgets):
            _check_widget(index, widget)
    return value


def _check_screenshot(image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise GarbageError("the screenshot is not a uint8 array")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise GarbageError(f"the screenshot has shape {image.shape}, not [h, w, 3]")


def _check_widget(index: int, widget: Any) -> None:
    if not isinstance(widget, Widget):
        raise GarbageError(f"widgets[{index}] is not a Widget")
    texts = (widget.role, widget.label, widget.value)
    if not all(isinstance(text, str) for text in texts):
        raise GarbageError(f"widgets[{index}] has a role, label or value not text")
    try:
        inside = len(widget.box) == 4 and all(
            -_BOX_SLACK <= edge <= 1 + _BOX_SLACK for edge in widget.box
        )
    except TypeError:
        inside = False
    if not inside:
        raise GarbageError(f"widgets[{index}].box is not four shares of the screen")


def check_step_result(value: Any) -> StepResult:
    """`value`, if it is a step result as its class describes it.

    Raises:
      GarbageError: If anything about it is impossible.
    """
    if not isinstance(value, StepResult):
        raise GarbageError(f"expected a StepResult, got {type(value).__name__}")
    for name in ("terminated", "truncated"):
        if not isinstance(getattr(value, name), bool | np.bool_):
            raise GarbageError(f"{name} is not a bool")
    check_observation(value.observation)
    return value


def check_reward(value: Any) -> float:
    """`value` as a float, if it is a number in [0, 1].

    Raises:
      GarbageError: If it is not; NaN is not.
    """
    if not isinstance(value, int | float | np.number):
        raise GarbageError(f"the reward is a {type(value).__name__}, not a number")
    reward = float(value)
    if not math.isfinite(reward) or not 0.0 <= reward <= 1.0:
        raise GarbageError(f"the reward is {reward}, outside [0, 1]")
    return reward
