"""The bundled tasks by name: which are trained on, which are held out."""

import zlib
from collections.abc import Callable

import numpy as np

from stepjax.envs.desktop.tasks.bundled import (
    browser,
    calc,
    editor,
    files,
    impress,
    pictures,
    player,
    settings,
    terminal,
    writer,
)
from stepjax.envs.desktop.tasks.bundled.parts import Draft
from stepjax.envs.desktop.tasks.schema import TaskSpec, parse_task

__all__ = [
    "FAST_TASKS",
    "PROGRAMS",
    "TRAIN_TASKS",
    "UNSEEN_TASKS",
    "bundled_draft",
    "bundled_task",
]

TRAIN_TASKS = {
    "terminal-run": "terminal", "terminal-pick": "terminal",
    "terminal-answer": "terminal", "terminal-impossible": "terminal",
    "editor-write": "editor", "editor-replace-all": "editor",
    "editor-replace-word": "editor",
    "files-open": "files", "files-delete": "files", "files-rename": "files",
    "files-new-folder": "files", "files-missing": "files",
    "settings-keyboard": "settings", "settings-assistance": "settings",
    "settings-open": "settings",
    "browser-color": "browser", "calc-enter": "calc", "writer-bold": "writer",
    "player-play": "player",
}  # fmt: skip
"""Tasks to train on, and their applications."""

UNSEEN_TASKS = {
    "editor-append": "editor", "editor-delete-line": "editor", "files-copy": "files",
    "files-move": "files",
    "settings-appearance": "settings", "settings-absent": "settings",
    "browser-form": "browser", "browser-scroll": "browser",
    "calc-sum": "calc", "calc-clear": "calc",
    "writer-center": "writer", "writer-append": "writer",
    "impress-delete": "impress", "impress-title": "impress",
    "gimp-export": "gimp", "gimp-fill": "gimp", "player-next": "player",
}  # fmt: skip
"""Tasks held out, and their applications."""

FAST_TASKS = tuple(
    name
    for name, domain in TRAIN_TASKS.items()
    if domain in ("terminal", "editor", "files", "settings")
)
"""Tasks to train on whose application starts within a second."""

PROGRAMS = {
    "terminal": "xterm", "editor": "mousepad", "files": "pcmanfm",
    "settings": "xfce4-settings-manager", "browser": "chromium", "calc": "soffice",
    "writer": "soffice", "impress": "soffice", "gimp": "gimp", "player": "vlc",
}  # fmt: skip
"""Program that each application's tasks start."""

_MAKERS: dict[str, Callable[[np.random.Generator], Draft]] = {
    **terminal.TASKS, **editor.TASKS, **files.TASKS, **settings.TASKS,
    **browser.TASKS, **calc.TASKS, **writer.TASKS, **impress.TASKS,
    **pictures.TASKS, **player.TASKS,
}  # fmt: skip


def bundled_draft(name: str, seed: int) -> Draft:
    """One variation of a bundled task with the scripts that solve and miss it.

    Raises:
      ValueError: If there is no such task, or the seed is negative.
    """
    if name not in _MAKERS:
        raise ValueError(
            f"there is no bundled task {name!r}; choose from {', '.join(_MAKERS)}."
        )
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}.")
    return _MAKERS[name](np.random.default_rng([zlib.crc32(name.encode()), seed]))


def bundled_task(name: str, seed: int) -> TaskSpec:
    """One variation of a bundled task; equal seeds give equal variations.

    Args:
      name: A name from `TRAIN_TASKS` or `UNSEEN_TASKS`.
      seed: Decides words, files, places; >= 0.

    Raises:
      ValueError: If there is no such task, or the seed is negative.

    Example:
      >>> bundled_task("terminal-run", 0).domain
      'terminal'
    """
    draft = bundled_draft(name, seed)
    domain = (TRAIN_TASKS | UNSEEN_TASKS)[name]
    data = {
        "id": name,
        "instruction": draft.instruction,
        "config": list(draft.config),
        "evaluator": draft.evaluator,
        "related_apps": [domain],
    }
    return parse_task(data, source=f"bundled task {name}, seed {seed}", domain=domain)
