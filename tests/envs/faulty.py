"""Environments whose faults are scripted, for tests of whatever drives environments.

The world is tiny and deterministic: four buttons, an episode of two to four steps, and
reward 1 if each step clicked the button the instruction names for it.
"""

import collections
import itertools
import threading
import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task, Widget

GARBAGE = {
    "reset": Observation(instruction="x", screenshot=np.zeros((4, 4), np.float32)),
    "step": StepResult(observation=None),  # pyright: ignore
    "evaluate": float("nan"),
}
BUTTONS = tuple(
    Widget(role="button", label=f"b{index}", box=(index / 4, 0.2, (index + 1) / 4, 0.4))
    for index in range(4)
)

Script = Callable[[int, str, str, int], str | None]
"""Maps environment index, phase, task name and number of the call to a fault."""


def no_faults(index: int, phase: str, task: str, call: int) -> None:
    """The script of a world in order."""


def nth(phase: str, number: int, fault: str) -> Script:
    """One fault, at that call of the phase, whichever environment gets it."""
    calls = itertools.count()

    def script(index: int, where: str, task: str, call: int) -> str | None:
        return fault if where == phase and next(calls) == number else None

    return script


class World:
    """Makes scripted environments and remembers what was done to them.

    Faults: "crash" raises, "exit" raises SystemExit, "hang" waits until `release` is
    set or the environment is killed, "slow" sleeps past tiny deadlines and then goes
    on, "lazy" sleeps a little, "garbage" returns nonsense.
    """

    def __init__(self, script: Script = no_faults, *, killable: bool = True):
        self.script = script
        self.killable = killable
        self.release = threading.Event()
        self.calls: collections.Counter[tuple[int, str]] = collections.Counter()
        self.made: list[ScriptedEnvironment] = []
        self.lock = threading.Lock()

    def __call__(self, index: int) -> "ScriptedEnvironment":
        self.misbehave(index, "create", "", None)
        kind = KillableEnvironment if self.killable else ScriptedEnvironment
        environment = kind(self, index)
        with self.lock:
            self.made.append(environment)
        return environment

    def misbehave(
        self, index: int, phase: str, task: str, killed: threading.Event | None
    ) -> str | None:
        with self.lock:
            call = self.calls[index, phase]
            self.calls[index, phase] += 1
            fault = self.script(index, phase, task, call)
        if fault == "crash":
            raise ConnectionResetError("the desktop\nis gone")
        if fault == "exit":
            raise SystemExit(3)
        if fault == "hang":
            while not self.release.wait(0.01):
                if killed is not None and killed.is_set():
                    raise ConnectionAbortedError("killed")
        if fault in ("slow", "lazy"):
            time.sleep(0.7 if fault == "slow" else 0.01)
        return fault


class ScriptedEnvironment:
    """One environment of a `World`."""

    def __init__(self, world: World, index: int):
        self.world, self.index = world, index
        self.closed = 0
        self.killed = threading.Event()
        self.task, self.seed = Task(task_id=0, name="", instruction="", domain=""), 0
        self.clicks: list[int | None] = []

    def reset(self, task: Task, seed: int) -> Observation:
        self.task, self.seed, self.clicks = task, seed, []
        if self._faulty("reset"):
            return GARBAGE["reset"]
        return self._observe()

    def step(self, action: Action) -> StepResult:
        if self._faulty("step"):
            return GARBAGE["step"]
        self.clicks.append(action.widget)
        ended = action.kind in (ActionKind.DONE, ActionKind.FAIL)
        return StepResult(
            observation=self._observe(), terminated=ended or self._left() == 0
        )

    def evaluate(self) -> float:
        if self._faulty("evaluate"):
            return GARBAGE["evaluate"]
        right = [target(self.seed, step) for step in range(len(self.clicks))]
        return float(self._left() == 0 and self.clicks == right)

    def close(self) -> None:
        self.closed += 1
        self._faulty("close")

    def _faulty(self, phase: str) -> bool:
        fault = self.world.misbehave(self.index, phase, self.task.name, self.killed)
        return fault == "garbage"

    def _left(self) -> int:
        return 2 + self.seed % 3 - len(self.clicks)

    def _observe(self) -> Observation:
        step = len(self.clicks)
        state = f"{self.task.name} {self.seed} {self.clicks}"
        return Observation(
            instruction=f"press b{target(self.seed, step)} now",
            widgets=BUTTONS,
            state_hash=zlib.crc32(state.encode()),
        )


class KillableEnvironment(ScriptedEnvironment):
    """One that can be ended from another thread."""

    def kill(self) -> None:
        self.killed.set()


class ScriptedVector:
    """Several scripted environments stepped in one call."""

    def __init__(self, world: World, index: int, num_slots: int):
        self.num_slots = num_slots
        self.world = world
        self.batches: list[int] = []
        world.misbehave(index, "create", "", None)
        self._slots = [ScriptedEnvironment(world, index) for _ in range(num_slots)]
        with world.lock:
            world.made.append(self)  # pyright: ignore

    def reset_many(
        self, slots: Sequence[int], tasks: Sequence[Task], seeds: Sequence[int]
    ) -> list[Observation]:
        rows = zip(slots, tasks, seeds, strict=True)
        return [self._slots[slot].reset(task, seed) for slot, task, seed in rows]

    def step_many(
        self, slots: Sequence[int], actions: Sequence[Action]
    ) -> list[StepResult]:
        self.batches.append(len(slots))
        rows = zip(slots, actions, strict=True)
        return [self._slots[slot].step(action) for slot, action in rows]

    def evaluate_many(self, slots: Sequence[int]) -> list[float]:
        return [self._slots[slot].evaluate() for slot in slots]

    def screenshot(self, slot: int) -> np.ndarray:
        shade = 10 * slot + len(self._slots[slot].clicks)
        return np.full((8, 8, 3), shade, np.uint8)

    def close(self) -> None:
        self.closed = True


def target(seed: int, step: int) -> int:
    """Button to click at a step."""
    return (seed + step) % 4


def make_task(task_id: int) -> Task:
    """A task of the tiny world."""
    return Task(task_id=task_id, name=f"task-{task_id}", instruction="", domain="tiny")


def obey(observation: Observation) -> Action:
    """Click what the instruction names."""
    return Action(kind=ActionKind.CLICK, widget=int(observation.instruction[7]))
