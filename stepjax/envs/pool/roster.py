"""The episodes of one run: waiting, under way, finished."""

import collections
from collections.abc import Sequence
from typing import Any

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Task
from stepjax.envs.pool.crew import Fault, Outcome
from stepjax.envs.pool.episode import Episode, EpisodeState
from stepjax.envs.pool.status import (
    EpisodeResult,
    Phase,
    PoolCounts,
    TrajectoryStatus,
)
from stepjax.envs.pool.worker import Worker

__all__ = ["Roster"]

_LAST_ACTIONS = (ActionKind.DONE, ActionKind.FAIL)


class Roster:
    """Who is where, and what became of whom.

    Attributes:
      results: What became of each episode; None while it is under way.
      num_finished: Episodes with a result.
      faults_in_row: Faults since an episode last finished.
    """

    def __init__(
        self,
        episodes: Sequence[tuple[Task, int]],
        *,
        max_steps: int,
        max_retries: int,
        keep_final: bool,
        counts: PoolCounts,
    ):
        self.results: list[EpisodeResult | None] = [None] * len(episodes)
        self.num_finished = 0
        self.faults_in_row = 0
        self._pending = collections.deque(
            Episode(index=index, task=task, seed=int(seed))
            for index, (task, seed) in enumerate(episodes)
        )
        self._max_steps = max_steps
        self._max_retries = max_retries
        self._keep_final = keep_final
        self._counts = counts

    @property
    def num_pending(self) -> int:
        """Episodes that wait for an environment."""
        return len(self._pending)

    def fill(self, worker: Worker) -> None:
        """Give waiting episodes to the free slots of a worker."""
        for slot, held in enumerate(worker.slots):
            if held is None and self._pending:
                # A worker that failed an episode takes it again only if nothing else
                # is left for it to do: better than waiting for a place elsewhere.
                episode = next(
                    (one for one in self._pending if one.avoid != worker.index),
                    self._pending[0],
                )
                self._pending.remove(episode)
                episode.slot = slot
                worker.slots[slot] = episode

    def act(self, episode: Episode, action: Action) -> None:
        """Take note of the action chosen; an INVALID one is a step gone by."""
        if action.kind is not ActionKind.INVALID:
            episode.action, episode.state = action, EpisodeState.ACTING
            return
        self._counts.invalid_actions += 1
        episode.steps += 1
        if episode.steps >= self._max_steps:
            episode.stop(TrajectoryStatus.TRUNCATED)

    def take(self, outcome: Outcome) -> None:
        """Move episodes on after a call that went well."""
        for episode, value in zip(outcome.episodes, outcome.values, strict=True):
            self._advance(outcome, episode, value)

    def _advance(self, outcome: Outcome, episode: Episode, value: Any) -> None:
        if outcome.phase is Phase.EVALUATE:
            self._finish(outcome.worker, episode, value)
            return
        episode.state = EpisodeState.WATCHING
        if outcome.phase is Phase.RESET:
            episode.observation = value
            return
        episode.steps += 1
        episode.observation = value.observation
        last = episode.action is not None and episode.action.kind in _LAST_ACTIONS
        if value.terminated or last:
            episode.stop(TrajectoryStatus.COMPLETED)
        elif value.truncated or episode.steps >= self._max_steps:
            episode.stop(TrajectoryStatus.TRUNCATED)

    def _finish(self, worker: Worker, episode: Episode, reward: float) -> None:
        worker.slots[episode.slot] = None
        worker.faults_in_row = self.faults_in_row = 0
        self._settle(
            episode,
            EpisodeResult(
                status=episode.status,
                reward=reward,
                num_steps=episode.steps,
                faults=episode.faults,
                error=episode.error,
                final=episode.observation if self._keep_final else None,
            ),
        )

    def _settle(self, episode: Episode, result: EpisodeResult) -> None:
        self.results[episode.index] = result
        self.num_finished += 1
        self._counts.episodes[result.status] += 1

    def recover(self, outcome: Outcome, fault: Fault) -> None:
        """Start the episodes of a faulty environment over, or give them up."""
        self.faults_in_row += 1
        for episode in outcome.episodes:
            blamed = episode in fault.blamed
            episode.restart(outcome.worker.index, fault.text, charge=blamed)
            if episode.faults > self._max_retries:
                self._settle(
                    episode,
                    EpisodeResult(
                        status=fault.kind.status,
                        faults=episode.faults,
                        error=fault.text,
                    ),
                )
                continue
            self._counts.retried += 1
            if blamed:
                self._pending.append(episode)
            else:  # It merely ran beside the fault: first, and apart from the suspects.
                self._pending.appendleft(episode)
