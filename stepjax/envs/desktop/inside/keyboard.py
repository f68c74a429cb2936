"""Which key, with or without shift, makes which character on this X server."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from Xlib import XK  # pyright: ignore[reportMissingModuleSource]

__all__ = ["Keyboard", "KeyboardError", "character_keysym", "keysym_of"]

_CONTROL = {"\n": "Return", "\r": "Return", "\t": "Tab", "\b": "BackSpace"}
_UNICODE = 0x01000000
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
    """The keyboard's mapping, with spare keys lent to characters it lacks.

    A character keeps the spare key it was lent until all of them are taken: a key whose
    meaning changes while an application is still reading makes wrong characters.
    """

    def __init__(self, display: Any):
        self._display = display
        self._first = display.display.info.min_keycode
        self._count = display.display.info.max_keycode - self._first + 1
        self._lent: OrderedDict[int, int] = OrderedDict()
        self._keys: dict[int, tuple[int, bool]] = {}
        self._spare: list[int] = []

    def refresh(self) -> None:
        """Read the mapping: applications and the user may have changed it."""
        keys: dict[int, tuple[int, bool]] = {}
        spare: list[int] = []
        rows = self._display.get_keyboard_mapping(self._first, self._count)
        for code, row in enumerate(rows, self._first):
            if not any(row):
                spare.append(code)
            # Only the plain and the shifted character: more would need a third key.
            for shifted, keysym in enumerate(row[:2]):
                if keysym and (keysym not in keys or keys[keysym][1] > shifted):
                    keys[keysym] = (code, bool(shifted))
        self._keys, self._spare = keys, spare
        for keysym, code in list(self._lent.items()):
            if keys.get(keysym) != (code, False):
                del self._lent[keysym]

    def prepare(self, keysyms: list[int], quiet: Callable[[], None]) -> None:
        """Lend spare keys to those that no key makes.

        Args:
          keysyms: X's numbers.
          quiet: Called before a key is taken from another character for it; returns
            when applications have read what was typed before.

        Raises:
          KeyboardError: If they are more than there are spare keys.
        """
        wanted = list(dict.fromkeys(keysyms))
        missing = [keysym for keysym in wanted if keysym not in self._keys]
        room = len(self._spare) + len(self._lent)
        if len([k for k in wanted if k not in self._keys or k in self._lent]) > room:
            raise KeyboardError(f"more than {room} characters have no key")
        for keysym in wanted:
            if keysym in self._lent:
                self._lent.move_to_end(keysym)
        if len(missing) > len(self._spare):
            quiet()
        for keysym in missing:
            if self._spare:
                code = self._spare.pop()
            else:
                old, code = self._lent.popitem(last=False)
                del self._keys[old]
            self._display.change_keyboard_mapping(code, [(keysym, keysym)])
            self._lent[keysym] = code
            self._keys[keysym] = (code, False)
        if missing:
            self._display.sync()

    def key(self, keysym: int) -> tuple[int, bool]:
        """Key code, and whether shift must be down; `prepare` it first."""
        return self._keys[keysym]

    @property
    def lendable(self) -> int:
        """How many characters without a key can be typed at a time."""
        return len(self._spare) + len(self._lent)
