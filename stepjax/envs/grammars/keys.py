"""Names of keys: the ones an `Action` of kind PRESS may hold."""

import re
import string

from stepjax.envs.grammars.calls import GrammarError

__all__ = ["KEYS", "MAX_KEYS", "key_names"]

MAX_KEYS = 4
"""Most keys pressed together."""

KEYS = frozenset(
    {"ctrl", "shift", "alt", "meta", "enter", "escape", "tab", "space", "backspace"}
    | {"delete", "insert", "home", "end", "pageup", "pagedown", "capslock", "menu"}
    | {"up", "down", "left", "right", "printscreen"}
    | {f"f{number}" for number in range(1, 13)}
    | set(string.ascii_lowercase + string.digits + string.punctuation)
)
"""Every key name there is; letters are lower case."""

_ALIASES = {
    "control": "ctrl",
    "cmd": "meta",
    "command": "meta",
    "win": "meta",
    "super": "meta",
    "option": "alt",
    "return": "enter",
    "esc": "escape",
    "del": "delete",
    "pgup": "pageup",
    "page_up": "pageup",
    "pgdn": "pagedown",
    "page_down": "pagedown",
    "arrowup": "up",
    "arrowdown": "down",
    "arrowleft": "left",
    "arrowright": "right",
}


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
    parts = text.lower().split()
    if len(parts) == 1:
        parts = re.split(r"(?<=.)\+(?=.)", parts[0])
    names = tuple(_ALIASES.get(part, part) for part in parts)
    if not 1 <= len(names) <= MAX_KEYS:
        raise GrammarError(f"expected 1 to {MAX_KEYS} keys, got {len(names)}")
    if not KEYS.issuperset(names):
        raise GrammarError("unknown key")
    return names
