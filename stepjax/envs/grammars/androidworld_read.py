"""Reading one of AndroidWorld's JSON actions."""

import re
from collections.abc import Mapping
from typing import Any

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import GrammarError
from stepjax.envs.grammars.pieces import place, typing, whole

__all__ = ["ENDS", "NAVIGATION", "SCROLLS", "SWIPES", "TOUCHES", "read_mapping"]

TOUCHES = {
    "click": ActionKind.CLICK,
    "double_tap": ActionKind.DOUBLE_CLICK,
    "long_press": ActionKind.LONG_PRESS,
}
"""Kinds of touches by name."""

NAVIGATION = {
    "navigate_home": ActionKind.HOME,
    "navigate_back": ActionKind.BACK,
    "keyboard_enter": ActionKind.ENTER,
    "wait": ActionKind.WAIT,
}
"""Kinds of actions that take nothing."""

SCROLLS = {
    "down": ActionKind.SCROLL_DOWN,
    "up": ActionKind.SCROLL_UP,
    "left": ActionKind.SCROLL_LEFT,
    "right": ActionKind.SCROLL_RIGHT,
}
"""Kinds of scrolling by direction."""

SWIPES = {
    "down": (0.5, 0.0, 0.5, 1.0),
    "up": (0.5, 1.0, 0.5, 0.0),
    "left": (0.0, 0.5, 1.0, 0.5),
    "right": (1.0, 0.5, 0.0, 0.5),
}
"""Ways of the finger as AndroidWorld takes them: left and right are the scroll's."""

ENDS = {"complete": ActionKind.DONE, "infeasible": ActionKind.FAIL}
"""Kinds of ends by the status of the goal."""

_MOST_ELEMENTS = 10_000
_INDEX = re.compile(r"[0-9]{1,6}")
_KEYS = frozenset(
    "action_type index x y text direction goal_status app_name keycode"
    " clear_text".split()
)


def read_mapping(
    data: object, width: int, height: int, num_elements: int | None
) -> list[Action]:
    """The actions that one dictionary stands for; typing at a place may be two.

    Raises:
      GrammarError: If it is outside the language.
    """
    if not isinstance(data, Mapping):
        raise GrammarError("not a JSON object")
    given = {key: value for key, value in data.items() if value is not None}
    if not _KEYS.issuperset(given):
        raise GrammarError("an unknown key")
    reader = _Reader(given, width, height, num_elements)
    actions = reader.actions()
    if reader.given:
        raise GrammarError("a key that this action does not take")
    return actions


class _Reader:
    """Takes one dictionary apart, so that no key is left unread."""

    def __init__(
        self, given: dict[str, Any], width: int, height: int, num_elements: int | None
    ):
        self.given = given
        self._size = width, height
        self._num_elements = num_elements

    def actions(self) -> list[Action]:
        """What it stands for."""
        name = self._text("action_type")
        if name in TOUCHES:
            return [Action(kind=TOUCHES[name], **self._aim(needed=True))]
        if name in NAVIGATION:
            return [Action(kind=NAVIGATION[name])]
        if name == "scroll":
            return [Action(kind=SCROLLS[self._direction()], **self._aim())]
        if name == "swipe":
            x, y, to_x, to_y = SWIPES[self._direction()]
            return [Action(kind=ActionKind.DRAG, x=x, y=y, to_x=to_x, to_y=to_y)]
        if name == "input_text":
            return self._typing()
        if name == "open_app":
            app = self._text("app_name")
            if not app.strip():
                raise GrammarError("app_name is empty")
            return [Action(kind=ActionKind.OPEN_APP, text=app)]
        if name == "answer":
            return [Action(kind=ActionKind.ANSWER, text=self._text("text"))]
        if name == "status":
            status = self._text("goal_status")
            if status not in ENDS:
                raise GrammarError("goal_status must be complete or infeasible")
            return [Action(kind=ENDS[status])]
        raise GrammarError("unknown action")

    def _typing(self) -> list[Action]:
        text, aim = self._text("text"), self._aim()
        clear = self.given.pop("clear_text", False)
        if not isinstance(clear, bool):
            raise GrammarError("clear_text must be true or false")
        if clear and not aim:
            raise GrammarError("clear_text needs a place or an index")
        if clear or not aim:
            return [Action(kind=ActionKind.TYPE, text=text, **aim)]
        return [
            Action(kind=ActionKind.CLICK, **aim),
            Action(kind=ActionKind.TYPE, text=text),
        ]

    def _text(self, key: str) -> str:
        if key not in self.given:
            raise GrammarError(f"{key} is missing")
        value = self.given.pop(key)
        if not isinstance(value, str):
            raise GrammarError(f"{key} is not text")
        return typing(value).text

    def _direction(self) -> str:
        direction = self._text("direction")
        if direction not in SCROLLS:
            raise GrammarError("direction must be up, down, left or right")
        return direction

    def _aim(self, *, needed: bool = False) -> dict[str, Any]:
        """A place or an index, not both."""
        index = self.given.pop("index", None)
        x, y = place(self.given.pop("x", None), self.given.pop("y", None), *self._size)
        if index is None:
            if x is None and needed:
                raise GrammarError("an index or x and y are needed")
            return {} if x is None else {"x": x, "y": y}
        if x is not None:
            raise GrammarError("either an index or x and y")
        if isinstance(index, str) and _INDEX.fullmatch(index):
            index = int(index)
        most = _MOST_ELEMENTS if self._num_elements is None else self._num_elements
        return {"widget": whole(index, "index", 0, most - 1)}
