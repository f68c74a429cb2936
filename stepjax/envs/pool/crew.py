"""The workers of a pool: deadlines, faults, and new environments for broken ones."""

import dataclasses
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

from stepjax.envs.pool.checks import GarbageError
from stepjax.envs.pool.episode import Episode
from stepjax.envs.pool.status import Deadlines, FaultKind, Phase, PoolCounts
from stepjax.envs.pool.worker import Done, Job, MakeEnvironment, Worker
from stepjax.envs.vector import SlotError

__all__ = ["Crew", "Fault", "Outcome"]

_MAX_BACKOFF = 30.0
_MAX_TEXT = 200
_SETUP_ERRORS = (ImportError, FileNotFoundError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """What went wrong in a call.

    Attributes:
      kind: Which kind of fault.
      phase: In which call.
      text: One line that says so, with worker and task.
      blamed: Episodes that may be to blame; the others merely ran beside them.
    """

    kind: FaultKind
    phase: Phase
    text: str
    blamed: frozenset[Episode] = frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended, as far as episodes are concerned.

    Attributes:
      worker: Who made it.
      phase: Which call.
      episodes: Those it was made for; after a fault, all that the worker held.
      values: One for each of them; empty after a fault.
      fault: What went wrong, or None.
    """

    worker: Worker
    phase: Phase
    episodes: list[Episode]
    values: Sequence[Any] = ()
    fault: Fault | None = None


class Crew:
    """Workers whose environments are replaced when they fail.

    Attributes:
      workers: All of them, alive or not.
    """

    def __init__(
        self,
        make_environment: MakeEnvironment,
        *,
        num_envs: int,
        deadlines: Deadlines,
        counts: PoolCounts,
        backoff_seconds: float,
        report: Callable[[str], None],
    ):
        self._events: queue.SimpleQueue[Done] = queue.SimpleQueue()
        self.workers = [
            Worker(index, make_environment, self._events) for index in range(num_envs)
        ]
        self._deadlines = deadlines
        self._counts = counts
        self._backoff = backoff_seconds
        self._report = report
        self._proven = False  # Whether an environment could ever be made.

    def create(self, count: int) -> None:
        """Start making up to `count` environments, where there is none."""
        now = time.monotonic()
        for worker in self.workers:
            if count < 1:
                return
            if not worker.alive and worker.job is None and now >= worker.not_before:
                worker.create()
                count -= 1

    @property
    def num_creating(self) -> int:
        """Environments being made."""
        return sum(
            worker.job is not None and worker.job.phase is Phase.CREATE
            for worker in self.workers
        )

    def next_event(self) -> float:
        """Time by which there will be something to do, even if no call ends."""
        now = time.monotonic()
        times = [now + 1.0]
        for worker in self.workers:
            if worker.job is not None:
                times.append(worker.job.started + self._deadlines.of(worker.job.phase))
            elif not worker.alive and worker.not_before > now:
                times.append(worker.not_before)
        return min(times)

    def collect(self, until: float) -> list[Outcome]:
        """Outcomes of calls that have ended or run out of time.

        Args:
          until: Time at which to return even if there is none.

        Returns:
          Those that concern episodes; environments are made and closed on the way.

        Raises:
          ImportError, FileNotFoundError, TypeError, ValueError: As raised by the first
            attempt to make an environment.
        """
        outcomes = []
        try:
            timeout = max(0.0, until - time.monotonic())
            outcomes.append(self._take(self._events.get(timeout=timeout)))
            while True:
                outcomes.append(self._take(self._events.get_nowait()))
        except queue.Empty:
            outcomes.extend(self._overdue())
        return [outcome for outcome in outcomes if outcome is not None]

    def waiting_for(self) -> str:
        """What is in flight, longest first, in words."""
        now = time.monotonic()
        calls = sorted(
            (
                (now - worker.job.started, worker)
                for worker in self.workers
                if worker.job is not None
            ),
            key=lambda pair: -pair[0],
        )
        names = [
            f"{_name(worker, worker.job)} for {seconds:.0f} s"
            for seconds, worker in calls[:3]
            if worker.job is not None
        ]
        if len(calls) > 3:
            names.append(f"{len(calls) - 3} more")
        return ", ".join(names) if names else "new environments"

    def close(self) -> None:
        """Close every environment; kill those that do not close in time."""
        for worker in self.workers:
            worker.retire()
        until = time.monotonic() + self._deadlines.close
        while any(worker.job for worker in self.workers) and time.monotonic() < until:
            self.collect(until)
        for worker in self.workers:
            worker.abandon(kill=worker.job is not None)

    def _take(self, done: Done) -> Outcome | None:
        worker = self.workers[done.worker]
        job = worker.job
        if job is None or job.ticket != done.ticket:
            return None  # This call was given up long ago.
        worker.job = None
        deadline = self._deadlines.of(job.phase)
        if done.error is not None:
            return self._fault(worker, job, done.error)
        if done.seconds > deadline:
            return self._fault(worker, job, TimeoutError(_late(deadline)))
        if job.phase is Phase.CREATE:
            worker.created(done.value)
            self._proven = True
        elif job.phase is Phase.CLOSE:
            worker.abandon()
        elif job.episodes:
            return Outcome(
                worker=worker,
                phase=job.phase,
                episodes=job.episodes,
                values=done.value,
            )
        return None

    def _overdue(self) -> list[Outcome | None]:
        now = time.monotonic()
        outcomes = []
        for worker in self.workers:
            job = worker.job
            if job is not None:
                deadline = self._deadlines.of(job.phase)
                if now > job.started + deadline:
                    error = TimeoutError(_late(deadline))
                    outcomes.append(self._fault(worker, job, error, hangs=True))
        return outcomes

    def _fault(
        self, worker: Worker, job: Job, error: BaseException, *, hangs: bool = False
    ) -> Outcome | None:
        if job.phase is Phase.CREATE and not self._proven:
            if isinstance(error, _SETUP_ERRORS):
                worker.retire()
                raise error  # Something is missing or misused: trying again is no use.
        kind = _kind(error)
        self._counts.faults[kind, job.phase] += 1
        text = f"{_name(worker, job)}: {type(error).__name__}: {_one_line(error)}"
        self._report(f"environment fault: {text}")
        episodes = worker.running
        if hangs or job.phase is Phase.CLOSE:
            worker.abandon(kill=True)
        else:
            worker.retire()
        if job.phase is Phase.CLOSE:
            return None
        self._counts.replaced += job.phase is not Phase.CREATE
        self._postpone(worker)
        fault = Fault(
            kind=kind, phase=job.phase, text=text, blamed=_blamed(error, job.episodes)
        )
        return Outcome(worker=worker, phase=job.phase, episodes=episodes, fault=fault)

    def _postpone(self, worker: Worker) -> None:
        """The first new environment at once, further ones after growing waits."""
        worker.faults_in_row += 1
        exponent = min(worker.faults_in_row - 2, 16)
        wait = self._backoff * 2**exponent if exponent >= 0 else 0.0
        worker.not_before = time.monotonic() + min(wait, _MAX_BACKOFF)


def _kind(error: BaseException) -> FaultKind:
    if isinstance(error, TimeoutError):
        return FaultKind.TIMEOUT
    return FaultKind.GARBAGE if isinstance(error, GarbageError) else FaultKind.ERROR


def _blamed(error: BaseException, episodes: Sequence[Episode]) -> frozenset[Episode]:
    if isinstance(error, GarbageError) and error.position is not None:
        return frozenset({episodes[error.position]})
    if isinstance(error, SlotError):
        guilty = frozenset(one for one in episodes if one.slot in error.slots)
        return guilty or frozenset(episodes)
    return frozenset(episodes)


def _name(worker: Worker, job: Job) -> str:
    tasks = sorted({episode.task.name for episode in job.episodes})
    named = f" of {', '.join(tasks[:2])}{', ...' if tasks[2:] else ''}" if tasks else ""
    return f"environment {worker.index}, {job.phase.value}{named}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:_MAX_TEXT] or "no message"


def _late(deadline: float) -> str:
    return f"took longer than its deadline of {deadline:g} s"
