"""The open windows, by the window manager's own list: titles, classes, front, close."""

import threading
import time
from typing import Any

from Xlib import X, error  # pyright: ignore[reportMissingModuleSource]
from Xlib.protocol import event  # pyright: ignore[reportMissingModuleSource]

__all__ = ["Window", "Windows"]

_PAGER = 2  # source of a request: not an application, so it is obeyed
_ASK_AGAIN = 0.5  # seconds after which a request to come to the front is repeated
_TIMES = 4
_POLL = 0.02


class Window:
    """One top-level window.

    Attributes:
      handle: X's object.
      title: What its title bar shows.
      names: Instance and class name, such as "xterm" and "XTerm".
    """

    def __init__(self, handle: Any, title: str, names: tuple[str, ...]):
        self.handle = handle
        self.title = title
        self.names = names


class Windows:
    """Reads and directs top-level windows.

    Args:
      display: An `Xlib.display.Display` that nobody else uses.
    """

    def __init__(self, display: Any):
        self._display = display
        self._root = display.screen().root
        self._lock = threading.Lock()

    def all(self) -> list[Window]:
        """The windows, oldest first."""
        with self._lock:
            return self._all()

    def find(
        self, name: str, *, strict: bool = False, by_class: bool = False
    ) -> Window | None:
        """A window, as `wmctrl` would choose it.

        Args:
          name: Part of the title, whatever its case.
          strict: The whole title, in its case.
          by_class: Compare with "instance.class" instead of the title.
        """
        for window in self.all():
            text = ".".join(window.names) if by_class else window.title
            if text == name if strict else name.lower() in text.lower():
                return window
        return None

    def activate(self, window: Window) -> None:
        """Bring a window to the front, out of its icon, with the focus.

        Waits until it is there, for the keys that follow are meant for it; a window
        that opens just then can take the focus back, so the request is repeated. One
        that never gets it, such as the owner of a modal dialog, is left after 2 s.
        """
        for _ in range(_TIMES):
            self._send(window, "_NET_ACTIVE_WINDOW", [_PAGER, X.CurrentTime, 0, 0, 0])
            end = time.monotonic() + _ASK_AGAIN
            while time.monotonic() < end:
                if self._active() == window.handle.id:
                    return
                time.sleep(_POLL)

    def close(self, window: Window) -> None:
        """Ask a window to close; it may ask back."""
        self._send(window, "_NET_CLOSE_WINDOW", [X.CurrentTime, _PAGER, 0, 0, 0])

    def size(self, class_name: str) -> tuple[int, int] | None:
        """Width and height of the first window of that class, or None."""
        for window in self.all():
            if class_name.lower() in (name.lower() for name in window.names):
                with self._lock:
                    geometry = window.handle.get_geometry()
                return geometry.width, geometry.height
        return None

    def screen_size(self) -> tuple[int, int]:
        """Width and height of the screen, as it is now."""
        with self._lock:
            geometry = self._root.get_geometry()
        return geometry.width, geometry.height

    def stack(self) -> list[tuple[str, tuple[int, int, int, int]]]:
        """Title and left, top, width, height of all that lies on the screen.

        Menus and tool tips, which have no title, are among them; the lowest is first.
        """
        with self._lock:
            found = []
            for window in self._root.query_tree().children:
                try:
                    if window.get_attributes().map_state != X.IsViewable:
                        continue
                    box = window.get_geometry()
                    titles = [self._title(window)] + [
                        self._title(child) for child in window.query_tree().children
                    ]
                except error.XError:
                    continue  # closed meanwhile
                title = next((title for title in titles if title), "")
                found.append((title, (box.x, box.y, box.width, box.height)))
            return found

    def _all(self) -> list[Window]:
        listed = self._root.get_full_property(
            self._display.intern_atom("_NET_CLIENT_LIST"), X.AnyPropertyType
        )
        found = []
        for number in listed.value if listed else ():
            handle = self._display.create_resource_object("window", number)
            try:
                names = handle.get_wm_class() or ()
                found.append(Window(handle, self._title(handle), tuple(names)))
            except error.XError:
                continue  # closed meanwhile
        return found

    def _active(self) -> int | None:
        with self._lock:
            found = self._root.get_full_property(
                self._display.intern_atom("_NET_ACTIVE_WINDOW"), X.AnyPropertyType
            )
        return found.value[0] if found and len(found.value) else None

    def _title(self, handle: Any) -> str:
        for atom in ("_NET_WM_NAME", "WM_NAME"):
            value = handle.get_full_property(
                self._display.intern_atom(atom), X.AnyPropertyType
            )
            if value is not None and value.value:
                data = value.value
                raw = data if isinstance(data, bytes) else str(data).encode()
                return raw.decode("utf-8", "replace")
        return ""

    def _send(self, window: Window, message: str, data: list[int]) -> None:
        with self._lock:
            notice = event.ClientMessage(
                window=window.handle,
                client_type=self._display.intern_atom(message),
                data=(32, data),
            )
            mask = X.SubstructureRedirectMask | X.SubstructureNotifyMask
            self._root.send_event(notice, event_mask=mask)
            self._display.sync()
