"""Programs that are nothing but calls with literal arguments, in Python's spelling.

A scanner, not an interpreter: no name is looked up and nothing is run. It knows calls,
strings, numbers, True, False, None, flat tuples and lists, comments, imports of a few
modules, and the unused string that documents a program. Everything else is an error.
"""

import dataclasses
import re

from stepjax.envs.grammars.calls import MAX_VALUE_CHARS, UNWANTED, GrammarError

__all__ = ["MAX_PROGRAM_CHARS", "Name", "Statement", "Value", "scan_program"]

MAX_PROGRAM_CHARS = 20_000
"""Longest program looked at."""

_MAX_ARGUMENTS = 16
_MAX_ITEMS = 64
_MODULES = frozenset({"pyautogui", "time", "pyperclip"})
_WORD = r"[A-Za-z_][A-Za-z0-9_]{0,31}"
_NAME = re.compile(rf"{_WORD}(?:\.{_WORD})?(?![A-Za-z0-9_.])")
_IMPORT = re.compile(rf"import[ \t]+({_WORD}(?:[ \t]*,[ \t]*{_WORD})*)(?![\w.])")
_BLANK = re.compile(r"(?:[ \t]+|#[^\n]*)*")
_LINES = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_ENDS = re.compile(r"(?:[ \t\n;]+|#[^\n]*)*")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,24}(?:\.[0-9]{0,24})?|\.[0-9]{1,24})(?:[eE][+-]?[0-9]{1,3})?"
    r"(?![A-Za-z0-9_.])"
)
_QUOTE = re.compile(r"([rRuU]?)('''|\"\"\"|'|\")")
_ESCAPE = re.compile(
    r"\\(?:([nrtabfv\\'\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})"
    r"|(\n)|([N0-7])|())"
)
_LETTERS = {
    "n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
}  # fmt: skip
_CONSTANTS = {"True": True, "False": False, "None": None}


@dataclasses.dataclass(frozen=True)
class Name:
    """A name that stands where a value could, such as `pyautogui.LEFT`.

    Attributes:
      text: The name as written.
    """

    text: str


Value = str | float | bool | None | Name | tuple["Value", ...]
"""What an argument may be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statement:
    """One call.

    Attributes:
      name: What is called, such as "pyautogui.click".
      positional: Values without a name.
      named: Values by name.
    """

    name: str
    positional: tuple[Value, ...]
    named: dict[str, Value]


def scan_program(text: str) -> list[Statement]:
    """The calls a program consists of, in order.

    Args:
      text: Statements on lines of their own or separated by semicolons.

    Returns:
      Its calls; imports, comments and lone strings are skipped.

    Raises:
      GrammarError: If `text` holds anything else or is too long.

    Example:
      >>> scan_program("import time; time.sleep(1)  # wait")
      [Statement(name='time.sleep', positional=(1.0,), named={})]
    """
    if len(text) > MAX_PROGRAM_CHARS:
        raise GrammarError(f"longer than {MAX_PROGRAM_CHARS} characters")
    return _Scanner(text.replace("\r\n", "\n")).program()


class _Scanner:
    """A place in a text, which only moves forward."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip(self, pattern: re.Pattern) -> None:
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def take(self, pattern: re.Pattern) -> re.Match | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def comes(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def expected(self, what: str) -> GrammarError:
        return GrammarError(f"expected {what} at character {self.at}")

    def program(self) -> list[Statement]:
        found: list[Statement] = []
        self.skip(_ENDS)
        while self.at < len(self.text):
            statement = self.statement()
            if statement is not None:
                found.append(statement)
            self.skip(_BLANK)
            if self.text[self.at : self.at + 1] not in ("", "\n", ";"):
                raise self.expected("the end of the statement")
            self.skip(_ENDS)
        return found

    def statement(self) -> Statement | None:
        imported = self.take(_IMPORT)
        if imported:
            names = {name.strip() for name in imported[1].split(",")}
            if not names <= _MODULES:
                raise GrammarError(f"only {sorted(_MODULES)} may be imported")
            return None
        if _QUOTE.match(self.text, self.at):
            self.string(MAX_PROGRAM_CHARS)
            return None
        name = self.take(_NAME)
        if name is None:
            raise self.expected("a call")
        self.skip(_BLANK)
        if not self.comes("("):
            raise self.expected("'('")
        positional: list[Value] = []
        named: dict[str, Value] = {}
        self.skip(_LINES)
        while not self.comes(")"):
            self.argument(positional, named)
            self.skip(_LINES)
            if not self.comes(","):
                if not self.comes(")"):
                    raise self.expected("',' or ')'")
                break
            self.skip(_LINES)
        return Statement(name=name[0], positional=tuple(positional), named=named)

    def argument(self, positional: list[Value], named: dict[str, Value]) -> None:
        if len(positional) + len(named) == _MAX_ARGUMENTS:
            raise GrammarError(f"more than {_MAX_ARGUMENTS} arguments")
        value = self.value()
        self.skip(_LINES)
        key = value.text if isinstance(value, Name) else ""
        if self.text[self.at : self.at + 1] != "=" or not key or "." in key:
            if named:
                raise GrammarError("an argument without a name follows a named one")
            positional.append(value)
            return
        self.at += 1
        if key in named:
            raise GrammarError("an argument is given twice")
        self.skip(_LINES)
        named[key] = self.value()

    def value(self, inside: bool = False) -> Value:
        if _QUOTE.match(self.text, self.at):
            return self.strings()
        number = self.take(_NUMBER)
        if number:
            return float(number[0])
        for opening, closing in ("()", "[]"):
            if not inside and self.comes(opening):
                return self.items(closing)
        name = self.take(_NAME)
        if name is None:
            raise self.expected("a plain value")
        return _CONSTANTS.get(name[0], Name(name[0]))

    def items(self, closing: str) -> tuple[Value, ...]:
        found: list[Value] = []
        self.skip(_LINES)
        while not self.comes(closing):
            if len(found) == _MAX_ITEMS:
                raise GrammarError(f"more than {_MAX_ITEMS} items")
            found.append(self.value(inside=True))
            self.skip(_LINES)
            if not self.comes(","):
                if not self.comes(closing):
                    raise self.expected(f"',' or {closing!r}")
                break
            self.skip(_LINES)
        return tuple(found)

    def strings(self) -> str:
        """One or more strings in a row, which Python joins."""
        found = ""
        while _QUOTE.match(self.text, self.at):
            found += self.string(MAX_VALUE_CHARS)
            if len(found) > MAX_VALUE_CHARS:
                raise GrammarError(
                    f"a value is longer than {MAX_VALUE_CHARS} characters"
                )
            self.skip(_LINES)
        return found

    def string(self, max_chars: int) -> str:
        opening = self.take(_QUOTE)
        if opening is None:
            raise self.expected("a string")
        raw, quote = opening[1] in ("r", "R"), opening[2]
        start = self.at
        while not self.text.startswith(quote, self.at):
            char = self.text[self.at : self.at + 1]
            if not char or (char == "\n" and len(quote) == 1):
                raise GrammarError("a quoted value does not end")
            self.at += 2 if char == "\\" else 1
            if self.at - start > 10 * max_chars:
                raise GrammarError(f"a value is longer than {max_chars} characters")
        value = self.text[start : self.at]
        self.at += len(quote)
        if not raw:
            value = _ESCAPE.sub(_unescape, value)
        if len(value) > max_chars:
            raise GrammarError(f"a value is longer than {max_chars} characters")
        if UNWANTED.search(value):
            raise GrammarError("a value holds control characters")
        return value


def _unescape(found: re.Match) -> str:
    letter, *codes, newline, unknown, other = found.groups()
    if letter is not None:
        return _LETTERS.get(letter) or letter
    for code in codes:
        if code is not None:
            if int(code, 16) > 0x10FFFF:
                raise GrammarError("an escape is no character")
            return chr(int(code, 16))
    if newline is not None:
        return ""
    if unknown is not None:
        raise GrammarError("an escape is not understood")
    return "\\"  # Python keeps a backslash that escapes nothing.
