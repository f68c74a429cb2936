"""Pictures of episodes for reports, also where an environment gives no screenshot."""

import numpy as np

from stepjax.envs.actions import Action
from stepjax.envs.base import Observation
from stepjax.rollout.backend import Frame
from stepjax.rollout.encode import describe_action

__all__ = ["draw_widgets", "frame_of"]

_BACKGROUND = 245
_FACE = np.array([215, 222, 232], np.uint8)
_EDGE = np.array([90, 100, 115], np.uint8)
_REACH = 0.008  # half a side of the box that marks a place, as a share of the screen


def frame_of(observation: Observation, action: Action | None) -> Frame:
    """The frame of one step; without an action, of the end."""
    image = observation.screenshot
    return Frame(
        image=draw_widgets(observation) if image is None else image,
        instruction=observation.instruction,
        action="" if action is None else describe_action(action, observation),
        box=None if action is None else _box_of(action, observation),
    )


def _box_of(
    action: Action, observation: Observation
) -> tuple[float, float, float, float] | None:
    """Around the widget or the place an action was aimed at, or the way of a drag."""
    widgets = observation.widgets or ()
    if action.widget is not None and action.widget < len(widgets):
        return widgets[action.widget].box
    if action.x is None or action.y is None:
        return None
    to_x = action.x if action.to_x is None else action.to_x
    to_y = action.y if action.to_y is None else action.to_y
    left, right = sorted((action.x, to_x))
    top, bottom = sorted((action.y, to_y))
    return left - _REACH, top - _REACH, right + _REACH, bottom + _REACH


def draw_widgets(
    observation: Observation, *, height: int = 240, width: int = 320
) -> np.ndarray:
    """[height, width, 3] uint8: the outlines of what is on the screen."""
    image = np.full((height, width, 3), _BACKGROUND, np.uint8)
    for widget in observation.widgets or ():
        left, right = (round(edge * (width - 1)) for edge in widget.box[::2])
        top, bottom = (round(edge * (height - 1)) for edge in widget.box[1::2])
        left, top = max(left, 0), max(top, 0)
        image[top : bottom + 1, left : right + 1] = _EDGE
        image[top + 1 : bottom, left + 1 : right] = _FACE
    return image
