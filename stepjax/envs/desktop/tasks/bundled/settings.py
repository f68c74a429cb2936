"""Tasks in the dialogs of desktop settings."""

import numpy as np

from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    FAIL,
    INFEASIBLE,
    Draft,
    at,
    check,
    launch,
    on,
    run,
    window,
)

__all__ = ["TASKS"]

# Label, channel and property that keep it, place of its box, state at first.
_KEYBOARD = (
    ("Restore num lock", "keyboards", "/Default/RestoreNumlock", (485, 201)),
    ("Enable key repeat", "keyboards", "/Default/KeyRepeat", (485, 264)),
    ("Show blinking", "xsettings", "/Net/CursorBlink", (485, 453)),
)
_TABS = {"Keyboard": (678, 136), "Mouse": (762, 136)}
_ASSISTANCE = (
    ("Use sticky keys", "Keyboard", "/StickyKeys", (485, 275)),
    ("Use slow keys", "Keyboard", "/SlowKeys", (485, 451)),
    ("Use bounce keys", "Keyboard", "/BounceKeys", (485, 594)),
    ("Use mouse emulation", "Mouse", "/MouseKeys", (485, 241)),
)
_APPEARANCE = (
    ("Show images on buttons", "/Gtk/ButtonImages", (485, 231)),
    ("Show images in menus", "/Gtk/MenuImages", (485, 259)),
    ("Enable editable accelerators", "/Gtk/CanChangeAccels", (485, 287)),
    ("Enable event sounds", "/Net/EnableEventSounds", (485, 378)),
)
_WORDS = {True: "on", False: "off"}
_PANELS = {
    "Appearance": (425, 255), "Display": (595, 333), "Keyboard": (785, 333),
    "Accessibility": (430, 470),
}  # fmt: skip
_ABSENT = ("dark mode", "night light", "screen lock", "bluetooth")


def _stored(channel: str, name: str, wanted: str) -> dict:
    """Evaluator: a setting has that value."""
    command = ["xfconf-query", "-c", channel, "-p", name]
    result = {"type": "vm_command_line", "command": command}
    return check("exact_match", result, expected=wanted)


def _set(channel: str, name: str, value: bool) -> dict:
    """Setup step: give a switch a state."""
    state = str(value).lower()
    return run(
        "xfconf-query", "-c", channel, "-p", name, "-n", "-t", "bool", "-s", state
    )  # fmt: skip


def _keyboard(rng: np.random.Generator) -> Draft:
    index = int(rng.integers(len(_KEYBOARD)))
    states = [bool(rng.integers(2)) for _ in _KEYBOARD]
    label, channel, name, place = _KEYBOARD[index]
    wanted = not states[index]
    other = _KEYBOARD[(index + 1) % len(_KEYBOARD)]
    return Draft(
        instruction=f'Turn {_WORDS[wanted]} "{label}".',
        config=[
            *(_set(row[1], row[2], state)
              for row, state in zip(_KEYBOARD, states, strict=True)),
            launch("xfce4-keyboard-settings"),
            window("Keyboard"),
        ],
        evaluator=_stored(channel, name, str(wanted).lower()),
        oracle=(on("check_box", label, place), DONE),
        wrong=(on("check_box", other[0], other[3]), DONE),
    )  # fmt: skip


def _assistance(rng: np.random.Generator) -> Draft:
    index = int(rng.integers(len(_ASSISTANCE)))
    label, tab, name, place = _ASSISTANCE[index]
    other = _ASSISTANCE[(index + 1) % 3]
    return Draft(
        instruction=f'Turn on "{label}", which is under "{tab}".',
        config=[
            *(_set("accessibility", row[2], False) for row in _ASSISTANCE),
            launch("xfce4-accessibility-settings"),
            window("Accessibility"),
        ],
        evaluator=_stored("accessibility", name, "true"),
        oracle=(on("tab", tab, _TABS[tab]), on("check_box", label, place), DONE),
        wrong=(
            on("tab", other[1], _TABS[other[1]]),
            on("check_box", other[0], other[3]),
            DONE,
        ),
    )


def _open(rng: np.random.Generator) -> Draft:
    names = tuple(_PANELS)
    index = int(rng.integers(len(names)))
    other = names[(index + 1) % len(names)]
    return Draft(
        instruction=f'Open the settings "{names[index]}".',
        config=[launch("xfce4-settings-manager"), window("Settings")],
        evaluator=check("match_windows", {"type": "vm_windows"}, include=names[index]),
        oracle=(at(*_PANELS[names[index]]), DONE),
        wrong=(at(*_PANELS[other]), DONE),
    )


def _appearance(rng: np.random.Generator) -> Draft:
    index = int(rng.integers(len(_APPEARANCE)))
    states = [bool(rng.integers(2)) for _ in _APPEARANCE]
    label, name, place = _APPEARANCE[index]
    wanted = not states[index]
    other = _APPEARANCE[(index + 1) % len(_APPEARANCE)]
    tab = on("tab", "Settings", (693, 166))
    return Draft(
        instruction=f'In the tab "Settings", turn {_WORDS[wanted]} "{label}".',
        config=[
            *(_set("xsettings", row[1], state)
              for row, state in zip(_APPEARANCE, states, strict=True)),
            launch("xfce4-appearance-settings"),
            window("Appearance"),
        ],
        evaluator=_stored("xsettings", name, str(wanted).lower()),
        oracle=(tab, on("check_box", label, place), DONE),
        wrong=(tab, on("check_box", other[0], other[2]), DONE),
    )  # fmt: skip


def _absent(rng: np.random.Generator) -> Draft:
    wish = _ABSENT[int(rng.integers(len(_ABSENT)))]
    return Draft(
        instruction=f'In this dialog, turn on "{wish}".',
        config=[launch("xfce4-mouse-settings"), window("Mouse")],
        evaluator=INFEASIBLE,
        oracle=(FAIL,),
        wrong=(on("radio", "Left-handed", (520, 371)), DONE),
    )


TASKS = {
    "settings-keyboard": _keyboard,
    "settings-assistance": _assistance,
    "settings-open": _open,
    "settings-appearance": _appearance,
    "settings-absent": _absent,
}
"""Makers of variations by task name."""
