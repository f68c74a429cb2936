"""Which of MiniWoB++'s pages are trained on, which are held out, and their families.

Chosen: pages that clicks, ENTER, scrolling and typing words of the instruction solve.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from stepjax.envs.base import Task

__all__ = ["MiniwobTasks", "TRAIN_TASKS", "UNSEEN_TASKS", "make_task", "task_table"]

TRAIN_TASKS = {
    "click-button": "click", "click-test-2": "click", "click-dialog": "click",
    "click-dialog-2": "click", "click-tab": "click", "click-link": "click",
    "click-widget": "click", "click-color": "click", "click-shape": "click",
    "identify-shape": "click", "unicode-test": "click", "focus-text-2": "click",
    "click-button-sequence": "sequence", "click-collapsible": "sequence",
    "click-collapsible-2": "search", "click-tab-2": "search",
    "navigate-tree": "search", "phone-book": "search",
    "click-menu-2": "search", "search-engine": "search",
    "click-checkboxes": "form", "click-checkboxes-transfer": "form",
    "click-checkboxes-soft": "form", "click-option": "form", "choose-list": "form",
    "click-scroll-list": "form", "click-shades": "form", "odd-or-even": "form",
    "enter-text": "type", "enter-password": "type", "enter-date": "type",
    "login-user": "type", "login-user-popup": "type", "form-sequence-2": "type",
    "form-sequence-3": "form", "multi-orderings": "type",
    "email-inbox-delete": "email", "email-inbox-important": "email",
    "email-inbox-forward": "email", "email-inbox-reply": "email",
}  # fmt: skip
"""Pages to train on, and their families."""

UNSEEN_TASKS = {
    "click-test": "click", "focus-text": "click", "click-tab-2-hard": "search",
     "enter-text-dynamic": "type",
    "multi-layouts": "type", "email-inbox-noscroll": "email",
}  # fmt: skip
"""Pages held out, and their families; each is a relation of some page to train on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniwobTasks:
    """The pool of pages, in the fields of a table of tasks.

    Attributes:
      names: T page names.
      domains: T families.
      train_ids: [T_train] int32. Pages to train on.
      unseen_ids: [T_unseen] int32. Pages held out.
      infeasible: [T] bool. All False: every page can be solved.
      instruction: Maps a task id and a seed to ""; a page tells only after its reset.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    train_ids: np.ndarray  # [T_train] int32
    unseen_ids: np.ndarray  # [T_unseen] int32
    infeasible: np.ndarray  # [T] bool
    instruction: Callable[[int, int], str]


def task_table(names: Iterable[str] | None = None) -> MiniwobTasks:
    """Table of the pages to train on, then those held out.

    Args:
      names: Pages to train on, a subset of `TRAIN_TASKS`; None for all.

    Raises:
      ValueError: If a name is not in `TRAIN_TASKS`.
    """
    chosen = tuple(TRAIN_TASKS if names is None else names)
    for name in chosen:
        if name not in TRAIN_TASKS:
            raise ValueError(
                f"{name!r} is no page to train on; choose from "
                f"{', '.join(TRAIN_TASKS)}."
            )
    every = chosen + tuple(UNSEEN_TASKS)
    families = TRAIN_TASKS | UNSEEN_TASKS
    return MiniwobTasks(
        names=every,
        domains=tuple(families[name] for name in every),
        train_ids=np.arange(len(chosen), dtype=np.int32),
        unseen_ids=np.arange(len(chosen), len(every), dtype=np.int32),
        infeasible=np.zeros(len(every), dtype=bool),
        instruction=lambda task_id, seed: "",
    )


def make_task(name: str, task_id: int = 0) -> Task:
    """The task of one page; any page of the package may be named."""
    family = (TRAIN_TASKS | UNSEEN_TASKS).get(name, "other")
    return Task(task_id=task_id, name=name, instruction="", domain=family)
