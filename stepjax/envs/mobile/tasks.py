"""Which MiniWoB++ pages the phones' app shows, which are trained on, and their budgets.

The pages are those of AndroidWorld's MiniWoB family that the `miniwob` package has. As
in the paper, 43 tasks are trained on and the others are never seen in training. The 43
are drawn by `SPLIT_SEED` among the pages in `SOLVABLE`: those that taps, scrolling and
words of the instruction solve, and for which a scripted solution shows how. What is not
drawn stays unseen, beside all pages that ask for more.
"""

import difflib
import random
from collections.abc import Iterable

import numpy as np

from stepjax.envs.base import Task
from stepjax.envs.miniwob.tasks import MiniwobTasks

__all__ = [
    "COMPLEXITY", "NUM_TRAIN", "PAGES", "SOLVABLE", "SPLIT_SEED", "TRAIN_PAGES",
    "UNSEEN_PAGES", "make_mobile_task", "mobile_task_table", "step_budget",
]  # fmt: skip

COMPLEXITY = 3.0
"""What AndroidWorld says of every page of its MiniWoB family."""

NUM_TRAIN = 43
"""Tasks to train on, as many as in the paper's AndroidWorld experiment."""

SPLIT_SEED = 116
"""Of the draw of the tasks to train on."""

_SOLVABLE = {
    "click": "click-button click-button-sequence click-color click-dialog"
    " click-dialog-2 click-link click-shape click-test click-test-2 click-test-transfer"
    " click-widget focus-text focus-text-2 identify-shape unicode-test",
    "search": "click-collapsible click-collapsible-2 click-menu-2 click-tab"
    " click-tab-2 click-tab-2-easy click-tab-2-hard click-tab-2-medium navigate-tree"
    " search-engine",
    "form": "choose-list click-checkboxes click-checkboxes-soft"
    " click-checkboxes-transfer click-option click-scroll-list click-shades",
    "type": "enter-date enter-password enter-text enter-text-dynamic login-user"
    " login-user-popup multi-layouts multi-orderings",
    "email": "email-inbox-delete email-inbox-forward email-inbox-important"
    " email-inbox-noscroll email-inbox-reply",
}
_FURTHER = {
    "shape": "bisect-angle circle-center count-shape count-sides drag-box"
    " find-midpoint grid-coordinate right-angle use-colorwheel use-colorwheel-2"
    " use-slider visual-addition",
    "search": "click-pie",
    "form": "book-flight choose-date choose-date-easy choose-date-medium"
    " click-checkboxes-large resize-textarea",
    "type": "copy-paste copy-paste-2 enter-text-2 enter-time find-word highlight-text"
    " highlight-text-2 read-table read-table-2 scroll-text scroll-text-2 terminal"
    " text-transform use-autocomplete",
    "email": "email-inbox email-inbox-forward-nl email-inbox-forward-nl-turk"
    " email-inbox-nl-turk email-inbox-star-reply social-media social-media-all"
    " social-media-some",
    "puzzle": "guess-number simon-says simple-algebra simple-arithmetic tic-tac-toe",
}


def _families(groups: dict[str, str]) -> dict[str, str]:
    return {page: name for name, pages in groups.items() for page in pages.split()}


SOLVABLE = _families(_SOLVABLE)
"""Pages with a scripted solution, and their families."""

PAGES = dict(sorted((SOLVABLE | _families(_FURTHER)).items()))
"""All 91 pages, and their families."""

TRAIN_PAGES = tuple(
    sorted(random.Random(SPLIT_SEED).sample(sorted(SOLVABLE), NUM_TRAIN))
)
"""Pages to train on."""

UNSEEN_PAGES = tuple(page for page in PAGES if page not in TRAIN_PAGES)
"""Pages held out."""


def step_budget(name: str) -> int:
    """Most actions of an episode by AndroidWorld's convention: 10 for complexity 1.

    Example:
      >>> step_budget("click-button")
      30
    """
    del name  # AndroidWorld makes no difference between these pages
    return int(10 * COMPLEXITY)


def mobile_task_table(names: Iterable[str] | None = None) -> MiniwobTasks:
    """Table of the pages to train on, then those held out.

    Args:
      names: Some of `PAGES`, each in the part of the table that it always is in; None
        for all. If all of them are pages to train on, every other page is held out.

    Raises:
      ValueError: If a name is no page, or there is none to train on.
    """
    wanted = TRAIN_PAGES if names is None else tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in PAGES:
            near = difflib.get_close_matches(name, PAGES, 1, 0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name!r} is no page of the {len(PAGES)}{hint}")
    train = tuple(name for name in wanted if name in TRAIN_PAGES)
    if not train:
        raise ValueError(
            f"{', '.join(wanted) or 'nothing'} is held out; name at least one page to "
            f"train on, such as {TRAIN_PAGES[0]}."
        )
    held = tuple(name for name in wanted if name in UNSEEN_PAGES) or UNSEEN_PAGES
    every = train + held
    return MiniwobTasks(
        names=every,
        domains=tuple(PAGES[name] for name in every),
        train_ids=np.arange(len(train), dtype=np.int32),
        unseen_ids=np.arange(len(train), len(every), dtype=np.int32),
        infeasible=np.zeros(len(every), dtype=bool),
        instruction=lambda task_id, seed: "",
    )


def make_mobile_task(name: str, task_id: int = 0) -> Task:
    """The task of one page; any page of the package may be named."""
    family = PAGES.get(name, "other")
    return Task(task_id=task_id, name=name, instruction="", domain=family)
