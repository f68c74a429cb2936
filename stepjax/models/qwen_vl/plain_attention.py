"""Attention written out, with a backward pass that computes its scores again.

What is kept for the backward pass is as long as the sequence, not its square: the
output, and the peak and the sum of each query's exponentials.
"""

import jax
import jax.numpy as jnp

__all__ = ["MASKED", "plain_attend"]

MASKED = -1e30
"""Score of a key that is not seen; finite, so that padding attends to something."""

_F32 = {"preferred_element_type": jnp.float32}


@jax.custom_vjp
def plain_attend(
    query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array
) -> jax.Array:
    """The values that queries see, weighed by a softmax in float32.

    Args:
      query: [S, T, H, E].
      key: [S, C, K, E]; K divides H, and query head h reads key head h * K // H.
      value: [S, C, K, E].
      seen: [S, T, C] bool. A query that sees no key gets the mean of all values.

    Returns:
      [S, T, H, E] of the value's type.

    Source: the backward pass is that of arXiv:2205.14135, section 3.1, in one tile.
    """
    return _forward(query, key, value, seen)[0]


def _grouped(array: jax.Array, key: jax.Array) -> jax.Array:
    """[S, T, H, E] as [S, T, K, H / K, E]."""
    return array.reshape(*array.shape[:2], key.shape[2], -1, array.shape[3])


def _scores(query: jax.Array, key: jax.Array, seen: jax.Array) -> jax.Array:
    """[S, K, H / K, T, C] float32."""
    scores = jnp.einsum("stkge,scke->skgtc", _grouped(query, key), key, **_F32)
    scores = scores * query.shape[-1] ** -0.5
    return jnp.where(seen[:, None, None], scores, MASKED)


def _forward(query, key, value, seen):
    scores = _scores(query, key, seen)
    peak = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - peak)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    shares = (weights / total).astype(value.dtype)
    out = jnp.einsum("skgtc,scke->stkge", shares, value).reshape(query.shape)
    return out, (query, key, value, seen, out, peak, total)


def _backward(kept, d_out):
    query, key, value, seen, out, peak, total = kept
    shares = jnp.exp(_scores(query, key, seen) - peak) / total
    d_out, out = _grouped(d_out, key), _grouped(out, key)
    d_value = jnp.einsum("skgtc,stkge->scke", shares.astype(value.dtype), d_out, **_F32)
    d_shares = jnp.einsum("stkge,scke->skgtc", d_out, value, **_F32)
    # Each query's sum of shares * d_shares, without reading either again.
    mean = jnp.einsum("stkge,stkge->skgt", d_out, out, **_F32)[..., None]
    d_scores = shares * (d_shares - mean) * query.shape[-1] ** -0.5
    d_scores = jnp.where(seen[:, None, None], d_scores, 0.0).astype(query.dtype)
    d_query = jnp.einsum("skgtc,scke->stkge", d_scores, key, **_F32)
    d_key = jnp.einsum("skgtc,stkge->scke", d_scores, _grouped(query, key), **_F32)
    return (
        d_query.reshape(query.shape).astype(query.dtype),
        d_key.astype(key.dtype),
        d_value.astype(value.dtype),
        None,
    )


plain_attend.defvjp(_forward, _backward)
