"""Arguments that say where: the boxes and points of UI-TARS models."""

import re

from stepjax.envs.grammars.calls import GrammarError

__all__ = ["Arguments"]

_NUMBER = r"([0-9]{1,5}(?:\.[0-9]{1,4})?)"
_BOX = re.compile(
    r"(?:<\|box_start\|>)? ?[(\[]? ?"
    + rf"{_NUMBER} ?, ?{_NUMBER}(?: ?, ?{_NUMBER} ?, ?{_NUMBER})?"
    + r" ?[)\]]? ?(?:<\|box_end\|>)?"
)
_POINT = re.compile(rf"<point>{_NUMBER} {_NUMBER}</point>")


class Arguments:
    """Arguments of a call, taken one by one so that none is left unread.

    Attributes:
      name: What is called.
    """

    name: str

    def __init__(self, name: str, values: dict[str, str], width: int, height: int):
        self.name = name
        self._values = dict(values)
        self._screen = (width, height)

    def text(self, *names: str) -> str | None:
        """The first of these arguments that is given, or None."""
        for name in names:
            if name in self._values:
                return self._values.pop(name)
        return None

    def has(self, *names: str) -> bool:
        """Whether any of these arguments is given."""
        return any(name in self._values for name in names)

    def required(self, *names: str) -> str:
        """The first of these arguments that is given.

        Raises:
          GrammarError: If none is.
        """
        value = self.text(*names)
        if value is None:
            raise GrammarError(f"{self.name} needs the argument {names[0]}")
        return value

    def place(self, *names: str) -> tuple[float, float]:
        """A place or the center of a box, as shares of the screen.

        Raises:
          GrammarError: If it is missing, malformed or off the screen.
        """
        text = self.required(*names)
        match = _BOX.fullmatch(text) or _POINT.fullmatch(text)
        if match is None:
            raise GrammarError(f"{names[0]} is not a place on the screen")
        numbers = [float(number) for number in match.groups() if number is not None]
        edges = numbers[:2], numbers[-2:]
        for x, y in edges:
            if x > self._screen[0] or y > self._screen[1]:
                raise GrammarError(f"{names[0]} is outside the screen")
        (left, top), (right, bottom) = edges
        width, height = self._screen
        return (left + right) / (2 * width), (top + bottom) / (2 * height)

    def done(self) -> None:
        """Nothing, if every argument was taken.

        Raises:
          GrammarError: If one is left.
        """
        if self._values:
            raise GrammarError(f"{self.name} has an unknown argument")
