"""Sampling responses: one prefill of the prompt, then token after token from a cache.

`generate` is a pure function for `jax.jit`; it samples a whole group of responses from
one prefill. A group of G decodes G tokens at a time, each in a segment of its own, so
the prompt is read once and stored once. `stepjax.models.qwen_vl.engine` samples for
many callers that come and go.

Log-probabilities are those of the distribution that was sampled from: after the
temperature, and after `top_p` where it cuts. Greedy draws report temperature 1, where 0
has none.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "Generated",
    "cut_at_stop",
    "draw_tokens",
    "embed_prompt",
    "generate",
    "prefill",
    "scaled_hidden",
]

_NEVER = -jnp.inf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Generated:
    """Responses of a batch of prompts, padded to A tokens.

    Attributes:
      tokens: [S, G, A] int32. 0 after the end.
      token_mask: [S, G, A] bool. True up to the stop token, which was sampled too.
      log_prob: [S, G, A] float32. Of each token when it was sampled; 0 after the end.
    """

    tokens: jax.Array  # [S, G, A] int32
    token_mask: jax.Array  # [S, G, A] bool
    log_prob: jax.Array  # [S, G, A] float32


def scaled_hidden(hidden: jax.Array, temperature: Any) -> jax.Array:
    """Hidden states divided by the temperature, in their own dtype; by 1 for 0.

    Sampling and training both divide here, before the head, so that rounding does not
    tell them apart.

    Args:
      hidden: [..., D] float.
      temperature: Number >= 0, or an array that broadcasts against `hidden`.
    """
    temperature = jnp.asarray(temperature, jnp.float32)
    divisor = jnp.where(temperature > 0, temperature, 1.0)
    return (hidden.astype(jnp.float32) / divisor).astype(hidden.dtype)


def draw_tokens(
    hidden: jax.Array,
    head: jax.Array,
    keys: jax.Array,
    steps: jax.Array,
    *,
    temperature: Any,
    top_p: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """The next token of each row, and its log-probability.

    Args:
      hidden: [N, D] float. Last hidden states.
      head: [D, V] float.
      keys: [N] keys, one for each response.
      steps: [N] int32, or a number. How many tokens came before; decides the draw
        together with the key.
      temperature: Number, or [N] float; 0 takes the likeliest token.
      top_p: Python number in (0, 1]. Only the likeliest tokens that together have this
        probability are drawn; 1 means all.

    Returns:
      Tokens [N] int32 and log-probabilities [N] float32.
    """
    size = hidden.shape[0]
    temperature = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (size,))
    scaled = scaled_hidden(hidden, temperature[:, None])
    logits = jnp.dot(
        scaled, head.astype(scaled.dtype), preferred_element_type=jnp.float32
    )
    if top_p < 1.0:
        logits = _nucleus(logits, top_p)

    def noise(key: jax.Array, step: jax.Array) -> jax.Array:
        return jax.random.gumbel(jax.random.fold_in(key, step), logits.shape[1:])

    steps = jnp.broadcast_to(jnp.asarray(steps, jnp.int32), (size,))
    shaken = jnp.where(temperature > 0, 1.0, 0.0)[:, None] * jax.vmap(noise)(
        keys, steps
    )
    token = jnp.argmax(logits + shaken, axis=-1).astype(jnp.int32)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return token, chosen - jax.nn.logsumexp(logits, axis=-1)


def _nucleus(logits: jax.Array, top_p: float) -> jax.Array:
    """Logits with all but the likeliest tokens, of total probability `top_p`, at -inf.

    The token that crosses the limit is kept, so there is always one.
    """
    probs = jax.nn.softmax(logits, axis=-1)
    ordered = jnp.sort(probs, axis=-1, descending=True)
    before = jnp.cumsum(ordered, axis=-1) - ordered
    least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(probs >= least, logits, _NEVER)


def prefill(
    model: Any, params: Any, prompt: Any, *, capacity: int
) -> tuple[jax.Array, Any]:
    """The hidden state that predicts the first response token, and the filled cache.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters.
      prompt: `VLPrompt` with leading axis S.
      capacity: Slots of the cache, at least the prompt's length.

    Returns:
      [S, D] float and a cache of `capacity` slots.
    """
    size, length = prompt.tokens.shape
    x = embed_prompt(model, params, prompt)
    cache = model.init_cache(size, max(capacity, length), x.dtype)
    hidden, cache = model.decode(
        params,
        x,
        prompt.positions,
        prompt.segments,
        cache,
        layout=(length, 0),
        fresh=True,
    )
    return hidden[:, -1], cache


def embed_prompt(model: Any, params: Any, prompt: Any) -> jax.Array:
    """[S, T, D]: the prompt's tokens, with what the images show where images stand.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters.
      prompt: `VLPrompt` with leading axis S.
    """
    images = prompt.images
    seen = images.shape[1] * images.shape[2] * images.shape[3] > 0
    visual = model.see(params, images) if seen else None
    index = prompt.image_index if seen else None
    return model.embed(params, prompt.tokens, visual, index)


def generate(
    model: Any,
    params: Any,
    prompt: Any,
    keys: jax.Array,
    *,
    temperature: Any,
    max_new_tokens: int,
    stop_tokens: Sequence[int],
    top_p: float = 1.0,
) -> Generated:
    """G responses to each prompt, all from one prefill.

    A response depends on its own prompt and key alone, not on its neighbors. The loop
    ends when the last response does.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters.
      prompt: `VLPrompt` with leading axis S, left-padded.
      keys: [S, G] keys.
      temperature: Number >= 0; 0 is greedy.
      max_new_tokens: A, most tokens of a response.
      stop_tokens: Tokens that end a response.
      top_p: See `draw_tokens`.

    Returns:
      The responses.
    """
    (size, group), length = keys.shape, prompt.tokens.shape[1]
    capacity = length + group * (max_new_tokens - 1)
    first, cache = prefill(model, params, prompt, capacity=capacity)
    head, flat_keys = model.unembed(params), keys.reshape(-1)
    stops = jnp.asarray(tuple(stop_tokens), jnp.int32)
    ids = jnp.broadcast_to(jnp.arange(1, group + 1, dtype=jnp.int32), (size, group))

    def draw(hidden: jax.Array, step: Any, alive: jax.Array) -> tuple:
        found = draw_tokens(
            hidden.reshape(size * group, -1),
            head,
            flat_keys,
            step,
            temperature=temperature,
            top_p=top_p,
        )
        token, log_prob = (part.reshape(size, group) for part in found)
        token = jnp.where(alive, token, 0)
        return token, jnp.where(alive, log_prob, 0.0)

    def write(out: Generated, step: Any, token, log_prob, alive) -> Generated:
        return Generated(
            tokens=out.tokens.at[..., step].set(token),
            token_mask=out.token_mask.at[..., step].set(alive),
            log_prob=out.log_prob.at[..., step].set(log_prob),
        )

    def going_on(carry: tuple) -> jax.Array:
        step, _, alive, _, _ = carry
        return (step < max_new_tokens) & jnp.any(alive)

    def one_more(carry: tuple) -> tuple:
        step, token, alive, cache, out = carry
        place = prompt.next_position[:, None, None] + step - 1
        hidden, cache = model.decode(
            params,
            model.embed(params, token, None, None),
            jnp.broadcast_to(place, (size, 3, group)),
            jnp.where(alive, ids, -1),
            cache,
        )
        token, log_prob = draw(hidden, step, alive)
        out = write(out, step, token, log_prob, alive)
        return step + 1, token, alive & ~jnp.isin(token, stops), cache, out

    shape = (size, group, max_new_tokens)
    alive = jnp.ones((size, group), bool)
    hidden = jnp.broadcast_to(first[:, None], (size, group, first.shape[-1]))
    token, log_prob = draw(hidden, 0, alive)
    empty = Generated(
        tokens=jnp.zeros(shape, jnp.int32),
        token_mask=jnp.zeros(shape, bool),
        log_prob=jnp.zeros(shape, jnp.float32),
    )
    out = write(empty, 0, token, log_prob, alive)
    alive &= ~jnp.isin(token, stops)
    carry = (jnp.int32(1), token, alive, cache, out)
    return jax.lax.while_loop(going_on, one_more, carry)[-1]


def cut_at_stop(
    tokens: np.ndarray,
    token_mask: np.ndarray,
    decode: Callable[[Sequence[int]], str],
    stop_strings: Sequence[str],
) -> np.ndarray:
    """The mask of a response that ends with the token that completes a stop string.

    Cutting leaves the tokens before as they were sampled, so their log-probabilities
    hold.

    Args:
      tokens: [A] int.
      token_mask: [A] bool. True for the response's tokens, which come first.
      decode: Tokens to text.
      stop_strings: Texts, any of which ends a response.

    Returns:
      [A] bool.
    """
    count = int(np.sum(token_mask))
    said = [int(token) for token in tokens[:count]]
    if not stop_strings or not _holds(decode(said), stop_strings):
        return token_mask
    low, high = 1, count  # the shortest beginning that holds one; holding is monotone
    while low < high:
        middle = (low + high) // 2
        if _holds(decode(said[:middle]), stop_strings):
            high = middle
        else:
            low = middle + 1
    return np.arange(len(tokens)) < low


def _holds(text: str, wanted: Sequence[str]) -> bool:
    return any(string in text for string in wanted)
