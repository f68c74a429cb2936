"""The action language of UI-TARS models, desktop and phone.

A response is `Thought: ...` and `Action: click(start_box='(100,200)')`, or the action
alone. Coordinates are whole numbers on a grid: 1000 by 1000 for UI-TARS 1.0, pixels of
the picture the model saw for UI-TARS 1.5.
"""

import re
from collections.abc import Callable

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import GrammarError, format_call, scan_call
from stepjax.envs.grammars.keys import key_names

__all__ = ["MAX_RESPONSE_CHARS", "format_ui_tars", "parse_ui_tars"]

MAX_RESPONSE_CHARS = 20_000
"""Longest response looked at; a longer one is invalid as a whole."""

_ACTION = re.compile(r"^[ \t]*Action:", re.MULTILINE)
_NUMBER = r"([0-9]{1,5}(?:\.[0-9]{1,4})?)"
_BOX = re.compile(
    r"(?:<\|box_start\|>)? ?[(\[]? ?"
    + rf"{_NUMBER} ?, ?{_NUMBER}(?: ?, ?{_NUMBER} ?, ?{_NUMBER})?"
    + r" ?[)\]]? ?(?:<\|box_end\|>)?"
)
_POINT = re.compile(rf"<point>{_NUMBER} {_NUMBER}</point>")

_AIMED = {
    "click": ActionKind.CLICK,
    "left_double": ActionKind.DOUBLE_CLICK,
    "right_single": ActionKind.RIGHT_CLICK,
    "long_press": ActionKind.LONG_PRESS,
}
_BARE = {
    "wait": ActionKind.WAIT,
    "call_user": ActionKind.FAIL,
    "press_home": ActionKind.HOME,
    "press_back": ActionKind.BACK,
}
_SCROLLS = {"down": ActionKind.SCROLL_DOWN, "up": ActionKind.SCROLL_UP}
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
        if call.name not in _READERS:
            raise GrammarError("unknown action")
        return _READERS[call.name](_Arguments(call.name, call.arguments, width, height))
    except GrammarError as error:
        return Action(kind=ActionKind.INVALID, text=str(error))


class _Arguments:
    """Arguments of a call, taken one by one so that none is left unread."""

    def __init__(self, name: str, values: dict[str, str], width: int, height: int):
        self.name = name
        self._values = dict(values)
        self._screen = (width, height)

    def text(self, *names: str) -> str | None:
        for name in names:
            if name in self._values:
                return self._values.pop(name)
        return None

    def required(self, *names: str) -> str:
        value = self.text(*names)
        if value is None:
            raise GrammarError(f"{self.name} needs the argument {names[0]}")
        return value

    def place(self, *names: str) -> tuple[float, float]:
        text = self.required(*names)
        match = _BOX.fullmatch(text) or _POINT.fullmatch(text)
        if match is None:
            raise GrammarError(f"{names[0]} is not a place on the screen")
        numbers = [float(number) for number in match.groups() if number is not None]
        edges = numbers[:2], numbers[-2:]
        for x, y in edges:
            if x > self._screen[0] or y > self._screen[1]:
                raise GrammarError(f"{names[0]} is outside the screen")
        (left, top), (right, bottom) = edges
        width, height = self._screen
        return (left + right) / (2 * width), (top + bottom) / (2 * height)

    def done(self) -> None:
        if self._values:
            raise GrammarError(f"{self.name} has an unknown argument")


_START = ("start_box", "start_point", "point")
_END = ("end_box", "end_point")


def _read_aimed(arguments: _Arguments) -> Action:
    x, y = arguments.place(*_START)
    arguments.done()
    return Action(kind=_AIMED[arguments.name], x=x, y=y)


def _read_bare(arguments: _Arguments) -> Action:
    arguments.done()
    return Action(kind=_BARE[arguments.name])


def _read_drag(arguments: _Arguments) -> Action:
    x, y = arguments.place(*_START)
    to_x, to_y = arguments.place(*_END)
    arguments.done()
    return Action(kind=ActionKind.DRAG, x=x, y=y, to_x=to_x, to_y=to_y)


def _read_scroll(arguments: _Arguments) -> Action:
    direction = arguments.required("direction")
    if direction not in _SCROLLS:
        raise GrammarError("direction must be up or down")
    place = arguments.text(*_START)
    arguments.done()
    if place is None:
        return Action(kind=_SCROLLS[direction])
    placed = _Arguments("scroll", {"start_box": place}, *arguments._screen)
    x, y = placed.place("start_box")
    return Action(kind=_SCROLLS[direction], x=x, y=y)


def _read_hotkey(arguments: _Arguments) -> Action:
    keys = key_names(arguments.required("key", "hotkey"))
    arguments.done()
    if keys in _SINGLE_KEYS:
        return Action(kind=_SINGLE_KEYS[keys])
    return Action(kind=ActionKind.PRESS, keys=keys)


def _read_type(arguments: _Arguments) -> Action:
    content = arguments.required("content")
    arguments.done()
    return Action(kind=ActionKind.TYPE, text=content)


def _read_open_app(arguments: _Arguments) -> Action:
    name = arguments.required("app_name")
    arguments.done()
    return Action(kind=ActionKind.OPEN_APP, text=name)


def _read_finished(arguments: _Arguments) -> Action:
    content = arguments.text("content") or ""
    arguments.done()
    return Action(kind=ActionKind.DONE, text=content)


_READERS: dict[str, Callable[[_Arguments], Action]] = {
    **dict.fromkeys(_AIMED, _read_aimed),
    **dict.fromkeys(_BARE, _read_bare),
    "drag": _read_drag,
    "scroll": _read_scroll,
    "hotkey": _read_hotkey,
    "type": _read_type,
    "open_app": _read_open_app,
    "finished": _read_finished,
}
_NAMES = {kind: name for table in (_AIMED, _BARE) for name, kind in table.items()}
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
        if x is None or y is None:
            raise ValueError(
                f"format_ui_tars: action {kind.name} needs a place, has none."
            )
        return f"({round(x * width)},{round(y * height)})"

    aimed = {} if action.x is None else {"start_box": box(action.x, action.y)}
    match kind:
        case ActionKind.WAIT | ActionKind.FAIL | ActionKind.HOME | ActionKind.BACK:
            return format_call(_NAMES[kind])
        case ActionKind.DRAG:
            return format_call(
                "drag",
                start_box=box(action.x, action.y),
                end_box=box(action.to_x, action.to_y),
            )
        case ActionKind.SCROLL_DOWN | ActionKind.SCROLL_UP:
            return format_call("scroll", **aimed, direction=_DIRECTIONS[kind])
        case ActionKind.PRESS | ActionKind.ENTER | ActionKind.ESCAPE:
            keys = action.keys or (kind.name.lower(),)
            return format_call("hotkey", key=" ".join(keys))
        case ActionKind.TYPE if not aimed:
            return format_call("type", content=action.text)
        case ActionKind.OPEN_APP:
            return format_call("open_app", app_name=action.text)
        case ActionKind.DONE:
            content = {"content": action.text} if action.text else {}
            return format_call("finished", **content)
        case _ if kind in _NAMES:
            return format_call(_NAMES[kind], start_box=box(action.x, action.y))
        case _:
            raise ValueError(
                f"format_ui_tars: the language has no form for {kind.name}"
                f"{' at a place' if aimed else ''}."
            )
