"""Task files of a user's own `evaluation_examples` folder."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stepjax.envs.desktop.tasks.schema import TaskSpec, parse_task

__all__ = ["MAX_TASK_BYTES", "load_task", "load_tasks", "task_files"]

MAX_TASK_BYTES = 16 * 2**20
"""Largest task file or list that is read."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")


def load_task(path: Path) -> TaskSpec:
    """The task of one file; its folder's name is the domain.

    Raises:
      ValueError: If the file cannot be read or is malformed.
    """
    return parse_task(_read_json(path), source=str(path), domain=path.parent.name)


def task_files(folder: Path, task_list: Path | None = None) -> tuple[Path, ...]:
    """Files of the tasks that a list names, or of all tasks of a folder.

    Args:
      folder: An `evaluation_examples` folder, which holds
        `examples/<domain>/<id>.json`.
      task_list: A JSON file `{domain: [id, ...]}`; None for all of the folder.

    Raises:
      ValueError: If the folder, the list or a listed file is missing or malformed.
    """
    examples = folder / "examples"
    if not examples.is_dir():
        raise ValueError(
            f"no folder {examples}: give the evaluation_examples folder, which "
            "holds examples/<domain>/<id>.json."
        )
    if task_list is None:
        found = tuple(sorted(examples.glob("*/*.json")))
    else:
        found = tuple(examples / name for name in _listed(task_list))
    if not found:
        raise ValueError(f"no task in {task_list or examples}.")
    for path in found:
        if not path.is_file():
            raise ValueError(f"{task_list} lists a task whose file is missing: {path}")
    return found


def load_tasks(folder: Path, task_list: Path | None = None) -> tuple[TaskSpec, ...]:
    """Tasks of `task_files`, parsed; `TaskSpec.name` tells them apart.

    Raises:
      ValueError: If a file is missing or malformed, or if one holds another's task.
    """
    specs = tuple(load_task(path) for path in task_files(folder, task_list))
    seen: dict[str, str] = {}
    for spec in specs:
        if spec.name in seen:
            raise ValueError(
                f"{spec.source}: id {spec.id!r} is also the id of {seen[spec.name]}."
            )
        seen[spec.name] = spec.source
    return specs


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_TASK_BYTES:
            raise ValueError(f"{path}: larger than {MAX_TASK_BYTES} bytes.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}.") from error


def _listed(task_list: Path) -> Iterable[str]:
    """The `<domain>/<id>.json` of a task list, in its order, each once."""
    data = _read_json(task_list)
    if not isinstance(data, dict):
        raise ValueError(f"{task_list}: must hold an object {{domain: [id, ...]}}.")
    names: dict[str, None] = {}
    for domain, ids in data.items():
        if not _NAME.fullmatch(domain):
            raise ValueError(f"{task_list}: {domain[:80]!r} is no folder name.")
        if not isinstance(ids, list):
            raise ValueError(f"{task_list}: {domain} must be a list of ids.")
        for index, one in enumerate(ids):
            if not isinstance(one, str) or not _NAME.fullmatch(one):
                raise ValueError(
                    f"{task_list}: {domain}[{index}] is {one!r:.80}; it must be a "
                    "task id."
                )
            names[f"{domain}/{one}.json"] = None
    return names
