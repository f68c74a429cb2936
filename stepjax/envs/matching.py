"""Whether two actions mean the same, where being equal would ask for too much.

Two clicks on one button are rarely at the same pixel. The rule here is that of GUI-R1:
the same kind of action; a place near that of the reference, or inside its box; a text
that shares enough words with it.
"""

import collections
import math
import re
from collections.abc import Sequence

from stepjax.envs.actions import Action, ActionKind

__all__ = ["MATCH_PIXELS", "actions_match", "token_f1"]

MATCH_PIXELS = 140.0
"""Distance, in pixels of the screen, up to which two places count as one."""

_LEAST_F1 = 0.5
_WORDS = re.compile(r"\w+|[^\w\s]")
_WITH_TEXT = (ActionKind.TYPE, ActionKind.ANSWER, ActionKind.OPEN_APP)
_KEYED = (ActionKind.PRESS, ActionKind.KEY_DOWN, ActionKind.KEY_UP)

Box = tuple[float, float, float, float]


def actions_match(
    action: Action,
    reference: Action,
    *,
    screen: tuple[int, int],
    pixels: float = MATCH_PIXELS,
    box: Box | None = None,
) -> bool:
    """Whether an action does what a reference does.

    The kinds must be equal. Places must lie within `pixels` of the reference's, or
    inside `box` where it is known what the reference hit; both ends of a drag count.
    Texts that are typed, answered or name an application must have a token F1 of 0.5;
    keys must be equal. Of the parts of a sequence each must match its counterpart.
    Anything else, such as how far a scroll goes, does not matter.

    Args:
      action: The action in question. INVALID matches nothing.
      reference: What was done.
      screen: Width and height of the screen, in pixels.
      pixels: Largest distance between places.
      box: Left, top, right, bottom of what the reference hit, as shares of the screen;
        then the distance does not matter.

    Returns:
      Whether they match.

    Example:
      >>> there = Action(kind=ActionKind.CLICK, x=0.5, y=0.5)
      >>> near = Action(kind=ActionKind.CLICK, x=0.55, y=0.5)
      >>> actions_match(near, there, screen=(1280, 800))
      True
      >>> actions_match(near, there, screen=(1280, 800), box=(0.45, 0.45, 0.52, 0.52))
      False

    Source: GUI-R1 (arXiv:2504.10458).
    """
    if ActionKind.INVALID in (action.kind, reference.kind):
        return False
    if action.kind != reference.kind:
        return False
    if action.kind == ActionKind.SEQUENCE:
        return len(action.parts) == len(reference.parts) and all(
            actions_match(one, other, screen=screen, pixels=pixels)
            for one, other in zip(action.parts, reference.parts, strict=True)
        )
    if action.kind in _KEYED and action.keys != reference.keys:
        return False
    if action.kind in _WITH_TEXT:
        if token_f1(action.text, reference.text) < _LEAST_F1:
            return False
    return _places_match(action, reference, screen, pixels, box)


def token_f1(text: str, reference: str) -> float:
    """F1 of the words of two texts, whatever their order and case; 1 if both are empty.

    Args:
      text: Any text.
      reference: What it should say.

    Returns:
      A number in [0, 1].

    Example:
      >>> token_f1("hello world", "Hello there world")
      0.8
    """
    said, wanted = (_WORDS.findall(one.lower()) for one in (text, reference))
    if not said and not wanted:
        return 1.0
    shared = (collections.Counter(said) & collections.Counter(wanted)).total()
    return 2 * shared / (len(said) + len(wanted))


def _places_match(
    action: Action,
    reference: Action,
    screen: tuple[int, int],
    pixels: float,
    box: Box | None,
) -> bool:
    start = (action.x, action.y), (reference.x, reference.y)
    x, y = action.x, action.y
    if box is not None and x is not None and y is not None:
        left, top, right, bottom = box
        return left <= x <= right and top <= y <= bottom
    end = (action.to_x, action.to_y), (reference.to_x, reference.to_y)
    return all(_near(*pair, screen, pixels) for pair in (start, end))


def _near(
    place: Sequence[float | None],
    wanted: Sequence[float | None],
    screen: tuple[int, int],
    pixels: float,
) -> bool:
    """Whether two places are close; one that says nothing is close to anything."""
    if None in (*place, *wanted):
        return True
    squares = [
        ((one or 0.0) - (other or 0.0)) ** 2 * side**2
        for one, other, side in zip(place, wanted, screen, strict=True)
    ]
    return math.sqrt(sum(squares)) <= pixels * (1 + 1e-9)
