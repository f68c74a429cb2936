"""The action language of UI-TARS models, desktop and phone.

A response is `Thought: ...` and `Action: click(start_box='(100,200)')`, or the action
alone. Coordinates are whole numbers on a grid: 1000 by 1000 for UI-TARS 1.0, pixels of
the picture the model saw for UI-TARS 1.5. Beside the language of the models' prompts it
knows `left_triple`, `middle_single`, `hover`, `keydown`, `keyup` and an `amount` of
notches for `scroll`; `left_single`, `select`, `press` and `release`, which some of the
models write, are read as `click`, `drag`, `hotkey` and `keyup`.
"""

import re
from collections.abc import Callable

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.boxes import Arguments
from stepjax.envs.grammars.calls import GrammarError, format_call, scan_call
from stepjax.envs.grammars.keys import KEYS, MAX_KEYS, key_names
from stepjax.envs.grammars.pieces import MAX_NOTCHES, whole
from stepjax.envs.grammars.writing import (
    no_form,
    notches,
    pixel,
    refuse_extras,
    text_to_type,
)

__all__ = ["MAX_RESPONSE_CHARS", "format_ui_tars", "parse_ui_tars"]

MAX_RESPONSE_CHARS = 20_000
"""Longest response looked at; a longer one is invalid as a whole."""

_ACTION = re.compile(r"^[ \t]*Action:", re.MULTILINE)
_WHOLE = re.compile(r"[0-9]{1,5}")

_AIMED = {
    "click": ActionKind.CLICK,
    "left_double": ActionKind.DOUBLE_CLICK,
    "right_single": ActionKind.RIGHT_CLICK,
    "long_press": ActionKind.LONG_PRESS,
    "left_triple": ActionKind.TRIPLE_CLICK,
    "middle_single": ActionKind.MIDDLE_CLICK,
    "hover": ActionKind.MOVE,
}
_BARE = {
    "wait": ActionKind.WAIT,
    "call_user": ActionKind.FAIL,
    "press_home": ActionKind.HOME,
    "press_back": ActionKind.BACK,
}
_SCROLLS = {
    "down": ActionKind.SCROLL_DOWN,
    "up": ActionKind.SCROLL_UP,
    "left": ActionKind.SCROLL_LEFT,
    "right": ActionKind.SCROLL_RIGHT,
}
_HELD_KEYS = {"keydown": ActionKind.KEY_DOWN, "keyup": ActionKind.KEY_UP}
_ALSO = {
    "left_single": "click",
    "select": "drag",
    "press": "hotkey",
    "release": "keyup",
}
_SINGLE_KEYS: dict[tuple[str, ...], ActionKind] = {
    ("enter",): ActionKind.ENTER,
    ("escape",): ActionKind.ESCAPE,
}


def parse_ui_tars(text: str, *, width: int = 1000, height: int = 1000) -> Action:
    """The action a response asks for.

    The first line that begins with "Action:" starts the action; it is one call, and
    nothing may follow. A box of four numbers stands for its center.

    Args:
      text: What the model wrote.
      width: Coordinate of the right edge of the screen.
      height: Coordinate of its bottom edge.

    Returns:
      The action, or one of kind INVALID whose text says why; never an exception,
      whatever `text` is.

    Example:
      >>> action = parse_ui_tars("Action: click(start_box='(250,500)')")
      >>> action.kind.name, action.x, action.y
      ('CLICK', 0.25, 0.5)
      >>> parse_ui_tars("import os").kind.name
      'INVALID'
    """
    try:
        if not isinstance(text, str):
            raise GrammarError("the response is not text")
        if len(text) > MAX_RESPONSE_CHARS:
            raise GrammarError(f"longer than {MAX_RESPONSE_CHARS} characters")
        start = _ACTION.search(text)
        call = scan_call(text[start.end() :] if start else text)
        name = _ALSO.get(call.name, call.name)
        if name not in _READERS:
            raise GrammarError("unknown action")
        return _READERS[name](Arguments(name, call.arguments, width, height))
    except GrammarError as error:
        return Action(kind=ActionKind.INVALID, text=str(error))


_WHO = "format_ui_tars"
_START = ("start_box", "start_point", "point")
_END = ("end_box", "end_point")


def _read_aimed(arguments: Arguments) -> Action:
    x, y = arguments.place(*_START)
    arguments.done()
    return Action(kind=_AIMED[arguments.name], x=x, y=y)


def _read_bare(arguments: Arguments) -> Action:
    arguments.done()
    return Action(kind=_BARE[arguments.name])


def _read_drag(arguments: Arguments) -> Action:
    x, y = arguments.place(*_START)
    to_x, to_y = arguments.place(*_END)
    arguments.done()
    return Action(kind=ActionKind.DRAG, x=x, y=y, to_x=to_x, to_y=to_y)


def _read_scroll(arguments: Arguments) -> Action:
    direction = arguments.required("direction")
    if direction not in _SCROLLS:
        raise GrammarError("direction must be up, down, left or right")
    x, y = arguments.place(*_START) if arguments.has(*_START) else (None, None)
    amount = arguments.text("amount")
    if amount is not None:
        if not _WHOLE.fullmatch(amount):
            raise GrammarError("amount is not a whole number")
        amount = float(whole(int(amount), "amount", 1, MAX_NOTCHES))
    arguments.done()
    return Action(kind=_SCROLLS[direction], x=x, y=y, amount=amount)


def _read_hotkey(arguments: Arguments) -> Action:
    keys = key_names(arguments.required("key", "hotkey", "press"))
    arguments.done()
    if keys in _SINGLE_KEYS:
        return Action(kind=_SINGLE_KEYS[keys])
    return Action(kind=ActionKind.PRESS, keys=keys)


def _read_held_key(arguments: Arguments) -> Action:
    keys = key_names(arguments.required("key"))
    arguments.done()
    if len(keys) != 1:
        raise GrammarError(f"{arguments.name} takes one key")
    return Action(kind=_HELD_KEYS[arguments.name], keys=keys)


def _read_type(arguments: Arguments) -> Action:
    content = arguments.required("content")
    arguments.done()
    return Action(kind=ActionKind.TYPE, text=content)


def _read_open_app(arguments: Arguments) -> Action:
    name = arguments.required("app_name")
    arguments.done()
    return Action(kind=ActionKind.OPEN_APP, text=name)


def _read_finished(arguments: Arguments) -> Action:
    content = arguments.text("content") or ""
    arguments.done()
    return Action(kind=ActionKind.DONE, text=content)


_READERS: dict[str, Callable[[Arguments], Action]] = {
    **dict.fromkeys(_AIMED, _read_aimed),
    **dict.fromkeys(_BARE, _read_bare),
    **dict.fromkeys(_HELD_KEYS, _read_held_key),
    "drag": _read_drag,
    "scroll": _read_scroll,
    "hotkey": _read_hotkey,
    "type": _read_type,
    "open_app": _read_open_app,
    "finished": _read_finished,
}
_NAMES = {
    kind: name for table in (_AIMED, _BARE, _HELD_KEYS) for name, kind in table.items()
}
_DIRECTIONS = {kind: direction for direction, kind in _SCROLLS.items()}


def format_ui_tars(
    action: Action, *, width: int = 1000, height: int = 1000, thought: str = ""
) -> str:
    """The response that asks for `action`, coordinates rounded to the grid.

    Args:
      action: What to write.
      width: Coordinate of the right edge of the screen.
      height: Coordinate of its bottom edge.
      thought: What to write before it, if anything.

    Returns:
      Text that `parse_ui_tars` reads back.

    Raises:
      ValueError: If the language has no form for `action`.

    Example:
      >>> format_ui_tars(Action(kind=ActionKind.CLICK, x=0.25, y=0.5))
      "click(start_box='(250,500)')"
    """
    text = _format_action(action, width, height)
    return f"Thought: {thought}\nAction: {text}" if thought else text


def _format_action(action: Action, width: int, height: int) -> str:
    kind = action.kind

    def box(x: float | None, y: float | None) -> str:
        return f"({pixel(x, width, _WHO)},{pixel(y, height, _WHO)})"

    def allow(*fields: str) -> None:
        refuse_extras(action, _WHO, *fields)

    match kind:
        case ActionKind.WAIT | ActionKind.FAIL | ActionKind.HOME | ActionKind.BACK:
            allow()
            return format_call(_NAMES[kind])
        case ActionKind.DRAG:
            allow("x", "y", "to_x", "to_y")
            start, end = box(action.x, action.y), box(action.to_x, action.to_y)
            return format_call("drag", start_box=start, end_box=end)
        case ActionKind.PRESS | ActionKind.ENTER | ActionKind.ESCAPE:
            allow(*(["keys"] if kind is ActionKind.PRESS else []))
            keys = action.keys or (kind.name.lower(),)
            return format_call("hotkey", key=_keys(keys))
        case ActionKind.KEY_DOWN | ActionKind.KEY_UP if len(action.keys) == 1:
            allow("keys")
            return format_call(_NAMES[kind], key=_keys(action.keys))
        case ActionKind.TYPE:
            allow("text")
            return format_call("type", content=text_to_type(action, _WHO))
        case ActionKind.OPEN_APP:
            allow("text")
            return format_call("open_app", app_name=text_to_type(action, _WHO))
        case ActionKind.DONE:
            allow("text")
            content = text_to_type(action, _WHO)
            return format_call("finished", **({"content": content} if content else {}))
        case _ if kind in _DIRECTIONS:
            allow("x", "y", "amount")
            given = {} if action.x is None else {"start_box": box(action.x, action.y)}
            given["direction"] = _DIRECTIONS[kind]
            if action.amount is not None:
                given["amount"] = str(notches(action, _WHO))
            return format_call("scroll", **given)
        case _ if kind in _AIMED.values():
            allow("x", "y")
            return format_call(_NAMES[kind], start_box=box(action.x, action.y))
        case _:
            raise no_form(action, _WHO)


def _keys(keys: tuple[str, ...]) -> str:
    if not KEYS.issuperset(keys) or not 1 <= len(keys) <= MAX_KEYS:
        raise ValueError(
            f"{_WHO}: keys are {keys}, must be 1 to {MAX_KEYS} of"
            " stepjax.envs.grammars.keys.KEYS."
        )
    return " ".join(keys)
