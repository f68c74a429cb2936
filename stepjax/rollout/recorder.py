"""Writes down what a policy sees and does, step by step, as `Trajectories` want it."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from stepjax.envs.actions import Action
from stepjax.envs.base import Observation
from stepjax.envs.pool import EpisodeResult, Ready
from stepjax.types import Trajectories

__all__ = ["Codec", "Recorder"]


class Codec(Protocol):
    """Translates between a policy's arrays and observations and actions.

    Attributes:
      num_tokens: A, tokens of an action.
    """

    @property
    def num_tokens(self) -> int:
        """A, tokens of an action."""
        ...

    def encode(
        self, observation: Observation, history: Sequence[Any]
    ) -> tuple[Any, Any]:
        """A prompt of numpy leaves, and a context that `decode` needs.

        `history` is what `remember` returned after the step before, () at first.
        """
        ...

    def decode(
        self, tokens: np.ndarray, observation: Observation, context: Any
    ) -> Action:
        """The action tokens [A] stand for; INVALID rather than an exception."""
        ...

    def remember(
        self,
        history: Sequence[Any],
        tokens: np.ndarray,
        action: Action,
        observation: Observation,
        context: Any,
    ) -> Sequence[Any]:
        """The history after one more step: what later prompts need of it.

        `tokens` [A] led to `action` on `observation`; `context` is what `encode`
        returned for it.
        """
        ...

    def empty_prompt(self) -> Any:
        """A prompt that is padding throughout."""
        ...


class Recorder:
    """Everything `Trajectories` holds, written as the episodes go along."""

    def __init__(self, count: int, max_steps: int, codec: Codec):
        self._codec = codec
        self._empty = codec.empty_prompt()
        shape = (count, max_steps, codec.num_tokens)
        self._prompt = jax.tree.map(
            lambda leaf: np.tile(leaf, (count, max_steps) + (1,) * np.ndim(leaf)),
            self._empty,
        )
        self._tokens = np.zeros(shape, np.int32)
        self._mask = np.zeros(shape, bool)
        self._log_prob = np.zeros(shape, np.float32)
        self._state_hash = np.zeros(shape[:2], np.uint32)
        self._history: list[Sequence[Any]] = [() for _ in range(count)]
        self._contexts: dict[int, Any] = {}

    def prompts(
        self, ready: Sequence[Ready], size: int
    ) -> tuple[Any, np.ndarray, np.ndarray]:
        """Prompts, trajectories and steps of a batch, padded to `size` rows."""
        rows = np.zeros(size, np.int32)
        steps = np.zeros(size, np.int32)
        prompts = []
        for at, (row, step, observation) in enumerate(ready):
            if step == 0:
                self._history[row] = ()
            prompt, self._contexts[row] = self._codec.encode(
                observation, self._history[row]
            )
            self._put(row, step, prompt)
            self._state_hash[row, step] = observation.state_hash
            rows[at], steps[at] = row, step
            prompts.append(prompt)
        prompts += [self._empty] * (size - len(prompts))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *prompts), rows, steps

    def contexts(self, ready: Sequence[Ready]) -> list[Any]:
        """What the codec returned beside the latest prompts of these episodes."""
        return [self._contexts[row] for row, _, _ in ready]

    def _put(self, row: int, step: int, prompt: Any) -> None:
        def write(whole: np.ndarray, part: np.ndarray) -> None:
            whole[row, step] = part

        jax.tree.map(write, self._prompt, prompt)

    def actions(
        self,
        ready: Sequence[Ready],
        tokens: np.ndarray,
        mask: np.ndarray,
        log_prob: np.ndarray,
    ) -> list[Action]:
        """Actions of a batch; tokens and log-probabilities are kept."""
        actions = []
        for at, (row, step, observation) in enumerate(ready):
            self._tokens[row, step] = tokens[at]
            self._mask[row, step] = mask[at]
            self._log_prob[row, step] = log_prob[at]
            context = self._contexts[row]
            action = self._codec.decode(tokens[at], observation, context)
            self._history[row] = self._codec.remember(
                self._history[row], tokens[at], action, observation, context
            )
            actions.append(action)
        return actions

    def trajectories(
        self, task_ids: np.ndarray, results: Sequence[EpisodeResult]
    ) -> Trajectories:
        """What was recorded, with steps of abandoned attempts blanked out."""
        num_steps = np.array([result.num_steps for result in results], np.int32)
        step_mask = np.arange(self._tokens.shape[1]) < num_steps[:, None]
        unused = ~step_mask

        def blank(whole: np.ndarray, padding: Any) -> np.ndarray:
            whole[unused] = padding
            return whole

        fields: dict[str, Any] = {
            "task_id": task_ids,
            "prompt": jax.tree.map(blank, self._prompt, self._empty),
            "action_tokens": blank(self._tokens, 0),
            "token_mask": blank(self._mask, False),
            "log_prob": blank(self._log_prob, 0.0),
            "step_mask": step_mask,
            "state_hash": blank(self._state_hash, 0),
            "reward": np.array([result.reward for result in results], np.float32),
            "valid": np.array([result.status.valid for result in results], bool),
        }
        return Trajectories(**fields)
