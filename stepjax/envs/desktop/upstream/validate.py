"""Which of a user's OSWorld tasks can run on this machine's desktops, and why not."""

import argparse
import collections
import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepjax.envs.desktop.tasks.files import load_task, task_files
from stepjax.envs.desktop.upstream.needs import Abilities, Need, Obstacle, obstacles

__all__ = ["Row", "add_validate_arguments", "table", "validate", "validate_command"]


_PLAIN = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What the validator says of one task.

    Attributes:
      name: Domain and id.
      obstacles: Why it cannot run; empty if it can.
      infeasible: True if answering FAIL is the right end.
      needs_root: True if it needs the desktop with root rights.
    """

    name: str
    obstacles: tuple[Obstacle, ...]
    infeasible: bool = False
    needs_root: bool = False

    @property
    def runs(self) -> bool:
        """True if nothing is in the way."""
        return not self.obstacles


def validate(
    folder: Path,
    task_list: Path | None = None,
    cache: Path | None = None,
    *,
    abilities: Abilities | None = None,
) -> list[Row]:
    """One row for each task, in the order of the list.

    A missing or malformed task file is a row of its own, which names the file and the
    key, so that the others are still looked at.

    Args:
      folder: `evaluation_examples`, which holds `examples/<domain>/<id>.json`.
      task_list: JSON file of ids by domain; None for every file of the folder.
      cache: The user's folder of assets, or None.
      abilities: What desktops here have; None to look.

    Raises:
      ValueError: If the folder or the list cannot be read.
    """
    abilities = abilities or Abilities(root=os.geteuid() == 0)
    present = task_files(folder)
    paths = _listed(folder / "examples", task_list) if task_list else present
    return [_row(path, cache, abilities) for path in paths]


def table(rows: Sequence[Row], *, width: int = 160) -> str:
    """Rows as text, one line each and a summary, lines cut at `width`."""
    longest = max((len(row.name) for row in rows), default=0)
    lines = []
    for row in rows:
        verdict = "runs" if row.runs else "cannot"
        lines.append(f"{row.name:<{longest}}  {verdict:<6}  {_why(row)}".rstrip())
    lines = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
    return "\n".join([*lines, "", *_summary(rows)])


def add_validate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command line that `validate_command` reads."""
    parser.add_argument(
        "--tasks", type=Path, required=True, help="the evaluation_examples folder"
    )
    parser.add_argument(
        "--task-list", type=Path, help="JSON file of ids by domain; else every task"
    )
    parser.add_argument("--cache", type=Path, help="folder of the tasks' assets")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, with every reason in full"
    )


def validate_command(args: argparse.Namespace) -> int:
    """Print the table; 0 if a task runs and none is malformed, else 1.

    Raises:
      ValueError: If the folder or the list cannot be read.
    """
    rows = validate(args.tasks, args.task_list, args.cache)
    if args.json:
        print(json.dumps([_as_json(row) for row in rows], indent=1))
    else:
        print(table(rows))
    malformed = any(o.need is Need.MALFORMED for row in rows for o in row.obstacles)
    return 1 if malformed or not any(row.runs for row in rows) else 0


def _listed(examples: Path, task_list: Path) -> list[Path]:
    """Files that a list names, also those that are not there."""
    try:
        data = json.loads(task_list.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{task_list}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{task_list}: not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ValueError(f"{task_list}: must hold an object {{domain: [id, ...]}}.")
    names: dict[str, None] = {}
    for domain, ids in data.items():
        for index, one in enumerate(ids if isinstance(ids, list) else [ids]):
            if not isinstance(one, str) or not _PLAIN.fullmatch(f"{domain}/{one}"):
                raise ValueError(
                    f"{task_list}: {domain:.80}[{index}] is {one!r:.80}; it must be a "
                    "task id."
                )
            names[f"{domain}/{one}.json"] = None
    return [examples / name for name in names]


def _row(path: Path, cache: Path | None, abilities: Abilities) -> Row:
    name = f"{path.parent.name}/{path.stem}"
    try:
        spec = load_task(path)
        found = obstacles(spec, cache=cache, abilities=abilities)
    except ValueError as error:
        broken = Obstacle(need=Need.MALFORMED, detail=" ".join(str(error).split()))
        return Row(name=name, obstacles=(broken,))
    return Row(
        name=name,
        obstacles=found,
        infeasible=spec.infeasible,
        needs_root=spec.needs_root,
    )


def _why(row: Row) -> str:
    """Each kind of obstacle once, with its first example."""
    by_need = collections.defaultdict(list)
    for obstacle in row.obstacles:
        by_need[obstacle.need].append(obstacle)
    parts = [
        f"{first}" + (f" (+{len(others)})" if others else "")
        for first, *others in by_need.values()
    ]
    marks = ["infeasible"] * row.infeasible + ["as root"] * row.needs_root
    return "; ".join(parts) or ", ".join(marks)


def _summary(rows: Sequence[Row]) -> list[str]:
    running = [row for row in rows if row.runs]
    infeasible = sum(row.infeasible for row in running)
    lines = [
        f"{len(running)} of {len(rows)} tasks can run here, {infeasible} of them "
        "infeasible (FAIL is right)."
    ]
    counts = collections.Counter(
        need for row in rows for need in {o.need for o in row.obstacles}
    )
    for need, count in counts.most_common():
        lines.append(f"  {count:>4}  {need.value}")
    return lines


def _as_json(row: Row) -> dict[str, Any]:
    return {
        "task": row.name,
        "runs": row.runs,
        "infeasible": row.infeasible,
        "needs_root": row.needs_root,
        "obstacles": [
            {"need": o.need.name.lower(), "detail": o.detail} for o in row.obstacles
        ],
    }
