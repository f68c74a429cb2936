"""Attention written out, with a backward pass that computes its scores again.

What is kept for the backward pass is as long as the sequence, not its square: the
output, and the peak and the sum of each query's exponentials.
"""

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["MASKED", "plain_attend", "visible"]

MASKED = -1e30
"""Score of a key that is not seen; finite, so that padding attends to something."""

_F32 = {"preferred_element_type": jnp.float32}


def visible(
    query_segments: jax.Array,
    key_segments: jax.Array,
    query_slots: jax.Array | None = None,
    key_slots: jax.Array | None = None,
) -> jax.Array:
    """Which keys each query sees, by the rule of `stepjax.models.qwen_vl.attention`.

    Args:
      query_segments: [S, T] int32.
      key_segments: [S, C] int32.
      query_slots: [S or 1, T] int32, or None for no order.
      key_slots: [C] int32; by default 0 .. C - 1.

    Returns:
      [S, T, C] bool.
    """
    key, query = key_segments[:, None, :], query_segments[:, :, None]
    seen = (key == 0) | ((key > 0) & (key == query))
    if query_slots is None:
        return seen
    if key_slots is None:
        key_slots = jnp.arange(key_segments.shape[1])
    return seen & (key_slots[None, None] <= query_slots[:, :, None])


@jax.custom_vjp
def plain_attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    query_segments: jax.Array,
    key_segments: jax.Array,
    query_slots: jax.Array | None = None,
) -> jax.Array:
    """The values that queries see, weighed by a softmax in float32.

    Args:
      query: [S, T, H, E].
      key: [S, C, K, E]; K divides H, and query head h reads key head h * K // H.
      value: [S, C, K, E].
      query_segments: [S, T] int32; these three as in `visible`.
      key_segments: [S, C] int32.
      query_slots: [S or 1, T] int32, or None for no order.

    Returns:
      [S, T, H, E] of the value's type. A query that sees no key gets the mean of all
      values.

    Source: the backward pass is that of arXiv:2205.14135, section 3.1, in one tile.
    """
    out, _ = _forward(query, key, value, query_segments, key_segments, query_slots)
    return out


def _grouped(array: jax.Array, key: jax.Array) -> jax.Array:
    """[S, T, H, E] as [S, T, K, H / K, E]."""
    return array.reshape(*array.shape[:2], key.shape[2], -1, array.shape[3])


def _scores(query: jax.Array, key: jax.Array, seen: jax.Array) -> jax.Array:
    """[S, K, H / K, T, C] float32."""
    scores = jnp.einsum("stkge,scke->skgtc", _grouped(query, key), key, **_F32)
    scores = scores * query.shape[-1] ** -0.5
    return jnp.where(seen, scores, MASKED)


def _forward(query, key, value, *places):
    scores = _scores(query, key, visible(*places)[:, None, None])
    peak = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - peak)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    shares = (weights / total).astype(value.dtype)
    out = jnp.einsum("skgtc,scke->stkge", shares, value, **_F32)
    kept = (query, key, value, *places), out, peak, total
    return out.reshape(query.shape).astype(value.dtype), kept


def _backward(kept: Any, d_out: jax.Array) -> tuple:
    # Without the barrier the compiler finds the same scores in the forward pass, and
    # keeps them.
    kept, d_out = jax.lax.optimization_barrier((kept, d_out))
    (query, key, value, *places), out, peak, total = kept
    seen = visible(*places)[:, None, None]
    shares = jnp.exp(_scores(query, key, seen) - peak) / total
    d_out = _grouped(d_out, key)
    d_value = jnp.einsum("skgtc,stkge->scke", shares.astype(value.dtype), d_out, **_F32)
    d_shares = jnp.einsum("stkge,scke->skgtc", d_out, value, **_F32)
    # Each query's sum of shares * d_shares, without reading either again.
    mean = jnp.einsum("stkge,stkge->skgt", d_out.astype(out.dtype), out)[..., None]
    d_scores = shares * (d_shares - mean) * query.shape[-1] ** -0.5
    d_scores = jnp.where(seen, d_scores, 0.0).astype(query.dtype)
    d_query = jnp.einsum("skgtc,scke->stkge", d_scores, key, **_F32)
    d_key = jnp.einsum("skgtc,stkge->scke", d_scores, _grouped(query, key), **_F32)
    return (
        d_query.reshape(query.shape).astype(query.dtype),
        d_key.astype(key.dtype),
        d_value.astype(value.dtype),
        *(None for _ in places),
    )


plain_attend.defvjp(_forward, _backward)
