"""What each of OSWorld's computer_13 dictionaries asks for."""

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import GrammarError
from stepjax.envs.grammars.pieces import (
    MAX_NOTCHES,
    clicks,
    place,
    press,
    scrolls,
    typing,
    whole,
)
from stepjax.envs.grammars.writing import BUTTONS

__all__ = ["ENDS", "read_dictionary"]

_MAX_KEYS = 8
ENDS = {
    "WAIT": ActionKind.WAIT,
    "DONE": ActionKind.DONE,
    "FAIL": ActionKind.FAIL,
}
"""Actions that stand alone, and may be written as text."""

# Names of the parameters of every type of action.
_PARAMETERS = {
    "MOVE_TO": ("x", "y"),
    "CLICK": ("x", "y", "button", "num_clicks"),
    "RIGHT_CLICK": ("x", "y"),
    "DOUBLE_CLICK": ("x", "y"),
    "MOUSE_DOWN": ("button",),
    "MOUSE_UP": ("button",),
    "DRAG_TO": ("x", "y"),
    "SCROLL": ("dx", "dy"),
    "TYPING": ("text",),
    "PRESS": ("key",),
    "KEY_DOWN": ("key",),
    "KEY_UP": ("key",),
    "HOTKEY": ("keys",),
    "WAIT": (),
    "DONE": (),
    "FAIL": (),
}
_TO_SCREEN = {
    "MOVE_TO": lambda x, y: Action(kind=ActionKind.MOVE, x=x, y=y),
    "DRAG_TO": lambda x, y: Action(kind=ActionKind.DRAG, to_x=x, to_y=y),
}
_HELD = {
    "MOUSE_DOWN": ActionKind.MOUSE_DOWN,
    "MOUSE_UP": ActionKind.MOUSE_UP,
    "KEY_DOWN": ActionKind.KEY_DOWN,
    "KEY_UP": ActionKind.KEY_UP,
}


def read_dictionary(item: object, width: int, height: int) -> list[Action]:
    """Steps that one dictionary asks for, or WAIT, DONE or FAIL as text.

    Raises:
      GrammarError: If it asks for nothing that can be done.
    """
    if isinstance(item, str) and item in ENDS:
        return [Action(kind=ENDS[item])]
    if not isinstance(item, dict) or len(item) > _MAX_KEYS:
        raise GrammarError("an action is not a dictionary with action_type")
    name = item.get("action_type")
    name = name.upper() if isinstance(name, str) and len(name) < 32 else None
    if name not in _PARAMETERS:
        raise GrammarError("unknown action_type")
    given = item.get("parameters")
    if given is None:
        given = {
            k: v for k, v in item.items() if k not in ("action_type", "parameters")
        }
    elif len(item) > 2 or not isinstance(given, dict):
        raise GrammarError("parameters is not a dictionary beside action_type")
    unknown = given.keys() - set(_PARAMETERS[name])
    # Other parameters of the same action space are harmless when they are null.
    if any(given[key] is not None for key in unknown):
        raise GrammarError(f"{name} has an unknown parameter")
    return _steps(name, given, width, height)


def _steps(name: str, given: dict, width: int, height: int) -> list[Action]:
    x, y = place(given.get("x"), given.get("y"), width, height)
    match name:
        case "MOVE_TO" | "DRAG_TO":
            if x is None:
                raise GrammarError(f"{name} needs x and y")
            return [_TO_SCREEN[name](x, y)]
        case "CLICK":
            count = given.get("num_clicks")
            count = 1 if count is None else whole(count, "num_clicks", 1, 3)
            return clicks(_button(given), count, x, y)
        case "RIGHT_CLICK":
            return clicks("right", 1, x, y)
        case "DOUBLE_CLICK":
            return clicks("left", 2, x, y)
        case "MOUSE_DOWN" | "MOUSE_UP":
            return [Action(kind=_HELD[name], button=_button(given))]
        case "SCROLL":
            return scrolls(_notches(given, "dx"), _notches(given, "dy"), None, None)
        case "TYPING":
            return [typing(given.get("text"))]
        case "PRESS":
            return [press([_text(given.get("key"))])]
        case "KEY_DOWN" | "KEY_UP":
            pressed = press([_text(given.get("key"))])
            keys = pressed.keys or (pressed.kind.name.lower(),)
            if len(keys) != 1:
                raise GrammarError(f"{name} takes one key that needs no Shift")
            return [Action(kind=_HELD[name], keys=keys)]
        case "HOTKEY":
            keys = given.get("keys")
            if not isinstance(keys, list | tuple):
                raise GrammarError("keys is not a list")
            return [press(keys)]
        case _:
            return [Action(kind=ENDS[name])]


def _notches(given: dict, key: str) -> int:
    value = given.get(key)
    return 0 if value is None else whole(value, key, -MAX_NOTCHES, MAX_NOTCHES)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise GrammarError("a key is not text")
    return value


def _button(given: dict) -> str:
    value = given.get("button")
    if value is None:
        return "left"
    if not isinstance(value, str) or value.lower() not in BUTTONS:
        raise GrammarError("button is none of left, middle, right")
    return value.lower()
