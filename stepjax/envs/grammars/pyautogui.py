r"""OSWorld's pyautogui programs: several statements, or WAIT, DONE or FAIL alone.

A program may stand in a code fence with prose around it. Coordinates are pixels. The
text is scanned, never run: functions are known by name, arguments are literals, and how
long a movement or a keystroke takes is left to the backend. `pyperclip.copy(text)`
right before ctrl+v, which UI-TARS' own converter writes, is typing.
"""

import re

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import GrammarError
from stepjax.envs.grammars.keys import pyautogui_key
from stepjax.envs.grammars.pieces import split
from stepjax.envs.grammars.programs import MAX_PROGRAM_CHARS, scan_program
from stepjax.envs.grammars.pyautogui_calls import Reader
from stepjax.envs.grammars.writing import (
    button,
    no_form,
    notches,
    pixel,
    refuse_extras,
    seconds,
    text_to_type,
)

__all__ = ["format_pyautogui", "parse_pyautogui"]

_ALONE = {
    "WAIT": ActionKind.WAIT,
    "DONE": ActionKind.DONE,
    "FAIL": ActionKind.FAIL,
}
_FENCE = re.compile(r"^[ \t]*```(?:(?:python3?|py|code)\b)?", re.MULTILINE | re.I)
_PLACED = {
    ActionKind.CLICK: "click",
    ActionKind.RIGHT_CLICK: "rightClick",
    ActionKind.MIDDLE_CLICK: "middleClick",
    ActionKind.DOUBLE_CLICK: "doubleClick",
    ActionKind.TRIPLE_CLICK: "tripleClick",
    ActionKind.MOVE: "moveTo",
}
_SCROLLS = {
    ActionKind.SCROLL_UP: ("scroll", 1),
    ActionKind.SCROLL_DOWN: ("scroll", -1),
    ActionKind.SCROLL_RIGHT: ("hscroll", 1),
    ActionKind.SCROLL_LEFT: ("hscroll", -1),
}
_HELD = {
    ActionKind.MOUSE_DOWN: "mouseDown",
    ActionKind.MOUSE_UP: "mouseUp",
    ActionKind.KEY_DOWN: "keyDown",
    ActionKind.KEY_UP: "keyUp",
}
_KEYS = {ActionKind.ENTER: ("enter",), ActionKind.ESCAPE: ("escape",)}
_WHO = "format_pyautogui"


def parse_pyautogui(text: str, *, width: int, height: int) -> Action:
    """The action a pyautogui program asks for.

    Args:
      text: What the model wrote: a program, WAIT, DONE or FAIL, or prose with one code
        fence that holds one of these.
      width: Width of the screen in pixels.
      height: Height of the screen in pixels.

    Returns:
      The action, a SEQUENCE if there are several, or one of kind INVALID whose text
      says why; never an exception, whatever `text` is.

    Example:
      >>> program = "import pyautogui; pyautogui.click(x=100, y=200)"
      >>> action = parse_pyautogui(program, width=1000, height=800)
      >>> action.kind.name, action.x, action.y
      ('CLICK', 0.1, 0.25)
      >>> parse_pyautogui("__import__('os')", width=1000, height=800).kind.name
      'INVALID'
    """
    try:
        if not isinstance(text, str):
            raise GrammarError("the response is not text")
        if len(text) > MAX_PROGRAM_CHARS:
            raise GrammarError(f"longer than {MAX_PROGRAM_CHARS} characters")
        fence = _FENCE.search(text)
        try:
            return _parse_program(text, width, height)
        except GrammarError:
            if fence is None:
                raise
        inside, mark, after = text[fence.end() :].partition("```")
        if not mark or "```" in after:
            raise GrammarError("expected exactly one code block")
        return _parse_program(inside, width, height)
    except GrammarError as error:
        return Action(kind=ActionKind.INVALID, text=str(error))


def _parse_program(text: str, width: int, height: int) -> Action:
    word = text.strip()
    if word in _ALONE:
        return Action(kind=_ALONE[word])
    reader = Reader(width, height)
    for statement in scan_program(text):
        reader.read(statement)
    return reader.action()


def format_pyautogui(action: Action, *, width: int, height: int) -> str:
    """The program that asks for `action`, coordinates rounded to pixels.

    Args:
      action: What to write.
      width: Width of the screen in pixels.
      height: Height of the screen in pixels.

    Returns:
      Text that `parse_pyautogui` reads back, one statement a line. A scroll without
      an amount comes back with `pieces.DEFAULT_NOTCHES`.

    Raises:
      ValueError: If the language has no form for `action`.

    Example:
      >>> click = Action(kind=ActionKind.CLICK, x=0.1, y=0.25)
      >>> format_pyautogui(click, width=1000, height=800)
      'pyautogui.click(100, 200)'
    """
    if action.kind in _ALONE.values() and action.amount is None:
        refuse_extras(action, _WHO)
        return action.kind.name
    lines = [_line(step, width, height) for step in split(action, _WHO)]
    text = "\n".join(lines)
    if len(text) > MAX_PROGRAM_CHARS:
        raise ValueError(
            f"{_WHO}: the program has {len(text)} characters, may have"
            f" {MAX_PROGRAM_CHARS}: write fewer actions at once."
        )
    return text


def _line(step: Action, width: int, height: int) -> str:
    """One statement."""
    kind = step.kind
    place = []
    if step.x is not None or step.y is not None or kind is ActionKind.MOVE:
        place = [f"{pixel(step.x, width, _WHO)}", f"{pixel(step.y, height, _WHO)}"]
    if kind in _PLACED:
        refuse_extras(step, _WHO, "x", "y")
        return _call(_PLACED[kind], *place)
    if kind in _SCROLLS:
        refuse_extras(step, _WHO, "x", "y", "amount")
        name, sign = _SCROLLS[kind]
        return _call(name, str(sign * notches(step, _WHO)), *place)
    match kind:
        case ActionKind.DRAG:
            refuse_extras(step, _WHO, "to_x", "to_y", "button")
            to = str(pixel(step.to_x, width, _WHO)), str(pixel(step.to_y, height, _WHO))
            return _call(
                "dragTo", *to, "duration=0.5", f"button={button(step, _WHO)!r}"
            )
        case ActionKind.MOUSE_DOWN | ActionKind.MOUSE_UP:
            refuse_extras(step, _WHO, "x", "y", "button")
            return _call(_HELD[kind], *place, f"button={button(step, _WHO)!r}")
        case ActionKind.KEY_DOWN | ActionKind.KEY_UP if len(step.keys) == 1:
            refuse_extras(step, _WHO, "keys")
            return _call(_HELD[kind], repr(pyautogui_key(step.keys[0])))
        case ActionKind.PRESS | ActionKind.ENTER | ActionKind.ESCAPE:
            refuse_extras(step, _WHO, *(["keys"] if kind is ActionKind.PRESS else []))
            return _press(_KEYS.get(kind, step.keys))
        case ActionKind.TYPE:
            refuse_extras(step, _WHO, "text")
            return _call("write", repr(text_to_type(step, _WHO)))
        case ActionKind.WAIT if step.amount is not None:
            refuse_extras(step, _WHO, "amount")
            return f"time.sleep({seconds(step, _WHO)!r})"
        case _:
            raise no_form(step, _WHO)


def _call(name: str, *arguments: str) -> str:
    return f"pyautogui.{name}({', '.join(arguments)})"


def _press(keys: tuple[str, ...]) -> str:
    if not keys:
        raise ValueError(f"{_WHO}: PRESS needs keys, has none.")
    names = [repr(pyautogui_key(key)) for key in keys]
    return _call("press" if len(names) == 1 else "hotkey", *names)
