"""A stand-in for PyAutoGUI, which Debian does not have, on this desktop's own input.

OSWorld's controllers put `import pyautogui` before everything they run, and its agents'
actions call it. The functions take what PyAutoGUI's take; pauses and easing, which
serve people's eyes, are only as long as they are asked for. Typing is better: every
character has a key, `<` among them.
"""

import sys
import time
from collections import namedtuple
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from inside.pointer import Input  # noqa: E402
from Xlib.display import Display  # noqa: E402 # pyright: ignore[reportMissingModuleSource]

__all__ = [
    "FAILSAFE", "KEYBOARD_KEYS", "KEY_NAMES", "PAUSE", "FailSafeException", "Point",
    "PyAutoGUIException", "Size", "click", "doubleClick", "drag", "dragRel", "dragTo",
    "easeInBounce", "easeInElastic", "easeInOutQuad", "easeInQuad", "easeOutQuad",
    "hold", "hotkey", "hscroll", "isValidKey", "keyDown", "keyUp", "leftClick",
    "linear", "middleClick", "mouseDown", "mouseUp", "move", "moveRel", "moveTo",
    "onScreen", "position", "press", "rightClick", "screenshot", "scroll", "size",
    "sleep", "tripleClick", "typewrite", "vscroll", "write",
]  # fmt: skip

PAUSE = 0.0
FAILSAFE = False
Point = namedtuple("Point", "x y")
Size = namedtuple("Size", "width height")

_NAMES = {
    "alt": "Alt_L", "altleft": "Alt_L", "altright": "Alt_R", "backspace": "BackSpace",
    "capslock": "Caps_Lock", "ctrl": "Control_L", "ctrlleft": "Control_L",
    "ctrlright": "Control_R", "control": "Control_L", "command": "Super_L",
    "del": "Delete", "delete": "Delete", "down": "Down", "end": "End",
    "enter": "Return", "esc": "Escape", "escape": "Escape", "home": "Home",
    "insert": "Insert", "left": "Left", "menu": "Menu", "apps": "Menu",
    "meta": "Super_L", "numlock": "Num_Lock", "option": "Alt_L", "pagedown": "Next",
    "pageup": "Prior", "pause": "Pause", "pgdn": "Next", "pgup": "Prior",
    "printscreen": "Print", "print": "Print", "prtsc": "Print", "return": "Return",
    "right": "Right", "scrolllock": "Scroll_Lock", "shift": "Shift_L",
    "shiftleft": "Shift_L", "shiftright": "Shift_R", "space": "space",
    "super": "Super_L", "tab": "Tab", "up": "Up", "win": "Super_L",
    "winleft": "Super_L", "winright": "Super_R", "add": "KP_Add",
    "subtract": "KP_Subtract", "multiply": "KP_Multiply", "divide": "KP_Divide",
    "decimal": "KP_Decimal", "volumeup": "XF86AudioRaiseVolume",
    "volumedown": "XF86AudioLowerVolume", "volumemute": "XF86AudioMute",
    "\n": "Return", "\r": "Return", "\t": "Tab", "\b": "BackSpace",
    "\x1b": "Escape",
    **{f"f{n}": f"F{n}" for n in range(1, 25)},
    **{f"num{n}": f"KP_{n}" for n in range(10)},
}  # fmt: skip
KEY_NAMES = [*map(chr, range(32, 127)), *_NAMES]
KEYBOARD_KEYS = KEY_NAMES
_BUTTONS = {
    "left": 1, "middle": 2, "right": 3, "primary": 1, "secondary": 3, 1: 1, 2: 2, 3: 3,
}  # fmt: skip

_display = Display()
_input = Input(_display)


class PyAutoGUIException(Exception):  # noqa: N818
    """What PyAutoGUI raises."""


class FailSafeException(PyAutoGUIException):
    """Never raised: the corners of this screen are as good as any place."""


def _perform(*operations: dict[str, Any], pause: float | None = None) -> None:
    _input.perform(list(operations), time.monotonic() + 120.0)
    time.sleep(PAUSE if pause is None else pause)


def _button(name: Any) -> int:
    found = _BUTTONS.get(name.lower() if isinstance(name, str) else name)
    if found is None:
        raise PyAutoGUIException(f"button must be left, middle or right, got {name!r}")
    return found


def _place(x: Any, y: Any) -> tuple[int, int]:
    """A place on the screen; what is not given stays as it is."""
    if isinstance(x, Sequence) and not isinstance(x, str):
        x, y = x[0], x[1]
    here, (width, height) = position(), size()
    x = here.x if x is None else int(x)
    y = here.y if y is None else int(y)
    return min(max(x, 0), width - 1), min(max(y, 0), height - 1)


def _move(x: Any, y: Any, duration: float = 0.0) -> list[dict[str, Any]]:
    to_x, to_y = _place(x, y)
    move = {"op": "move", "x": to_x, "y": to_y}
    if duration <= 0:
        return [move]
    return [{"op": "sleep", "seconds": min(float(duration), 60.0)}, move]


def position(x: Any = None, y: Any = None) -> Any:
    """Where the pointer is."""
    here = _input.position()
    return Point(here[0] if x is None else int(x), here[1] if y is None else int(y))


def size() -> Any:
    """Width and height of the screen."""
    geometry = _display.screen().root.get_geometry()
    return Size(geometry.width, geometry.height)


def onScreen(x: Any, y: Any = None) -> bool:
    """Whether a place is on the screen."""
    x, y = (x[0], x[1]) if y is None else (x, y)
    return 0 <= x < size().width and 0 <= y < size().height


def moveTo(x: Any = None, y: Any = None, duration: float = 0.0, *_: Any, **__: Any):
    """Move the pointer to a place."""
    _perform(*_move(x, y, duration))


def moveRel(xOffset: Any = 0, yOffset: Any = 0, duration: float = 0.0, *_, **__):
    """Move the pointer by so much."""
    if isinstance(xOffset, Sequence):
        xOffset, yOffset = xOffset
    here = position()
    _perform(*_move(here.x + (xOffset or 0), here.y + (yOffset or 0), duration))


move = moveRel


def click(
    x: Any = None,
    y: Any = None,
    clicks: int = 1,
    interval: float = 0.0,
    button: Any = "left",
    duration: float = 0.0,
    **_: Any,
) -> None:
    """Click, so many times."""
    operations = [] if x is None and y is None else _move(x, y, duration)
    number = _button(button)
    if not interval:
        _perform(*operations, {"op": "click", "button": number, "count": int(clicks)})
        return
    _perform(*operations)
    for _unused in range(int(clicks)):
        _perform({"op": "click", "button": number, "count": 1}, pause=interval)


def leftClick(x: Any = None, y: Any = None, *_: Any, **__: Any) -> None:
    """Click the left button."""
    click(x, y)


def rightClick(x: Any = None, y: Any = None, *_: Any, **__: Any) -> None:
    """Click the right button."""
    click(x, y, button="right")


def middleClick(x: Any = None, y: Any = None, *_: Any, **__: Any) -> None:
    """Click the middle button."""
    click(x, y, button="middle")


def doubleClick(
    x: Any = None, y: Any = None, interval: float = 0.0, button="left", **_
):
    """Click twice."""
    click(x, y, 2, interval, button)


def tripleClick(
    x: Any = None, y: Any = None, interval: float = 0.0, button="left", **_
):
    """Click three times."""
    click(x, y, 3, interval, button)


def mouseDown(x: Any = None, y: Any = None, button: Any = "left", **_: Any) -> None:
    """Press a button and hold it."""
    operations = [] if x is None and y is None else _move(x, y)
    _perform(*operations, {"op": "button", "button": _button(button), "down": True})


def mouseUp(x: Any = None, y: Any = None, button: Any = "left", **_: Any) -> None:
    """Let a button go."""
    number = _button(button)
    _input.hold(number)  # another process may have pressed it
    operations = [] if x is None and y is None else _move(x, y)
    _perform(*operations, {"op": "button", "button": number, "down": False})


def dragTo(
    x: Any = None,
    y: Any = None,
    duration: float = 0.0,
    tween: Any = None,
    button: Any = "left",
    mouseDownUp: bool = True,
    **_: Any,
) -> None:
    """Move the pointer to a place with a button held."""
    number = _button(button)
    operations = _move(x, y, duration)
    if mouseDownUp:
        operations.insert(0, {"op": "button", "button": number, "down": True})
        operations.append({"op": "button", "button": number, "down": False})
    else:
        _input.hold(number)
    _perform(*operations)


def dragRel(xOffset: Any = 0, yOffset: Any = 0, duration: float = 0.0, **more: Any):
    """Move the pointer by so much with a button held."""
    here = position()
    dragTo(here.x + (xOffset or 0), here.y + (yOffset or 0), duration, **more)


drag = dragRel


def _wheel(clicks: float, forth: int, back: int, x: Any, y: Any) -> None:
    operations = [] if x is None and y is None else _move(x, y)
    notches = min(abs(int(clicks)), 1000)
    if notches:
        number = forth if clicks > 0 else back
        operations.append({"op": "click", "button": number, "count": notches})
    _perform(*operations)


def scroll(clicks: float, x: Any = None, y: Any = None, **_: Any) -> None:
    """Turn the wheel: up for more than 0, down for less."""
    _wheel(clicks, 4, 5, x, y)


vscroll = scroll


def hscroll(clicks: float, x: Any = None, y: Any = None, **_: Any) -> None:
    """Turn the wheel sideways: right for more than 0, left for less."""
    _wheel(clicks, 7, 6, x, y)


def _key(name: str) -> str:
    return _NAMES.get(name.lower(), name)


def isValidKey(key: str) -> bool:
    """Whether a key has that name."""
    return len(key) == 1 or key.lower() in _NAMES


def keyDown(key: str, **_: Any) -> None:
    """Press a key and hold it."""
    if isValidKey(key):
        _perform({"op": "key", "keysym": _key(key), "down": True})


def keyUp(key: str, **_: Any) -> None:
    """Let a key go."""
    if isValidKey(key):
        _perform({"op": "key", "keysym": _key(key), "down": False})


def press(
    keys: str | Iterable[str], presses: int = 1, interval: float = 0.0, **_: Any
) -> None:
    """Press keys one after the other, so many times; unknown ones are left out."""
    names = [keys] if isinstance(keys, str) else list(keys)
    for _unused in range(int(presses)):
        for name in filter(isValidKey, names):
            _perform({"op": "press", "keys": [_key(name)]}, pause=interval or None)


def hotkey(*args: Any, interval: float = 0.0, **_: Any) -> None:
    """Press keys together."""
    keys = args[0] if len(args) == 1 and not isinstance(args[0], str) else args
    names = [_key(name) for name in keys if isValidKey(name)]
    if names:
        _perform({"op": "press", "keys": names[:8]}, pause=interval or None)


def write(message: str | Iterable[str], interval: float = 0.0, **_: Any) -> None:
    """Type a text, or press keys by name."""
    if not isinstance(message, str):
        press(message, interval=interval)
        return
    for part in message if interval else [message]:
        _perform({"op": "type", "text": part}, pause=interval or None)


typewrite = write


class hold:  # noqa: N801
    """Keys held down within a `with` block."""

    def __init__(self, keys: str | Iterable[str]):
        self._keys = [keys] if isinstance(keys, str) else list(keys)

    def __enter__(self) -> None:
        for key in self._keys:
            keyDown(key)

    def __exit__(self, *_: Any) -> None:
        for key in reversed(self._keys):
            keyUp(key)


def screenshot(imageFilename: Any = None, region: Any = None) -> Any:
    """The screen as a Pillow image, also saved where a file name is given."""
    from PIL import ImageGrab

    image = ImageGrab.grab(xdisplay="").convert("RGB")
    if region is not None:
        left, top, width, height = region
        image = image.crop((left, top, left + width, top + height))
    if imageFilename is not None:
        image.save(imageFilename)
    return image


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def linear(n: float) -> float:
    """Share of the way after that share of the time."""
    return n


easeInQuad = easeOutQuad = easeInOutQuad = linear
easeInBounce = easeInElastic = linear
