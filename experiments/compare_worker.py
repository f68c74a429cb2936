"""One process that runs cells of a comparison one after another.

It is started by `experiments.compare` with the same command line, so that both know the
same cells, reads numbers of cells from standard input, one a line, and answers with one
JSON object a line. Cells that follow each other in one process share compiled programs.
"""

import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from experiments.compare_args import parse_plan
from experiments.compare_plan import Cell, Plan
from experiments.config import ExperimentConfig
from experiments.errors import RunError, UsageError
from experiments.observer import RunObserver, RunResult, SilentObserver

__all__ = ["main", "serve"]

TrainFn = Callable[..., RunResult]


class _Relay(SilentObserver):
    """An observer that passes a cell's rounds and warnings on to the parent process."""

    def __init__(self, say: Callable[..., None]):
        self._say = say

    def round_finished(self, metrics: Mapping[str, float]) -> None:
        self._say(event="round", round=int(metrics["round"]))


def serve(plan: Plan, requests: TextIO, replies: TextIO, train: TrainFn) -> None:
    """Run the cells that `requests` names until it ends or a run is stopped.

    Args:
      plan: The comparison.
      requests: Numbers of cells, one a line.
      replies: Gets one JSON object a line: `cell`, `event` ("round", "done",
        "failed" or "stopped") and more.
      train: `train(config, observer=...)`, as `experiments.loop.train`.
    """
    cells = plan.cells
    for line in requests:
        number = int(line)

        def say(number: int = number, **message: Any) -> None:
            print(json.dumps({"cell": number} | message), file=replies, flush=True)

        if not _run_cell(plan, cells[number], say, train):
            return


def _run_cell(plan: Plan, cell: Cell, say: Callable[..., None], train: TrainFn) -> bool:
    """True unless the process has been asked to stop."""
    config = plan.config(cell)
    began = time.monotonic()
    try:
        observer: RunObserver = _Relay(say)
        result = train(config, observer=observer)
    except (UsageError, RunError) as error:
        say(event="failed", why=str(error))
        return True
    except Exception as error:  # one broken cell must not end the others
        traceback.print_exc()
        say(event="failed", why=f"{type(error).__name__}: {error}".splitlines()[0])
        return True
    if result.status != "finished":
        say(event="stopped")
        return False
    seconds = time.monotonic() - began
    _note_cell(config, seconds)
    say(event="done", seconds=seconds)
    return True


def _note_cell(config: ExperimentConfig, seconds: float) -> None:
    """Writes what the cell ran on to `cell.json`, for the captions of tables."""
    import jax

    note = {
        "seconds": seconds,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    path = config.run_dir / "cell.json"
    part = path.with_suffix(".partial")
    part.write_text(json.dumps(note) + "\n")
    os.replace(part, path)


def _share_of_cores(worker: int, workers: int) -> None:
    """Gives each worker its own cores, so that their threads do not take turns."""
    if workers < 2 or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= workers:
        os.sched_setaffinity(0, cores[worker::workers])


def main() -> int:
    """Exit code of the process; the first argument is the worker's number."""
    worker, arguments = int(sys.argv[1]), sys.argv[2:]
    # Whatever libraries print goes to the log, not between the answers.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    plan = parse_plan(arguments)
    _share_of_cores(worker, plan.workers)
    # Must be set before jax starts; all workers may be on one accelerator.
    share = f"{0.9 / plan.workers:.2f}"
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", share)
    from experiments.backends import make_policy, open_backend
    from experiments.loop import train

    policy = make_policy(plan.base.policy, plan.base.env.backend)
    backend = open_backend(plan.base, policy)
    try:
        shared = functools.partial(train, backend=backend, policy=policy)
        serve(plan, sys.stdin, replies, shared)
    finally:
        backend.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
