"""The one canonical action that every grammar and every backend converts to or from."""

import dataclasses
import enum

__all__ = ["Action", "ActionKind"]


class ActionKind(enum.IntEnum):
    """What an action does; the pointer policy chooses among the first nine."""

    CLICK = 0
    TYPE = 1
    SCROLL_DOWN = 2
    SCROLL_UP = 3
    ENTER = 4
    ESCAPE = 5
    WAIT = 6
    DONE = 7
    FAIL = 8
    DOUBLE_CLICK = 9
    RIGHT_CLICK = 10
    DRAG = 11
    MOVE = 12
    PRESS = 13
    ANSWER = 14
    LONG_PRESS = 15
    OPEN_APP = 16
    BACK = 17
    HOME = 18
    INVALID = 19
    TRIPLE_CLICK = 20
    MIDDLE_CLICK = 21
    SCROLL_LEFT = 22
    SCROLL_RIGHT = 23
    MOUSE_DOWN = 24
    MOUSE_UP = 25
    KEY_DOWN = 26
    KEY_UP = 27
    SEQUENCE = 28


@dataclasses.dataclass(frozen=True, kw_only=True)
class Action:
    """One action, in screen shares so that no backend's pixels leak into another.

    Attributes:
      kind: What to do. INVALID stands for text that no grammar accepts.
      x: Horizontal position in [0, 1], or None.
      y: Vertical position in [0, 1], or None.
      to_x: End of a drag, in [0, 1], or None.
      to_y: End of a drag, in [0, 1], or None.
      text: Text to type or to answer, application to open, or why it is invalid.
      keys: Keys by name: pressed together for PRESS, one for KEY_DOWN and KEY_UP, held
        meanwhile for clicks and drags.
      button: Mouse button of DRAG, MOUSE_DOWN and MOUSE_UP: left, middle or right.
      amount: Notches of a scroll, or seconds of WAIT; None for the backend's own.
      parts: Actions of a SEQUENCE, in order; none of them is a SEQUENCE.
      widget: Index into the observation's widgets, if the action was aimed at one.
    """

    kind: ActionKind
    x: float | None = None
    y: float | None = None
    to_x: float | None = None
    to_y: float | None = None
    text: str = ""
    keys: tuple[str, ...] = ()
    button: str = "left"
    amount: float | None = None
    parts: tuple["Action", ...] = ()
    widget: int | None = None
