"""What `uiautomator dump` tells of a screen, as widgets."""

import re
import xml.parsers.expat
from collections.abc import Mapping

from stepjax.envs.base import Widget

__all__ = ["read_ui_dump"]

MAX_BYTES = 16 << 20
MAX_WIDGETS = 2000
_MOST_TEXT = 500
_BOUNDS = re.compile(r"\[(-?\d{1,6}),(-?\d{1,6})\]\[(-?\d{1,6}),(-?\d{1,6})\]")
_ROLES = (
    ("edittext", "text_field"), ("autocomplete", "text_field"),
    ("checkbox", "check_box"), ("switch", "check_box"), ("toggle", "check_box"),
    ("radiobutton", "radio"), ("imagebutton", "icon"), ("imageview", "icon"),
    ("button", "button"), ("seekbar", "slider"), ("spinner", "menu"), ("tab", "tab"),
    ("textview", "text"), ("listitem", "list_item"),
)  # fmt: skip
_ROW = 24  # tops closer than this many pixels stand in one line


class _Refused(ValueError):
    """The text is no dump that is read."""


def read_ui_dump(data: bytes, *, width: int, height: int) -> tuple[Widget, ...]:
    """Widgets of a dump: all that is labeled or can be touched, in reading order.

    Args:
      data: XML, and the line that uiautomator may print behind it.
      width: Of the screen in pixels.
      height: Likewise.

    Returns:
      At most `MAX_WIDGETS` of them; an index is the widget's `ref`.

    Raises:
      ValueError: If it is no such XML.

    Example:
      >>> node = '<node class="android.widget.Button" text="OK" bounds="[0,0][10,5]"/>'
      >>> dump = f"<hierarchy>{node}</hierarchy>UI hierarchy dumped to: /dev/tty"
      >>> read_ui_dump(dump.encode(), width=20, height=10)[0].box
      (0.0, 0.0, 0.5, 0.5)
    """
    found: list[tuple[int, int, Widget]] = []

    def start(name: str, attributes: Mapping[str, str]) -> None:
        if name == "node" and len(found) < MAX_WIDGETS:
            entry = _widget(attributes, width, height)
            if entry is not None:
                found.append(entry)

    _parse(_body(data), start)
    found.sort(key=lambda entry: entry[:2])
    return tuple(
        Widget(**{**vars(widget), "ref": str(index)})
        for index, (_, _, widget) in enumerate(found)
    )


def _body(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise _Refused(f"gave {len(data)} bytes, more than {MAX_BYTES}")
    end = data.rfind(b"</hierarchy>")
    if end >= 0:
        return data[: end + len(b"</hierarchy>")]
    empty = re.search(rb"<hierarchy[^<>]*/>", data)
    if empty is None:
        said = " ".join(data[:200].decode("utf-8", "replace").split())
        raise _Refused(f"gave no hierarchy but {said[:80]!r}")
    return data[: empty.end()]


def _parse(body: bytes, start) -> None:
    """Expat without documents that define anything."""
    parser = xml.parsers.expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise _Refused("gave a document with definitions of its own")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except xml.parsers.expat.ExpatError as error:
        raise _Refused(f"gave no proper XML: {error}") from None
    except (ValueError, LookupError, RecursionError) as error:
        raise _Refused(str(error)) from None


def _widget(
    node: Mapping[str, str], width: int, height: int
) -> tuple[int, int, Widget] | None:
    """Line, left edge and widget of a node; None if nobody sees it."""
    bounds = _BOUNDS.fullmatch(node.get("bounds", ""))
    if bounds is None:
        return None
    left, top, right, bottom = (int(edge) for edge in bounds.groups())
    left, right = max(0, left), min(width, right)
    top, bottom = max(0, top), min(height, bottom)
    if left >= right or top >= bottom:
        return None
    text, said = _short(node.get("text")), _short(node.get("content-desc"))

    def is_(name: str) -> bool:
        return node.get(name) == "true"

    role = _role(node.get("class", ""))
    touchable = any(
        is_(name) for name in ("clickable", "long-clickable", "checkable", "scrollable")
    )
    if not (text or said or touchable or role == "text_field"):
        return None
    box = (left / width, top / height, right / width, bottom / height)
    typed = role == "text_field"
    label = (
        (said or _short(node.get("resource-id")).rpartition("/")[2])
        if typed
        else (text or said)
    )
    return (top // _ROW, left, Widget(
        role=role, label=label, value=text if typed else "", box=box,
        on=is_("checked") or is_("selected"), focused=is_("focused"),
        disabled=node.get("enabled") == "false",
    ))  # fmt: skip


def _role(name: str) -> str:
    name = name.rpartition(".")[2].lower()
    return next((role for part, role in _ROLES if part in name), "other")


def _short(text: str | None) -> str:
    return " ".join((text or "").split())[:_MOST_TEXT]
