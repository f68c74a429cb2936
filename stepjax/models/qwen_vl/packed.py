"""Teacher forcing of several responses to one prompt, the prompt computed once.

The entries of a row are the prompt and then the responses, each in a segment of its
own, so that it sees the prompt and itself. Rotary positions of every response go on
from the prompt's. What comes out, and every gradient, is what separate rows give, up to
rounding; eight answers of 100 tokens to a prompt of 3,000 cost 3,800 entries instead of
24,800.

Only states that predict a response token reach the head, in slices of the vocabulary,
so logits of all of them never exist. They are spread over all devices of a mesh, those
that share a row included (see `sharding`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stepjax.log_probs import chunked_token_log_probs
from stepjax.models.qwen_vl.casting import cast_params
from stepjax.models.qwen_vl.generate import embed_prompt, scaled_hidden
from stepjax.models.qwen_vl.policy import chunked_entropy
from stepjax.types import PolicyOutput

__all__ = ["make_packed_evaluate", "packed_hidden"]


def make_packed_evaluate(
    model: Any, *, chunk_size: int = 4096, entropy: bool = True
) -> Callable[..., PolicyOutput]:
    """`evaluate` of a policy, for plain and for grouped batches.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      chunk_size: Columns of the head to work on at a time.
      entropy: Whether entropies are computed, one more product with the head; they are
        for logs, no gradient runs through them. Zeros without.

    Returns:
      `evaluate(params, prompt, action_tokens, token_mask, *, temperature=1.0) ->
      PolicyOutput`. Tokens are [S, A] with prompts [S], or [Q, G, A] with prompts [Q];
      the output has the shape of the tokens.
    """

    def evaluate(
        params: Any,
        prompt: Any,
        action_tokens: jax.Array,
        token_mask: jax.Array,
        *,
        temperature: Any = 1.0,
    ) -> PolicyOutput:
        shape = action_tokens.shape
        if len(shape) not in (2, 3):
            raise ValueError(
                "evaluate: action_tokens must have shape [S, A] or [Q, G, A], got "
                f"{shape}."
            )
        # As those who act are given them; cast before they travel between devices.
        params = cast_params(model, params)
        groups = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
        tokens = jnp.where(token_mask, action_tokens, 0)
        hidden = packed_hidden(
            model, params, prompt, tokens.reshape(groups), token_mask.reshape(groups)
        )
        flat = scaled_hidden(hidden, temperature).reshape(-1, hidden.shape[-1])
        flat = model.setup.constrain(flat, ("tokens", "embed"))
        head = model.unembed(params).astype(flat.dtype)
        # Whole on every device: slices of a split axis would have to be gathered anew.
        head = model.setup.constrain(head, ("head_in", "head_out"))
        log_prob = chunked_token_log_probs(
            flat, head, tokens.reshape(-1), chunk_size=chunk_size
        )
        spread = jnp.zeros_like(log_prob)
        if entropy:
            still = jax.lax.stop_gradient((flat, head))
            spread = chunked_entropy(*still, chunk_size=chunk_size)
        return PolicyOutput(
            log_prob=jnp.where(token_mask, log_prob.reshape(shape), 0.0),
            entropy=jnp.where(token_mask, spread.reshape(shape), 0.0),
        )

    return evaluate


def packed_hidden(
    model: Any,
    params: Any,
    prompt: Any,
    action_tokens: jax.Array,
    token_mask: jax.Array,
) -> jax.Array:
    """The states that predict each token of each response.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters.
      prompt: `VLPrompt` with leading axis Q, left-padded.
      action_tokens: [Q, G, A] int32.
      token_mask: [Q, G, A] bool. What is masked is seen by nobody.

    Returns:
      [Q, G, A, D] float: at a, the state after the prompt and the first a tokens.

    Where lengths are split over devices, padding before the prompt makes them divide.
    """
    rows, group, length = action_tokens.shape
    fed = length - 1  # nothing follows the last
    pad = -(prompt.tokens.shape[1] + group * fed) % _length_parts(model)
    prompt_length = pad + prompt.tokens.shape[1]
    x = _pad_left(embed_prompt(model, params, prompt), pad, axis=1)
    positions = _pad_left(prompt.positions, pad, axis=2)
    segments = _pad_left(prompt.segments, pad, axis=1, value=-1)
    if fed:
        said = action_tokens[..., :fed].reshape(rows, group * fed)
        x = jnp.concatenate([x, model.embed(params, said, None, None)], axis=1)
        place = prompt.next_position[:, None] + jnp.tile(jnp.arange(fed), group)[None]
        place = jnp.broadcast_to(place[:, None], (rows, 3, group * fed))
        positions = jnp.concatenate([positions, place], axis=2)
        own = jnp.repeat(jnp.arange(1, group + 1, dtype=jnp.int32), fed)[None]
        real = token_mask[..., :fed].reshape(rows, group * fed)
        segments = jnp.concatenate([segments, jnp.where(real, own, -1)], axis=1)
    x = model.setup.constrain(x, ("batch", "length", "embed"))
    hidden, _ = model.decode(
        params, x, positions, segments, layout=(prompt_length, fed)
    )
    first = hidden[:, prompt_length - 1, None, None]  # predicts every first token
    first = jnp.broadcast_to(first, (rows, group, 1, hidden.shape[-1]))
    if not fed:
        return first
    rest = hidden[:, prompt_length:].reshape(rows, group, fed, -1)
    return jnp.concatenate([first, rest], axis=2)


def _length_parts(model: Any) -> int:
    """What the number of entries must be a multiple of, to be split by length."""
    parts = getattr(model.setup.constrain, "parts", None)
    return 1 if parts is None else parts("length")


def _pad_left(array: jax.Array, by: int, *, axis: int, value: int = 0) -> jax.Array:
    widths = [(by if at == axis else 0, 0) for at in range(array.ndim)]
    return jnp.pad(array, widths, constant_values=value) if by else array
