"""What can be seen and acted on: a pruned walk over the accessibility tree."""

import dataclasses
from typing import Any

from inside.atspi import DESKTOP, STATES, Ask, Crew, Ref, get, states

__all__ = ["ROLES", "read_widgets"]

ROLES = {
    2: "alert", 7: "check box", 8: "check menu item", 10: "column header",
    11: "combo box", 13: "desktop icon", 16: "dialog", 26: "icon", 29: "label",
    32: "list item", 33: "menu", 35: "menu item", 37: "page tab",
    40: "password text", 43: "push button", 44: "radio button",
    45: "radio menu item", 47: "row header", 51: "slider", 52: "spin button",
    54: "status bar", 56: "table cell", 57: "table column header", 60: "terminal",
    61: "text", 62: "toggle button", 73: "paragraph", 76: "autocomplete",
    79: "entry", 83: "heading", 88: "link", 91: "tree item", 101: "notification",
    102: "info bar", 116: "static", 129: "push button menu", 130: "switch",
}  # fmt: skip
"""AT-SPI's numbers of the roles that are reported, with their names."""

_BITS = {name: 1 << bit for bit, name in enumerate(STATES)}
_SEEN = _BITS["showing"] | _BITS["visible"]
_REPORTED = (
    "checked", "selected", "expanded", "focused", "sensitive", "enabled", "editable",
    "pressed",
)  # fmt: skip
_MENUS = {33}
# Hold no widgets of their own, or too many (spreadsheet cells): asked for no children.
_LEAVES = {29, 35, 43, 48, 50, 51, 52, 60, 62, 116}
_TABLES = {55, 66, 65, 31, 30, 98}
_TEXTS = {29, 40, 52, 60, 61, 73, 76, 79}
_LABEL, _MENU_BAR, _ROOT_PANE = 29, 34, 46
_MOST_ROWS = 200
_MOST_NODES = 5000
_MAX_TEXT = 200
_MAX_DEPTH = 60
_SCREEN = ("u", (0,))
_WHOLE = ("ii", (0, -1))  # LibreOffice gives nothing for an end beyond the last


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where in the tree an object is.

    Attributes:
      parent: The object above, if it is not an application.
      depth: 0 for an application, 1 for its windows.
      window: Number of its window, -1 where that is not known.
      shift: How much further right and down things are than they say.
    """

    parent: Ref | None = None
    depth: int = 0
    window: int = -1
    shift: tuple[int, int] = (0, 0)


class _Walk:
    """One reading of all applications."""

    def __init__(self, crew: Crew, screen: tuple[int, int]):
        self.found: list[dict[str, Any]] = []
        self.windows: list[dict[str, Any]] = []
        self._crew = crew
        self._screen = screen
        self._left = _MOST_NODES

    def start(self):
        """Job that sends others to the applications."""
        (refs,) = yield [(DESKTOP, "Accessible", "GetChildren", None)]
        for ref in refs or ():
            self._crew.spawn(self.visit(tuple(ref), _Place()))

    def visit(self, ref: Ref, place: _Place):
        """Job that looks at one object, then sends others to its children."""
        if self._left <= 0 or place.depth > _MAX_DEPTH:
            return
        self._left -= 1
        bits, role = yield [
            (ref, "Accessible", "GetState", None),
            (ref, "Accessible", "GetRole", None),
        ]
        bits = states(bits)
        if place.depth > 0 and bits & _SEEN != _SEEN or bits & _BITS["iconified"]:
            return
        if place.depth == 1:
            place = yield from self._window(ref, place)
        elif role in (_MENU_BAR, _ROOT_PANE):
            shifted = yield from self._shifted(ref, role, place)
            if shifted is None:
                return
            place = shifted
        if role in ROLES:
            self._crew.spawn(self._describe(ref, role, bits, place))
        if role not in _LEAVES:
            yield from self._descend(ref, role, bits, place)

    def _window(self, ref: Ref, place: _Place):
        name, box = yield [
            get(ref, "Accessible", "Name"),
            (ref, "Component", "GetExtents", _SCREEN),
        ]
        self.windows.append({"name": name, "box": box})
        return dataclasses.replace(place, window=len(self.windows) - 1)

    def _shifted(self, ref: Ref, role: int, place: _Place):
        """LibreOffice: a menu bar twice, of which one has no height; and all that it
        draws itself is reported as if the other were not there.
        """  # noqa: D205
        asks: list[Ask] = [(ref, "Component", "GetExtents", _SCREEN)]
        if role == _ROOT_PANE and place.parent is not None:
            asks.append((place.parent, "Component", "GetExtents", _SCREEN))
        own, *above = yield asks
        if role == _MENU_BAR and own is not None and own[3] <= 0:
            return None
        if own is None or not above or above[0] is None or above[0][2:] != own[2:]:
            return place
        shift = (above[0][0] - own[0], above[0][1] - own[1])
        return dataclasses.replace(place, shift=shift)

    def _descend(self, ref: Ref, role: int, bits: int, place: _Place):
        if role in _TABLES or bits & _BITS["manages_descendants"]:
            (count,) = yield [get(ref, "Accessible", "ChildCount")]
            if not isinstance(count, int) or not 0 < count <= _MOST_ROWS:
                return
        (children,) = yield [(ref, "Accessible", "GetChildren", None)]
        children = [tuple(child) for child in children or () if child[0]]
        if role in _MENUS and children:
            # A closed menu has dozens of hidden items: two of them tell.
            asks: list[Ask] = [
                (child, "Accessible", "GetState", None)
                for child in (children[0], children[-1])
            ]
            answers = yield asks
            if not any(states(bits) & _BITS["showing"] for bits in answers):
                return
        parent = ref if place.depth > 0 else None
        below = dataclasses.replace(place, parent=parent, depth=place.depth + 1)
        if role in _MENUS:
            # What pops up lies over its window, in one that accessibility hides.
            below = dataclasses.replace(below, window=-1)
        for child in children:
            self._crew.spawn(self.visit(child, below))

    def _describe(self, ref: Ref, role: int, bits: int, place: _Place):
        asks: list[Ask] = [
            get(ref, "Accessible", "Name"),
            (ref, "Component", "GetExtents", _SCREEN),
            (ref, "Accessible", "GetAttributes", None)
            if place.shift != (0, 0)
            else (ref, "Accessible", "GetRole", None),
        ]
        if role in _TEXTS:
            asks.append((ref, "Text", "GetText", _WHOLE))
        name, box, attributes, *value = yield asks
        # GTK's own widgets inside LibreOffice know where they are.
        native = isinstance(attributes, dict) and attributes.get("toolkit") == "gtk"
        box = self._clip(box, (0, 0) if native else place.shift)
        text = next((str(v) for v in value if v is not None), "")
        if role == _LABEL:
            name, text = name or text, ""
        if box is None or not (name or text or role in _TEXTS):
            return
        self.found.append(
            {
                "role": ROLES[role],
                "name": str(name or "").strip()[:_MAX_TEXT],
                "value": text[:_MAX_TEXT],
                "box": box,
                "states": [one for one in _REPORTED if bits & _BITS[one]],
                "window": place.window,
                "ref": f"{ref[0]}{ref[1]}"[:_MAX_TEXT],
            }
        )

    def _clip(
        self, box: Any, shift: tuple[int, int]
    ) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of what is on the screen, or None."""
        if not isinstance(box, tuple) or len(box) != 4:
            return None
        x, y, width, height = box[0] + shift[0], box[1] + shift[1], box[2], box[3]
        left, top = max(0, x), max(0, y)
        right = min(self._screen[0], x + width)
        bottom = min(self._screen[1], y + height)
        return (left, top, right, bottom) if right > left and bottom > top else None


def read_widgets(
    connection: Any, screen: tuple[int, int], *, seconds: float, most: int
) -> dict[str, Any]:
    """Visible, named, actionable things, in reading order.

    Args:
      connection: See `inside.atspi.connect`.
      screen: Width and height in pixels.
      seconds: When this much time has passed, what is known by then is the answer.
      most: Most widgets.

    Returns:
      `widgets`: a list of dictionaries, and `windows`, into which they count;
      `complete`: whether time or number cut it.
    """
    crew = Crew(connection)
    walk = _Walk(crew, screen)
    crew.spawn(walk.start())
    crew.run(seconds)
    walk.found.sort(key=lambda one: (one["box"][1] // 8, one["box"][0]))
    complete = crew.complete and len(walk.found) <= most
    return {
        "widgets": walk.found[:most],
        "windows": walk.windows,
        "complete": complete,
    }
