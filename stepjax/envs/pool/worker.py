"""A worker: one environment, the thread that alone calls it, and the call in flight.

Threads are daemons of our own rather than an executor's, which would wait for a hung
call when the interpreter exits. A hung thread is abandoned; if its call ever returns,
the thread closes its environment and ends.
"""

import dataclasses
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepjax.envs.actions import Action
from stepjax.envs.base import Environment, Observation, StepResult, Task
from stepjax.envs.pool.checks import GarbageError
from stepjax.envs.pool.episode import Episode
from stepjax.envs.pool.status import Phase
from stepjax.envs.vector import VectorEnvironment

__all__ = ["Done", "Job", "MakeEnvironment", "Worker"]

MakeEnvironment = Callable[[int], Environment | VectorEnvironment]
"""Makes the environment of the worker with that index; called again after a fault."""

_LOG = logging.getLogger(__name__)
_TICKETS = itertools.count()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """Outcome of one call, sent from a worker's thread.

    Attributes:
      worker: Index of the worker.
      ticket: Of the call.
      seconds: How long it took.
      value: What it returned.
      error: What it raised, or None.
    """

    worker: int
    ticket: int
    seconds: float
    value: Any = None
    error: BaseException | None = None


@dataclasses.dataclass(kw_only=True)
class Job:
    """One call in flight.

    Attributes:
      ticket: Number that its outcome will carry.
      phase: Which call.
      episodes: Those it is made for; empty where nobody wants the result.
      started: Time of the call.
    """

    ticket: int
    phase: Phase
    episodes: list[Episode]
    started: float


class Worker:
    """One place in the pool: its environment comes and goes, the place stays.

    Attributes:
      index: Number of the place.
      job: The call in flight, or None.
      slots: The episode in each slot of the environment, or None.
      not_before: Time before which no new environment is made.
      faults_in_row: Faults since the last finished episode.
    """

    def __init__(self, index: int, make_environment: MakeEnvironment, events):
        self.index = index
        self.job: Job | None = None
        self.slots: list[Episode | None] = []
        self.not_before = 0.0
        self.faults_in_row = 0
        self._make = make_environment
        self._events = events
        self._runner: _Runner | None = None

    @property
    def alive(self) -> bool:
        """True if there is an environment that no call has failed on."""
        return bool(self.slots)

    @property
    def running(self) -> list[Episode]:
        """Episodes it holds, in slot order."""
        return [episode for episode in self.slots if episode is not None]

    def create(self) -> None:
        """Start a thread and have it make the environment."""
        self._runner = _Runner(self.index, self._events)
        self._submit(Phase.CREATE, [], lambda runner: runner.create(self._make))

    def created(self, num_slots: int) -> None:
        """Take note that the environment is there."""
        self.slots = [None] * num_slots

    def call(
        self,
        phase: Phase,
        episodes: Sequence[Episode],
        function: Callable[[VectorEnvironment, Sequence[Episode]], Any],
    ) -> None:
        """Have the thread run `function(environment, episodes)`."""
        batch = list(episodes)
        self._submit(phase, batch, lambda runner: function(runner.environment, batch))

    def retire(self) -> None:
        """Have the thread close the environment, after the call in flight if any."""
        self.slots = []
        if self._runner is not None:
            self._submit(Phase.CLOSE, [], lambda runner: runner.close())

    def abandon(self, *, kill: bool = False) -> None:
        """Let go of thread and environment at once, whatever they are doing."""
        runner, self._runner, self.job, self.slots = self._runner, None, None, []
        if runner is not None:
            if kill:
                runner.kill()
            runner.stop()

    def drop_episodes(self) -> None:
        """Forget all episodes; a call in flight goes on for nobody."""
        self.slots = [None] * len(self.slots)
        if self.job is not None:
            self.job.episodes = []

    def _submit(
        self, phase: Phase, episodes: list[Episode], call: "Callable[[_Runner], Any]"
    ) -> None:
        if self._runner is None:
            raise RuntimeError(f"worker {self.index} has no thread to call.")
        self.job = Job(
            ticket=next(_TICKETS),
            phase=phase,
            episodes=episodes,
            started=time.monotonic(),
        )
        self._runner.inbox.put((self.job.ticket, call))


class _Runner:
    """A daemon thread that makes one environment and makes all calls to it."""

    def __init__(self, worker: int, events):
        self.environment: Any = None
        self.inbox: queue.SimpleQueue = queue.SimpleQueue()
        self._worker = worker
        self._events = events
        self._closed = False
        self._thread = threading.Thread(
            target=self._serve, name=f"stepjax-env-{worker}", daemon=True
        )
        self._thread.start()

    def create(self, make_environment: MakeEnvironment) -> int:
        environment: Any = make_environment(self._worker)
        many = hasattr(environment, "step_many")
        self.environment = environment if many else _OneSlot(environment)
        num_slots = self.environment.num_slots
        if not isinstance(num_slots, int) or num_slots < 1:
            raise GarbageError(f"num_slots must be >= 1, got {num_slots!r}")
        return num_slots

    def close(self) -> None:
        if self.environment is not None and not self._closed:
            self._closed = True
            self.environment.close()

    def kill(self) -> None:
        """End the environment's processes, without waiting for that."""
        kill = getattr(self.environment, "kill", None)
        if kill is not None:
            threading.Thread(
                target=_quietly, args=(kill, "kill"), name="stepjax-kill", daemon=True
            ).start()

    def stop(self) -> None:
        self.inbox.put(None)

    def _serve(self) -> None:
        while (item := self.inbox.get()) is not None:
            ticket, call = item
            started = time.monotonic()
            value = error = None
            try:
                value = call(self)
            except BaseException as caught:  # also SystemExit: the thread must go on
                error = caught
            self._events.put(
                Done(
                    worker=self._worker,
                    ticket=ticket,
                    seconds=time.monotonic() - started,
                    value=value,
                    error=error,
                )
            )
            del item, call, value, error
        _quietly(self.close, "close")


def _quietly(function: Callable[[], None], name: str) -> None:
    """Call on the way out, where nobody is left to tell but the log."""
    try:
        function()
    except Exception as error:
        _LOG.debug("%s of a discarded environment failed: %r", name, error)


class _OneSlot:
    """A single environment in a vector's clothes."""

    num_slots = 1

    def __init__(self, environment: Environment):
        self._environment = environment
        self._screen: np.ndarray | None = None
        if hasattr(environment, "kill"):
            self.kill = environment.kill  # pyright: ignore[reportAttributeAccessIssue]

    def reset_many(
        self, slots: Sequence[int], tasks: Sequence[Task], seeds: Sequence[int]
    ) -> list[Observation]:
        return [self._environment.reset(tasks[0], seeds[0])]

    def step_many(
        self, slots: Sequence[int], actions: Sequence[Action]
    ) -> list[StepResult]:
        return [self._environment.step(actions[0])]

    def evaluate_many(self, slots: Sequence[int]) -> list[float]:
        return [self._environment.evaluate()]

    def screenshot(self, slot: int) -> np.ndarray | None:
        picture = getattr(self._environment, "screenshot", None)
        return None if picture is None else picture()

    def close(self) -> None:
        self._environment.close()
