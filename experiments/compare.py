"""Methods compared at equal budgets over paired seeds: `python -m experiments.compare`.

Runs what is not finished yet, then writes `results.md`, `results.json` and `figures/`
to the run folder. `--report-only` does the second part alone.
"""

import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.compare_args import PROGRAM, parse_plan
from experiments.compare_plan import Plan, check_folder
from experiments.compare_runner import run_cells, worker_command
from experiments.errors import UsageError

__all__ = ["main", "write_results"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 2 for wrong usage, 1 if cells failed, 130 if it was stopped."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        plan = parse_plan(arguments)
        print(_first_line(plan), flush=True)
        check_folder(plan)
        if not plan.report_only:
            _note_command(plan, arguments)
            outcome = run_cells(
                plan,
                lambda worker: worker_command(worker, arguments),
                say=lambda text: print(text, flush=True),
            )
            if outcome.stopped:
                return 130
        print(write_results(plan))
    except UsageError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    if not plan.report_only and outcome.failed:
        print(
            f"{PROGRAM}: {len(outcome.failed)} cells failed; the same command runs "
            "them again",
            file=sys.stderr,
        )
        return 1
    return 0


def write_results(plan: Plan) -> Path:
    """The path of `results.md`, with tables and figures of all finished cells.

    Raises:
      UsageError: If no cell is finished.
    """
    from experiments.compare_results import render

    caption = _caption(plan)
    text, numbers = render(plan, caption)
    (plan.run_dir / "results.json").write_text(json.dumps(numbers, indent=1) + "\n")
    path = plan.run_dir / "results.md"
    path.write_text(text, encoding="utf-8")
    return path


def _first_line(plan: Plan) -> str:
    backend = plan.base.env.backend
    kind = {"sim": "sim, a simulated desktop (its scores are not OSWorld scores)"}
    return (
        f"backend {kind.get(backend, backend)}; {len(plan.methods)} methods, "
        f"{_seeds(plan)}, learning rates "
        f"{', '.join(f'{rate:g}' for rate in plan.learning_rates)}; {plan.run_dir}"
    )


def _note_command(plan: Plan, arguments: Sequence[str]) -> None:
    path = plan.run_dir / "compare.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["command"] = shlex.join([*PROGRAM.split(), *arguments])
    content["host"] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "workers": plan.workers,
    }
    part = path.with_suffix(".partial")
    part.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(part, path)


def _caption(plan: Plan) -> str:
    """Where the numbers come from: backend, seeds, command, hardware, date."""
    path = plan.run_dir / "compare.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    notes = [
        json.loads(found.read_text())
        for found in sorted(plan.run_dir.glob("cells/*/*/*/cell.json"))
    ]
    devices = sorted({f"{note['devices']} × {note['device']}" for note in notes})
    versions = sorted({note["jax"] for note in notes})
    dates = sorted({note["date"] for note in notes})
    host = content.get("host", {})
    backend = {"sim": "Simulator (the simulated desktop, not OSWorld)"}
    where = backend.get(plan.base.env.backend, plan.base.env.backend)
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "?"
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return (
        f"{where}; {_seeds(plan)}; {plan.base.rounds} rounds of "
        f"{plan.base.algo.trajectories_per_round} trajectories; "
        f"`{content.get('command', '?')}`; {host.get('processor', '?')}, "
        f"{host.get('cores', '?')} cores, {host.get('workers', '?')} workers, "
        f"jax {', '.join(versions) or '?'} on {', '.join(devices) or '?'}; "
        f"run {when}, tables made {made}."
    )


def _seeds(plan: Plan) -> str:
    return "seed 0" if plan.seeds == 1 else f"seeds 0 to {plan.seeds - 1}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
