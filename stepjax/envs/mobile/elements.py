"""What is on a phone's screen, in the shape AndroidWorld gives to UI elements."""

import dataclasses
from collections.abc import Sequence

from stepjax.envs.base import Widget

__all__ = ["BoundingBox", "UIElement", "ui_elements"]

_PACKAGE = "com.google.androidenv.miniwob"
_CLASSES = {
    "button": "Button", "menu_item": "Button", "tab": "Button", "link": "Button",
    "check_box": "CheckBox", "radio": "RadioButton", "option": "CheckedTextView",
    "text_field": "EditText", "menu": "Spinner", "slider": "SeekBar",
    "icon": "ImageView",
}  # fmt: skip
_CHECKABLE = frozenset({"check_box", "radio", "option"})
_INERT = frozenset({"text", "status", "other"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoundingBox:
    """Edges of an element.

    Attributes:
      x_min: Left.
      x_max: Right.
      y_min: Top.
      y_max: Bottom.
    """

    x_min: float
    x_max: float
    y_min: float
    y_max: float

    @property
    def center(self) -> tuple[float, float]:
        """Its middle, x and y."""
        return (self.x_min + self.x_max) / 2, (self.y_min + self.y_max) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class UIElement:
    """One element; names and meanings are AndroidWorld's.

    Attributes:
      text: Its label, or what a field holds; None if none.
      content_description: Label of what shows a picture only.
      class_name: Of the Android widget it looks like.
      bbox: Edges as shares of the screen.
      bbox_pixels: Edges in physical pixels.
      hint_text: Name of a field.
      is_checked: Checked or chosen.
      is_checkable: Can be checked or chosen.
      is_clickable: A tap may do something.
      is_editable: Takes text.
      is_enabled: Not inert.
      is_focused: Has the focus of the keyboard.
      is_focusable: Can have it.
      is_long_clickable: A long press may do something.
      is_scrollable: Always False: what scrolls is no element of its own here.
      is_selected: The tab or entry that is open.
      is_visible: Always True.
      package_name: Of the app.
      resource_name: None.
      tooltip: None.
      resource_id: None.
    """

    text: str | None
    content_description: str | None
    class_name: str
    bbox: BoundingBox
    bbox_pixels: BoundingBox
    hint_text: str | None
    is_checked: bool
    is_checkable: bool
    is_clickable: bool
    is_editable: bool
    is_enabled: bool
    is_focused: bool
    is_focusable: bool
    is_long_clickable: bool = False
    is_scrollable: bool = False
    is_selected: bool
    is_visible: bool = True
    package_name: str = _PACKAGE
    resource_name: str | None = None
    tooltip: str | None = None
    resource_id: str | None = None


def ui_elements(
    widgets: Sequence[Widget], *, width: int, height: int
) -> tuple[UIElement, ...]:
    """The elements of a screen; an index into them is one into `widgets`.

    Args:
      widgets: From an observation.
      width: Of the screen, in physical pixels.
      height: Of the screen, in physical pixels.

    Example:
      >>> button = Widget(role="button", label="OK", box=(0.0, 0.5, 0.5, 1.0))
      >>> (element,) = ui_elements([button], width=100, height=200)
      >>> element.class_name, element.bbox_pixels.center
      ('android.widget.Button', (25.0, 150.0))
    """
    return tuple(_element(widget, width, height) for widget in widgets)


def _element(widget: Widget, width: int, height: int) -> UIElement:
    left, top, right, bottom = widget.box
    field = widget.role == "text_field"
    picture = widget.role == "icon"
    shown = (widget.value if field or widget.role == "menu" else "") or widget.label
    return UIElement(
        text=None if picture or (field and not widget.value) else shown or None,
        content_description=(widget.label or None) if picture else None,
        class_name=f"android.widget.{_CLASSES.get(widget.role, 'TextView')}",
        bbox=BoundingBox(x_min=left, x_max=right, y_min=top, y_max=bottom),
        bbox_pixels=BoundingBox(
            x_min=round(left * width), x_max=round(right * width),
            y_min=round(top * height), y_max=round(bottom * height),
        ),
        hint_text=(widget.label or None) if field else None,
        is_checked=widget.on and widget.role in _CHECKABLE,
        is_checkable=widget.role in _CHECKABLE,
        is_clickable=widget.role not in _INERT,
        is_editable=field,
        is_enabled=not widget.disabled,
        is_focused=widget.focused,
        is_focusable=widget.role not in _INERT,
        is_selected=widget.on and widget.role not in _CHECKABLE,
    )  # fmt: skip
