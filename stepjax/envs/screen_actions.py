"""What a policy that sees pixels can do: its kinds of action, its keys, its grid.

An action of such a policy is four numbers: what to do, in which cell of a coarse grid
over the screen, in which cell of a fine grid inside that one, and with which word of
the instruction or which key. Only indices into these tables leave the policy, so their
order is part of every saved policy: new entries go to the end.
"""

from stepjax.envs.actions import ActionKind

__all__ = [
    "AIMED_KINDS",
    "COARSE_COLUMNS",
    "COARSE_ROWS",
    "FINE_COLUMNS",
    "FINE_ROWS",
    "SCREEN_KEYS",
    "SCREEN_KINDS",
]

SCREEN_KINDS = (
    ActionKind.CLICK,
    ActionKind.TYPE,
    ActionKind.SCROLL_DOWN,
    ActionKind.SCROLL_UP,
    ActionKind.ENTER,
    ActionKind.ESCAPE,
    ActionKind.WAIT,
    ActionKind.DONE,
    ActionKind.FAIL,
    ActionKind.DOUBLE_CLICK,
    ActionKind.RIGHT_CLICK,
    ActionKind.PRESS,
)
"""Kinds of action to choose from."""

AIMED_KINDS = frozenset(
    {
        ActionKind.CLICK,
        ActionKind.DOUBLE_CLICK,
        ActionKind.RIGHT_CLICK,
        ActionKind.SCROLL_DOWN,
        ActionKind.SCROLL_UP,
    }
)
"""Those of them that are done at a place."""

COARSE_COLUMNS, COARSE_ROWS = 16, 10
"""The coarse grid; its cells are square on a screen of 16:10."""

FINE_COLUMNS, FINE_ROWS = 8, 8
"""The grid inside a coarse cell: 10 pixels on a screen of 1280 x 800."""

_SINGLE = (
    "enter escape tab space backspace delete insert home end pageup pagedown up down "
    "left right f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 menu shift f m n p s"
)
_COMBINED = (
    "ctrl+a ctrl+b ctrl+c ctrl+d ctrl+e ctrl+f ctrl+g ctrl+h ctrl+i ctrl+j ctrl+k "
    "ctrl+l ctrl+m ctrl+n ctrl+o ctrl+p ctrl+q ctrl+r ctrl+s ctrl+t ctrl+u ctrl+v "
    "ctrl+w ctrl+x ctrl+y ctrl+z ctrl+home ctrl+end ctrl+up ctrl+down ctrl+left "
    "ctrl+right ctrl+pageup ctrl+pagedown ctrl+enter ctrl+tab ctrl+space "
    "ctrl+backspace ctrl+delete ctrl+0 ctrl+1 ctrl+2 ctrl+3 ctrl+4 ctrl+5 ctrl++ "
    "ctrl+- ctrl+, ctrl+. ctrl+shift+s ctrl+shift+e ctrl+shift+n ctrl+shift+t "
    "ctrl+shift+v ctrl+shift+z ctrl+shift+end ctrl+shift+home ctrl+shift+down "
    "ctrl+shift+right ctrl+shift+tab ctrl+alt+t shift+tab shift+home shift+end "
    "shift+enter shift+down shift+up shift+left shift+right shift+delete shift+f10 "
    "alt+f4 alt+tab alt+left alt+right alt+up alt+home alt+enter alt+d alt+f alt+e "
    "alt+v alt+i alt+o alt+t alt+h alt+s"
)


def _keys_of(text: str) -> tuple[str, ...]:
    """Names of keys pressed together; "ctrl++" holds the plus key."""
    *held, last = text.replace("++", "+plus").split("+")
    return (*held, "+" if last == "plus" else last)


SCREEN_KEYS = tuple(map(_keys_of, f"{_SINGLE} {_COMBINED}".split()))
"""Keys and combinations that PRESS chooses from, named as in `Action.keys`."""
