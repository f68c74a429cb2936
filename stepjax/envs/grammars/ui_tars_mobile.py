"""The phone's part of UI-TARS's action language, as its mobile prompt lists it.

`parse_ui_tars` reads more than a phone can do; here, what is no action of a phone is
invalid, a line break at the end of typed text is the enter key, and a place stands in
`<point>` marks.
"""

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import format_call
from stepjax.envs.grammars.ui_tars import parse_ui_tars
from stepjax.envs.grammars.writing import no_form, pixel, refuse_extras, text_to_type

__all__ = ["MOBILE_ACTIONS", "format_ui_tars_mobile", "parse_ui_tars_mobile"]

MOBILE_ACTIONS = (
    "click(point='<point>x1 y1</point>')",
    "long_press(point='<point>x1 y1</point>')",
    "type(content='')",
    "scroll(point='<point>x1 y1</point>', direction='down or up or right or left')",
    "open_app(app_name='')",
    "drag(start_point='<point>x1 y1</point>', end_point='<point>x2 y2</point>')",
    "press_home()",
    "press_back()",
    "wait()",
    "call_user()",
    "finished(content='')",
)
"""Signatures of the actions, for a prompt."""

_WHO = "format_ui_tars_mobile"
_PLACED = {ActionKind.CLICK: "click", ActionKind.LONG_PRESS: "long_press"}
_SCROLLS = {
    ActionKind.SCROLL_DOWN: "down",
    ActionKind.SCROLL_UP: "up",
    ActionKind.SCROLL_LEFT: "left",
    ActionKind.SCROLL_RIGHT: "right",
}
_BARE = {
    ActionKind.HOME: "press_home",
    ActionKind.BACK: "press_back",
    ActionKind.WAIT: "wait",
    ActionKind.FAIL: "call_user",
}
_WITH_TEXT = (ActionKind.TYPE, ActionKind.OPEN_APP, ActionKind.DONE)
_KINDS = {*_PLACED, *_SCROLLS, *_BARE, *_WITH_TEXT, ActionKind.DRAG}


def parse_ui_tars_mobile(text: str, *, width: int = 1000, height: int = 1000) -> Action:
    r"""The action a response asks for.

    Args:
      text: What the model wrote: `Thought: ...` and `Action: ...`, or the action alone.
      width: Coordinate of the right edge of the screen.
      height: Coordinate of its bottom edge.

    Returns:
      The action, or one of kind INVALID whose text says why; never an exception,
      whatever `text` is. Text that ends with a line break is a SEQUENCE of TYPE and
      ENTER, a line break alone an ENTER.

    Example:
      >>> action = parse_ui_tars_mobile("Action: type(content='ann\\n')")
      >>> [part.kind.name for part in action.parts]
      ['TYPE', 'ENTER']
      >>> parse_ui_tars_mobile("hotkey(key='ctrl c')").text
      'no action of a phone'
    """
    action = parse_ui_tars(text, width=width, height=height)
    if action.kind is ActionKind.INVALID:
        return action
    if action.kind not in _KINDS or action.amount is not None:
        return Action(kind=ActionKind.INVALID, text="no action of a phone")
    if action.kind is ActionKind.OPEN_APP and not action.text.strip():
        return Action(kind=ActionKind.INVALID, text="app_name is empty")
    if action.kind is not ActionKind.TYPE or not action.text.endswith("\n"):
        return action
    enter = Action(kind=ActionKind.ENTER)
    before = action.text[:-1]
    if not before:
        return enter
    typed = Action(kind=ActionKind.TYPE, text=before)
    return Action(kind=ActionKind.SEQUENCE, parts=(typed, enter))


def format_ui_tars_mobile(
    action: Action, *, width: int = 1000, height: int = 1000, thought: str = ""
) -> str:
    """The response that asks for `action`, coordinates rounded to the grid.

    Args:
      action: What to write.
      width: Coordinate of the right edge of the screen.
      height: Coordinate of its bottom edge.
      thought: What to write before it, if anything.

    Returns:
      Text that `parse_ui_tars_mobile` reads back.

    Raises:
      ValueError: If the language has no form for `action`.

    Example:
      >>> format_ui_tars_mobile(Action(kind=ActionKind.CLICK, x=0.25, y=0.5))
      "click(point='<point>250 500</point>')"
    """
    text = _write(action, width, height)
    return f"Thought: {thought}\nAction: {text}" if thought else text


def _write(action: Action, width: int, height: int) -> str:
    kind = action.kind

    def allow(*fields: str) -> None:
        refuse_extras(action, _WHO, *fields)

    def point(x: float | None, y: float | None) -> str:
        return f"<point>{pixel(x, width, _WHO)} {pixel(y, height, _WHO)}</point>"

    if kind in _PLACED:
        allow("x", "y")
        return format_call(_PLACED[kind], point=point(action.x, action.y))
    if kind in _SCROLLS:
        allow("x", "y")
        aimless = action.x is None and action.y is None
        given = {} if aimless else {"point": point(action.x, action.y)}
        return format_call("scroll", **given, direction=_SCROLLS[kind])
    if kind is ActionKind.DRAG:
        allow("x", "y", "to_x", "to_y")
        start, end = point(action.x, action.y), point(action.to_x, action.to_y)
        return format_call("drag", start_point=start, end_point=end)
    if kind in _BARE:
        allow()
        return format_call(_BARE[kind])
    if kind is ActionKind.SEQUENCE or kind is ActionKind.ENTER:
        return format_call("type", content=_entered(action) + "\n")
    if kind is ActionKind.TYPE and not action.text.endswith("\n"):
        allow("text")
        return format_call("type", content=text_to_type(action, _WHO))
    if kind is ActionKind.OPEN_APP and action.text.strip():
        allow("text")
        return format_call("open_app", app_name=text_to_type(action, _WHO))
    if kind is ActionKind.DONE:
        allow("text")
        content = text_to_type(action, _WHO)
        return format_call("finished", **({"content": content} if content else {}))
    raise no_form(action, _WHO)


def _entered(action: Action) -> str:
    """Text that is followed by the enter key."""
    if action.kind is ActionKind.ENTER:
        refuse_extras(action, _WHO)
        return ""
    refuse_extras(action, _WHO, "parts")
    kinds = [part.kind for part in action.parts]
    if kinds != [ActionKind.TYPE, ActionKind.ENTER] or not action.parts[0].text:
        raise no_form(action, _WHO)
    refuse_extras(action.parts[0], _WHO, "text")
    refuse_extras(action.parts[1], _WHO)
    return text_to_type(action.parts[0], _WHO)
