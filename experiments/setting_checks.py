"""Checks of single settings; each error names the setting, its value and its bounds."""

import difflib
import math

__all__ = ["at_least", "between", "multiple_of", "one_of", "positive", "suggestion"]


def suggestion(value: str, known: tuple[str, ...]) -> str:
    """The end of an error message: the closest known name, and all of them.

    Example:
      >>> suggestion("stop", ("step", "gigpo"))
      'did you mean step? Known: step, gigpo.'
    """
    close = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}Known: {', '.join(known)}."


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """An error naming `name` unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name}: unknown name {value!r}; {suggestion(value, known)}")


def at_least(name: str, value: int, least: int) -> None:
    """An error naming `name` if `value` is below `least`."""
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}.")


def multiple_of(name: str, value: int, unit: int) -> None:
    """An error naming `name` unless `value` is `unit`, twice `unit`, ..."""
    if value < unit or value % unit:
        raise ValueError(f"{name} must be a multiple of {unit}, got {value}.")


def positive(name: str, value: float) -> None:
    """An error naming `name` unless `value` is above 0 and finite."""
    if not (value > 0.0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive number, got {value}.")


def between(name: str, value: float, low: float, high: float) -> None:
    """An error naming `name` unless `value` is in [low, high] and finite."""
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {value}.")
