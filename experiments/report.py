"""One HTML file that shows a run: it opens from disk, loads nothing, runs no script."""

from __future__ import annotations

import argparse
import base64
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.episodes import Episode, is_tall, load_episodes
from experiments.figures import run_figures
from experiments.run_data import Run, read_run
from experiments.task_history import task_history

__all__ = ["main", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_BACKENDS = {
    "sim": "simulated desktop (simulator), not OSWorld itself",
    "miniwob": "MiniWoB++ pages in Chromium",
    "desktop": "real applications on sandboxed desktops, not OSWorld's machines",
    "vm": "OSWorld's virtual machines",
    "miniwob-mobile": "MiniWoB++ pages on a phone's screen, not AndroidWorld itself",
    "androidworld": "AndroidWorld's own servers",
}


def write_report(
    run_dir: Path | str, *, episodes: Sequence[Episode] | None = None
) -> Path:
    """The path of `report.html`, made from what the run folder holds.

    Also writes the figures it shows to `figures/`. Text in the run folder is data: it
    is escaped, and the page forbids scripts and every address but its own.

    Args:
      run_dir: The run folder; the run may still be going on.
      episodes: Trajectories to show. None: those in `episodes/`.

    Raises:
      ValueError: If `run_dir` is no run folder.
    """
    run = read_run(run_dir)
    if episodes is None:
        episodes = load_episodes(run.folder / "episodes")
    figures = run_figures(run, run.folder / "figures")
    html = (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=f"{run.setting('algo.method', 'run')} on {_short_backend(run)}",
            subtitle=_subtitle(run),
            facts=_facts(run),
            cards=_cards(run),
            warnings=run.warnings,
            figures={
                name: _data_uri(path.read_bytes()) for name, path in figures.items()
            },
            top_tasks=_top_tasks(run),
            episodes=[_episode(episode) for episode in episodes],
            settings=_settings(run),
            footer=_footer(run),
        )
    )
    path = run.folder / "report.html"
    # A reader never sees half a page, also when the run is killed here.
    part = path.with_suffix(".part")
    part.write_text(html, encoding="utf-8")
    os.replace(part, path)
    return path


def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )


def _data_uri(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _short_backend(run: Run) -> str:
    return {"sim": "the simulated desktop"}.get(run.backend, run.backend)


def _subtitle(run: Run) -> str:
    place = _BACKENDS.get(run.backend, run.backend)
    return f"Backend: {place}. All success rates below are from this backend."


def _facts(run: Run) -> list[tuple[str, str]]:
    rounds = int(run.metrics[-1]["round"]) if run.metrics else 0
    facts = [
        ("method", str(run.setting("algo.method", "?"))),
        ("backend", run.backend),
        ("seed", str(run.setting("seed", "?"))),
        ("rounds", f"{rounds} of {run.setting('rounds', '?')}"),
        ("learning rate", f"{run.setting('optim.learning_rate', '?')}"),
    ]
    seconds = run.total("time/round")
    return facts + ([("time", _duration(seconds))] if seconds else [])


def _cards(run: Run) -> list[dict[str, Any]]:
    cards = [
        _change_card(run, "eval/train_success", "Training tasks solved", percent=True),
        _change_card(run, "eval/unseen_success", "Unseen tasks solved", percent=True),
        _change_card(
            run, "eval/infeasible_success", "Infeasible recognized", percent=True
        ),
        _change_card(
            run, "eval/train_above_60", "Training tasks above 60%", percent=False
        ),
    ]
    trajectories = run.last("trajectories")
    if trajectories is not None:
        updates = run.total("update/count")
        seconds = run.total("time/round")
        speed = f", {trajectories / seconds:,.0f} per second" if seconds else ""
        cards.append(
            {
                "name": "Trajectories collected",
                "value": f"{trajectories:,.0f}",
                "change": "",
                "better": True,
                "note": f"{updates:,.0f} optimizer updates{speed}",
            }
        )
    return [card for card in cards if card is not None]


def _change_card(run: Run, name: str, title: str, *, percent: bool) -> dict | None:
    first, last = run.first(name), run.last(name)
    if first is None or last is None:
        return None
    scale, unit = (100.0, "%") if percent else (1.0, "")
    step = scale * (last - first)
    digits = 1 if percent else 0
    # Minus sign and plus sign are as wide as a digit; a hyphen is not.
    sign = "+" if step >= 0 else "−"
    return {
        "name": title,
        "value": f"{scale * last:.{digits}f}{unit}",
        "change": f"{sign}{abs(step):.{digits}f}" + (" points" if percent else ""),
        "better": step >= 0,
        "note": f"from {scale * first:.{digits}f}{unit}, greedy",
    }


def _top_tasks(run: Run, most: int = 12) -> list[dict[str, Any]]:
    history = task_history(run)
    if history is None:
        return []
    counts = history.trajectories.sum(axis=1)
    domains = run.task_info.get("domains", [])
    rows = []
    for index in np.argsort(-counts, kind="stable")[:most]:
        task = int(history.task_ids[index])
        known = history.rate[index][~np.isnan(history.rate[index])]
        rows.append(
            {
                "name": history.names[index] if history.names else f"task {task}",
                "domain": domains[task] if task < len(domains) else "",
                "count": f"{counts[index]:,}",
                "share": f"{100 * counts[index] / counts.sum():.1f}",
                "first": f"{100 * known[0]:.0f}" if len(known) else "",
                "last": f"{100 * known[-1]:.0f}" if len(known) else "",
            }
        )
    return rows


def _episode(episode: Episode) -> dict[str, Any]:
    steps = [
        {
            "image": _data_uri(step.image),
            "action": step.action,
            "tall": is_tall(step.image),
        }
        for step in episode.steps
    ]
    return {
        "task": episode.task,
        "instruction": episode.instruction,
        "moment": episode.moment,
        "split": episode.split,
        "success": episode.success,
        "steps": steps,
    }


def _settings(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in run.settings.items():
        group, _, field = name.rpartition(".")
        groups.setdefault(group or "run", []).append(
            (field, "" if value is None else str(value))
        )
    return list(groups.items())


def _footer(run: Run) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"Made by stepjax on {now} from {run.folder.resolve().name}/."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of `python -m experiments.report RUN_DIR`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Write report.html of a run folder again.",
    )
    parser.add_argument("run_dir", type=Path, help="the folder that --run-dir named")
    run_dir = parser.parse_args(arguments).run_dir
    try:
        print(write_report(run_dir))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
