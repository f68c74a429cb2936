"""The parent of a comparison's workers: hands out cells, replaces the fallen."""

import contextlib
import dataclasses
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.compare_plan import Cell, Plan

__all__ = ["Outcome", "is_finished", "run_cells", "worker_command"]

_DEATHS_IN_A_ROW = 3
_STOP_SECONDS = 30.0  # a worker asked to stop may still be writing a checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How running the cells went.

    Attributes:
      ran: Cells finished now.
      failed: Titles of cells that ended with an error, and why.
      stopped: True if the user stopped it.
    """

    ran: int
    failed: dict[str, str]
    stopped: bool


def is_finished(plan: Plan, cell: Cell) -> bool:
    """True if the cell's run folder holds the result of a finished run."""
    path = plan.run_dir / cell.folder / "result.json"
    try:
        return json.loads(path.read_text())["status"] == "finished"
    except (OSError, ValueError, KeyError):
        return False


def worker_command(worker: int, arguments: Sequence[str]) -> list[str]:
    """The command that starts a worker of a comparison with these arguments."""
    return [sys.executable, "-m", "experiments.compare_worker", str(worker), *arguments]


def run_cells(
    plan: Plan,
    command: Callable[[int], list[str]],
    say: Callable[[str], None] = print,
) -> Outcome:
    """Train every cell of the plan that is not finished yet.

    Args:
      plan: The comparison.
      command: Worker's number to the command that starts it.
      say: Gets one line for each cell.

    Returns:
      How it went; cells that failed or were not reached are run again next time.
    """
    todo = [n for n, cell in enumerate(plan.cells) if not is_finished(plan, cell)]
    say(
        f"{len(plan.cells)} cells of {plan.trajectories:,} trajectories each, "
        f"{len(plan.cells) - len(todo)} finished before; {plan.workers} workers"
    )
    crew = _Crew(plan, command, todo, say)
    return crew.run() if todo else Outcome(ran=0, failed={}, stopped=False)


class _Crew:
    def __init__(
        self,
        plan: Plan,
        command: Callable[[int], list[str]],
        todo: Sequence[int],
        say: Callable[[str], None],
    ):
        self._plan, self._command, self._say = plan, command, say
        self._cells = plan.cells
        self._todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in todo:
            self._todo.put(number)
        self._total, self._ran = len(todo), 0
        self._failed: dict[str, str] = {}
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def run(self) -> Outcome:
        count = min(self._plan.workers, self._total)
        threads = [
            threading.Thread(target=self._work, args=(worker,), daemon=True)
            for worker in range(count)
        ]
        for thread in threads:
            thread.start()
        stopped = False
        try:
            for thread in threads:
                while thread.is_alive():  # join without timeout would block Ctrl-C
                    thread.join(timeout=0.2)
        except KeyboardInterrupt:
            stopped = True
            self._stop(threads)
        return Outcome(ran=self._ran, failed=dict(self._failed), stopped=stopped)

    def _stop(self, threads: Sequence[threading.Thread]) -> None:
        self._stopping.set()
        self._say("stopping; the same command goes on from here")
        for process in list(self._processes.values()):
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        for process in list(self._processes.values()):
            if process.poll() is None:
                process.kill()
                process.wait()

    def _work(self, worker: int) -> None:
        log = self._plan.run_dir / f"worker{worker}.log"
        process: subprocess.Popen[str] | None = None
        deaths = 0
        while not self._stopping.is_set() and deaths < _DEATHS_IN_A_ROW:
            try:
                number = self._todo.get_nowait()
            except queue.Empty:
                break
            if process is None:
                process = self._start(worker, log)
            if self._ask(process, number) in ("done", "failed"):
                deaths = 0
                continue
            self._note_death(number, _dismiss(process), log)
            process, deaths = None, deaths + 1
        if process is not None:
            _dismiss(process)

    def _start(self, worker: int, log: Path) -> subprocess.Popen[str]:
        with open(log, "a") as file:
            process = subprocess.Popen(
                self._command(worker),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self._processes[worker] = process
        return process

    def _ask(self, process: subprocess.Popen[str], number: int) -> str:
        """How it ended: "done", "failed", "stopped", or "died" with its worker."""
        if process.stdin is None or process.stdout is None:
            return "died"
        try:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
        except OSError:
            return "died"
        for line in process.stdout:
            message = json.loads(line)
            if message["event"] in ("done", "failed", "stopped"):
                self._note(number, message)
                return message["event"]
        return "died"

    def _note(self, number: int, message: dict[str, Any]) -> None:
        title = self._cells[number].title
        with self._lock:
            if message["event"] == "failed":
                self._failed[title] = message["why"]
                self._say(f"failed: {title}: {message['why']}")
            elif message["event"] == "done":
                self._ran += 1
                left = self._total - self._ran - len(self._failed)
                pace = (time.monotonic() - self._began) / self._ran
                self._say(
                    f"[{self._ran}/{self._total}] {title}: "
                    f"{message['seconds']:.0f} s; about {left * pace / 60:.0f} min left"
                )

    def _note_death(self, number: int, code: int | None, log: Path) -> None:
        if self._stopping.is_set():
            return
        with self._lock:
            title = self._cells[number].title
            self._failed[title] = f"its process ended early, code {code}; see {log}"
            self._say(f"failed: {title}: {self._failed[title]}")


def _dismiss(process: subprocess.Popen[str]) -> int:
    """Exit code of a worker that is told that there is nothing more to do."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    code = process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return code
