"""Carrying out input operations through the X server's test extension."""

import math
import time
from typing import Any

from inside.keyboard import (
    LENT_AT_ONCE,
    Keyboard,
    KeyboardError,
    character_keysym,
    keysym_of,
)
from inside.operations import OperationError
from inside.ping import pinged
from Xlib import X  # pyright: ignore[reportMissingModuleSource]
from Xlib.ext import xtest  # pyright: ignore[reportMissingModuleSource]

__all__ = ["Input"]

# Clicks of two requests are two clicks, however fast the requests come: toolkits take
# what is nearer than 0.4 s (LibreOffice 0.5 s) for a double click.
_APART = 0.55
_LONGEST_STEP = 32
_MOST_STEPS = 24
_DRAG_PAUSE = 0.01
_PING_SECONDS = 2.0
_NOTICE = 0.5
_AFTER_CLICK = 0.1  # editors select a moment after they have read the clicks
_KEYS = ("type", "press", "key")
_PART = LENT_AT_ONCE - 8  # characters; shift may need a key too


class Input:
    """Pointer and keyboard of one display; calls must not overlap.

    Args:
      display: An `Xlib.display.Display` that nobody else uses.
    """

    def __init__(self, display: Any):
        self._display = display
        self._keyboard = Keyboard(display)
        self._held_keys: set[int] = set()
        self._held_buttons: set[int] = set()
        self._last_click = (0, 0, 0.0)
        # A process that is not scheduled for half a second between the two halves of a
        # key press would otherwise type the character many times.
        display.change_keyboard_control(auto_repeat_mode=X.AutoRepeatModeOff)
        display.sync()

    def position(self) -> tuple[int, int]:
        """Where the pointer is."""
        reply = self._display.screen().root.query_pointer()
        return reply.root_x, reply.root_y

    def perform(self, operations: list[dict[str, Any]], deadline: float) -> None:
        """Carry out operations that `check_operations` has accepted.

        Args:
          operations: In order.
          deadline: Time (`time.monotonic`) after which the rest is dropped.

        Raises:
          OperationError: If a key does not exist or the time is up; whatever these
            operations hold down is let go.
        """
        display = self._display
        while display.pending_events():
            display.next_event()  # changes of the mapping, which we read anyway
        try:
            keysyms = [_keysyms(one) for one in operations]
            self._keyboard.refresh()
            self._wait_apart(operations)
            before = ""
            for one, wanted in zip(operations, keysyms, strict=True):
                if time.monotonic() > deadline:
                    raise OperationError("the operations took too long")
                if before in ("click", "button") and one["op"] in _KEYS:
                    self._quiet()
                    time.sleep(_AFTER_CLICK)
                self._one(one, wanted, deadline)
                before = one["op"]
            display.sync()
        except KeyboardError as error:
            self.release()
            raise OperationError(str(error)) from None
        except OperationError:
            self.release()
            raise

    def hold(self, button: int) -> None:
        """Know that a button is held, by whomever."""
        self._held_buttons.add(button)

    def release(self) -> None:
        """Let go of all keys and buttons that are held down."""
        for code in self._held_keys:
            xtest.fake_input(self._display, X.KeyRelease, code)
        for button in self._held_buttons:
            xtest.fake_input(self._display, X.ButtonRelease, button)
        self._held_keys.clear()
        self._held_buttons.clear()
        self._display.sync()

    def _one(self, one: dict[str, Any], keysyms: list[int], deadline: float) -> None:
        kind = one["op"]
        if kind == "move":
            self._move(one["x"], one["y"])
        elif kind == "button":
            self._button(one["button"], one["down"])
        elif kind == "click":
            for _ in range(one["count"]):
                self._button(one["button"], True)
                self._button(one["button"], False)
        elif kind == "key":
            self._hold(keysyms[0], one["down"])
        elif kind == "press":
            self._press(keysyms)
        elif kind == "type":
            self._type(keysyms, deadline)
        else:
            self._display.sync()
            time.sleep(min(one["seconds"], max(0.0, deadline - time.monotonic())))

    def _move(self, x: int, y: int) -> None:
        if not self._held_buttons & {1, 2, 3}:
            self._motion(x, y)
            return
        self._display.sync()
        start_x, start_y = self.position()
        away = math.hypot(x - start_x, y - start_y)
        # Toolkits begin a drag only on the way, not at its end.
        steps = min(_MOST_STEPS, int(away / _LONGEST_STEP) + 1)
        for step in range(1, steps + 1):
            self._motion(
                round(start_x + (x - start_x) * step / steps),
                round(start_y + (y - start_y) * step / steps),
            )
            self._display.flush()
            time.sleep(_DRAG_PAUSE)

    def _motion(self, x: int, y: int) -> None:
        xtest.fake_input(self._display, X.MotionNotify, x=x, y=y)

    def _button(self, button: int, down: bool) -> None:
        event = X.ButtonPress if down else X.ButtonRelease
        xtest.fake_input(self._display, event, button)
        if down:
            self._held_buttons.add(button)
        else:
            self._held_buttons.discard(button)
            if button <= 3:
                self._display.sync()
                self._last_click = (*self.position(), time.monotonic())

    def _wait_apart(self, operations: list[dict[str, Any]]) -> None:
        x, y, when = self._last_click
        left = when + _APART - time.monotonic()
        place = self.position() if left > 0 else (0, 0)
        for one in operations if left > 0 else ():
            if one["op"] == "move":
                place = (one["x"], one["y"])
            elif one["op"] in ("click", "button") and one["button"] <= 3:
                if one.get("down") is not False and math.dist(place, (x, y)) < 16:
                    time.sleep(max(0.0, left))
                return

    def _key(self, code: int, down: bool) -> None:
        xtest.fake_input(self._display, X.KeyPress if down else X.KeyRelease, code)
        if down:
            self._held_keys.add(code)
        else:
            self._held_keys.discard(code)

    def _hold(self, keysym: int, down: bool) -> None:
        self._prepare([keysym])
        code, shifted = self._keyboard.key(keysym)
        codes = [self._shift(), code] if shifted else [code]
        for one in codes if down else reversed(codes):
            self._key(one, down)

    def _prepare(self, keysyms: list[int]) -> None:
        self._keyboard.prepare(keysyms, self._quiet)

    def _quiet(self) -> None:
        """Wait until the active window has read what was typed."""
        self._display.sync()
        if not pinged(self._display, _PING_SECONDS):
            time.sleep(_NOTICE)

    def _press(self, keysyms: list[int]) -> None:
        self._prepare(keysyms)
        codes = []
        for keysym in keysyms:
            code, shifted = self._keyboard.key(keysym)
            if shifted:
                codes.append(self._shift())
            codes.append(code)
        codes = list(dict.fromkeys(codes))
        for code in codes:
            self._key(code, True)
        for code in reversed(codes):
            self._key(code, False)
        self._display.flush()

    def _type(self, keysyms: list[int], deadline: float) -> None:
        for start in range(0, len(keysyms), _PART):
            if time.monotonic() > deadline:
                raise OperationError("typing took too long")
            some = keysyms[start : start + _PART]
            self._prepare(some)
            for keysym in some:
                code, shifted = self._keyboard.key(keysym)
                if shifted:
                    self._key(self._shift(), True)
                self._key(code, True)
                self._key(code, False)
                if shifted:
                    self._key(self._shift(), False)
            self._display.sync()

    def _shift(self) -> int:
        keysym = keysym_of("Shift_L")
        self._keyboard.prepare([keysym], self._quiet)
        return self._keyboard.key(keysym)[0]


def _keysyms(one: dict[str, Any]) -> list[int]:
    """Keys that an operation needs, in order."""
    if one["op"] == "type":
        text = one["text"].replace("\r\n", "\n")
        return [character_keysym(character) for character in text]
    if one["op"] == "press":
        return [keysym_of(name) for name in one["keys"]]
    if one["op"] == "key":
        return [keysym_of(one["keysym"])]
    return []
