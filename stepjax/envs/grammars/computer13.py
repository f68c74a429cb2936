"""OSWorld's computer_13 actions: dictionaries such as `{"action_type": "CLICK", ...}`.

Parameters stand in a dictionary `parameters` or beside `action_type`; coordinates are
pixels. JSON text of one is read too, in a code fence or alone, and a list of several is
a SEQUENCE.
"""

import json
import re
from typing import Any

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import GrammarError
from stepjax.envs.grammars.computer13_read import ENDS, read_dictionary
from stepjax.envs.grammars.keys import pyautogui_key
from stepjax.envs.grammars.pieces import MAX_PARTS, join, split
from stepjax.envs.grammars.programs import MAX_PROGRAM_CHARS
from stepjax.envs.grammars.writing import (
    button,
    no_form,
    notches,
    pixel,
    refuse_extras,
    text_to_type,
)

__all__ = ["format_computer_13", "parse_computer_13"]

_FENCE = re.compile(r"^[ \t]*```(?:(?:json|python)\b)?", re.MULTILINE | re.IGNORECASE)
_WHO = "format_computer_13"
_PLACED: dict[ActionKind, tuple[str, dict[str, Any]]] = {
    ActionKind.CLICK: ("CLICK", {}),
    ActionKind.MIDDLE_CLICK: ("CLICK", {"button": "middle"}),
    ActionKind.TRIPLE_CLICK: ("CLICK", {"num_clicks": 3}),
    ActionKind.DOUBLE_CLICK: ("DOUBLE_CLICK", {}),
    ActionKind.RIGHT_CLICK: ("RIGHT_CLICK", {}),
    ActionKind.MOVE: ("MOVE_TO", {}),
}
_SCROLLS = {
    ActionKind.SCROLL_UP: (0, 1),
    ActionKind.SCROLL_DOWN: (0, -1),
    ActionKind.SCROLL_RIGHT: (1, 0),
    ActionKind.SCROLL_LEFT: (-1, 0),
}
_SINGLE = {ActionKind.ENTER: "enter", ActionKind.ESCAPE: "escape"}
_KEY_KINDS = (ActionKind.PRESS, ActionKind.KEY_DOWN, ActionKind.KEY_UP)
_BUTTON_KINDS = (ActionKind.MOUSE_DOWN, ActionKind.MOUSE_UP)


def parse_computer_13(data: object, *, width: int, height: int) -> Action:
    """The action a computer_13 dictionary asks for.

    Args:
      data: A dictionary, a list of them, their JSON text, or WAIT, DONE or FAIL.
      width: Width of the screen in pixels.
      height: Height of the screen in pixels.

    Returns:
      The action, a SEQUENCE if there are several, or one of kind INVALID whose text
      says why; never an exception, whatever `data` is.

    Example:
      >>> click = {"action_type": "CLICK", "parameters": {"x": 100, "y": 200}}
      >>> action = parse_computer_13(click, width=1000, height=800)
      >>> action.kind.name, action.x, action.y
      ('CLICK', 0.1, 0.25)
      >>> parse_computer_13({"action_type": "REBOOT"}, width=9, height=9).kind.name
      'INVALID'
    """
    try:
        if isinstance(data, str):
            data = _load(data)
        items = data if isinstance(data, list | tuple) else [data]
        if len(items) > 4 * MAX_PARTS:  # `join` may make one out of several
            raise GrammarError(f"more than {MAX_PARTS} actions")
        steps = [
            step for item in items for step in read_dictionary(item, width, height)
        ]
        if len(steps) > 1 and any(step.kind in ENDS.values() for step in steps):
            raise GrammarError("WAIT, DONE and FAIL must stand alone")
        return join(steps)
    except GrammarError as error:
        return Action(kind=ActionKind.INVALID, text=str(error))


def _load(text: str) -> object:
    """What a JSON text stands for."""
    if len(text) > MAX_PROGRAM_CHARS:
        raise GrammarError(f"longer than {MAX_PROGRAM_CHARS} characters")
    fence = _FENCE.search(text)
    if fence is not None:
        text, mark, after = text[fence.end() :].partition("```")
        if not mark or "```" in after:
            raise GrammarError("expected exactly one code block")
    text = text.strip()
    if text in ENDS:
        return text
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except GrammarError:
        raise
    except (ValueError, RecursionError) as error:  # also: thousands of digits
        raise GrammarError("not a JSON object") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise GrammarError("a key is given twice")
    return found


def format_computer_13(
    action: Action, *, width: int, height: int
) -> dict[str, Any] | list[dict[str, Any]]:
    """The dictionary that asks for `action`, coordinates rounded to pixels.

    Args:
      action: What to write.
      width: Width of the screen in pixels.
      height: Height of the screen in pixels.

    Returns:
      A dictionary that `parse_computer_13` reads back; a list of them for a SEQUENCE, a
      drag with a start, and held keys. A scroll without an amount comes back with
      `pieces.DEFAULT_NOTCHES`.

    Raises:
      ValueError: If the language has no form for `action`.

    Example:
      >>> click = Action(kind=ActionKind.CLICK, x=0.1, y=0.25)
      >>> format_computer_13(click, width=1000, height=800)
      {'action_type': 'CLICK', 'parameters': {'x': 100, 'y': 200}}
    """
    steps = split(action, _WHO)
    if len(steps) > 1 and any(step.kind in ENDS.values() for step in steps):
        raise ValueError(f"{_WHO}: WAIT, DONE and FAIL must stand alone.")
    found = [_write(step, width, height) for step in steps]
    return found[0] if len(found) == 1 else found


def _write(step: Action, width: int, height: int) -> dict[str, Any]:
    """One dictionary."""
    kind, given = step.kind, {}

    def allow(*fields: str) -> None:
        refuse_extras(step, _WHO, *fields)

    def at(x: float | None, y: float | None) -> dict[str, Any]:
        return {"x": pixel(x, width, _WHO), "y": pixel(y, height, _WHO)}

    if kind in _PLACED:
        allow("x", "y")
        name, more = _PLACED[kind]
        bare = step.x is None and step.y is None and kind is not ActionKind.MOVE
        given = ({} if bare else at(step.x, step.y)) | more
    elif kind in _SCROLLS:
        allow("amount")
        name, (across, up) = "SCROLL", _SCROLLS[kind]
        by = notches(step, _WHO)
        given = {"dx": across * by, "dy": up * by}
    elif kind in _SINGLE:
        allow()
        name, given = "PRESS", {"key": _SINGLE[kind]}
    elif kind in _KEY_KINDS:
        allow("keys")
        name, given = _write_keys(step)
    elif kind in _BUTTON_KINDS:
        allow("button")
        name, given = kind.name, {"button": button(step, _WHO)}
    elif kind is ActionKind.DRAG:
        allow("to_x", "to_y")
        name, given = "DRAG_TO", at(step.to_x, step.to_y)
    elif kind is ActionKind.TYPE:
        allow("text")
        name, given = "TYPING", {"text": text_to_type(step, _WHO)}
    elif kind in ENDS.values():
        allow()
        return {"action_type": kind.name}
    else:
        raise no_form(step, _WHO)
    return {"action_type": name, "parameters": given}


def _write_keys(step: Action) -> tuple[str, dict[str, Any]]:
    """Type and parameters of an action about keys."""
    keys = [pyautogui_key(key) for key in step.keys]
    alone = step.kind is not ActionKind.PRESS
    if not keys or (alone and len(keys) > 1):
        wanted = "one key" if alone else "keys"
        raise ValueError(f"{_WHO}: {step.kind.name} needs {wanted}, has {len(keys)}.")
    if len(keys) > 1:
        return "HOTKEY", {"keys": keys}
    return step.kind.name, {"key": keys[0]}
