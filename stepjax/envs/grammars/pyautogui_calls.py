"""The functions a pyautogui program may call, and what each asks for."""

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import GrammarError
from stepjax.envs.grammars.pieces import (
    MAX_NOTCHES,
    MAX_PARTS,
    MAX_SECONDS,
    clicks,
    join,
    number,
    place,
    press,
    scrolls,
    typing,
    whole,
)
from stepjax.envs.grammars.programs import Name, Statement, Value

__all__ = ["Reader"]

_BUTTONS: dict[object, str] = {
    None: "left", 1.0: "left", 2.0: "middle", 3.0: "right", "left": "left",
    "middle": "middle", "right": "right", "primary": "left", "secondary": "right",
}  # fmt: skip
# Arguments in pyautogui's order; those of the second group are checked and dropped.
_HOW = "tween logScreenshot _pause"
_SIGNATURES = {
    "click": f"x y clicks interval button duration {_HOW}",
    "leftClick": f"x y interval duration {_HOW}",
    "rightClick": f"x y interval duration {_HOW}",
    "middleClick": f"x y interval duration {_HOW}",
    "doubleClick": f"x y interval button duration {_HOW}",
    "tripleClick": f"x y interval button duration {_HOW}",
    "moveTo": f"x y duration {_HOW}",
    "moveRel": f"xOffset yOffset duration {_HOW}",
    "dragTo": "x y duration tween button logScreenshot _pause mouseDownUp",
    "dragRel": "xOffset yOffset duration tween button logScreenshot _pause mouseDownUp",
    "mouseDown": f"x y button duration {_HOW}",
    "mouseUp": f"x y button duration {_HOW}",
    "scroll": "clicks x y logScreenshot _pause",
    "hscroll": "clicks x y logScreenshot _pause",
    "write": "message interval logScreenshot _pause",
    "press": "keys presses interval logScreenshot _pause",
    "keyDown": "key logScreenshot _pause",
    "keyUp": "key logScreenshot _pause",
    "sleep": "seconds",
}
_SAME = {
    "move": "moveRel",
    "drag": "dragRel",
    "vscroll": "scroll",
    "typewrite": "write",
}
_CLICKS: dict[str, tuple[str, int]] = {
    "click": ("", 0),
    "leftClick": ("left", 1),
    "rightClick": ("right", 1),
    "middleClick": ("middle", 1),
    "doubleClick": ("", 2),
    "tripleClick": ("", 3),
}
_MAX_CLICKS = 10
_FAR = 10**6


class Reader:
    """Steps of a program so far, and where they left the pointer."""

    def __init__(self, width: int, height: int) -> None:
        self._screen = (width, height)
        self._steps: list[Action] = []
        self._pointer: tuple[float, float] | None = None
        self._copied: Action | None = None

    def action(self) -> Action:
        """What all statements ask for.

        Raises:
          GrammarError: If there is none, or too many.
        """
        if self._copied is not None:
            raise GrammarError("pyperclip.copy is not followed by ctrl+v")
        return join(self._steps)

    def read(self, statement: Statement) -> None:
        """Take one more statement.

        Raises:
          GrammarError: If it calls anything unknown or with wrong arguments.
        """
        module, _, name = statement.name.rpartition(".")
        name = _SAME.get(name, name)
        if (module, name) == ("pyperclip", "copy"):
            return self._copy(statement)
        if module != "pyautogui" and (module, name) != ("time", "sleep"):
            raise GrammarError("unknown function")
        if name == "hotkey":
            found = [_hotkey(statement)]
        elif name not in _SIGNATURES:
            raise GrammarError("unknown function")
        else:
            found = self._steps_of(name, _bind(name, statement))
        if self._copied is not None:
            if found != [Action(kind=ActionKind.PRESS, keys=("ctrl", "v"))]:
                raise GrammarError("pyperclip.copy is not followed by ctrl+v")
            found, self._copied = [self._copied], None
        self._steps += found
        if len(self._steps) > 4 * MAX_PARTS:  # `join` may make one out of several
            raise GrammarError(f"more than {MAX_PARTS} actions")

    def _copy(self, statement: Statement) -> None:
        if (
            self._copied is not None
            or statement.named
            or len(statement.positional) != 1
        ):
            raise GrammarError("pyperclip.copy takes one text, then comes ctrl+v")
        self._copied = typing(statement.positional[0])

    def _place(
        self, given: dict[str, Value]
    ) -> tuple[float, float] | tuple[None, None]:
        x, y = given.get("x"), given.get("y")
        if isinstance(x, tuple) and y is None:
            if len(x) != 2:
                raise GrammarError("a place needs both x and y")
            x, y = x
        shares = place(x, y, *self._screen)
        if x is not None and y is not None:
            self._pointer = (number(x, "x", 0, _FAR), number(y, "y", 0, _FAR))
        return shares

    def _target(self, name: str, given: dict[str, Value]) -> tuple[float, float]:
        if name.endswith("Rel"):
            if self._pointer is None:
                raise GrammarError("a relative movement needs a place before it")
            across, down = (
                start + number(given.get(key) or 0.0, key, -_FAR, _FAR)
                for key, start in zip(
                    ("xOffset", "yOffset"), self._pointer, strict=True
                )
            )
            given = {"x": across, "y": down}
        x, y = self._place(given)
        if x is None or y is None:
            raise GrammarError("a movement needs a place")
        return x, y

    def _steps_of(self, name: str, given: dict[str, Value]) -> list[Action]:
        """What one call asks for."""
        match name:
            case _ if name in _CLICKS:
                button, count = _CLICKS[name]
                count = count or whole(given.get("clicks", 1), "clicks", 1, _MAX_CLICKS)
                return clicks(button or _button(given), count, *self._place(given))
            case "moveTo" | "moveRel":
                x, y = self._target(name, given)
                return [Action(kind=ActionKind.MOVE, x=x, y=y)]
            case "dragTo" | "dragRel":
                if given.get("mouseDownUp", True) is not True:
                    raise GrammarError("mouseDownUp is not True")
                x, y = self._target(name, given)
                kind, button = ActionKind.DRAG, _button(given)
                return [Action(kind=kind, to_x=x, to_y=y, button=button)]
            case "mouseDown" | "mouseUp":
                down = name == "mouseDown"
                kind = ActionKind.MOUSE_DOWN if down else ActionKind.MOUSE_UP
                x, y = self._place(given)
                return [Action(kind=kind, x=x, y=y, button=_button(given))]
            case "scroll" | "hscroll":
                by = int(
                    number(given.get("clicks"), "clicks", -MAX_NOTCHES, MAX_NOTCHES)
                )
                across, up = (by, 0) if name == "hscroll" else (0, by)
                return scrolls(across, up, *self._place(given))
            case "sleep":
                seconds = number(given.get("seconds"), "seconds", 0, MAX_SECONDS)
                return [Action(kind=ActionKind.WAIT, amount=seconds)]
            case _:
                return _keyboard(name, given)


def _keyboard(name: str, given: dict[str, Value]) -> list[Action]:
    if name == "write":
        message = given.get("message")
        if isinstance(message, tuple):
            return [press([key]) for key in _texts(message)]
        return [typing(message)]
    if name == "press":
        keys = given.get("keys")
        times = whole(given.get("presses", 1), "presses", 1, MAX_PARTS)
        return [press([key]) for key in _texts(keys)] * times
    pressed = press(_texts(given.get("key")))
    keys = pressed.keys or (pressed.kind.name.lower(),)
    if len(keys) != 1:
        raise GrammarError(f"{name} takes one key that needs no Shift")
    kind = ActionKind.KEY_DOWN if name == "keyDown" else ActionKind.KEY_UP
    return [Action(kind=kind, keys=keys)]


def _hotkey(statement: Statement) -> Action:
    if not statement.named.keys() <= {"interval", "logScreenshot", "_pause"}:
        raise GrammarError("hotkey has an unknown argument")
    names = statement.positional
    if len(names) == 1 and isinstance(names[0], tuple):
        names = names[0]
    return press(_texts(names))


def _texts(value: Value) -> list[str]:
    """A string, or a list of them."""
    items = value if isinstance(value, tuple) else (value,)
    texts = [item for item in items if isinstance(item, str)]
    if len(texts) != len(items) or not texts:
        raise GrammarError("a key is not text")
    return texts


def _button(given: dict[str, Value]) -> str:
    value = given.get("button")
    if isinstance(value, Name):
        value = value.text.removeprefix("pyautogui.")
    value = value.lower() if isinstance(value, str) else value
    if isinstance(value, bool | tuple) or value not in _BUTTONS:
        raise GrammarError("button is none of left, middle, right")
    return _BUTTONS[value]


def _bind(name: str, statement: Statement) -> dict[str, Value]:
    """Arguments by name; how the pointer gets there is checked and left out."""
    names = _SIGNATURES[name].split()
    if len(statement.positional) > len(names):
        raise GrammarError(f"{name} has too many arguments")
    given = dict(zip(names, statement.positional, strict=False))
    for key, value in statement.named.items():
        if key not in names:
            raise GrammarError(f"{name} has an unknown argument")
        if key in given:
            raise GrammarError("an argument is given twice")
        given[key] = value
    for key in ("interval", "duration"):
        if given.get(key) is not None:
            number(given[key], key, 0, MAX_SECONDS)
    return given
