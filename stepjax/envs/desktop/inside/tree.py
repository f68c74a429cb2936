"""The whole accessibility tree as XML, in the form that OSWorld's evaluators read."""

import re
import time
from typing import Any
from xml.etree import ElementTree

from inside.atspi import DESKTOP, STATES, Crew, Ref, get, states

__all__ = ["read_terminal", "read_tree"]

_NAMESPACES = {
    short: f"https://accessibility.ubuntu.example.org/ns/{long}"
    for short, long in (
        ("st", "state"), ("attr", "attributes"), ("cp", "component"),
        ("doc", "document"), ("docattr", "document/attributes"), ("txt", "text"),
        ("val", "value"), ("act", "action"),
    )
}  # fmt: skip
for _short, _uri in _NAMESPACES.items():
    ElementTree.register_namespace(_short, _uri)

_NAME = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
# What XML cannot hold, and the stand-ins for objects and unreadable text.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffb\ufffe\U00010000-\U0010ffff]")
_MAX_DEPTH = 50
_MAX_WIDTH = 1024
_MAX_NODES = 30_000
_MAX_TEXT = 100_000
_SHOWN = (1 << STATES.index("visible")) | (1 << STATES.index("showing"))
_SCREEN = ("u", (0,))
_WHOLE = ("ii", (0, -1))  # LibreOffice gives nothing for an end beyond the last
_VALUES = (
    ("value", "CurrentValue"), ("min", "MinimumValue"), ("max", "MaximumValue"),
    ("step", "MinimumIncrement"),
)  # fmt: skip


def _tag(space: str, name: str) -> str:
    return f"{{{_NAMESPACES[space]}}}{name}"


def _clean(text: Any) -> str:
    return _UNFIT.sub("", str(text))[:_MAX_TEXT]


class _Walk:
    def __init__(self, crew: Crew, only: str | None = None):
        self.root = ElementTree.Element("desktop-frame")
        self._crew = crew
        self._only = only
        self._left = _MAX_NODES

    def start(self):
        """Job that sends others to the applications."""
        (refs,) = yield [(DESKTOP, "Accessible", "GetChildren", None)]
        for ref in refs or ():
            self._spawn(tuple(ref), self.root, 1, "")

    def _spawn(self, ref: Ref, parent: ElementTree.Element, depth: int, flag: str):
        if self._left > 0:
            self._left -= 1
            # In its place at once: jobs end in any order.
            element = ElementTree.SubElement(parent, "unknown")
            self._crew.spawn(self._visit(ref, element, depth, flag))

    def _visit(self, ref: Ref, element: ElementTree.Element, depth: int, flag: str):
        name, bits, role, attributes, interfaces = yield [
            get(ref, "Accessible", "Name"),
            (ref, "Accessible", "GetState", None),
            (ref, "Accessible", "GetRoleName", None),
            (ref, "Accessible", "GetAttributes", None),
            (ref, "Accessible", "GetInterfaces", None),
        ]
        if self._only is not None and depth == 1 and name != self._only:
            return
        role, bits = str(role or "").strip(), states(bits)
        tag = role.replace(" ", "-")
        element.tag = tag if _NAME.fullmatch(tag) else "unknown"
        element.set("name", _clean(name or ""))
        for bit, state in enumerate(STATES):
            if bits >> bit & 1:
                element.set(_tag("st", state), "true")
        for key, value in (attributes or {}).items():
            if _NAME.fullmatch(key):
                element.set(_tag("attr", key), _clean(value))
        flag = "calc" if role == "document spreadsheet" else flag
        names = {one.rpartition(".")[2] for one in interfaces or ()}
        yield from self._describe(ref, element, names, bits)
        if depth >= _MAX_DEPTH:
            return
        if flag == "calc" and role == "table":
            children = yield from _cells(ref)
        else:
            children = yield from _children(ref)
        for child in children:
            self._spawn(child, element, depth + 1, flag)

    def _describe(
        self, ref: Ref, element: ElementTree.Element, names: set[str], bits: int
    ):
        for kind in ("Image", "Selection"):
            if kind in names:
                element.set(kind.lower(), "true")
        asks = []
        if "Component" in names and bits & _SHOWN == _SHOWN:
            asks.append((ref, "Component", "GetExtents", _SCREEN))
        if "Text" in names:
            asks.append((ref, "Text", "GetText", _WHOLE))
        if "Action" in names:
            asks.append((ref, "Action", "GetActions", None))
        if "Value" in names:
            asks += [get(ref, "Value", long) for _, long in _VALUES]
        if not asks:
            return
        answers = yield asks
        found = {ask[2]: answer for ask, answer in zip(asks, answers, strict=True)}
        box, text = found.get("GetExtents"), found.get("GetText")
        if box is not None:
            element.set(_tag("cp", "screencoord"), str(tuple(box[:2])))
            element.set(_tag("cp", "size"), str(tuple(box[2:])))
        if text:
            element.text = _clean(text)
        for name, description, keys in found.get("GetActions") or ():
            name = name.replace(" ", "-")
            if _NAME.fullmatch(name):
                element.set(_tag("act", f"{name}_desc"), _clean(description))
                element.set(_tag("act", f"{name}_kb"), _clean(keys))
        if "Value" in names:
            values = answers[-len(_VALUES) :]
            for (short, _), value in zip(_VALUES, values, strict=True):
                if value is not None:
                    element.set(_tag("val", short), str(value))


def _children(ref: Ref):
    """Children of an object; of very many, the first ones."""
    (count,) = yield [get(ref, "Accessible", "ChildCount")]
    if not isinstance(count, int) or count <= 0:
        return []
    if count <= 4 * _MAX_WIDTH:
        (refs,) = yield [(ref, "Accessible", "GetChildren", None)]
        refs = [tuple(one) for one in (refs or ())[:_MAX_WIDTH]]
    else:
        refs = yield [
            (ref, "Accessible", "GetChildAtIndex", ("i", (index,)))
            for index in range(_MAX_WIDTH)
        ]
    return [tuple(one) for one in refs if one and one[0]]


def _cells(ref: Ref):
    """The cells of a spreadsheet that can be seen: it has 17 billion others."""
    box, columns = yield [
        (ref, "Component", "GetExtents", _SCREEN),
        get(ref, "Table", "NColumns"),
    ]
    if box is None or not columns:
        return []
    x, y, width, height = box
    corners = yield [
        (ref, "Component", "GetAccessibleAtPoint", ("iiu", (*at, 0)))
        for at in ((x + 2, y + 2), (x + width - 2, y + height - 2))
    ]
    if any(corner is None or not corner[0] for corner in corners):
        return []
    first, last = yield [
        (tuple(corner), "Accessible", "GetIndexInParent", None) for corner in corners
    ]
    if first is None or last is None or first < 0:
        return []
    rows = range(first // columns, last // columns + 1)
    across = range(first % columns, last % columns + 1)
    if not 0 < len(rows) * len(across) <= _MAX_NODES:
        return []
    found = yield [
        (ref, "Table", "GetAccessibleAt", ("ii", (row, column)))
        for row in rows
        for column in across
    ]
    return [tuple(one) for one in found if one and one[0]]


def read_tree(connection: Any, *, seconds: float) -> dict[str, Any]:
    """All applications' widgets as `xml`.

    Args:
      connection: See `inside.atspi.connect`.
      seconds: When they have passed, what is known then is the result.
    """
    crew = Crew(connection)
    walk = _Walk(crew)
    crew.spawn(walk.start())
    crew.run(seconds)
    xml = ElementTree.tostring(walk.root, encoding="unicode")
    return {"xml": xml, "complete": crew.complete}


def read_terminal(connection: Any, *, seconds: float) -> dict[str, Any]:
    """The `text` of the terminal window that is active and has the focus, or None.

    Args:
      connection: See `inside.atspi.connect`.
      seconds: Most time it may take.
    """
    began = time.monotonic()
    crew = Crew(connection)
    walk = _Walk(crew, only="gnome-terminal-server")
    crew.spawn(walk.start())
    crew.run(seconds - (time.monotonic() - began))
    active, focused = _tag("st", "active"), _tag("st", "focused")
    texts = [
        terminal.text or ""
        for frame in walk.root.findall("./application/frame")
        if frame.get(active) == "true"
        for terminal in frame.iter("terminal")
        if terminal.get(focused) == "true"
    ]
    return {"text": texts[0].rstrip() if len(texts) == 1 else None}
