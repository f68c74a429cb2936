"""What a page can do of an action, and how its script is asked for it.

Pages take clicks (single, double, triple, right), moves, typing, vertical scrolling and
single keys. Everything else is a WAIT: it takes a step and changes nothing. That holds
for a SEQUENCE of several parts, held keys, several keys at once, drags, horizontal
scrolling, middle clicks, a button or key that goes down and stays down, and the kinds
of phones.
"""

from typing import Any

from stepjax.envs.actions import Action, ActionKind

__all__ = ["doable", "page_request"]

_CLICKS = frozenset(
    {ActionKind.CLICK, ActionKind.DOUBLE_CLICK, ActionKind.TRIPLE_CLICK}
    | {ActionKind.RIGHT_CLICK}
)
_DOABLE = _CLICKS | {
    ActionKind.TYPE, ActionKind.SCROLL_DOWN, ActionKind.SCROLL_UP, ActionKind.ENTER,
    ActionKind.ESCAPE, ActionKind.MOVE, ActionKind.PRESS, ActionKind.WAIT,
    ActionKind.DONE, ActionKind.FAIL,
}  # fmt: skip
# What key events call the keys whose names are more than one letter.
_PAGE_KEYS = {
    "enter": "Enter", "escape": "Escape", "tab": "Tab", "space": " ",
    "backspace": "Backspace", "delete": "Delete", "home": "Home", "end": "End",
    "pageup": "PageUp", "pagedown": "PageDown", "up": "ArrowUp", "down": "ArrowDown",
    "left": "ArrowLeft", "right": "ArrowRight",
}  # fmt: skip


def doable(action: Action) -> Action:
    """The action itself, the only part of it, or WAIT if a page cannot do it.

    Example:
      >>> drag = Action(kind=ActionKind.DRAG, x=0.1, y=0.1, to_x=0.5, to_y=0.5)
      >>> doable(drag).kind.name
      'WAIT'
    """
    if action.kind is ActionKind.SEQUENCE and len(action.parts) == 1:
        action = action.parts[0]
    held = action.kind in _CLICKS and action.keys
    together = action.kind is ActionKind.PRESS and len(action.keys) > 1
    if held or together or action.kind not in _DOABLE:
        return Action(kind=ActionKind.WAIT)
    return action


def page_request(action: Action) -> list[Any]:
    """A `doable` action as the script in the page takes it."""
    keys = [_PAGE_KEYS.get(key, key) for key in action.keys]
    return [
        action.kind.name, action.widget, action.x, action.y, action.text, keys,
    ]  # fmt: skip
