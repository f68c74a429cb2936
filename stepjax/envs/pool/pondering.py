"""Policies that answer when they can: a long answer does not hold back the others."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from stepjax.envs.actions import Action
from stepjax.envs.pool.episode import Episode, EpisodeState, Ready
from stepjax.envs.pool.roster import Roster
from stepjax.envs.pool.status import PoolCounts

__all__ = ["Ponder", "Pondering"]

_WAIT_SECONDS = 0.005


@runtime_checkable
class Ponder(Protocol):
    """A policy with questions under way. All calls come from one thread."""

    @property
    def busy(self) -> bool:
        """Whether any question has no answer yet."""
        ...

    def ask(self, tickets: Sequence[int], ready: Sequence[Ready]) -> None:
        """Begin to think about observations; answers go by their tickets."""
        ...

    def answers(self, wait_seconds: float) -> Sequence[tuple[int, Any]]:
        """Tickets and answers that are there, after some thinking or waiting."""
        ...

    def action(self, ready: Ready, answer: Any) -> Action:
        """What an answer to `ready` means; not called for episodes started over."""
        ...


class Pondering:
    """The questions of one run: whose they are, and whether that still matters."""

    def __init__(self, policy: Ponder, counts: PoolCounts):
        self._policy = policy
        self._counts = counts
        self._asked: dict[int, Episode] = {}
        self._next = 0

    def ask(self, episodes: Sequence[Episode]) -> None:
        """Put what these episodes show to the policy."""
        if not episodes:
            return
        tickets = range(self._next, self._next + len(episodes))
        self._next = tickets.stop
        for ticket, episode in zip(tickets, episodes, strict=True):
            episode.ticket, episode.state = ticket, EpisodeState.PONDERED
            self._asked[ticket] = episode
        self._policy.ask(list(tickets), [_ready(episode) for episode in episodes])
        self._counts.policy_rows += len(episodes)

    def answer(self, roster: Roster) -> bool:
        """Take answers; whether there is more thinking to do."""
        if not self._policy.busy:
            return False
        self._counts.policy_calls += 1
        for ticket, answer in self._policy.answers(_WAIT_SECONDS):
            episode = self._asked.pop(ticket)
            if episode.ticket != ticket:
                continue  # started over since
            episode.ticket, episode.state = -1, EpisodeState.WATCHING
            roster.act(episode, self._policy.action(_ready(episode), answer))
        return True


def _ready(episode: Episode) -> Ready:
    if episode.observation is None:
        raise RuntimeError(f"episode {episode.index} shows nothing to act on.")
    return Ready(episode.index, episode.steps, episode.observation)
