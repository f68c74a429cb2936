"""Which key, with or without shift, makes which character on this X server."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from Xlib import XK  # pyright: ignore[reportMissingModuleSource]

__all__ = [
    "LENDABLE", "LENT_AT_ONCE", "Keyboard", "KeyboardError", "character_keysym",
    "keysym_of",
]  # fmt: skip

_CONTROL = {"\n": "Return", "\r": "Return", "\t": "Tab", "\b": "BackSpace"}
_UNICODE = 0x01000000
LENDABLE = range(208, 248)
"""Codes of keys that ordinary keyboards do not have, and layouts fill with none."""
LENT_AT_ONCE = 2 * len(LENDABLE)
"""How many characters without a key of their own can have one at a time."""
XK.load_keysym_group("xf86")


class KeyboardError(ValueError):
    """A character or key name that no key can stand for; the message is one line."""


def character_keysym(character: str) -> int:
    """X's number of a character; line ends, tab and backspace are keys.

    Args:
      character: One character.

    Raises:
      KeyboardError: For other control characters and halves of characters.
    """
    if character in _CONTROL:
        return XK.string_to_keysym(_CONTROL[character])
    code = ord(character)
    if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
        raise KeyboardError(f"the character U+{code:04X} cannot be typed")
    return code if code < 0x100 else _UNICODE + code


def keysym_of(name: str) -> int:
    """X's number of a key by X's name of it, or by the one character it makes.

    Args:
      name: Such as "Return", "Control_L", "a", "é".

    Raises:
      KeyboardError: If there is no such key.
    """
    found = XK.string_to_keysym(name) if name.isascii() else 0
    if not found and len(name) == 1:
        found = character_keysym(name)
    if not found:
        raise KeyboardError(f"there is no key {name[:40]!r}")
    return found


class Keyboard:
    """The keyboard's mapping, with keys lent to characters it lacks.

    The keys lent are those of special keyboards' special buttons. They lie side by
    side, so that one request changes many: after each, every application reads the
    mapping anew and the window manager takes its own keys anew, which is slow. A
    character keeps its place until all are taken: a key whose meaning changes while an
    application is still reading makes wrong characters.
    """

    def __init__(self, display: Any):
        self._display = display
        self._first = display.display.info.min_keycode
        self._count = display.display.info.max_keycode - self._first + 1
        self._keys: dict[int, tuple[int, bool]] = {}
        self._lent: OrderedDict[int, tuple[int, bool]] = OrderedDict()
        self._free: list[tuple[int, bool]] = []

    def refresh(self) -> None:
        """Read the mapping: applications and the user may have changed it."""
        rows = self._display.get_keyboard_mapping(self._first, self._count)
        self._keys, self._free = {}, []
        found: dict[int, tuple[int, bool]] = {}
        for code, row in enumerate(rows, self._first):
            # Only the plain and the shifted character: more would need a third key.
            for shifted, keysym in enumerate(row[:2]):
                place = (code, bool(shifted))
                if code not in LENDABLE:
                    if keysym and self._keys.get(keysym, (0, True))[1]:
                        self._keys[keysym] = place
                elif _is_character(keysym) and keysym not in found:
                    found[keysym] = place
                else:
                    self._free.append(place)
        # In the order of their last use, as far as we know it.
        known = [keysym for keysym in self._lent if keysym in found]
        order = dict.fromkeys([*(k for k in found if k not in self._lent), *known])
        self._lent = OrderedDict((keysym, found[keysym]) for keysym in order)

    def prepare(self, keysyms: list[int], quiet: Callable[[], None]) -> None:
        """Lend keys to those that no key makes.

        Args:
          keysyms: X's numbers, at most `LENT_AT_ONCE` different ones.
          quiet: Called before a key is taken from another character for it; returns
            when applications have read what was typed before.
        """
        missing = []
        for keysym in dict.fromkeys(keysyms):
            if keysym in self._lent:
                self._lent.move_to_end(keysym)
            elif keysym not in self._keys:
                missing.append(keysym)
        if not missing:
            return
        if len(missing) > len(self._free):
            quiet()
        for keysym in missing:
            place = (
                self._free.pop() if self._free else self._lent.popitem(last=False)[1]
            )
            self._lent[keysym] = place
        self._write()

    def _write(self) -> None:
        """Put the characters that keys are lent to on their keys, in one request."""
        rows = [[0, 0] for _ in LENDABLE]
        for keysym, (code, shifted) in self._lent.items():
            rows[code - LENDABLE.start][shifted] = keysym
        # Without a plain character X would move the shifted one into its place.
        pairs = [(plain or shifted, shifted or plain) for plain, shifted in rows]
        self._display.change_keyboard_mapping(LENDABLE.start, pairs)
        self._display.sync()

    def key(self, keysym: int) -> tuple[int, bool]:
        """Key code, and whether shift must be down; `prepare` it first."""
        return self._keys.get(keysym) or self._lent[keysym]


def _is_character(keysym: int) -> bool:
    return 0x20 <= keysym < 0x100 or keysym >= _UNICODE
