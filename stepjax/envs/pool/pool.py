"""Many environments at once, none of which can hold up or break the others.

One loop, in the caller's thread, hands out calls and takes their outcomes from one
queue; every environment has a thread of its own. What the loop does never depends on
how long a call takes, except through deadlines, so episodes do not either.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from stepjax.envs.actions import Action
from stepjax.envs.base import Task
from stepjax.envs.pool.crew import Crew, Fault
from stepjax.envs.pool.episode import (
    Episode,
    EpisodeState,
    Ready,
    call_evaluate,
    call_reset,
    call_step,
    with_picture,
)
from stepjax.envs.pool.pondering import Ponder, Pondering
from stepjax.envs.pool.roster import Roster
from stepjax.envs.pool.status import Deadlines, EpisodeResult, Phase, PoolCounts
from stepjax.envs.pool.worker import MakeEnvironment, Worker

__all__ = ["Act", "EnvironmentPool"]

Act = Callable[[list[Ready]], Sequence[Action]]
"""The policy: an action for each observation."""


class EnvironmentPool:
    """Environments, each with its own thread, deadlines and replacement.

    A call that raises, misses its deadline or returns garbage is a fault: the
    environment is closed, or killed if it hangs, a new one takes its place, and its
    episodes start over, in another place if there is one. After `max_retries` restarts
    an episode is given up and marked invalid. Actions of kind INVALID use up a step
    and never reach an environment.

    Observations are given to the policy in batches: once `batch_size` of them wait, or
    no environment is working, or one has waited `max_wait_seconds`. Observations of a
    vector environment are given together. A policy that is a `Ponder` gets each
    observation at once and answers when it can; nobody waits for the others' answers.

    Attributes:
      counts: Running totals, for metrics.
    """

    def __init__(
        self,
        make_environment: MakeEnvironment,
        *,
        num_envs: int,
        deadlines: Deadlines | None = None,
        max_retries: int = 2,
        max_consecutive_faults: int | None = None,
        batch_size: int = 64,
        max_wait_seconds: float = 0.005,
        backoff_seconds: float = 0.5,
        heartbeat_seconds: float = 30.0,
        report: Callable[[str], None] | None = None,
    ):
        """A pool that makes its environments when they are first needed.

        Args:
          make_environment: Makes the environment of a place, given its index.
          num_envs: Environments, or vector environments.
          deadlines: Seconds that calls may take.
          max_retries: Times an episode is started over.
          max_consecutive_faults: Faults without one finished episode after which the
            run is stopped; None for four per environment, and at least eight.
          batch_size: Observations that are enough for a call of the policy.
          max_wait_seconds: How long an observation waits for others.
          backoff_seconds: Wait before the second new environment in a row, doubled
            for each further one.
          heartbeat_seconds: Seconds between lines that say what is waited for.
          report: Takes those lines, and one for each fault; None for the log.

        Raises:
          ValueError: If a number is out of range.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be >= 1, got {num_envs}.")
        if max_retries < 0:
            raise ValueError(f"max_retries must be >= 0, got {max_retries}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}.")
        self.counts = PoolCounts()
        self._max_retries = max_retries
        self._max_faults = max_consecutive_faults or max(8, 4 * num_envs)
        self._batch_size = batch_size
        self._max_wait = max_wait_seconds
        self._heartbeat = heartbeat_seconds
        self._report = report or logging.getLogger(__name__).warning
        self._crew = Crew(
            make_environment,
            num_envs=num_envs,
            deadlines=deadlines or Deadlines(),
            counts=self.counts,
            backoff_seconds=backoff_seconds,
            report=self._report,
        )
        self._pictures = False
        self._ready_since: float | None = None
        self._last_beat = 0.0
        self._closed = False

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        episodes: Sequence[tuple[Task, int]],
        act: Act | Ponder,
        *,
        max_steps: int,
        pictures: bool = False,
    ) -> list[EpisodeResult]:
        """Run one episode for each task and seed.

        Args:
          episodes: Tasks and seeds.
          act: The policy; called in this thread.
          max_steps: Step limit of an episode.
          pictures: Attach screenshots to all observations, where there are any.

        Returns:
          What became of each episode, in the order given.

        Raises:
          RuntimeError: If the pool is closed, or nothing but faults comes from the
            environments.
          ImportError, FileNotFoundError, TypeError, ValueError: As raised by the first
            attempt to make an environment: something is missing or misused.
        """
        if self._closed:
            raise RuntimeError("EnvironmentPool.run: the pool is closed.")
        roster = Roster(
            episodes,
            max_steps=max_steps,
            max_retries=self._max_retries,
            keep_final=pictures,
            counts=self.counts,
        )
        self._pictures = pictures
        self._last_beat = time.monotonic()
        pondering = Pondering(act, self.counts) if isinstance(act, Ponder) else None
        try:
            while roster.num_finished < len(episodes):
                self._dispatch(roster)
                ready = self._ready()
                if pondering is not None:
                    pondering.ask(ready)
                    self._wait(roster, at_once=pondering.answer(roster))
                elif ready and self._enough(ready):
                    self._act(act, ready, roster)
                else:
                    self._wait(roster)
        finally:
            self._ready_since = None
            for worker in self._crew.workers:
                worker.drop_episodes()
        return [result for result in roster.results if result is not None]

    def close(self) -> None:
        """Close every environment, killing those that hang; may be called twice."""
        if not self._closed:
            self._closed = True
            self._crew.close()

    # Handing out work.

    def _dispatch(self, roster: Roster) -> None:
        for worker in self._crew.workers:
            if worker.alive and worker.job is None:
                roster.fill(worker)
                self._start_call(worker)
        self._crew.create(roster.num_pending - self._crew.num_creating)

    def _start_call(self, worker: Worker) -> None:
        for state, phase, function in (
            (EpisodeState.ENDING, Phase.EVALUATE, call_evaluate),
            (EpisodeState.NEW, Phase.RESET, self._call_reset),
            (EpisodeState.ACTING, Phase.STEP, self._call_step),
        ):
            group = [episode for episode in worker.running if episode.state is state]
            if group:
                worker.call(phase, group, function)
                return

    def _call_reset(self, environment: Any, group: Sequence[Episode]) -> list:
        """Runs in a worker's thread."""
        screens = call_reset(environment, group)
        if not self._pictures:
            return screens
        return [
            with_picture(environment, episode.slot, screen)
            for episode, screen in zip(group, screens, strict=True)
        ]

    def _call_step(self, environment: Any, group: Sequence[Episode]) -> list:
        """Runs in a worker's thread."""
        results = call_step(environment, group)
        if not self._pictures:
            return results
        return [
            dataclasses.replace(
                result,
                observation=with_picture(environment, one.slot, result.observation),
            )
            for one, result in zip(group, results, strict=True)
        ]

    # Acting.

    def _ready(self) -> list[Episode]:
        """Episodes that wait for an action, of workers that are not at work."""
        ready = [
            episode
            for worker in self._crew.workers
            if worker.job is None
            for episode in worker.running
            if episode.state is EpisodeState.WATCHING
        ]
        if not ready:
            self._ready_since = None
        elif self._ready_since is None:
            self._ready_since = time.monotonic()
        return sorted(ready, key=lambda episode: episode.index)

    def _enough(self, ready: list[Episode]) -> bool:
        working = any(worker.job is not None for worker in self._crew.workers)
        since = self._ready_since or 0.0
        return (
            len(ready) >= self._batch_size
            or not working
            or time.monotonic() - since >= self._max_wait
        )

    def _act(self, act: Any, ready: list[Episode], roster: Roster) -> None:
        batch = [
            Ready(episode.index, episode.steps, episode.observation)
            for episode in ready
            if episode.observation is not None
        ]
        actions = act(batch)
        self.counts.policy_calls += 1
        self.counts.policy_rows += len(batch)
        self._ready_since = None
        for episode, action in zip(ready, actions, strict=True):
            roster.act(episode, action)

    # Taking outcomes.

    def _wait(self, roster: Roster, *, at_once: bool = False) -> None:
        until = min(self._crew.next_event(), self._last_beat + self._heartbeat)
        if self._ready_since is not None:
            until = min(until, self._ready_since + self._max_wait)
        if at_once:
            until = time.monotonic()
        for outcome in self._crew.collect(until):
            if outcome.fault is None:
                roster.take(outcome)
            else:
                roster.recover(outcome, outcome.fault)
                self._check_breaker(outcome.fault, roster)
        self._beat(roster)

    def _check_breaker(self, fault: Fault, roster: Roster) -> None:
        if roster.faults_in_row >= self._max_faults:
            raise RuntimeError(
                f"{roster.faults_in_row} environment faults in a row and not one "
                f"finished episode between them; the last: {fault.text}"
            )

    def _beat(self, roster: Roster) -> None:
        now = time.monotonic()
        if now - self._last_beat >= self._heartbeat:
            self._last_beat = now
            self._report(
                f"{roster.num_finished} of {len(roster.results)} episodes done; "
                f"waiting for {self._crew.waiting_for()}"
            )
