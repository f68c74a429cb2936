"""Grammars: text that a language model wrote, to and from the canonical `Action`.

Model text is data. A grammar is a hand-written scanner with bounds on every length and
number; nothing is evaluated, and text outside the grammar becomes an INVALID action
that carries the reason, never an exception. A new grammar is a module with a
`parse_<name>(text, ...) -> Action` and a `format_<name>(action, ...) -> str`.
"""

from stepjax.envs.grammars.androidworld import (
    format_android_world,
    parse_android_world,
)
from stepjax.envs.grammars.computer13 import format_computer_13, parse_computer_13
from stepjax.envs.grammars.pyautogui import format_pyautogui, parse_pyautogui
from stepjax.envs.grammars.ui_tars import format_ui_tars, parse_ui_tars
from stepjax.envs.grammars.ui_tars_mobile import (
    format_ui_tars_mobile,
    parse_ui_tars_mobile,
)

__all__ = [
    "format_android_world",
    "format_computer_13",
    "format_pyautogui",
    "format_ui_tars",
    "format_ui_tars_mobile",
    "parse_android_world",
    "parse_computer_13",
    "parse_pyautogui",
    "parse_ui_tars",
    "parse_ui_tars_mobile",
]
