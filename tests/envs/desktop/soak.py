"""Desktops under faults for as long as you like, and an account of every fault.

    python -m tests.envs.desktop.soak --minutes 120 --out soak.json

Oracle scripts play bundled tasks over and over while desktops are killed, lose their
screen, hang or answer late, at random, whatever they are doing. Scripts never fail, so
a valid episode without success is a fault that was counted against the policy. At the
end nothing may be left, and every fault must have been noticed, outlived, or have hit
a desktop that was about to go.
"""

import argparse
import collections
import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import threading
import time
from typing import Any

from stepjax.envs.base import Task
from stepjax.envs.desktop import (
    DesktopFleet,
    DesktopSettings,
    SandboxSpec,
    bundled_tasks,
)
from stepjax.envs.desktop.booted import Desktop, DesktopPhase, boot_desktop
from stepjax.envs.desktop.tasks.bundled.oracles import oracle_script
from stepjax.envs.pool import Deadlines, EnvironmentPool, EpisodeResult, Ready

KINDS = ("kill", "screen", "hang", "slow")
SLOW_SECONDS = 4.0
TASKS = (
    "terminal-run", "terminal-pick", "terminal-answer", "terminal-impossible",
    "editor-write", "editor-replace-word", "files-open", "files-delete",
    "files-rename", "files-missing", "settings-keyboard", "settings-assistance",
    "settings-open", "browser-color", "calc-enter", "player-play",
)  # fmt: skip
DEADLINES = Deadlines(create=60.0, reset=180.0, step=45.0, evaluate=90.0, close=30.0)


@dataclasses.dataclass
class Fault:
    """What was done to a desktop, and what came of it."""

    kind: str
    desktop: int
    phase: str
    began: float
    outcome: str = ""


@dataclasses.dataclass
class Kept:
    """A desktop that is alive, as far as is known."""

    desktop: Desktop
    faults: list[Fault] = dataclasses.field(default_factory=list)
    ended: float | None = None


class Injector:
    """Boots desktops, and breaks one of them every now and then."""

    def __init__(self, spec: SandboxSpec, *, mean_seconds: float, seed: int):
        """Desktops after `spec`, with a fault every `mean_seconds` on average."""
        self.faults: list[Fault] = []
        self._spec, self._mean = spec, mean_seconds
        self._random = random.Random(seed)
        self._kept: dict[int, Kept] = {}
        self._over = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._break_things, name="faults")

    def boot(self, needs_root: bool) -> Desktop:
        """A desktop whose end is noted."""
        spec = dataclasses.replace(self._spec, needs_root=needs_root)
        desktop = boot_desktop(spec, timeout=120.0)
        kept = self._kept[desktop.number] = Kept(desktop)
        close = desktop.close

        def noted() -> None:
            close()
            kept.ended = self.now()

        desktop.close = noted
        return desktop

    def now(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self._began, 1)

    def __enter__(self) -> "Injector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def settle(self, dead: set[int], hung: set[int]) -> None:
        """Say what came of each fault, once all desktops have ended.

        Args:
          dead: Numbers of the desktops that were seen to be dead.
          hung: Numbers of those that were ended because they did not answer.
        """
        for kept in self._kept.values():
            for fault in kept.faults:
                fault.outcome = _outcome(fault, kept, dead, hung)

    def _break_things(self) -> None:
        while not self._over.wait(self._random.expovariate(1 / self._mean)):
            alive = [
                one
                for one in self._kept.values()
                if one.ended is None and not one.faults and one.desktop.alive()
            ]
            if alive:
                self._break(self._random.choice(alive), self._random.choice(KINDS))

    def _break(self, kept: Kept, kind: str) -> None:
        desktop = kept.desktop
        fault = Fault(kind, desktop.number, desktop.phase.value, self.now())
        sandbox: Any = desktop.sandbox
        target = {
            "kill": lambda: sandbox.pid,
            "screen": lambda: _inside(sandbox.pid, "Xvfb"),
        }.get(kind, lambda: _inside(sandbox.pid, "python3", "inside.main"))()
        if target is None:
            return  # it is ending
        with contextlib.suppress(ProcessLookupError):
            if kind in ("kill", "screen"):
                os.kill(target, signal.SIGKILL)
            else:
                os.kill(target, signal.SIGSTOP)
            self.faults.append(fault)
            kept.faults.append(fault)
            if kind == "slow":
                self._over.wait(SLOW_SECONDS)
                os.kill(target, signal.SIGCONT)


def _outcome(fault: Fault, kept: Kept, dead: set[int], hung: set[int]) -> str:
    if kept.ended is None:
        return "never ended"
    if fault.desktop in dead:
        return "seen to be dead, replaced"
    if fault.desktop in hung:
        return "seen to hang, replaced"
    if fault.phase == DesktopPhase.ENDING.value:
        return "was ending"
    if fault.kind == "slow":
        return "outlived"
    return "ended with its episode"


def _inside(pid: int, *names: str) -> int | None:
    """A process below `pid` whose command is the first of `names`, given the others."""
    below, parents = {pid}, {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(stat[1])
    for _ in range(8):
        below |= {child for child, parent in parents.items() if parent in below}
    for one in sorted(below - {pid}):
        with contextlib.suppress(OSError):
            said = pathlib.Path(f"/proc/{one}/cmdline").read_bytes().decode()
            words = [part.rpartition("/")[2] for part in said.split("\0")]
            if words[0] == names[0] and set(names) <= set(words):
                return one
    return None


class Oracles:
    """Acts by the scripts, from the first step again when an episode starts over."""

    def __init__(self, episodes: list[tuple[Task, int]]):
        """Scripts of these tasks and seeds."""
        self._scripts = [oracle_script(task.name, seed) for task, seed in episodes]

    def __call__(self, ready: list[Ready]) -> list[Any]:
        """The next action of each."""
        found = []
        for one in ready:
            step = self._scripts[one.episode][one.step]
            found.append(step(one.observation) if callable(step) else step)
        return found


def footprint() -> dict[str, int]:
    """What this process holds: what must not grow."""
    gc.collect()
    me, parents = os.getpid(), []
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stat = entry.read_text().rpartition(")")[2].split()
            parents.append(int(stat[1]))
    memory = pathlib.Path("/proc/self/statm").read_text().split()
    folders = pathlib.Path(tempfile.gettempdir()).glob(f"stepjax-*{me}*/d-*")
    return {
        "children": parents.count(me),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "mounts": len(pathlib.Path("/proc/self/mountinfo").read_text().splitlines()),
        "folders": len(list(folders)),
        "memory_mb": int(memory[1]) * os.sysconf("SC_PAGE_SIZE") >> 20,
    }


def soak(
    *, minutes: float, fault_seconds: float, num_envs: int, seed: int, say: Any = print
) -> dict[str, Any]:
    """Runs episodes under faults and returns the account of them."""
    spec = SandboxSpec()
    lines: list[str] = []
    samples: list[dict[str, Any]] = []
    results: list[tuple[str, EpisodeResult]] = []

    def note(line: str) -> None:
        lines.append(line)
        say(f"  {line}")

    before = footprint()
    injector = Injector(spec, mean_seconds=fault_seconds, seed=seed)
    end = time.monotonic() + 60 * minutes
    with DesktopFleet(
        bundled_tasks(),
        num_envs=num_envs,
        settings=DesktopSettings(widgets=True, settle_ms=250),
        boot=injector.boot,
        report=note,
    ) as fleet:
        fleet.wait_ready(120.0)
        hung = _note_hanging(fleet.spares)
        with (
            EnvironmentPool(
                fleet, num_envs=num_envs, deadlines=DEADLINES, report=note
            ) as pool,
            injector,
        ):
            turn = 0
            while time.monotonic() < end:
                chosen = [
                    (_task(name), 1000 * turn + index)
                    for index, name in enumerate(TASKS)
                ]
                random.Random(seed + turn).shuffle(chosen)
                fleet.expect([(task.name, one) for task, one in chosen])
                played = pool.run(chosen, Oracles(chosen), max_steps=20)
                results += [
                    (task.name, result)
                    for (task, _), result in zip(chosen, played, strict=True)
                ]
                samples.append({"seconds": injector.now(), **footprint()})
                say(_line(samples[-1], results, injector.faults))
                turn += 1
        counts = fleet.spares.counts
    for _ in range(100):  # threads may take a moment
        after = footprint()
        if {k: after[k] for k in after if k != "memory_mb"} == {
            k: before[k] for k in before if k != "memory_mb"
        }:
            break
        time.sleep(0.1)
    dead = {int(word) for line in lines for word in _dead_numbers(line)}
    injector.settle(dead, hung)
    return _account(before, after, samples, results, injector, counts, pool, lines)


def _note_hanging(spares: Any) -> set[int]:
    """Numbers of the desktops that will be ended because they hang."""
    hung: set[int] = set()
    end = spares.end

    def noted(desktop: Desktop, *, hangs: bool = False) -> None:
        if hangs and desktop.phase is not DesktopPhase.ENDING and desktop.alive():
            hung.add(desktop.number)
        end(desktop, hangs=hangs)

    spares.end = noted
    return hung


def _task(name: str) -> Task:
    table = bundled_tasks()
    at = table.names.index(name)
    spec = table.load(name, 0)
    return Task(
        task_id=at,
        name=name,
        instruction=spec.instruction,
        domain=table.domains[at],
        infeasible=spec.infeasible,
    )


def _dead_numbers(line: str) -> list[str]:
    head, _, _ = line.partition(" died")
    return head.split()[-1:] if head != line and head.split()[-1].isdigit() else []


def _line(sample: dict[str, Any], results: list, faults: list[Fault]) -> str:
    held = ", ".join(f"{sample[name]} {name}" for name in sample if name != "seconds")
    return (
        f"{sample['seconds']:.0f} s: {len(results)} episodes, {len(faults)} faults; "
        f"{held}"
    )


def _account(before, after, samples, results, injector, counts, pool, lines):
    done = [(name, one) for name, one in results if one.status.valid]
    missed = [
        {"task": name, "faults": one.faults, "steps": one.num_steps, "said": one.error}
        for name, one in done
        if one.reward < 1.0
    ]
    outcomes = collections.Counter(
        f"{fault.kind}: {fault.outcome}" for fault in injector.faults
    )
    return {
        "episodes": len(results),
        "valid": len(done),
        "solved": sum(one.reward == 1.0 for _, one in done),
        "missed": missed,
        "lost_attempts": sum(one.faults for _, one in results),
        "invalid": [
            {"task": name, "status": one.status.value, "said": one.error}
            for name, one in results
            if not one.status.valid
        ],
        "faults": len(injector.faults),
        "outcomes": dict(sorted(outcomes.items())),
        "desktops": dataclasses.asdict(counts),
        "pool": pool.counts.metrics(),
        "before": before,
        "after": after,
        "threads_left": [thread.name for thread in threading.enumerate()],
        "samples": samples,
        "log": [dataclasses.asdict(fault) for fault in injector.faults],
        "lines": lines,
    }


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--fault-seconds", type=float, default=20.0)
    parser.add_argument("--num-envs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("soak.json"))
    given = parser.parse_args()
    account = soak(
        minutes=given.minutes,
        fault_seconds=given.fault_seconds,
        num_envs=given.num_envs,
        seed=given.seed,
        say=lambda line: print(line, flush=True),
    )
    given.out.write_text(json.dumps(account, indent=1))
    short = {k: v for k, v in account.items() if k not in ("samples", "log", "lines")}
    print(json.dumps(short, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
