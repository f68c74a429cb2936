"""What fingers do, as commands of the DevTools protocol. Places are CSS pixels."""

from collections.abc import Sequence
from typing import Any

__all__ = ["MARK", "double_tap", "key", "long_press", "scroll", "swipe", "tap", "typed"]

Touches = list[tuple[str, dict[str, Any]]]
"""Methods and their parameters, in order."""

LONG_PRESS_SECONDS = 1.2
"""How long a finger rests before a touch is a long press."""

REST_SECONDS = 0.12
"""How long a finger rests that ends a scroll."""

_MOVES = 8
_KEYS = {
    "enter": ("Enter", 13, "\r"),
    "backspace": ("Backspace", 8, ""),
    "tab": ("Tab", 9, ""),
}


def _touch(kind: str, *points: tuple[float, float]) -> tuple[str, dict[str, Any]]:
    places = [{"x": x, "y": y, "id": 0} for x, y in points]
    return "Input.dispatchTouchEvent", {"type": kind, "touchPoints": places}


_MARK = {"key": "F24", "code": "F24", "windowsVirtualKeyCode": 135}
MARK: Touches = [
    ("Input.dispatchKeyEvent", {"type": "rawKeyDown", **_MARK}),
    ("Input.dispatchKeyEvent", {"type": "keyUp", **_MARK}),
]
"""A key that no page knows, to tell when the input before it has arrived."""


def tap(x: float, y: float) -> Touches:
    """A finger down and up."""
    return [_touch("touchStart", (x, y)), _touch("touchEnd")]


def double_tap(x: float, y: float) -> Touches:
    """Two taps, one right after the other."""
    return tap(x, y) + tap(x, y)


def long_press(x: float, y: float) -> tuple[Touches, Touches]:
    """A finger down, and up; `LONG_PRESS_SECONDS` belong between."""
    return [_touch("touchStart", (x, y))], [_touch("touchEnd")]


def swipe(x: float, y: float, to_x: float, to_y: float) -> Touches:
    """A finger drawn from one place to another."""
    moves = []
    for step in range(1, _MOVES + 1):
        share = step / _MOVES
        place = (x + share * (to_x - x), y + share * (to_y - y))
        moves.append(_touch("touchMove", place))
    return [_touch("touchStart", (x, y)), *moves, _touch("touchEnd")]


def scroll(
    x: float, y: float, right: float, down: float
) -> tuple[Touches, Touches, Touches]:
    """A finger that draws what is around a place so far to the left and up.

    Returns:
      The finger down and drawn, then after `REST_SECONDS` still there, then up: what
      rests before it goes up leaves nothing rolling on.
    """
    end = (x - right / 2, y - down / 2)
    drawn = swipe(x + right / 2, y + down / 2, *end)
    return drawn[:-1], [_touch("touchMove", end)], drawn[-1:]


def key(name: str) -> Touches:
    """One of the keys of the keyboard on the screen: enter, backspace or tab."""
    label, code, text = _KEYS[name]
    event = {"key": label, "code": label, "windowsVirtualKeyCode": code}
    down = {"type": "keyDown" if text else "rawKeyDown", **event}
    return [
        ("Input.dispatchKeyEvent", down | ({"text": text} if text else {})),
        ("Input.dispatchKeyEvent", {"type": "keyUp", **event}),
    ]


def typed(lines: Sequence[str]) -> Touches:
    """Text as a keyboard on the screen hands it over, with enter between its lines."""
    commands: Touches = []
    for number, line in enumerate(lines):
        commands += key("enter") if number else []
        commands += [("Input.insertText", {"text": line})] if line else []
    return commands
