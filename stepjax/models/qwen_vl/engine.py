"""Sampling for callers that come and go: continuous batching over slots of one cache.

A request takes a free slot, and its prompt is prefilled beside those of other requests
that wait. Between chunks of a few decoding steps finished responses leave and new ones
join, so a long answer holds nobody back. What a request draws depends on its own key
alone: the key of the run, its episode and its step, as in `HostBackend`.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.models.qwen_vl.engine_sizes import EngineSizes
from stepjax.models.qwen_vl.generate import cut_at_stop, draw_tokens, prefill
from stepjax.models.qwen_vl.prompt import bucket_for, cut_prompt, prompt_lengths

__all__ = ["Engine"]

Answer = tuple[np.ndarray, np.ndarray, np.ndarray]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Slots:
    """Responses under way, N of them; leaves of the cache have N rows."""

    cache: Any
    keys: jax.Array  # [N] keys
    token: jax.Array  # [N] int32. Drawn last, not decoded yet.
    place: jax.Array  # [N] int32. Rotary position of that token.
    count: jax.Array  # [N] int32. Tokens drawn.
    alive: jax.Array  # [N] bool
    tokens: jax.Array  # [N, A] int32
    log_prob: jax.Array  # [N, A] float32


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
        options = {
            "model": model,
            "stop_tokens": tuple(stop_tokens),
            "top_p": top_p,
            "most": max_new_tokens,
        }
        self._join = jax.jit(
            functools.partial(_join, **options), donate_argnames="slots"
        )
        self._advance = jax.jit(
            functools.partial(_advance, **options, chunk=sizes.chunk),
            donate_argnames="slots",
        )
        self._params: Any = None
        self._key: Any = None
        self._temperature = np.float32(1.0)
        self._slots: _Slots | None = None
        self._held: list[int | None] = [None] * sizes.slots
        self._waiting: collections.deque[_Request] = collections.deque()

    @property
    def busy(self) -> bool:
        """Whether any request waits for its response."""
        return bool(self._waiting) or any(one is not None for one in self._held)

    def start(self, params: Any, key: jax.Array, *, temperature: float) -> None:
        """Forget all requests and sample with these parameters from now on.

        Args:
          params: The model's parameters.
          key: What every draw depends on, beside episode and step.
          temperature: 0 is greedy.
        """
        self._waiting.clear()
        self._held = [None] * self._sizes.slots
        self._slots = None
        self._params = jax.tree.map(jnp.asarray, params)  # on the device once
        self._key = key
        self._temperature = np.float32(temperature)

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
        self._slots = self._advance(
            self._params, slots=self._slots, temperature=self._temperature
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
            self._slots = self._empty()
        self._slots = self._join(
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

    def _empty(self) -> _Slots:
        count, most = self._sizes.slots, self._most
        capacity = max(self._sizes.prompt_buckets) + most
        dtype = jax.eval_shape(
            lambda params: self._model.embed(
                params, jnp.zeros((1, 1), jnp.int32), None, None
            ),
            self._params,
        ).dtype
        cache = self._model.init_cache(count, capacity, dtype)
        return _Slots(
            cache=dataclasses.replace(cache, length=jnp.zeros(count, jnp.int32)),
            keys=jax.random.split(jax.random.key(0), count),
            token=jnp.zeros(count, jnp.int32),
            place=jnp.zeros(count, jnp.int32),
            count=jnp.zeros(count, jnp.int32),
            alive=jnp.zeros(count, bool),
            tokens=jnp.zeros((count, most), jnp.int32),
            log_prob=jnp.zeros((count, most), jnp.float32),
        )


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


def _join(
    params: Any,
    prompt: Any,
    *,
    slots: _Slots,
    rows: jax.Array,
    key: jax.Array,
    whose: jax.Array,
    temperature: jax.Array,
    model: Any,
    stop_tokens: tuple[int, ...],
    top_p: float,
    most: int,
) -> _Slots:
    """The slots with new requests in `rows`; rows beyond the last are dropped."""
    length = prompt.tokens.shape[1]
    hidden, fresh = prefill(model, params, prompt, capacity=length)

    def key_of(who: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(key, who[0]), who[1])

    keys = jax.vmap(key_of)(whose)
    token, log_prob = draw_tokens(
        hidden,
        model.unembed(params),
        keys,
        jnp.int32(0),
        temperature=temperature,
        top_p=top_p,
    )
    stops = jnp.asarray(stop_tokens, jnp.int32)
    old = slots.cache

    def put(whole: jax.Array, part: jax.Array) -> jax.Array:
        if whole.ndim == 5:  # [layers, N, C, heads, head_dim]
            return whole.at[:, rows, :length].set(part[:, :, :length])
        return whole.at[rows, :length].set(part[:, :length])

    segments = old.segments.at[rows].set(-1)
    cache = dataclasses.replace(
        old,
        keys=jax.tree.map(put, old.keys, fresh.keys),
        values=jax.tree.map(put, old.values, fresh.values),
        segments=segments.at[rows, :length].set(prompt.segments),
        length=old.length.at[rows].set(length),
    )
    return _Slots(
        cache=cache,
        keys=slots.keys.at[rows].set(keys),
        token=slots.token.at[rows].set(token),
        place=slots.place.at[rows].set(prompt.next_position),
        count=slots.count.at[rows].set(1),
        alive=slots.alive.at[rows].set(~jnp.isin(token, stops) & (most > 1)),
        tokens=slots.tokens.at[rows].set(0).at[rows, 0].set(token),
        log_prob=slots.log_prob.at[rows].set(0.0).at[rows, 0].set(log_prob),
    )


def _advance(
    params: Any,
    *,
    slots: _Slots,
    temperature: jax.Array,
    model: Any,
    stop_tokens: tuple[int, ...],
    top_p: float,
    most: int,
    chunk: int,
) -> _Slots:
    """The slots after at most `chunk` more tokens each; fewer if all have ended."""
    head, stops = model.unembed(params), jnp.asarray(stop_tokens, jnp.int32)
    size = slots.token.shape[0]
    every = jnp.arange(size)

    def going_on(carry: tuple) -> jax.Array:
        step, now = carry
        return (step < chunk) & jnp.any(now.alive)

    def one_more(carry: tuple) -> tuple:
        step, now = carry
        places = jnp.broadcast_to(now.place[:, None, None], (size, 3, 1))
        hidden, cache = model.decode(
            params,
            model.embed(params, now.token[:, None], None, None),
            places,
            jnp.where(now.alive, 0, -1)[:, None],
            now.cache,
        )
        token, log_prob = draw_tokens(
            hidden[:, 0],
            head,
            now.keys,
            now.count,
            temperature=temperature,
            top_p=top_p,
        )
        # Slots that have ended write where nothing is.
        at = jnp.where(now.alive, now.count, most)
        count = now.count + now.alive
        length = jnp.where(now.alive, cache.length, now.cache.length)
        return step + 1, dataclasses.replace(
            now,
            cache=dataclasses.replace(cache, length=length),
            token=jnp.where(now.alive, token, now.token),
            place=now.place + now.alive,
            count=count,
            alive=now.alive & ~jnp.isin(token, stops) & (count < most),
            tokens=now.tokens.at[every, at].set(token, mode="drop"),
            log_prob=now.log_prob.at[every, at].set(log_prob, mode="drop"),
        )

    return jax.lax.while_loop(going_on, one_more, (jnp.int32(0), slots))[1]
