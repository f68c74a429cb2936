"""From accessibility's names of things to the widgets that policies and oracles see."""

from typing import Any

from stepjax.envs.base import Widget

__all__ = ["read_widgets"]

_MOST = 1000
_ROLES = {
    "alert": "dialog", "autocomplete": "text_field", "check box": "check_box",
    "check menu item": "menu_item", "column header": "button", "combo box": "option",
    "desktop icon": "icon", "dialog": "dialog", "entry": "text_field",
    "heading": "text", "icon": "icon", "info bar": "status", "label": "text",
    "link": "link", "list item": "list_item", "menu": "menu", "menu item": "menu_item",
    "notification": "status", "page tab": "tab", "paragraph": "text",
    "password text": "text_field", "push button": "button",
    "push button menu": "button", "radio button": "radio",
    "radio menu item": "menu_item", "row header": "button", "slider": "slider",
    "spin button": "text_field", "static": "text", "status bar": "status",
    "switch": "check_box", "table cell": "list_item", "table column header": "button",
    "terminal": "text", "toggle button": "button", "tree item": "list_item",
}  # fmt: skip
_ON = frozenset({"checked", "selected", "expanded", "pressed"})


def read_widgets(found: Any, *, width: int, height: int) -> tuple[Widget, ...]:
    """Widgets out of a desktop's answer.

    Args:
      found: List of dictionaries with role, name, value, box, states and ref.
      width: Pixels of the screen from left to right.
      height: Pixels of the screen from top to bottom.

    Raises:
      KeyError, TypeError, ValueError: If the answer is unsound.
    """
    if not isinstance(found, list) or len(found) > _MOST:
        raise ValueError(f"they must be a list of at most {_MOST}")
    return tuple(_widget(one, width, height) for one in found)


def _widget(one: dict[str, Any], width: int, height: int) -> Widget:
    left, top, right, bottom = (int(edge) for edge in one["box"])
    if not (0 <= left <= right <= width and 0 <= top <= bottom <= height):
        raise ValueError(f"box {one['box']} is not on the screen")
    states = set(one["states"])
    role = str(one["role"])
    if role == "text":  # both a page of text and a line to fill in
        role = "entry" if "editable" in states else "label"
    return Widget(
        role=_ROLES.get(role, "other"),
        label=str(one["name"]),
        value=str(one["value"]),
        box=(left / width, top / height, right / width, bottom / height),
        on=not states.isdisjoint(_ON),
        focused="focused" in states,
        disabled=states.isdisjoint({"sensitive", "enabled"}),
        ref=str(one["ref"]),
    )
