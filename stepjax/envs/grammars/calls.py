"""One call with quoted arguments, `name(key='value')`: the core of text grammars."""

import dataclasses
import re

__all__ = [
    "MAX_VALUE_CHARS",
    "UNWANTED",
    "Call",
    "GrammarError",
    "format_call",
    "scan_call",
]

MAX_VALUE_CHARS = 4096
"""Longest argument accepted, after its escapes are resolved."""

_MAX_ARGUMENTS = 4
_NAME = re.compile(r"[a-z][a-z_]{0,31}")
_SPACE = re.compile(r"[ \t\n]{0,16}")
_PLAIN = re.compile(r"[^\\'\"]+")
UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters no argument may hold: controls and lone surrogates."""
_ESCAPES = {"n": "\n", "t": "\t", "'": "'", '"': '"', "\\": "\\"}


class GrammarError(ValueError):
    """Text outside the grammar; the message says why and echoes none of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One call as written.

    Attributes:
      name: Lower-case letters and underscores.
      arguments: Values by name, escapes resolved.
    """

    name: str
    arguments: dict[str, str]


def scan_call(text: str) -> Call:
    r"""The one call that `text` consists of.

    Values stand in single or double quotes. `\n`, `\t`, `\\`, `\'` and `\"` are
    escapes; any other backslash stands for itself, as in a Windows path.

    Args:
      text: A call, with nothing but white space around it.

    Returns:
      Its name and arguments.

    Raises:
      GrammarError: If `text` is anything else.

    Example:
      >>> scan_call("hotkey(key='ctrl c')")
      Call(name='hotkey', arguments={'key': 'ctrl c'})
    """
    name, at = _match(_NAME, text, _skip(text, 0), "an action name")
    at = _expect(text, _skip(text, at), "(")
    arguments: dict[str, str] = {}
    at = _skip(text, at)
    while text[at : at + 1] != ")":
        if arguments:
            at = _skip(text, _expect(text, at, ","))
        if len(arguments) == _MAX_ARGUMENTS:
            raise GrammarError(f"more than {_MAX_ARGUMENTS} arguments")
        key, at = _match(_NAME, text, at, "an argument name")
        if key in arguments:
            raise GrammarError("an argument is given twice")
        at = _expect(text, _skip(text, at), "=")
        arguments[key], at = _scan_string(text, _skip(text, at))
        at = _skip(text, at)
    if text[at + 1 :].strip(" \t\r\n"):
        raise GrammarError("text follows the action")
    return Call(name=name, arguments=arguments)


def format_call(name: str, **arguments: str) -> str:
    r"""Text of a call that `scan_call` reads back.

    Example:
      >>> format_call("type", content="it's\n")
      "type(content='it\\'s\\n')"
    """
    table = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\t": r"\t"}
    return "{}({})".format(
        name,
        ", ".join(
            f"{key}='{value.translate(str.maketrans(table))}'"
            for key, value in arguments.items()
        ),
    )


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _match(pattern: re.Pattern, text: str, at: int, what: str) -> tuple[str, int]:
    match = pattern.match(text, at)
    if match is None:
        raise GrammarError(f"expected {what} at character {at}")
    return match.group(), match.end()


def _expect(text: str, at: int, char: str) -> int:
    if text[at : at + 1] != char:
        raise GrammarError(f"expected {char!r} at character {at}")
    return at + 1


def _scan_string(text: str, at: int) -> tuple[str, int]:
    quote = text[at : at + 1]
    if not quote or quote not in "'\"":
        raise GrammarError(f"expected a quoted value at character {at}")
    at += 1
    parts: list[str] = []
    length = 0
    while True:
        char = text[at : at + 1]
        if char == quote:
            break
        if not char:
            raise GrammarError("a quoted value does not end")
        if char == "\\":
            after = text[at + 1 : at + 2]
            part, at = _ESCAPES.get(after, "\\"), at + (2 if after in _ESCAPES else 1)
        elif char in "'\"":
            part, at = char, at + 1
        else:
            part, at = _match(_PLAIN, text, at, "text")
        parts.append(part)
        length += len(part)
        if length > MAX_VALUE_CHARS:
            raise GrammarError(f"a value is longer than {MAX_VALUE_CHARS} characters")
    value = "".join(parts)
    if UNWANTED.search(value):
        raise GrammarError("a value holds control characters")
    return value, at + 1
