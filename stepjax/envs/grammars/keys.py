"""Names of keys: the ones an `Action` may hold, and what X11 calls them."""

import re
import string
from collections.abc import Mapping
from types import MappingProxyType

from stepjax.envs.grammars.calls import GrammarError

__all__ = [
    "KEYS",
    "KEYSYMS",
    "MAX_KEYS",
    "key_name",
    "key_names",
    "pyautogui_key",
]

MAX_KEYS = 5
"""Most keys pressed together: four modifiers and one more."""

_MAX_NAME_CHARS = 32

KEYSYMS: Mapping[str, str] = MappingProxyType(
    {key: key for key in string.ascii_lowercase + string.digits}
    | {f"f{number}": f"F{number}" for number in range(1, 25)}
    | {f"num{digit}": f"KP_{digit}" for digit in range(10)}
    | {
        "ctrl": "Control_L", "ctrlright": "Control_R", "shift": "Shift_L",
        "shiftright": "Shift_R", "alt": "Alt_L", "altright": "Alt_R",
        "meta": "Super_L", "metaright": "Super_R", "menu": "Menu",
        "enter": "Return", "escape": "Escape", "tab": "Tab", "space": "space",
        "backspace": "BackSpace", "delete": "Delete", "insert": "Insert",
        "home": "Home", "end": "End", "pageup": "Page_Up", "pagedown": "Page_Down",
        "up": "Up", "down": "Down", "left": "Left", "right": "Right",
        "capslock": "Caps_Lock", "numlock": "Num_Lock", "scrolllock": "Scroll_Lock",
        "printscreen": "Print", "pause": "Pause", "help": "Help", "clear": "Clear",
        "select": "Select", "execute": "Execute",
        "add": "KP_Add", "subtract": "KP_Subtract", "multiply": "KP_Multiply",
        "divide": "KP_Divide", "decimal": "KP_Decimal", "separator": "KP_Separator",
        "!": "exclam", '"': "quotedbl", "#": "numbersign", "$": "dollar",
        "%": "percent", "&": "ampersand", "'": "apostrophe", "(": "parenleft",
        ")": "parenright", "*": "asterisk", "+": "plus", ",": "comma",
        "-": "minus", ".": "period", "/": "slash", ":": "colon", ";": "semicolon",
        "<": "less", "=": "equal", ">": "greater", "?": "question", "@": "at",
        "[": "bracketleft", "\\": "backslash", "]": "bracketright",
        "^": "asciicircum", "_": "underscore", "`": "grave", "{": "braceleft",
        "|": "bar", "}": "braceright", "~": "asciitilde",
    }
)  # fmt: skip
"""X11's name (keysym) of every key; letters are lower case."""

KEYS = frozenset(KEYSYMS)
"""Every key name there is."""

_PYAUTOGUI = {"meta": "win", "metaright": "winright", "menu": "apps"}
# Keysyms in lower case are names too, so that what xdotool takes is understood.
_ALIASES = {keysym.lower(): name for name, keysym in KEYSYMS.items()} | {
    "control": "ctrl", "ctrlleft": "ctrl", "shiftleft": "shift",
    "altleft": "alt", "option": "alt", "optionleft": "alt", "alt_gr": "altright",
    "altgr": "altright", "optionright": "altright",
    "cmd": "meta", "command": "meta", "win": "meta", "winleft": "meta",
    "windows": "meta", "super": "meta", "meta_l": "meta",
    "winright": "metaright", "meta_r": "metaright", "apps": "menu",
    "return": "enter", "\n": "enter", "\r": "enter", "kp_enter": "enter",
    "esc": "escape", "\t": "tab", " ": "space", "spacebar": "space",
    "\b": "backspace", "del": "delete", "ins": "insert",
    "pgup": "pageup", "page_up": "pageup", "prior": "pageup",
    "pgdn": "pagedown", "page_down": "pagedown", "next": "pagedown",
    "arrowup": "up", "arrowdown": "down", "arrowleft": "left",
    "arrowright": "right", "caps": "capslock",
    "print": "printscreen", "prtsc": "printscreen", "prtscr": "printscreen",
    "prntscrn": "printscreen",
}  # fmt: skip


def key_name(text: str) -> str:
    r"""Canonical name of one key.

    Args:
      text: Such as "Return", "esc", "Control_L", "+", " ".

    Returns:
      An entry of `KEYS`.

    Raises:
      GrammarError: If there is no such key.

    Example:
      >>> key_name("Page_Up"), key_name("\n")
      ('pageup', 'enter')
    """
    if len(text) > _MAX_NAME_CHARS:
        raise GrammarError("unknown key")
    lower = text.lower()
    name = lower if lower in KEYS else _ALIASES.get(lower)
    if name is None:
        raise GrammarError("unknown key")
    return name


def key_names(text: str) -> tuple[str, ...]:
    """Canonical names of the keys in `text`, which spaces or plus signs separate.

    Args:
      text: Such as "ctrl c", "ctrl+c", "Return".

    Returns:
      One to `MAX_KEYS` entries of `KEYS`.

    Raises:
      GrammarError: If there are none, too many, or an unknown one.

    Example:
      >>> key_names("Ctrl Shift Esc")
      ('ctrl', 'shift', 'escape')
    """
    if len(text) > 64:
        raise GrammarError("the list of keys is too long")
    parts = text.split()
    if len(parts) == 1:
        parts = re.split(r"(?<=.)\+(?=.)", parts[0])
    if not 1 <= len(parts) <= MAX_KEYS:
        raise GrammarError(f"expected 1 to {MAX_KEYS} keys, got {len(parts)}")
    return tuple(key_name(part) for part in parts)


def pyautogui_key(name: str) -> str:
    """What pyautogui, and with it OSWorld, calls an entry of `KEYS`.

    Example:
      >>> pyautogui_key("meta"), pyautogui_key("ctrl")
      ('win', 'ctrl')
    """
    return _PYAUTOGUI.get(name, name)
