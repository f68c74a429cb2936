"""Routes that act and look: `/act`, `/screenshot`, pointer, windows, widgets."""

import json
import platform
import struct
import threading
import time
from typing import Any

from inside.forms import FormError, read_form, read_json
from inside.operations import OperationError, check_operations
from inside.pointer import Input
from inside.reading import Reader
from inside.screen import FORMATS, Screen
from inside.serving import Answer, Request, Route, json_answer
from inside.stacking import uncovered
from inside.windows import Windows
from PIL import Image

__all__ = ["Acting"]

_ACT_SECONDS = 30.0
_MAX_SETTLE = 5000
_MAX_PIXELS = 64 << 20
_WIDGET_SECONDS = 0.3
_TREE_SECONDS = 20.0
_TERMINAL_SECONDS = 5.0


class Acting:
    """What an agent does on a desktop, and what it sees of it.

    Args:
      screen: The picture.
      hands: Pointer and keyboard, on the same display as `screen`.
      windows: The open windows, on a display of their own.
      reader: Reads widgets in a process of its own.
    """

    def __init__(self, screen: Screen, hands: Input, windows: Windows, reader: Reader):
        self._screen = screen
        self._hands = hands
        self._windows = windows
        self._reader = reader
        self._lock = threading.Lock()

    def routes(self) -> dict[tuple[str, str], Route]:
        """The routes by method and path."""
        return {
            ("POST", "/act"): Route(self.act, _ACT_SECONDS),
            ("GET", "/screenshot"): Route(self.screenshot, 10.0),
            ("GET", "/cursor_position"): Route(self.cursor_position, 5.0),
            ("POST", "/screen_size"): Route(self.screen_size, 5.0),
            ("POST", "/window_size"): Route(self.window_size, 5.0),
            ("GET", "/windows"): Route(self.list_windows, 5.0),
            ("POST", "/setup/activate_window"): Route(self.activate_window, 5.0),
            ("POST", "/setup/close_window"): Route(self.close_window, 5.0),
            ("GET", "/accessibility"): Route(self.accessibility, _TREE_SECONDS + 15),
            ("GET", "/terminal"): Route(self.terminal, 20.0),
            ("GET", "/platform"): Route(self.platform, 5.0),
        }

    def act(self, request: Request) -> Answer:
        """Input operations, a pause, a picture and widgets: all in one request."""
        data = read_json(request.body)
        wanted = _Wanted(data)
        screen = self._screen
        try:
            operations = check_operations(
                data.get("operations", []), width=screen.width, height=screen.height
            )
            self._perform(operations, request)
        except OperationError as error:
            raise FormError(str(error)) from None
        time.sleep(wanted.settle)
        reading = None
        if wanted.widgets:
            size = (screen.width, screen.height)
            reading = self._reader.start_widgets(size, _WIDGET_SECONDS)
        head: dict[str, Any] = {"width": screen.width, "height": screen.height}
        picture = b""
        if wanted.format is not None:
            image = self._picture(request, wanted.size)
            picture = screen.encode(image, wanted.format, quality=wanted.quality)
            head["image"] = {
                "format": wanted.format,
                "width": image.width,
                "height": image.height,
            }
        if reading is not None:
            head.update(self._visible(reading.result()))
        text = json.dumps(head).encode()
        start = struct.pack(">I", len(text)) + text
        return Answer(200, "application/x-stepjax-view", start, picture)

    def _visible(self, found: dict[str, Any]) -> dict[str, Any]:
        """Widgets that do not lie under other windows."""
        windows = found.get("windows", [])
        seen = uncovered(found["widgets"], windows, self._windows.stack())
        return {"widgets": seen, "complete": found["complete"]}

    def _perform(self, operations: list[dict[str, Any]], request: Request) -> None:
        if not operations:
            return
        self._enter(request)
        try:
            self._hands.perform(operations, request.deadline - 2.0)
        finally:
            self._lock.release()

    def _picture(
        self, request: Request, size: tuple[int, int] | None = None
    ) -> Image.Image:
        self._enter(request)
        try:
            image = self._screen.grab()
        finally:
            self._lock.release()
        if size is None or size == image.size:
            return image
        return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)

    def _enter(self, request: Request) -> None:
        """Take the display; one request after the other uses it."""
        if not self._lock.acquire(timeout=request.left()):
            raise TimeoutError("another request keeps the screen busy")

    def screenshot(self, request: Request) -> Answer:
        """The whole screen with the pointer, PNG."""
        picture = self._screen.encode(self._picture(request), "png")
        return Answer(200, "image/png", picture)

    def cursor_position(self, request: Request) -> Answer:
        """The pointer's place."""
        self._enter(request)
        try:
            return json_answer(list(self._hands.position()))
        finally:
            self._lock.release()

    def screen_size(self, request: Request) -> Answer:
        """Pixels of the screen."""
        width, height = self._windows.screen_size()
        return json_answer({"width": width, "height": height})

    def window_size(self, request: Request) -> Answer:
        """Pixels of a window, by its class."""
        form = read_form(request.body, request.content_type)
        if "app_class_name" not in form:
            return json_answer({"error": "app_class_name is required"}, 400)
        name = form["app_class_name"].decode("utf-8", "replace")
        size = self._windows.size(name)
        if size is None:
            return json_answer({"error": f"no window of class {name}"}, 404)
        return json_answer({"width": size[0], "height": size[1]})

    def list_windows(self, request: Request) -> Answer:
        """Titles and classes of the open windows."""
        return json_answer(
            [
                {"title": window.title, "class": ".".join(window.names)}
                for window in self._windows.all()
            ]
        )

    def activate_window(self, request: Request) -> Answer:
        """Bring a window to the front."""
        return self._window(request, self._windows.activate, "activated")

    def close_window(self, request: Request) -> Answer:
        """Ask a window to close."""
        return self._window(request, self._windows.close, "closed")

    def _window(self, request: Request, what: Any, done: str) -> Answer:
        data = read_json(request.body)
        name = data.get("window_name")
        if not isinstance(name, str):
            return Answer(400, "text/plain", b"window_name required")
        window = self._windows.find(
            name,
            strict=bool(data.get("strict", False)),
            by_class=bool(data.get("by_class", False)),
        )
        if window is None:
            # As upstream, whose `wmctrl` fails without a word: tasks of OSWorld name
            # windows that another system would show.
            missing = f"Window {name} not found".encode()
            return Answer(404 if data.get("must_exist") else 200, "text/plain", missing)
        what(window)
        return Answer(200, "text/plain", f"Window {done} successfully".encode())

    def accessibility(self, request: Request) -> Answer:
        """All that accessibility tells, as XML in upstream's form."""
        size = (self._screen.width, self._screen.height)
        answer = self._reader.tree(size, _TREE_SECONDS)
        return json_answer({"AT": answer["xml"]})

    def terminal(self, request: Request) -> Answer:
        """Text of the terminal that has the focus, or null."""
        answer = self._reader.terminal(_TERMINAL_SECONDS)
        return json_answer({"output": answer["text"], "status": "success"})

    def platform(self, request: Request) -> Answer:
        """The operating system's name."""
        return Answer(200, "text/plain", platform.system().encode())


class _Wanted:
    """What `/act` is to answer with, checked."""

    def __init__(self, data: dict[str, Any]):
        unknown = set(data) - {"operations", "settle_ms", "image", "widgets"}
        if unknown:
            raise FormError(f"unknown key {sorted(unknown)[0]!r}")
        milliseconds = data.get("settle_ms", 0)
        if type(milliseconds) is not int or not 0 <= milliseconds <= _MAX_SETTLE:
            raise FormError(f"settle_ms must be a whole number in [0, {_MAX_SETTLE}]")
        self.settle = milliseconds / 1000
        self.widgets = data.get("widgets") is True
        image = data.get("image")
        self.format: str | None = None
        self.quality = 90
        self.size: tuple[int, int] | None = None
        if image is None:
            return
        if not isinstance(image, dict) or image.get("format") not in FORMATS:
            raise FormError(f"image.format must be one of {', '.join(FORMATS)}")
        self.format = image["format"]
        self.quality = image.get("quality", 90)
        if type(self.quality) is not int or not 1 <= self.quality <= 95:
            raise FormError("image.quality must be a whole number in [1, 95]")
        size = image.get("size")
        if size is not None:
            sound = isinstance(size, list) and len(size) == 2
            if not sound or not all(type(n) is int and n >= 1 for n in size):
                raise FormError("image.size must be two whole numbers >= 1")
            if size[0] * size[1] > _MAX_PIXELS:
                raise FormError("image.size is too large")
            self.size = (size[0], size[1])
