"""How an action is carried out on a phone: commands, and what to make of the answers.

A program yields lists of commands and is sent the list of their results. It returns the
phone's last words: done, raw reward and the observation as JSON. Programs of several
phones are advanced together, so a slow page holds no other back for long.
"""

import json
from collections.abc import Generator, Sequence
from typing import Any

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.mobile import touches
from stepjax.envs.mobile.screen import PhoneScreen

__all__ = [
    "APP", "OTHERS", "PageError", "Program", "bind", "call", "function", "program",
    "read", "result_of",
]  # fmt: skip

APP = "MiniWoB"
"""Name of the app that holds the task, for `open_app` and on the launcher."""

OTHERS = (
    "Calendar", "Camera", "Chrome", "Clock", "Contacts", "Files", "Gallery", "Messages",
    "Music", "Notes", "Phone", "Settings",
)  # fmt: skip
"""Apps beside it, in which there is nothing to do."""

Step = tuple[str, dict[str, Any]]
Program = Generator[list[Step], list[dict[str, Any]], list[Any]]

_SCROLL_SHARE = 0.8  # of what scrolls, per action
_SCROLLS = {
    ActionKind.SCROLL_DOWN: (0, 1),
    ActionKind.SCROLL_UP: (0, -1),
    ActionKind.SCROLL_RIGHT: (1, 0),
    ActionKind.SCROLL_LEFT: (-1, 0),
}
_NAVIGATION = {
    ActionKind.HOME: "HOME",
    ActionKind.BACK: "BACK",
    ActionKind.ESCAPE: "BACK",  # what Android does with that key
    ActionKind.OPEN_APP: "OPEN_APP",
}
_MOST_PARTS = 8


class PageError(RuntimeError):
    """A script in the page failed."""


def function(
    on: str, body: str, arguments: Sequence[Any], *, by_value: bool = True
) -> Step:
    """The command that calls a JavaScript function on an object."""
    return (
        "Runtime.callFunctionOn",
        {
            "objectId": on, "functionDeclaration": f"function{body}",
            "arguments": [{"value": value} for value in arguments],
            "returnByValue": by_value, "awaitPromise": True,
        },
    )  # fmt: skip


def call(method: str, *arguments: Any) -> Step:
    """The command that calls a method of the phone, see `bind`."""
    return function("", f"(...a) {{ return this.{method}(...a); }}", arguments)


def bind(step: Step, phone: str) -> Step:
    """A command for a phone, given its object."""
    method, params = step
    if params.get("objectId") == "":
        return method, params | {"objectId": phone}
    return step


def result_of(reply: dict[str, Any]) -> dict[str, Any]:
    """What a function returned.

    Raises:
      PageError: If it threw.
    """
    if "exceptionDetails" in reply:
        details = reply["exceptionDetails"]
        text = details.get("exception", {}).get("description", details["text"])
        raise PageError(f"the page's script failed: {text}")
    return reply["result"]


def _value(reply: dict[str, Any]) -> Any:
    return result_of(reply).get("value")


def read(steps: list[Step]) -> Program:
    """The program of commands of which the last one says what is seen."""
    replies = yield steps
    return json.loads(_value(replies[-1]))


_PASS = call("pass")
_SETTLE = [*touches.MARK, call("settle")]
_SETTLE_SCROLL = [*touches.MARK, call("settle", 2)]  # frames until a page knows


def program(action: Action, screen: PhoneScreen) -> Program:
    """How `action` is carried out; what a phone cannot do only takes its time.

    Args:
      action: Any action. The parts of a SEQUENCE are carried out one after another.
      screen: Of the phone.
    """
    if action.kind is ActionKind.SEQUENCE and 0 < len(action.parts) <= _MOST_PARTS:
        seen: list[Any] = []
        for part in action.parts:
            seen = yield from program(part, screen)
            if seen[0]:
                break
        return seen
    kind = action.kind
    if kind in (ActionKind.CLICK, ActionKind.DOUBLE_CLICK, ActionKind.LONG_PRESS):
        if not action.keys:
            return (yield from _touch(action, screen))
    elif kind is ActionKind.TYPE:
        return (yield from _type(action, screen))
    elif kind in _SCROLLS:
        return (yield from _scroll(action, screen))
    elif kind is ActionKind.DRAG:
        return (yield from _drag(action, screen))
    elif kind is ActionKind.ENTER or (
        kind is ActionKind.PRESS and action.keys in _KEYS
    ):
        name = action.keys[0] if action.keys else "enter"
        return (yield from _input(touches.key(name)))
    elif kind in _NAVIGATION:
        press = call("press", _NAVIGATION[kind], action.text)
        return (yield from read([press, _PASS]))
    return (yield from read([_PASS]))


_KEYS = {("enter",), ("backspace",), ("tab",)}


def _input(steps: list[Step], then: list[Step] = _SETTLE) -> Program:
    """The program of some input and of what it leads to.

    The answers to the input are awaited first: only then has a tap become a click.
    """
    yield steps
    return (yield from read(then))


def _place(
    action: Action, screen: PhoneScreen
) -> Generator[list[Step], list[dict[str, Any]], tuple[float, float] | None]:
    """Where the finger goes, if anywhere."""
    if action.widget is not None:
        (reply,) = yield [call("spot", action.widget)]
        found = _value(reply)
        return None if found is None else (found[0], found[1])
    if action.x is None or action.y is None:
        return None
    return screen.css_place(action.x, action.y)


def _touch(action: Action, screen: PhoneScreen) -> Program:
    place = yield from _place(action, screen)
    if place is None:
        return (yield from read([_PASS]))
    if action.kind is ActionKind.LONG_PRESS:
        down, up = touches.long_press(*place)
        yield [*down, call("rest", 1000 * touches.LONG_PRESS_SECONDS)]
        return (yield from _input(up))
    twice = action.kind is ActionKind.DOUBLE_CLICK
    return (yield from _input((touches.double_tap if twice else touches.tap)(*place)))


def _type(action: Action, screen: PhoneScreen) -> Program:
    """Tap the field if one is named; its text replaces what the field holds."""
    aimed = action.widget is not None or action.x is not None
    if aimed:
        place = yield from _place(action, screen)
        if place is None:
            return (yield from read([_PASS]))
        yield touches.tap(*place)
    replies = yield [*touches.MARK, call("field", action.text, aimed)]
    if not _value(replies[-1]):
        return (yield from read([_PASS]))
    entered = touches.typed(action.text.split("\n"))
    return (yield from _input(entered or touches.key("backspace")))


def _scroll(action: Action, screen: PhoneScreen) -> Program:
    right, down = _SCROLLS[action.kind]
    x = y = None
    if action.widget is None and action.x is not None and action.y is not None:
        x, y = screen.css_place(action.x, action.y)
    (reply,) = yield [call("area", action.widget, x, y)]
    found = _value(reply)
    if found is None:
        return (yield from read([_PASS]))
    x, y, width, height = found
    way = (_SCROLL_SHARE * right * width, _SCROLL_SHARE * down * height)
    drawn, still, up = touches.scroll(x, y, *way)
    yield [*drawn, call("rest", 1000 * touches.REST_SECONDS), *still]
    return (yield from _input(up, _SETTLE_SCROLL))


def _drag(action: Action, screen: PhoneScreen) -> Program:
    if action.to_x is None or action.to_y is None:
        return (yield from read([_PASS]))
    place = yield from _place(action, screen)
    if place is None:
        return (yield from read([_PASS]))
    end = screen.css_place(action.to_x, action.to_y)
    return (yield from _input(touches.swipe(*place, *end), _SETTLE_SCROLL))
