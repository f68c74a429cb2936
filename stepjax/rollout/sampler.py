"""Samplers that answer when they can, between a pool of environments and a codec.

`HostBackend` acts in batches with a policy's `sample`. A policy whose answers differ in
length, or come over a network, is better asked one by one: as soon as an environment
shows something, and heard as soon as its answer is there.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from stepjax.envs.actions import Action
from stepjax.envs.pool import Ready
from stepjax.rollout.recorder import Recorder

__all__ = ["Answer", "PonderingPolicy", "Sampler"]

Answer = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Tokens [A], which of them count [A], and log-probabilities [A]."""


class Sampler(Protocol):
    """Draws responses to prompts that come at any time; used from one thread.

    What a request draws must depend on the key of the run, its episode and its step,
    and on nothing else that is under way.
    """

    @property
    def busy(self) -> bool:
        """Whether any request waits for its response."""
        ...

    def start(self, params: Any, key: jax.Array, *, temperature: float) -> None:
        """Forget all requests and sample with these parameters from now on."""
        ...

    def begin(self, ticket: int, prompt: Any, episode: int, step: int) -> None:
        """Ask for a response to a prompt without leading axes."""
        ...

    def finished(self, wait_seconds: float = 0.0) -> Sequence[tuple[int, Answer]]:
        """Tickets and answers that are there, after some work or waiting."""
        ...


class PonderingPolicy:
    """A sampler as the policy of a pool; every step is recorded."""

    def __init__(self, sampler: Sampler, recorder: Recorder, *, first_slot: int = 0):
        self._sampler, self._recorder = sampler, recorder
        self._first_slot = first_slot

    @property
    def busy(self) -> bool:
        """Whether any question has no answer yet."""
        return self._sampler.busy

    def ask(self, tickets: Sequence[int], ready: Sequence[Ready]) -> None:
        """Begin to think about observations; answers go by their tickets."""
        for ticket, one in zip(tickets, ready, strict=True):
            batch, _, _ = self._recorder.prompts([one], 1)
            prompt = jax.tree.map(lambda leaf: leaf[0], batch)
            slot = self._first_slot + one.episode
            self._sampler.begin(ticket, prompt, slot, one.step)

    def answers(self, wait_seconds: float) -> Sequence[tuple[int, Answer]]:
        """Tickets and answers that are there, after some thinking or waiting."""
        return self._sampler.finished(wait_seconds)

    def action(self, ready: Ready, answer: Answer) -> Action:
        """The action that an answer means; both are recorded."""
        tokens, mask, log_prob = (part[None] for part in answer)
        return self._recorder.actions([ready], tokens, mask, log_prob)[0]
