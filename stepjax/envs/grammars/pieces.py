"""What grammars of several statements share: checked values, splitting and joining.

`split` takes an action apart into steps that hold one thing each (a key goes down, the
pointer is dragged from where it is); `join` is its inverse.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import MAX_VALUE_CHARS, UNWANTED, GrammarError
from stepjax.envs.grammars.keys import KEYS, MAX_KEYS, key_name

__all__ = [
    "DEFAULT_NOTCHES",
    "MAX_NOTCHES",
    "MAX_PARTS",
    "MAX_SECONDS",
    "MAX_TYPED_CHARS",
    "clicks",
    "join",
    "number",
    "place",
    "press",
    "scrolls",
    "split",
    "typing",
    "whole",
]

DEFAULT_NOTCHES = 5
"""Notches of a scroll that names none."""

MAX_NOTCHES = 10_000
"""Most notches a text may ask for; `input_plan` carries out fewer."""

MAX_PARTS = 100
"""Most parts of a SEQUENCE."""

MAX_SECONDS = 60.0
"""Longest wait a text may ask for; `input_plan` waits less."""

MAX_TYPED_CHARS = 20_000
"""Most characters that all parts of one action type together."""

_FARTHEST = 10**6
_CLICKS = {
    ("left", 1): ActionKind.CLICK,
    ("left", 2): ActionKind.DOUBLE_CLICK,
    ("left", 3): ActionKind.TRIPLE_CLICK,
    ("right", 1): ActionKind.RIGHT_CLICK,
    ("middle", 1): ActionKind.MIDDLE_CLICK,
}
_HOLDERS = frozenset({*_CLICKS.values(), ActionKind.LONG_PRESS, ActionKind.DRAG})
_SINGLE_KEYS: dict[tuple[str, ...], ActionKind] = {
    ("enter",): ActionKind.ENTER,
    ("escape",): ActionKind.ESCAPE,
}
_SCROLLS = {
    "x": (ActionKind.SCROLL_LEFT, ActionKind.SCROLL_RIGHT),
    "y": (ActionKind.SCROLL_DOWN, ActionKind.SCROLL_UP),
}


def number(value: object, name: str, low: float, high: float) -> float:
    """`value` as a float, if it is a number in [low, high].

    Raises:
      GrammarError: If it is not.
    """
    # The comparison comes first: a huge int does not fit into a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GrammarError(f"{name} is not a number")
    if not low <= value <= high:
        raise GrammarError(f"{name} is outside {low:g} to {high:g}")
    return float(value)


def whole(value: object, name: str, low: int, high: int) -> int:
    """`value` as an int, if it is a whole number in [low, high].

    Raises:
      GrammarError: If it is not.
    """
    result = number(value, name, low, high)
    if not result.is_integer():
        raise GrammarError(f"{name} is not a whole number")
    return int(result)


def place(
    x: object, y: object, width: int, height: int
) -> tuple[float, float] | tuple[None, None]:
    """Pixels as shares of the screen; None and None stay as they are.

    Raises:
      GrammarError: If one of them is missing, is no number or off the screen.
    """
    if x is None and y is None:
        return None, None
    if x is None or y is None:
        raise GrammarError("a place needs both x and y")
    across = number(x, "x", -_FARTHEST, _FARTHEST)
    down = number(y, "y", -_FARTHEST, _FARTHEST)
    if not (0 <= across <= width and 0 <= down <= height):
        raise GrammarError("the place is outside the screen")
    return across / width, down / height


def clicks(button: str, count: int, x: float | None, y: float | None) -> list[Action]:
    """`count` clicks at one place: one action where there is a kind for it."""
    kind = _CLICKS.get((button, count))
    if kind is not None:
        return [Action(kind=kind, x=x, y=y)]
    return [Action(kind=_CLICKS[button, 1], x=x, y=y)] * count


def scrolls(dx: int, dy: int, x: float | None, y: float | None) -> list[Action]:
    """Scrolling by notches: positive is right and up, as pyautogui counts.

    Raises:
      GrammarError: If both are 0.
    """
    found = [
        Action(kind=_SCROLLS[axis][by > 0], x=x, y=y, amount=float(abs(by)))
        for axis, by in (("x", dx), ("y", dy))
        if by
    ]
    if not found:
        raise GrammarError("scrolling by 0 does nothing")
    return found


def press(names: Sequence[str]) -> Action:
    """Keys pressed together, in order; a capital letter brings Shift along.

    Raises:
      GrammarError: If there are none, too many, or an unknown one.
    """
    if not 1 <= len(names) <= MAX_KEYS:
        raise GrammarError(f"expected 1 to {MAX_KEYS} keys, got {len(names)}")
    keys: list[str] = []
    for name in names:
        if not isinstance(name, str):
            raise GrammarError("a key is not text")
        capital = len(name) == 1 and "A" <= name <= "Z"
        if capital and "shift" not in keys:
            keys.append("shift")
        keys.append(key_name(name))
    if len(keys) > MAX_KEYS:
        raise GrammarError(f"expected 1 to {MAX_KEYS} keys, got {len(keys)}")
    if tuple(keys) in _SINGLE_KEYS:
        return Action(kind=_SINGLE_KEYS[tuple(keys)])
    return Action(kind=ActionKind.PRESS, keys=tuple(keys))


def typing(text: object) -> Action:
    """Text to type.

    Raises:
      GrammarError: If it is not text, too long, or holds control characters.
    """
    if not isinstance(text, str):
        raise GrammarError("what to type is not text")
    if len(text) > MAX_VALUE_CHARS:
        raise GrammarError(f"a value is longer than {MAX_VALUE_CHARS} characters")
    if UNWANTED.search(text):
        raise GrammarError("a value holds control characters")
    return Action(kind=ActionKind.TYPE, text=text)


def join(steps: Iterable[Action]) -> Action:
    """One action out of steps: the only one, or a SEQUENCE.

    A drag takes its start from the move before it. Keys that go down right before a
    click or drag, and up right after it in reverse order, are its held keys.

    Raises:
      GrammarError: If there are no steps or too many.

    Example:
      >>> move = Action(kind=ActionKind.MOVE, x=0.1, y=0.2)
      >>> drag = Action(kind=ActionKind.DRAG, to_x=0.3, to_y=0.4)
      >>> join([move, drag])
      Action(kind=<ActionKind.DRAG: 11>, x=0.1, y=0.2, to_x=0.3, to_y=0.4, ...)
    """
    parts: list[Action] = []
    for step in steps:
        last = parts[-1] if parts else None
        if step.kind is ActionKind.DRAG and step.x is None and last is not None:
            if last.kind is ActionKind.MOVE:
                step = dataclasses.replace(step, x=last.x, y=last.y)
                parts.pop()
        elif step.kind is ActionKind.KEY_UP and _holds(parts, step):
            held = parts.pop()
            step = dataclasses.replace(held, keys=parts.pop().keys + held.keys)
        parts.append(step)
    if not parts:
        raise GrammarError("there is no action")
    if len(parts) > MAX_PARTS:
        raise GrammarError(f"more than {MAX_PARTS} actions")
    if sum(len(part.text) for part in parts) > MAX_TYPED_CHARS:
        raise GrammarError(f"more than {MAX_TYPED_CHARS} characters to type")
    if len(parts) == 1:
        return parts[0]
    return Action(kind=ActionKind.SEQUENCE, parts=tuple(parts))


def _holds(parts: list[Action], up: Action) -> bool:
    """Whether the last two parts are that key going down and something it holds for."""
    if len(parts) < 2:
        return False
    down, held = parts[-2:]
    return (
        down.kind is ActionKind.KEY_DOWN
        and down.keys == up.keys
        and held.kind in _HOLDERS
        and len(held.keys) < MAX_KEYS
    )


def split(action: Action, who: str) -> list[Action]:
    """Steps that `join` makes `action` from.

    Args:
      action: Any action.
      who: Name of the function that asks, for its errors.

    Raises:
      ValueError: If `action` has a form that no grammar yields: a SEQUENCE that is
        empty, too long or nested, unknown keys, a widget without a place.
    """
    if action.widget is not None and action.x is None:
        raise ValueError(
            f"{who}: {action.kind.name} is aimed at widget {action.widget}, must be"
            " aimed at a place: give x and y."
        )
    if not KEYS.issuperset(action.keys) or len(action.keys) > MAX_KEYS:
        raise ValueError(
            f"{who}: keys are {action.keys}, must be at most {MAX_KEYS} of"
            " stepjax.envs.grammars.keys.KEYS."
        )
    if action.kind is ActionKind.SEQUENCE:
        if not 1 <= len(action.parts) <= MAX_PARTS:
            raise ValueError(
                f"{who}: a SEQUENCE has {len(action.parts)} parts, must have 1 to"
                f" {MAX_PARTS}."
            )
        if any(part.kind is ActionKind.SEQUENCE for part in action.parts):
            raise ValueError(f"{who}: a part of a SEQUENCE must not be a SEQUENCE.")
        return [step for part in action.parts for step in split(part, who)]
    steps = [dataclasses.replace(action, widget=None)]
    if action.kind is ActionKind.DRAG and action.x is not None:
        move = Action(kind=ActionKind.MOVE, x=action.x, y=action.y)
        steps = [move, dataclasses.replace(steps[0], x=None, y=None)]
    if action.kind in _HOLDERS and action.keys:
        steps[-1] = dataclasses.replace(steps[-1], keys=())
        down, up = ActionKind.KEY_DOWN, ActionKind.KEY_UP
        before = [Action(kind=down, keys=(key,)) for key in action.keys]
        after = [Action(kind=up, keys=(key,)) for key in reversed(action.keys)]
        steps = [*before, *steps, *after]
    return steps
