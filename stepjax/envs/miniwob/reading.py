"""What the scripted solutions are made of: finding widgets, and acting on them."""

import re
from collections.abc import Callable, Sequence

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.words import split_words

__all__ = [
    "WAIT", "Oracle", "click", "exact", "fields", "fill", "find", "first", "labelled",
    "match", "next_closed", "of_role", "type_word",
]  # fmt: skip

Oracle = Callable[[Observation], Action]
"""Answers what the agent sees with what to do."""

WAIT = Action(kind=ActionKind.WAIT)
"""What an oracle does when it is at a loss."""


def find(
    seen: Observation, label: str | None = None, role: str | None = None, **state: bool
) -> int | None:
    """Index of the first widget with that label, role and state, or None."""
    for index, widget in enumerate(seen.widgets or ()):
        if label is not None and widget.label.lower() != label.lower():
            continue
        if role is not None and widget.role != role:
            continue
        if any(getattr(widget, name) != value for name, value in state.items()):
            continue
        return index
    return None


def click(index: int | None) -> Action:
    """Click the widget with that index, or wait where there is none."""
    return WAIT if index is None else Action(kind=ActionKind.CLICK, widget=index)


def type_word(seen: Observation, index: int | None, text: str) -> Action:
    """Type one word of the instruction, or wait where it is none."""
    if index is None or text not in split_words(seen.instruction):
        return WAIT
    return Action(kind=ActionKind.TYPE, widget=index, text=text)


def match(seen: Observation, pattern: str) -> tuple[str, ...]:
    """Groups that a pattern finds in the instruction, "" for each it does not."""
    found = re.search(pattern, seen.instruction)
    if found is None:
        return ("",) * re.compile(pattern).groups
    return tuple(group or "" for group in found.groups())


def exact(seen: Observation, label: str, role: str | None = None) -> int | None:
    """Like `find`, but the case must match where that tells two apart."""
    for index, widget in enumerate(seen.widgets or ()):
        if widget.label == label and role in (None, widget.role):
            return index
    return find(seen, label, role)


def first(*choices: int | None) -> int | None:
    """First index that is not None, or None."""
    return next((choice for choice in choices if choice is not None), None)


def labelled(pattern: str, role: str | None = None) -> Oracle:
    """Click the widget that the instruction names."""

    def act(seen: Observation) -> Action:
        return click(exact(seen, match(seen, pattern)[0], role))

    return act


def fill(
    seen: Observation, entries: Sequence[tuple[int | None, str]], then: int | None
) -> Action:
    """Type what is not there yet, then click `then`."""
    for index, text in entries:
        if index is None:
            return WAIT
        if (seen.widgets or ())[index].value != text:
            return type_word(seen, index, text)
    return click(then)


def fields(seen: Observation) -> list[int]:
    """Indices of the text fields, in reading order."""
    widgets = enumerate(seen.widgets or ())
    return [index for index, widget in widgets if widget.role == "text_field"]


def next_closed(seen: Observation, tabs: list[int]) -> Action:
    """Open the tab after the one that is open, around again."""
    widgets = seen.widgets or ()
    opened = [at for at, index in enumerate(tabs) if widgets[index].on]
    start = opened[-1] + 1 if opened else 0
    return click(tabs[start % len(tabs)]) if tabs else WAIT


def of_role(seen: Observation, role: str) -> list[int]:
    """Indices of the widgets of one role, in reading order."""
    widgets = enumerate(seen.widgets or ())
    return [index for index, widget in widgets if widget.role == role]
