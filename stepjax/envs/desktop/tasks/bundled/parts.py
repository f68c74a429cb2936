"""What bundled tasks are made of: words, setup steps, checks, and steps of scripts."""

import base64
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation

__all__ = [
    "DONE",
    "ENTER",
    "FAIL",
    "HOME",
    "INFEASIBLE",
    "Draft",
    "ScriptStep",
    "WORDS",
    "at",
    "check",
    "double",
    "draw_words",
    "keys",
    "launch",
    "listing",
    "maximized",
    "on",
    "put",
    "run",
    "type_text",
    "window",
]

HOME = "/home/user"

WORDS = (
    "acorn", "amber", "barn", "birch", "bread", "brook", "candle", "cedar", "cloud",
    "coral", "daisy", "eagle", "feather", "fern", "garden", "harbor", "hazel", "island",
    "ivory", "jacket", "kettle", "ladder", "lantern", "maple", "meadow", "needle",
    "ocean", "olive", "otter", "paper", "pebble", "pepper", "quartz", "river", "saddle",
    "silver", "spoon", "tiger", "violet", "willow",
)  # fmt: skip
"""What is typed, and what things are called."""

_WIDTH, _HEIGHT = 1280, 800

ScriptStep = Action | Callable[[Observation], Action]
"""An action, or a function that looks at the screen and says which."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """One variation of a task, and how it is done.

    Attributes:
      instruction: What the agent is told.
      config: Setup steps in the task format.
      evaluator: How it is judged, in the task format.
      oracle: Steps that solve it.
      wrong: Steps of a plausible attempt that does not.
    """

    instruction: str
    config: Sequence[dict[str, Any]]
    evaluator: dict[str, Any]
    oracle: tuple[ScriptStep, ...]
    wrong: tuple[ScriptStep, ...]


DONE = Action(kind=ActionKind.DONE)
FAIL = Action(kind=ActionKind.FAIL)
ENTER = Action(kind=ActionKind.ENTER)
INFEASIBLE: dict[str, Any] = {"func": "infeasible"}


def draw_words(
    rng: np.random.Generator, count: int, pool: Sequence[str] = WORDS
) -> list[str]:
    """`count` different words."""
    return [pool[int(index)] for index in rng.permutation(len(pool))[:count]]


def put(path: str, content: bytes | str) -> dict[str, Any]:
    """Setup step: a file with that content."""
    data = content.encode() if isinstance(content, str) else content
    url = f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"
    return {
        "type": "download",
        "parameters": {"files": [{"url": url, "path": path}]},
    }


def launch(*command: str) -> dict[str, Any]:
    """Setup step: start a program."""
    return {"type": "launch", "parameters": {"command": list(command)}}


def run(*command: str) -> dict[str, Any]:
    """Setup step: run a command to its end."""
    return {"type": "execute", "parameters": {"command": list(command)}}


def window(title: str) -> dict[str, Any]:
    """Setup step: wait for a window, for what fills it, and bring it to the front."""
    return {"type": "activate_window", "parameters": {"window_name": title}}


def maximized(title: str) -> tuple[dict[str, Any], ...]:
    """Setup steps: as `window`, and over the whole screen."""
    states = "add,maximized_vert,maximized_horz"
    return (window(title), run("wmctrl", "-r", title, "-b", states), window(title))


def check(metric: str, result: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """Evaluator with one metric of what a getter finds, against `rules`."""
    expected = {"type": "rule", "rules": rules}
    return {"func": metric, "result": result, "expected": expected}


def type_text(text: str) -> Action:
    """Script step: type where the focus is."""
    return Action(kind=ActionKind.TYPE, text=text)


def keys(names: str) -> Action:
    """Script step: press keys together, such as "ctrl s"."""
    return Action(kind=ActionKind.PRESS, keys=tuple(names.split()))


def at(x: float, y: float, kind: ActionKind = ActionKind.CLICK) -> Action:
    """Script step: click at a place in pixels of a screen of 1280 x 800."""
    return Action(kind=kind, x=x / _WIDTH, y=y / _HEIGHT)


def double(x: float, y: float) -> Action:
    """Script step: double-click at a place in pixels of a screen of 1280 x 800."""
    return at(x, y, ActionKind.DOUBLE_CLICK)


def on(role: str, label: str, fallback: tuple[float, float]) -> ScriptStep:
    """Script step: click a widget by its role and label.

    Args:
      role: Its role.
      label: Its label, or the beginning of it.
      fallback: Place in pixels where it is expected, for when no widgets are known.
    """

    def step(seen: Observation) -> Action:
        for index, widget in enumerate(seen.widgets or ()):
            if widget.role == role and widget.label.startswith(label):
                left, top, right, bottom = widget.box
                return Action(
                    kind=ActionKind.CLICK,
                    x=(left + right) / 2,
                    y=(top + bottom) / 2,
                    widget=index,
                )
        return at(*fallback)

    return step


def listing(path: str, entries: Mapping[str, str] | Iterable[str]) -> dict[str, Any]:
    """Evaluator: a folder holds just these; an iterable names files."""
    if not isinstance(entries, Mapping):
        entries = dict.fromkeys(entries, "file")
    result = {"type": "vm_listing", "path": path}
    return check("match_listing", result, entries=dict(entries))
