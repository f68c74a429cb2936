"""Checking a request's list of input operations, before any of them is carried out."""

from typing import Any

__all__ = [
    "MAX_OPERATIONS", "MAX_SLEEP", "MAX_TEXT", "MAX_TOTAL_SLEEP", "OperationError",
    "check_operations",
]  # fmt: skip

MAX_OPERATIONS = 2000
MAX_TEXT = 20_000
"""Most characters that one request may type."""
MAX_SLEEP = 5.0
"""Most seconds of one pause."""
MAX_TOTAL_SLEEP = 10.0
"""Most seconds of all pauses of one request."""

_FIELDS = {
    "move": {"x": int, "y": int},
    "button": {"button": int, "down": bool},
    "click": {"button": int, "count": int},
    "key": {"keysym": str, "down": bool},
    "press": {"keys": list},
    "type": {"text": str},
    "sleep": {"seconds": float},
}
_MAX_COUNT = 100
_MAX_KEYS = 8


class OperationError(ValueError):
    """A list of operations that cannot be carried out; the message is one line."""


def check_operations(
    operations: Any, *, width: int, height: int
) -> list[dict[str, Any]]:
    """The operations, if every one of them is sound.

    Args:
      operations: What a request holds: a list of dictionaries, each with "op".
      width: Pixels of the screen from left to right.
      height: Pixels of the screen from top to bottom.

    Raises:
      OperationError: Which operation is wrong, and what it must be.
    """
    if not isinstance(operations, list) or len(operations) > MAX_OPERATIONS:
        raise OperationError(
            f"operations must be a list of at most {MAX_OPERATIONS} dictionaries"
        )
    text, pauses = 0, 0.0
    for index, one in enumerate(operations):
        try:
            _check_one(one, width, height)
        except OperationError as error:
            raise OperationError(f"operations[{index}]: {error}") from None
        text += len(one.get("text", ""))
        pauses += one.get("seconds", 0.0)
    if text > MAX_TEXT:
        raise OperationError(f"at most {MAX_TEXT} characters can be typed, got {text}")
    if pauses > MAX_TOTAL_SLEEP:
        raise OperationError(
            f"pauses must be {MAX_TOTAL_SLEEP} s or less in total, got {pauses}"
        )
    return operations


def _check_one(one: Any, width: int, height: int) -> None:
    if not isinstance(one, dict) or one.get("op") not in _FIELDS:
        raise OperationError(f"op must be one of {', '.join(_FIELDS)}")
    kind, fields = one["op"], _FIELDS[one["op"]]
    if set(one) != {"op", *fields}:
        raise OperationError(f"{kind} must have exactly {', '.join(fields)}")
    for name, wanted in fields.items():
        value = one[name]
        if wanted is float and type(value) is int:
            continue
        if type(value) is not wanted:
            raise OperationError(
                f"{name} of {kind} must be {wanted.__name__}, got "
                f"{type(value).__name__}"
            )
    if kind == "move":
        _within(one, "x", 0, width - 1)
        _within(one, "y", 0, height - 1)
    if "button" in fields:
        _within(one, "button", 1, 7)
    if kind == "click":
        _within(one, "count", 1, _MAX_COUNT)
    if kind == "sleep":
        _within(one, "seconds", 0, MAX_SLEEP)
    if kind == "press" and (
        not 1 <= len(one["keys"]) <= _MAX_KEYS
        or not all(isinstance(key, str) for key in one["keys"])
    ):
        raise OperationError(f"keys of press must be 1 to {_MAX_KEYS} names")


def _within(one: dict[str, Any], name: str, low: float, high: float) -> None:
    if not low <= one[name] <= high:
        raise OperationError(f"{name} must be in [{low}, {high}], got {one[name]}")
