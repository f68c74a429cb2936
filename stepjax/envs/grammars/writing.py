"""Fields of an action, checked on their way into a text.

What a grammar cannot say must not get lost: every function here raises a `ValueError`
that names the caller, the field and what it must be.
"""

import dataclasses
import math

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.calls import GrammarError
from stepjax.envs.grammars.pieces import (
    DEFAULT_NOTCHES,
    MAX_NOTCHES,
    MAX_SECONDS,
    typing,
)

__all__ = [
    "BUTTONS",
    "button",
    "no_form",
    "notches",
    "pixel",
    "refuse_extras",
    "seconds",
    "text_to_type",
]

BUTTONS = ("left", "middle", "right")
"""Mouse buttons by name."""


def pixel(share: float | None, edge: int, who: str) -> int:
    """A share of the screen in pixels, rounded.

    Raises:
      ValueError: If it is missing or outside [0, 1].
    """
    if share is None:
        raise ValueError(f"{who}: a place is missing: give both coordinates.")
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise ValueError(f"{who}: a coordinate is {share}, must be in [0, 1].")
    return round(share * edge)


def refuse_extras(action: Action, who: str, *allowed: str) -> None:
    """Nothing, if no field but `kind` and those `allowed` is set.

    Raises:
      ValueError: If another one is; it would be lost in writing.
    """
    for field in dataclasses.fields(action):
        if field.name == "kind" or field.name in allowed:
            continue
        if field.name == "widget" and action.x is not None:
            continue  # the place says it as well
        if getattr(action, field.name) != field.default:
            raise ValueError(
                f"{who}: the language has no form for {action.kind.name} with"
                f" {field.name}."
            )


def no_form(action: Action, who: str) -> ValueError:
    """The error about an action that a language cannot say."""
    lacks = ""
    if action.kind is ActionKind.WAIT and action.amount is None:
        lacks = " without an amount among other actions"
    return ValueError(f"{who}: the language has no form for {action.kind.name}{lacks}.")


def notches(action: Action, who: str) -> int:
    """Notches of a scroll, `DEFAULT_NOTCHES` if it names none.

    Raises:
      ValueError: If it is not a whole number in [1, MAX_NOTCHES].
    """
    amount = DEFAULT_NOTCHES if action.amount is None else action.amount
    if not 1 <= amount <= MAX_NOTCHES or amount != int(amount):
        raise ValueError(
            f"{who}: amount is {amount}, must be a whole number of notches in"
            f" [1, {MAX_NOTCHES}]."
        )
    return int(amount)


def seconds(action: Action, who: str) -> float:
    """Seconds of a WAIT.

    Raises:
      ValueError: If it is not a number in [0, MAX_SECONDS].
    """
    amount = action.amount
    if amount is None or not 0 <= amount <= MAX_SECONDS:
        raise ValueError(
            f"{who}: amount is {amount}, must be seconds in [0, {MAX_SECONDS:g}]."
        )
    return float(amount)


def button(action: Action, who: str) -> str:
    """Mouse button of an action.

    Raises:
      ValueError: If it is not one of `BUTTONS`.
    """
    if action.button not in BUTTONS:
        raise ValueError(
            f"{who}: button is {action.button!r}, must be one of {BUTTONS}."
        )
    return action.button


def text_to_type(action: Action, who: str) -> str:
    """Text of an action.

    Raises:
      ValueError: If it is too long or holds control characters.
    """
    try:
        return typing(action.text).text
    except GrammarError as error:
        raise ValueError(f"{who}: text cannot be written: {error}.") from error
