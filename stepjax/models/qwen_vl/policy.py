"""A Qwen-VL model as a policy: the tokens of a response are the tokens of an action.

`evaluate` runs prompt and response through the decoder once and lets only the states
that predict response tokens reach the head, in slices of the vocabulary, so that the
[tokens, vocabulary] logits never exist.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stepjax.log_probs import chunked_token_log_probs
from stepjax.models.policy import Policy
from stepjax.models.qwen_vl.generate import (
    Generated,
    embed_prompt,
    generate,
    scaled_hidden,
)
from stepjax.types import PolicyOutput

__all__ = [
    "QwenVLPolicy",
    "chunked_entropy",
    "make_qwen_vl_policy",
    "response_hidden",
    "response_mask",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenVLPolicy(Policy):
    """A vision-language policy as pure functions over a parameter tree.

    Attributes:
      model: The `stepjax.models.qwen_vl.model.QwenVL` behind it.
      sample_group: `sample_group(params, prompt, keys [S, G], *, temperature) ->
        (tokens, token_mask, log_prob)`, each [S, G, A], from one prefill.
      max_new_tokens: A.
      stop_tokens: Tokens that end a response.
      top_p: Share of the probability that is sampled from.
    """

    model: Any
    sample_group: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]
    max_new_tokens: int
    stop_tokens: tuple[int, ...]
    top_p: float = 1.0

    def mask_of(self, tokens: jax.Array) -> jax.Array:
        """[S, A] bool: which of the tokens [S, A] the response consists of."""
        return response_mask(tokens, self.stop_tokens)


def make_qwen_vl_policy(
    model: Any,
    *,
    max_new_tokens: int = 128,
    stop_tokens: Sequence[int],
    top_p: float = 1.0,
    chunk_size: int = 4096,
) -> QwenVLPolicy:
    """Policy functions of a model.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      max_new_tokens: A, most tokens of a response.
      stop_tokens: Tokens that end a response, at least one.
      top_p: Share of the probability that is sampled from; 1 means all. Below 1 the
        log-probabilities of `sample` are those of the cut distribution, `evaluate`'s of
        the whole one.
      chunk_size: Columns of the head to work on at a time.

    Returns:
      The policy. Its entropies are for logs: no gradient runs through them.

    Raises:
      ValueError: At the call, if a number is out of range.
    """
    _check(max_new_tokens, stop_tokens, top_p)
    stops = tuple(int(token) for token in stop_tokens)

    def init(key: jax.Array, prompt: Any) -> Any:
        del prompt  # sizes do not depend on it
        return model.init(key)

    def sample_group(
        params: Any, prompt: Any, keys: jax.Array, *, temperature: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        found: Generated = generate(
            model,
            params,
            prompt,
            keys,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            stop_tokens=stops,
            top_p=top_p,
        )
        return found.tokens, found.token_mask, found.log_prob

    def sample(
        params: Any, prompt: Any, keys: jax.Array, *, temperature: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        found = sample_group(params, prompt, keys[:, None], temperature=temperature)
        tokens, mask, log_prob = (part[:, 0] for part in found)
        return tokens, mask, log_prob

    def evaluate(
        params: Any,
        prompt: Any,
        action_tokens: jax.Array,
        token_mask: jax.Array,
        *,
        temperature: Any = 1.0,
    ) -> PolicyOutput:
        hidden = response_hidden(model, params, prompt, action_tokens, token_mask)
        size, length, width = hidden.shape
        flat = scaled_hidden(hidden, temperature).reshape(size * length, width)
        head = model.unembed(params).astype(flat.dtype)
        tokens = jnp.where(token_mask, action_tokens, 0).reshape(-1)
        log_prob = chunked_token_log_probs(flat, head, tokens, chunk_size=chunk_size)
        still = jax.lax.stop_gradient((flat, head))
        entropy = chunked_entropy(*still, chunk_size=chunk_size)
        return PolicyOutput(
            log_prob=jnp.where(token_mask, log_prob.reshape(size, length), 0.0),
            entropy=jnp.where(token_mask, entropy.reshape(size, length), 0.0),
        )

    return QwenVLPolicy(
        init=init,
        sample=sample,
        evaluate=evaluate,
        token_mask=functools.partial(_first_only, length=max_new_tokens),
        model=model,
        sample_group=sample_group,
        max_new_tokens=max_new_tokens,
        stop_tokens=stops,
        top_p=top_p,
    )


def response_hidden(
    model: Any,
    params: Any,
    prompt: Any,
    action_tokens: jax.Array,
    token_mask: jax.Array,
) -> jax.Array:
    """The states that predict the response tokens, by teacher forcing.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters.
      prompt: `VLPrompt` with leading axis S, left-padded.
      action_tokens: [S, A] int32.
      token_mask: [S, A] bool.

    Returns:
      [S, A, D] float: at a, the state after the prompt and the first a tokens.
    """
    size, length = action_tokens.shape
    said = jnp.where(token_mask, action_tokens, 0)[:, :-1]  # nothing follows the last
    told = model.embed(params, said, None, None)
    place = prompt.next_position[:, None, None] + jnp.arange(length - 1)[None, None]
    positions = jnp.broadcast_to(place, (size, 3, length - 1))
    segments = jnp.where(token_mask[:, :-1], 0, -1)
    hidden, _ = model.decode(
        params,
        jnp.concatenate([embed_prompt(model, params, prompt), told], axis=1),
        jnp.concatenate([prompt.positions, positions], axis=2),
        jnp.concatenate([prompt.segments, segments], axis=1),
    )
    return hidden[:, -length:]


def response_mask(tokens: jax.Array, stop_tokens: Sequence[int]) -> jax.Array:
    """[S, A] bool: tokens up to the first stop token, which belongs to the response.

    Args:
      tokens: [S, A] int32.
      stop_tokens: Tokens that end a response.
    """
    stops = jnp.isin(jnp.asarray(tokens), jnp.asarray(tuple(stop_tokens), jnp.int32))
    return jnp.cumsum(stops, axis=-1) - stops == 0


def chunked_entropy(
    hidden: jax.Array, head: jax.Array, *, chunk_size: int = 4096
) -> jax.Array:
    """Entropy of each row's distribution over the vocabulary, in slices of the head.

    Args:
      hidden: [N, D] float, divided by the temperature.
      head: [D, V] float.
      chunk_size: Columns of the head to work on at a time.

    Returns:
      [N] float32, in nats.
    """
    vocabulary = head.shape[1]
    size = min(chunk_size, vocabulary)

    def add(carry: tuple, index: jax.Array) -> tuple:
        peak, total, summed = carry
        # The last slice is moved left to fit; what it repeats does not count again.
        start = jnp.minimum(index * size, vocabulary - size)
        columns = jax.lax.dynamic_slice_in_dim(head, start, size, axis=1)
        logits = jnp.dot(hidden, columns, preferred_element_type=jnp.float32)
        fresh = (start + jnp.arange(size) >= index * size)[None]
        higher = jnp.maximum(peak, jnp.max(jnp.where(fresh, logits, -jnp.inf), axis=1))
        share = jnp.where(fresh, jnp.exp(logits - higher[:, None]), 0.0)
        shrink = jnp.exp(peak - higher)
        total = total * shrink + jnp.sum(share, axis=1)
        return (higher, total, summed * shrink + jnp.sum(share * logits, axis=1)), None

    rows = (hidden.shape[0],)
    carry = (jnp.full(rows, -jnp.inf), jnp.zeros(rows), jnp.zeros(rows))
    slices = jnp.arange(-(-vocabulary // size))
    (peak, total, summed), _ = jax.lax.scan(add, carry, slices)
    return peak + jnp.log(total) - summed / total


def _first_only(kind: jax.Array, *, length: int) -> jax.Array:
    """The tokens of a response are not known from its first; `mask_of` knows them."""
    return jnp.broadcast_to(jnp.arange(length) == 0, (*jnp.shape(kind), length))


def _check(max_new_tokens: int, stop_tokens: Sequence[int], top_p: float) -> None:
    if max_new_tokens < 1:
        raise ValueError(
            f"make_qwen_vl_policy: max_new_tokens must be >= 1, got {max_new_tokens}."
        )
    if not stop_tokens or min(stop_tokens) < 0:
        raise ValueError(
            "make_qwen_vl_policy: stop_tokens must hold at least one token id, got "
            f"{tuple(stop_tokens)}; take the end token of the tokenizer."
        )
    if not 0.0 < top_p <= 1.0:
        raise ValueError(f"make_qwen_vl_policy: top_p must be in (0, 1], got {top_p}.")
