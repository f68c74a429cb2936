"""AndroidWorld's JSON actions, such as `{"action_type": "click", "x": 540, "y": 1200}`.

Places are physical pixels, or an index into the screen's elements. Typing at a place
with `clear_text` replaces what the field holds and is one TYPE; without, it adds to it
and is a CLICK followed by a TYPE. AndroidWorld's server presses enter after any
`input_text`; that is its doing and no part of the language.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.androidworld_read import (
    ENDS,
    NAVIGATION,
    SCROLLS,
    SWIPES,
    TOUCHES,
    read_mapping,
)
from stepjax.envs.grammars.calls import GrammarError
from stepjax.envs.grammars.pieces import MAX_PARTS
from stepjax.envs.grammars.writing import no_form, pixel, refuse_extras, text_to_type

__all__ = ["format_android_world", "parse_android_world"]

_MAX_CHARS = 20_000
_ACTION = re.compile(r"^[ \t]*Action:", re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*```(?:json\b)?", re.MULTILINE | re.IGNORECASE)
_WHO = "format_android_world"
_TOUCH_NAMES = {kind: name for name, kind in TOUCHES.items()}
_NAVIGATION_NAMES = {kind: name for name, kind in NAVIGATION.items()} | {
    ActionKind.ESCAPE: "navigate_back"  # what Android does with that key
}
_DIRECTIONS = {kind: direction for direction, kind in SCROLLS.items()}
_END_NAMES = {kind: status for status, kind in ENDS.items()}


def parse_android_world(
    data: object, *, width: int, height: int, num_elements: int | None = None
) -> Action:
    """The action that AndroidWorld's JSON asks for.

    Args:
      data: A dictionary, a list of them, or text: JSON alone, in a code fence, or after
        a line that begins with "Action:".
      width: Width of the screen in physical pixels.
      height: Height of the screen in physical pixels.
      num_elements: Elements on the screen; an index beyond is invalid. None if unknown.

    Returns:
      The action, a SEQUENCE if there are several, or one of kind INVALID whose text
      says why; never an exception, whatever `data` is.

    Example:
      >>> click = '{"action_type": "click", "x": 270, "y": 1200}'
      >>> action = parse_android_world(click, width=1080, height=2400)
      >>> action.kind.name, action.x, action.y
      ('CLICK', 0.25, 0.5)
      >>> parse_android_world("tap it", width=9, height=9).kind.name
      'INVALID'
    """
    try:
        if isinstance(data, str):
            data = _load(data)
        items = data if isinstance(data, list | tuple) else [data]
        if len(items) > MAX_PARTS:
            raise GrammarError(f"more than {MAX_PARTS} actions")
        steps = [
            step
            for item in items
            for step in read_mapping(item, width, height, num_elements)
        ]
        return _joined(steps)
    except GrammarError as error:
        return Action(kind=ActionKind.INVALID, text=str(error))


def _load(text: str) -> object:
    """What a text stands for."""
    if len(text) > _MAX_CHARS:
        raise GrammarError(f"longer than {_MAX_CHARS} characters")
    start = _ACTION.search(text)
    text = text[start.end() :] if start else text
    fence = _FENCE.search(text)
    if fence is not None:
        text, mark, after = text[fence.end() :].partition("```")
        if not mark or "```" in after:
            raise GrammarError("expected exactly one code block")
    try:
        return json.loads(text.strip(), object_pairs_hook=_unique)
    except GrammarError:
        raise
    except (ValueError, RecursionError) as error:  # also: thousands of digits
        raise GrammarError("not a JSON object") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise GrammarError("a key is given twice")
    return found


def _joined(steps: list[Action]) -> Action:
    """One action; an answer right before the end is the end's own."""
    if not steps:
        raise GrammarError("no action")
    for step in steps[:-1]:
        if step.kind in ENDS.values():
            raise GrammarError("actions follow the end")
    last = steps[-1]
    if last.kind is ActionKind.DONE and len(steps) > 1:
        answer = steps[-2]
        if answer.kind is ActionKind.ANSWER and answer.text:
            steps = [*steps[:-2], Action(kind=last.kind, text=answer.text)]
    return steps[0] if len(steps) == 1 else Action(
        kind=ActionKind.SEQUENCE, parts=tuple(steps)
    )  # fmt: skip


def format_android_world(
    action: Action, *, width: int, height: int
) -> dict[str, Any] | list[dict[str, Any]]:
    """AndroidWorld's JSON of `action`, coordinates rounded to pixels on the screen.

    Args:
      action: What to write. A place goes before an index if it has both.
      width: Width of the screen in physical pixels.
      height: Height of the screen in physical pixels.

    Returns:
      A dictionary that `parse_android_world` reads back; a list of them for a SEQUENCE
      and for a DONE with an answer. ESCAPE comes back as BACK.

    Raises:
      ValueError: If the language has no form for `action`, such as a drag that is no
        swipe over the whole screen.

    Example:
      >>> click = Action(kind=ActionKind.CLICK, x=0.25, y=0.5)
      >>> format_android_world(click, width=1080, height=2400)
      {'action_type': 'click', 'x': 270, 'y': 1200}
    """
    if action.kind is ActionKind.SEQUENCE:
        refuse_extras(action, _WHO, "parts")
        if not action.parts:
            raise no_form(action, _WHO)
        found = _write_parts(action.parts, width, height)
        return found[0] if len(found) == 1 else found
    if action.kind is ActionKind.DONE and action.text:
        refuse_extras(action, _WHO, "text")
        answer = Action(kind=ActionKind.ANSWER, text=action.text)
        end = Action(kind=ActionKind.DONE)
        return [_write(one, width, height) for one in (answer, end)]
    return _write(action, width, height)


def _write_parts(
    parts: tuple[Action, ...], width: int, height: int
) -> list[dict[str, Any]]:
    """Dictionaries of a sequence; a click and then text is one of them."""
    written: list[dict[str, Any]] = []
    clicked = False
    for part in parts:
        if part.kind is ActionKind.SEQUENCE:
            raise ValueError(f"{_WHO}: a SEQUENCE must not hold another.")
        found = format_android_world(part, width=width, height=height)
        found = found if isinstance(found, list) else [found]
        if clicked and part.kind is ActionKind.TYPE and not _aim(part, 1, 1):
            place = {name: written[-1][name] for name in written[-1].keys() - _NAME}
            found = [found[0] | place]
            written.pop()
        written += found
        clicked = part.kind is ActionKind.CLICK
    return written


_NAME = {"action_type"}


def _aim(action: Action, width: int, height: int) -> dict[str, int]:
    """Where, if anywhere."""
    if action.x is None and action.y is None:
        return {} if action.widget is None else {"index": action.widget}
    return {
        "x": min(pixel(action.x, width, _WHO), width - 1),
        "y": min(pixel(action.y, height, _WHO), height - 1),
    }


def _write(action: Action, width: int, height: int) -> dict[str, Any]:
    """One dictionary."""
    kind = action.kind
    given: Mapping[str, Any] = {}

    def allow(*fields: str) -> None:
        refuse_extras(action, _WHO, *fields)

    if kind in _TOUCH_NAMES:
        allow("x", "y", "widget")
        name, given = _TOUCH_NAMES[kind], _aim(action, width, height)
        if not given:
            raise ValueError(f"{_WHO}: a place is missing: give both coordinates.")
    elif kind in _DIRECTIONS:
        allow("x", "y", "widget")
        name = "scroll"
        given = {"direction": _DIRECTIONS[kind], **_aim(action, width, height)}
    elif kind is ActionKind.TYPE:
        allow("x", "y", "widget", "text")
        place = _aim(action, width, height)
        name, given = "input_text", {"text": text_to_type(action, _WHO), **place}
        given |= {"clear_text": True} if place else {}
    elif kind is ActionKind.DRAG:
        allow("x", "y", "to_x", "to_y")
        name, given = "swipe", {"direction": _direction(action)}
    elif kind in _NAVIGATION_NAMES:
        allow()
        name = _NAVIGATION_NAMES[kind]
    elif kind is ActionKind.OPEN_APP and action.text.strip():
        allow("text")
        name, given = "open_app", {"app_name": text_to_type(action, _WHO)}
    elif kind is ActionKind.ANSWER:
        allow("text")
        name, given = "answer", {"text": text_to_type(action, _WHO)}
    elif kind in _END_NAMES:
        allow()
        name, given = "status", {"goal_status": _END_NAMES[kind]}
    else:
        raise no_form(action, _WHO)
    return {"action_type": name, **given}


def _direction(action: Action) -> str:
    way = (action.x, action.y, action.to_x, action.to_y)
    for direction, swipe in SWIPES.items():
        if swipe == way:
            return direction
    raise ValueError(
        f"{_WHO}: the language has no form for a DRAG that is not a swipe over the "
        "whole screen, through its middle."
    )
