"""Scripted solutions on a phone: those of the pages, and what a phone does otherwise.

Choices of a list stand in a dialog that a tap opens, and the launcher is one tap away
from the app.
"""

import re

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.miniwob.oracles import ORACLES
from stepjax.envs.miniwob.reading import (
    WAIT,
    Oracle,
    click,
    find,
    labelled,
    match,
    of_role,
)
from stepjax.envs.mobile.programs import APP, OTHERS
from stepjax.envs.mobile.tasks import SOLVABLE

__all__ = ["MOBILE_ORACLES", "mobile_oracle_action"]


def mobile_oracle_action(name: str, observation: Observation) -> Action:
    """What the scripted solution of page `name` does next; WAIT where it is at a loss.

    Example:
      >>> seen = Observation(instruction="Tap", widgets=())
      >>> mobile_oracle_action("click-test", seen).kind.name
      'WAIT'

    Raises:
      ValueError: If no oracle is known for the page.
    """
    if name not in MOBILE_ORACLES:
        known = ", ".join(MOBILE_ORACLES)
        raise ValueError(f"no oracle for {name!r}; choose from {known}.")
    icon = find(observation, APP, "icon")
    if icon is not None and find(observation, OTHERS[0], "icon") is not None:
        return click(icon)
    return MOBILE_ORACLES[name](observation)


def _wanted(seen: Observation) -> tuple[str, ...]:
    """What a list is to be set to."""
    named = match(seen, r"Select (.*?)(?: from the (?:scroll )?list)? and click Submit")
    return tuple(named[0].split(", "))


def _choose(seen: Observation) -> Action:
    """One or several choices of a list, in its dialog."""
    wanted = _wanted(seen)
    options = of_role(seen, "option")
    widgets = seen.widgets or ()
    if not options:
        menu = find(seen, role="menu")
        if menu is None:
            return WAIT
        chosen = all(re.search(rf"(^| ){re.escape(w)}( |$)", widgets[menu].value)
                     for w in wanted)  # fmt: skip
        complete = len(widgets[menu].value) == len(" ".join(wanted))
        return click(find(seen, "Submit", "button") if chosen and complete else menu)
    several = find(seen, "OK", "button")
    for index in options:
        named = widgets[index].label in wanted
        if named and not widgets[index].on or several and widgets[index].on > named:
            return click(index)
    shown = {widgets[index].label for index in options}
    if several is not None and shown.issuperset(wanted):
        return click(several)
    return Action(kind=ActionKind.SCROLL_DOWN)


MOBILE_ORACLES: dict[str, Oracle] = {
    name: ORACLES[name] for name in SOLVABLE if name in ORACLES
} | {
    "choose-list": _choose,
    "click-scroll-list": _choose,
    "click-tab-2-easy": ORACLES["click-tab-2"],
    "click-tab-2-medium": ORACLES["click-tab-2"],
    "click-test-transfer": labelled(r"button (\w+)"),
}
"""Oracle of each page."""
