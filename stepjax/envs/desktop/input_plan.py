"""What the mouse and the keyboard of a desktop do to carry out an `Action`."""

from collections.abc import Sequence
from typing import Any

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.keys import KEYSYMS
from stepjax.envs.grammars.pieces import DEFAULT_NOTCHES, MAX_TYPED_CHARS, split
from stepjax.envs.grammars.writing import button, pixel, text_to_type

__all__ = [
    "MAX_NOTCHES",
    "MAX_OPERATIONS",
    "MAX_SLEEP",
    "WAIT_SECONDS",
    "Operation",
    "plan",
]

Operation = dict[str, Any]
"""One thing the input devices do; `op` says which. It can be written as JSON.

move (x, y), button (button, down), click (button, count), key (keysym, down),
press (keys), type (text), sleep (seconds). Buttons count as in X11: left, middle,
right, then the wheel up, down, left, right.
"""

MAX_NOTCHES = 50
"""Most notches one scroll turns the wheel by; more are left out."""

MAX_OPERATIONS = 2000
"""Most operations of one plan."""

MAX_SLEEP = 5.0
"""Longest time in seconds that a plan sleeps in all; more is left out."""

WAIT_SECONDS = 1.0
"""How long a WAIT without an amount takes."""

_WHO = "plan"
_BUTTONS = {"left": 1, "middle": 2, "right": 3}
_CLICKS = {
    ActionKind.CLICK: (1, 1),
    ActionKind.DOUBLE_CLICK: (1, 2),
    ActionKind.TRIPLE_CLICK: (1, 3),
    ActionKind.MIDDLE_CLICK: (2, 1),
    ActionKind.RIGHT_CLICK: (3, 1),
}
_WHEEL = {
    ActionKind.SCROLL_UP: 4,
    ActionKind.SCROLL_DOWN: 5,
    ActionKind.SCROLL_LEFT: 6,
    ActionKind.SCROLL_RIGHT: 7,
}
_NOTHING = frozenset(
    {ActionKind.DONE, ActionKind.FAIL, ActionKind.ANSWER, ActionKind.INVALID}
    | {ActionKind.OPEN_APP, ActionKind.BACK, ActionKind.HOME}
)
_LONG_PRESS = 0.8
_DRAG_STEPS = 8
_DRAG_PAUSE = 0.02


def plan(action: Action, *, width: int, height: int) -> tuple[Operation, ...]:
    """What the input devices do for an action.

    DONE, FAIL, ANSWER, INVALID and the kinds only a phone has do nothing. An action
    without a place happens where the pointer is; TYPE with a place clicks there first.

    Args:
      action: Any action that is not aimed at a widget alone: a widget's index means
        nothing here, its place does.
      width: Width of the screen in pixels.
      height: Height of the screen in pixels.

    Returns:
      Operations in order. Wheel and sleep are limited by `MAX_NOTCHES` and `MAX_SLEEP`.

    Raises:
      ValueError: If a field is missing, out of its range or unknown, or if it is too
        much for one plan.

    Example:
      >>> click = Action(kind=ActionKind.CLICK, x=0.5, y=0.5, keys=("ctrl",))
      >>> [operation["op"] for operation in plan(click, width=1280, height=800)]
      ['key', 'move', 'click', 'key']
    """
    planner = _Planner(width, height)
    for step in split(action, _WHO):
        planner.add(step)
    operations = _shorten(planner.found)
    if len(operations) > MAX_OPERATIONS:
        raise ValueError(
            f"{_WHO}: the action needs {len(operations)} operations, may need"
            f" {MAX_OPERATIONS}: do less at once."
        )
    typed = sum(len(operation.get("text", "")) for operation in operations)
    if typed > MAX_TYPED_CHARS:
        raise ValueError(
            f"{_WHO}: the action types {typed} characters, may type"
            f" {MAX_TYPED_CHARS}: type less at once."
        )
    return tuple(operations)


class _Planner:
    """Operations so far, and where they left the pointer."""

    def __init__(self, width: int, height: int) -> None:
        self.found: list[Operation] = []
        self._size = (width, height)
        self._pointer: tuple[int, int] | None = None

    def do(self, op: str, **given: Any) -> None:
        self.found.append({"op": op, **given})

    def pixels(self, x: float | None, y: float | None) -> tuple[int, int]:
        width, height = self._size
        across, down = pixel(x, width, _WHO), pixel(y, height, _WHO)
        return min(across, width - 1), min(down, height - 1)

    def move(self, x: float | None, y: float | None) -> None:
        if x is None and y is None:
            return
        self._pointer = self.pixels(x, y)
        self.do("move", x=self._pointer[0], y=self._pointer[1])

    def add(self, step: Action) -> None:
        kind = step.kind
        if kind in _NOTHING:
            return
        if kind not in (ActionKind.DRAG, ActionKind.KEY_UP):
            self.move(step.x, step.y)
        if kind in _CLICKS:
            number, count = _CLICKS[kind]
            self.do("click", button=number, count=count)
        elif kind in _WHEEL:
            count = min(_amount(step, DEFAULT_NOTCHES), MAX_NOTCHES)
            self.do("click", button=_WHEEL[kind], count=max(1, round(count)))
        else:
            self._other(step)

    def _other(self, step: Action) -> None:
        match step.kind:
            case ActionKind.MOVE:
                self.pixels(step.x, step.y)  # it must have a place
            case ActionKind.DRAG:
                self._drag(step)
            case ActionKind.LONG_PRESS:
                self.do("button", button=1, down=True)
                self.do("sleep", seconds=_LONG_PRESS)
                self.do("button", button=1, down=False)
            case ActionKind.MOUSE_DOWN | ActionKind.MOUSE_UP:
                down = step.kind is ActionKind.MOUSE_DOWN
                self.do("button", button=_BUTTONS[button(step, _WHO)], down=down)
            case ActionKind.KEY_DOWN | ActionKind.KEY_UP:
                down = step.kind is ActionKind.KEY_DOWN
                for key in _keys(step):
                    self.do("key", keysym=KEYSYMS[key], down=down)
            case ActionKind.PRESS:
                self.do("press", keys=[KEYSYMS[key] for key in _keys(step)])
            case ActionKind.ENTER | ActionKind.ESCAPE:
                self.do("press", keys=[KEYSYMS[step.kind.name.lower()]])
            case ActionKind.WAIT:
                self.do("sleep", seconds=_amount(step, WAIT_SECONDS))
            case ActionKind.TYPE:
                if step.x is not None:
                    self.do("click", button=1, count=1)
                self.do("type", text=text_to_type(step, _WHO))
            case kind:
                raise ValueError(f"{_WHO}: {kind.name} has no plan.")

    def _drag(self, step: Action) -> None:
        """Many small movements: one leap is no drag to most toolkits."""
        number = _BUTTONS[button(step, _WHO)]
        end = self.pixels(step.to_x, step.to_y)
        # From an unknown place, the first movement leads next to the end.
        start = self._pointer or (max(end[0] - _DRAG_STEPS, 0), end[1])
        self.do("button", button=number, down=True)
        for at in range(1, _DRAG_STEPS + 1):
            x, y = (
                round(a + (b - a) * at / _DRAG_STEPS)
                for a, b in zip(start, end, strict=True)
            )
            self.do("move", x=x, y=y)
            self.do("sleep", seconds=_DRAG_PAUSE)
        self.do("button", button=number, down=False)
        self._pointer = end


def _amount(step: Action, usual: float) -> float:
    amount = usual if step.amount is None else step.amount
    if not 0 <= amount <= 10**6:
        raise ValueError(f"{_WHO}: amount is {amount}, must be in [0, 10**6].")
    return float(amount)


def _keys(step: Action) -> tuple[str, ...]:
    if not step.keys:
        raise ValueError(f"{_WHO}: {step.kind.name} needs keys, has none.")
    return step.keys


def _shorten(operations: Sequence[Operation]) -> list[Operation]:
    """The operations with no more sleep than `MAX_SLEEP` in all."""
    left, kept = MAX_SLEEP, []
    for operation in operations:
        if operation["op"] == "sleep":
            seconds = min(operation["seconds"], left)
            left -= seconds
            if seconds == 0:
                continue
            operation = {"op": "sleep", "seconds": seconds}
        kept.append(operation)
    return kept
