"""What can be seen and acted on: a pruned walk over the accessibility tree."""

from typing import Any

from gi.repository import GLib  # pyright: ignore[reportMissingImports]
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
_TEXTS = {40, 52, 60, 61, 73, 76, 79}
_MOST_ROWS = 200
_MOST_NODES = 5000
_MAX_TEXT = 200
_MAX_DEPTH = 60
_SCREEN = GLib.Variant("(u)", (0,))
_TEXT_PART = GLib.Variant("(ii)", (0, _MAX_TEXT))


class _Walk:
    """One reading of all applications."""

    def __init__(self, crew: Crew, screen: tuple[int, int]):
        self.found: list[dict[str, Any]] = []
        self._crew = crew
        self._screen = screen
        self._left = _MOST_NODES

    def start(self):
        """Job that sends others to the applications."""
        (refs,) = yield [(DESKTOP, "Accessible", "GetChildren", None)]
        for ref in refs or ():
            self._crew.spawn(self.visit(tuple(ref), 0))

    def visit(self, ref: Ref, depth: int):
        """Job that looks at one object, then sends others to its children."""
        if self._left <= 0 or depth > _MAX_DEPTH:
            return
        self._left -= 1
        bits, role = yield [
            (ref, "Accessible", "GetState", None),
            (ref, "Accessible", "GetRole", None),
        ]
        bits = states(bits)
        if depth > 0 and bits & _SEEN != _SEEN or bits & _BITS["iconified"]:
            return
        if role in ROLES:
            self._crew.spawn(self._describe(ref, role, bits))
        if role not in _LEAVES:
            yield from self._descend(ref, role, bits, depth)

    def _descend(self, ref: Ref, role: int, bits: int, depth: int):
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
        for child in children:
            self._crew.spawn(self.visit(child, depth + 1))

    def _describe(self, ref: Ref, role: int, bits: int):
        asks: list[Ask] = [
            get(ref, "Accessible", "Name"),
            (ref, "Component", "GetExtents", _SCREEN),
        ]
        if role in _TEXTS:
            asks.append((ref, "Text", "GetText", _TEXT_PART))
        name, box, *value = yield asks
        text = next((str(v) for v in value if v is not None), "")
        box = self._clip(box)
        if box is None or not (name or text or role in _TEXTS):
            return
        self.found.append(
            {
                "role": ROLES[role],
                "name": str(name or "")[:_MAX_TEXT],
                "value": text[:_MAX_TEXT],
                "box": box,
                "states": [one for one in _REPORTED if bits & _BITS[one]],
                "ref": f"{ref[0]}{ref[1]}"[:_MAX_TEXT],
            }
        )

    def _clip(self, box: Any) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of what is on the screen, or None."""
        if not isinstance(box, tuple) or len(box) != 4:
            return None
        x, y, width, height = box
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
      `widgets`: a list of dictionaries; `complete`: whether time or number cut it.
    """
    crew = Crew(connection)
    walk = _Walk(crew, screen)
    crew.spawn(walk.start())
    crew.run(seconds)
    walk.found.sort(key=lambda one: (one["box"][1] // 8, one["box"][0]))
    complete = crew.complete and len(walk.found) <= most
    return {"widgets": walk.found[:most], "complete": complete}
