"""Sampling for callers that come and go: continuous batching over slots of one cache.

A request takes a free slot, and its prompt is prefilled beside those of other requests
that wait. Between chunks of a few decoding steps finished responses leave and new ones
join, so a long answer holds nobody back. What a request draws depends on its own key
alone: the key of the run, its episode and its step, as in `HostBackend`.

The engine works where the parameters lie. If they are spread over a mesh
(`stepjax.models.qwen_vl.acting`), slots are split over `data`, and the heads of the
cache over `tensor`.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from stepjax.models.qwen_vl.acting import mesh_of, place_copy
from stepjax.models.qwen_vl.engine_programs import Programs, Slots, make_programs
from stepjax.models.qwen_vl.engine_sizes import EngineSizes
from stepjax.models.qwen_vl.generate import cut_at_stop
from stepjax.models.qwen_vl.prompt import bucket_for, cut_prompt, prompt_lengths

__all__ = ["Engine"]

Answer = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Request:
    ticket: int
    prompt: Any
    episode: int
    step: int


class Engine:
    """Samples responses for requests that come at any time, from one thread.

    Call `start` with the parameters, `begin` for each request, and `finished` until
    `busy` is False.
    """

    def __init__(
        self,
        model: Any,
        *,
        sizes: EngineSizes,
        max_new_tokens: int,
        stop_tokens: Sequence[int],
        top_p: float = 1.0,
        stop_strings: Sequence[str] = (),
        decode: Callable[[Sequence[int]], str] | None = None,
    ):
        """An engine; programs compile when they are first needed.

        Args:
          model: A `stepjax.models.qwen_vl.model.QwenVL`.
          sizes: Slots and buckets.
          max_new_tokens: A, most tokens of a response.
          stop_tokens: Tokens that end a response.
          top_p: See `stepjax.models.qwen_vl.generate.draw_tokens`.
          stop_strings: Texts that end a response; they need `decode`.
          decode: Tokens to text.

        Raises:
          ValueError: If there are stop strings and no `decode`.
        """
        if stop_strings and decode is None:
            raise ValueError("Engine: stop_strings need decode, which is None.")
        self._model, self._sizes = model, sizes
        self._most = max_new_tokens
        self._stop_strings, self._decode = tuple(stop_strings), decode
        self._make_programs = functools.partial(
            make_programs,
            model,
            sizes=sizes,
            most=max_new_tokens,
            stop_tokens=tuple(stop_tokens),
            top_p=top_p,
        )
        self._mesh: Mesh | None = None
        self._compiled: dict[Mesh | None, Programs] = {}
        self._params: Any = None
        self._key: Any = None
        self._temperature = np.float32(1.0)
        self._slots: Slots | None = None
        self._held: list[int | None] = [None] * sizes.slots
        self._waiting: collections.deque[_Request] = collections.deque()

    @property
    def _programs(self) -> Programs:
        return self._compiled[self._mesh]

    @property
    def busy(self) -> bool:
        """Whether any request waits for its response."""
        return bool(self._waiting) or any(one is not None for one in self._held)

    def start(self, params: Any, key: jax.Array, *, temperature: float) -> None:
        """Forget all requests and sample with these parameters from now on.

        Args:
          params: The model's parameters. Numpy arrays go to the devices that the
            parameters before them lay on.
          key: What every draw depends on, beside episode and step.
          temperature: 0 is greedy.
        """
        self.rest()
        known = isinstance(jax.tree.leaves(params)[0], jax.Array)
        if self._mesh is not None and not known:
            params = place_copy(self._model, params, self._mesh)
        self._mesh = mesh_of(params)
        if self._mesh not in self._compiled:
            self._compiled[self._mesh] = self._make_programs(self._mesh)
        self._params = jax.tree.map(jnp.asarray, params)  # on the device once
        self._key = key
        self._temperature = np.float32(temperature)

    def rest(self) -> None:
        """Forget all requests and the parameters, and free the cache."""
        self._waiting.clear()
        self._held = [None] * self._sizes.slots
        self._slots = None
        self._params = None

    def begin(self, ticket: int, prompt: Any, episode: int, step: int) -> None:
        """Ask for a response.

        Args:
          ticket: What `finished` calls it by.
          prompt: `VLPrompt` without leading axes, on the host.
          episode: Number of the episode.
          step: Its step.

        Raises:
          ValueError: If the prompt is longer than the largest bucket.
        """
        bucket_for(int(prompt_lengths(prompt)), self._sizes.prompt_buckets)
        self._waiting.append(
            _Request(ticket=ticket, prompt=prompt, episode=episode, step=step)
        )

    def finished(self, wait_seconds: float = 0.0) -> list[tuple[int, Answer]]:
        """Responses that have ended, after a chunk of decoding if none had.

        Args:
          wait_seconds: Ignored; decoding takes what it takes.

        Returns:
          Tickets and, for each, tokens [A], their mask [A] and log-probabilities [A].
        """
        del wait_seconds
        if not self.busy:
            return []
        self._let_in()
        if self._slots is None:
            return []
        self._slots = self._programs.advance(
            self._params,
            slots=self._slots,
            temperature=self._temperature,
            # Those that a stop string cut are over, which the device cannot know.
            held=np.array([one is not None for one in self._held]),
        )
        state: Any = self._slots
        alive, count, tokens, log_prob = map(
            np.array,
            jax.device_get((state.alive, state.count, state.tokens, state.log_prob)),
        )
        answers = []
        for row, ticket in enumerate(self._held):
            if ticket is None:
                continue
            mask = np.arange(self._most) < count[row]
            cut = mask
            if self._stop_strings and self._decode is not None:
                cut = cut_at_stop(tokens[row], mask, self._decode, self._stop_strings)
            if alive[row] and cut is mask:
                continue
            self._held[row] = None
            answer = (
                np.where(cut, tokens[row], 0).astype(np.int32),
                cut,
                np.where(cut, log_prob[row], 0.0).astype(np.float32),
            )
            answers.append((ticket, answer))
        return answers

    # Joining.

    def _let_in(self) -> None:
        """Prefill waiting prompts into free slots."""
        while self._waiting:
            free = [row for row, held in enumerate(self._held) if held is None]
            if not free:
                return
            several = self._sizes.prefill_rows
            size = several if min(len(free), len(self._waiting)) > 1 else 1
            batch = [
                self._waiting.popleft()
                for _ in range(min(size, len(free), len(self._waiting)))
            ]
            self._prefill(batch, free[: len(batch)], size)

    def _prefill(self, batch: list[_Request], rows: list[int], size: int) -> None:
        longest = max(int(prompt_lengths(one.prompt)) for one in batch)
        bucket = bucket_for(longest, self._sizes.prompt_buckets)
        shown = batch + [batch[0]] * (size - len(batch))
        prompt = jax.tree.map(
            lambda *leaves: np.stack(leaves), *[one.prompt for one in shown]
        )
        padding = [self._sizes.slots] * (size - len(rows))  # rows that do not exist
        if self._slots is None:
            self._slots = self._programs.empty(self._params)
        self._slots = self._programs.join(
            self._params,
            _padded(prompt, bucket),
            slots=self._slots,
            rows=np.array(rows + padding, np.int32),
            key=self._key,
            whose=np.array([(one.episode, one.step) for one in shown], np.int32),
            temperature=self._temperature,
        )
        for row, one in zip(rows, batch, strict=True):
            self._held[row] = one.ticket


def _padded(prompt: Any, length: int) -> Any:
    """Prompts of `length` tokens: cut down to it, or padded on the left."""
    missing = length - prompt.tokens.shape[-1]
    if missing <= 0:
        return cut_prompt(prompt, length)

    def pad(leaf: np.ndarray, value: int) -> np.ndarray:
        widths = [(0, 0)] * (leaf.ndim - 1) + [(missing, 0)]
        return np.pad(leaf, widths, constant_values=value)

    return dataclasses.replace(
        prompt,
        tokens=pad(prompt.tokens, 0),
        positions=pad(prompt.positions, 0),
        segments=pad(prompt.segments, -1),
        image_index=pad(prompt.image_index, -1),
    )
