"""Pictures of episodes for reports, also where an environment gives no screenshot."""

import dataclasses

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.rollout.backend import Frame
from stepjax.rollout.encode import describe_action

__all__ = ["draw_widgets", "frame_of", "touch_frame_of"]

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


_SWIPES = {
    ActionKind.SCROLL_DOWN: (0.0, -1.0),
    ActionKind.SCROLL_UP: (0.0, 1.0),
    ActionKind.SCROLL_RIGHT: (-1.0, 0.0),
    ActionKind.SCROLL_LEFT: (1.0, 0.0),
}
_SWIPE = 0.12  # half the way of a scrolling finger, as a share of the screen
_TAPS = frozenset(
    {ActionKind.CLICK, ActionKind.DOUBLE_CLICK, ActionKind.LONG_PRESS, ActionKind.TYPE}
)


def touch_frame_of(observation: Observation, action: Action | None) -> Frame:
    """Like `frame_of`, of a touch screen: with the places of the finger."""
    frame = frame_of(observation, action)
    if action is None:
        return frame
    return dataclasses.replace(frame, touch=_touch_of(action, observation))


def _touch_of(
    action: Action, observation: Observation
) -> tuple[tuple[float, float], ...]:
    """Where a finger goes: the middle of a widget or a place, or two ends of a way."""
    if action.kind is ActionKind.SEQUENCE:
        return next(filter(None, (_touch_of(p, observation) for p in action.parts)), ())
    box = _box_of(action, observation)
    x, y = (0.5, 0.5) if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    if action.kind in _SWIPES:
        across, down = (_SWIPE * way for way in _SWIPES[action.kind])
        return (x - across, y - down), (x + across, y + down)
    ends = (action.x, action.y, action.to_x, action.to_y)
    if action.kind is ActionKind.DRAG and None not in ends:
        return (ends[0] or 0.0, ends[1] or 0.0), (ends[2] or 0.0, ends[3] or 0.0)
    return ((x, y),) if action.kind in _TAPS and box is not None else ()


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
