"""From logits, or from hidden states, to log-probabilities of tokens.

`token_log_probs` needs the logits of all tokens at once: [N, V] floats, gigabytes for a
language model's vocabulary, and several times that with gradients.
`chunked_token_log_probs` never holds more than [N, chunk_size] of them.
"""

import functools

import jax
import jax.numpy as jnp

from stepjax._checks import (
    check_bool,
    check_count,
    check_float,
    check_integer,
    check_same_shape,
    check_shapes,
)
from stepjax.kernels.masked import masked_sum

__all__ = ["chunked_token_log_probs", "step_log_prob", "token_log_probs"]


def token_log_probs(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """The log-probability of each token under its logits.

    Args:
      logits: [..., V] float. Already divided by the temperature, if any.
      tokens: [...] int, in [0, V).

    Returns:
      [...] float32.

    Raises:
      ValueError: At trace time, if the leading shapes differ.

    Example:
      >>> logits = jnp.log(jnp.array([[1.0, 3.0]]))
      >>> print(token_log_probs(logits, jnp.array([0])).round(4))
      [-1.3863]

    Source: log softmax, in float32 whatever the dtype of the logits.
    """
    if jnp.shape(logits)[:-1] != jnp.shape(tokens):
        raise ValueError(
            "token_log_probs: tokens must have the shape of logits without its last "
            f"axis, {jnp.shape(logits)[:-1]}, got {jnp.shape(tokens)}."
        )
    check_float("token_log_probs", logits=logits)
    check_integer("token_log_probs", tokens=tokens)
    logits = jnp.asarray(logits, jnp.float32)
    chosen = jnp.take_along_axis(logits, jnp.asarray(tokens)[..., None], axis=-1)
    return chosen[..., 0] - jax.nn.logsumexp(logits, axis=-1)


def step_log_prob(log_prob: jax.Array, token_mask: jax.Array) -> jax.Array:
    """The log-probability of a step's action: the sum over its tokens.

    Args:
      log_prob: [A] float. Padding may hold anything.
      token_mask: [A] bool. True for tokens the policy chose.

    Returns:
      [] float32.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> mask = jnp.array([True, True, False])
      >>> step_log_prob(jnp.array([-1.0, -0.5, jnp.nan]), mask)
      Array(-1.5, dtype=float32)

    Source: the chain rule.
    """
    check_shapes(
        "step_log_prob", log_prob=(log_prob, "A"), token_mask=(token_mask, "A")
    )
    check_bool("step_log_prob", token_mask=token_mask)
    check_same_shape("step_log_prob", log_prob=log_prob, token_mask=token_mask)
    return masked_sum(log_prob, token_mask)


def chunked_token_log_probs(
    hidden: jax.Array, head: jax.Array, tokens: jax.Array, *, chunk_size: int = 4096
) -> jax.Array:
    """The log-probability of each token, from hidden states, in chunks of the head.

    Equal to `token_log_probs(hidden @ head, tokens)`, and so are its gradients for
    `hidden` and `head`, up to rounding. The forward pass runs an online logsumexp over
    slices of the vocabulary; the backward pass computes each slice again. Extra memory
    is one slice of logits, [N, chunk_size], next to [N, V] several times over. The
    price is one more product with the head; less traffic over memory pays for it.
    Rows that no gradient reaches may hold anything.

    For several leading axes reshape to one; gather the response positions first, which
    saves more than anything here. A temperature divides `hidden`.

    Args:
      hidden: [N, D] float. Last hidden states. bfloat16 is multiplied as it is and
        accumulated in float32.
      head: [D, V] float. Output projection.
      tokens: [N] int, in [0, V).
      chunk_size: Columns of the head to work on at a time, a Python integer.

    Returns:
      [N] float32.

    Raises:
      ValueError: At trace time, if shapes are wrong; on the call, if `chunk_size` < 1.

    Example:
      >>> hidden, head = jnp.ones((2, 3)), jnp.zeros((3, 8))
      >>> print(chunked_token_log_probs(hidden, head, jnp.array([0, 7]), chunk_size=3))
      [-2.0794415 -2.0794415]

    Source: online softmax (arXiv:1805.02867), applied as in arXiv:2411.09009.
    """
    where = "chunked_token_log_probs"
    sizes = check_shapes(
        where, hidden=(hidden, "N D"), head=(head, "D V"), tokens=(tokens, "N")
    )
    check_float(where, hidden=hidden, head=head)
    check_integer(where, tokens=tokens)
    check_count(where, minimum=1, chunk_size=chunk_size)
    size = min(int(chunk_size), sizes["V"])
    return _chunked(
        size, jnp.asarray(hidden), jnp.asarray(head), jnp.asarray(tokens, jnp.int32)
    )


def _slice(
    head: jax.Array, index: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The start of a slice, its columns, and which of them no earlier slice had.

    The last slice is moved left to fit; padding the head instead would copy it.
    """
    wanted = index * size
    start = jnp.minimum(wanted, head.shape[1] - size)
    columns = jax.lax.dynamic_slice_in_dim(head, start, size, axis=1)
    return start, columns, start + jnp.arange(size) >= wanted


def _logits(hidden: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.dot(hidden, columns, preferred_element_type=jnp.float32)


def _num_slices(head: jax.Array, size: int) -> int:
    return -(-head.shape[1] // size)


def _forward(
    size: int, hidden: jax.Array, head: jax.Array, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities and the logsumexp, [N] each."""

    def body(
        carry: tuple[jax.Array, jax.Array, jax.Array], index: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        peak, total, chosen = carry
        start, columns, fresh = _slice(head, index, size)
        logits = jnp.where(fresh[None, :], _logits(hidden, columns), -jnp.inf)
        higher = jnp.maximum(peak, jnp.max(logits, axis=1))
        # While everything seen is -inf, any finite reference avoids inf - inf.
        safe = jnp.where(jnp.isfinite(higher), higher, 0.0)
        total = total * jnp.exp(peak - safe) + jnp.sum(
            jnp.exp(logits - safe[:, None]), axis=1
        )
        place = tokens - start
        inside = (place >= 0) & (place < size)
        value = jnp.take_along_axis(
            logits, jnp.clip(place, 0, size - 1)[:, None], axis=1
        )[:, 0]
        # A column seen twice is -inf the second time.
        inside &= tokens >= index * size
        return (higher, total, jnp.where(inside, value, chosen)), None

    rows = tokens.shape
    start = (
        jnp.full(rows, -jnp.inf, jnp.float32),
        jnp.zeros(rows, jnp.float32),
        jnp.full(rows, -jnp.inf, jnp.float32),
    )
    slices = jnp.arange(_num_slices(head, size), dtype=jnp.int32)
    (peak, total, chosen), _ = jax.lax.scan(body, start, slices)
    log_total = peak + jnp.log(total)
    return chosen - log_total, log_total


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(
    size: int, hidden: jax.Array, head: jax.Array, tokens: jax.Array
) -> jax.Array:
    return _forward(size, hidden, head, tokens)[0]


def _chunked_fwd(size, hidden, head, tokens):
    log_prob, log_total = _forward(size, hidden, head, tokens)
    return log_prob, (hidden, head, tokens, log_total)


def _chunked_bwd(size, residuals, cotangent):
    """Gradients, slice by slice: d log p(token) / d logits = one-hot - softmax."""
    hidden, head, tokens, log_total = residuals
    # NaN in a row that nobody reads must not reach the head through 0 * NaN.
    live = cotangent != 0
    hidden = jnp.where(live[:, None], hidden, jnp.zeros_like(hidden))
    log_total = jnp.where(live, log_total, 0.0)

    def body(carry, index):
        d_hidden, d_head = carry
        start, columns, fresh = _slice(head, index, size)
        p = jnp.exp(_logits(hidden, columns) - log_total[:, None])
        hit = (tokens - start)[:, None] == jnp.arange(size)[None, :]
        d_logits = cotangent[:, None] * (hit.astype(jnp.float32) - p)
        d_logits = jnp.where(fresh[None, :], d_logits, 0.0).astype(hidden.dtype)
        d_hidden = d_hidden + jnp.dot(
            d_logits, columns.T, preferred_element_type=jnp.float32
        )
        d_columns = jnp.dot(hidden.T, d_logits, preferred_element_type=jnp.float32)
        # Columns of an earlier slice keep what that slice wrote.
        before = jax.lax.dynamic_slice_in_dim(d_head, start, size, axis=1)
        d_columns = jnp.where(fresh[None, :], d_columns.astype(head.dtype), before)
        d_head = jax.lax.dynamic_update_slice_in_dim(d_head, d_columns, start, axis=1)
        return (d_hidden, d_head), None

    start = (jnp.zeros(hidden.shape, jnp.float32), jnp.zeros_like(head))
    slices = jnp.arange(_num_slices(head, size), dtype=jnp.int32)
    (d_hidden, d_head), _ = jax.lax.scan(body, start, slices)
    return d_hidden.astype(hidden.dtype), d_head, None


_chunked.defvjp(_chunked_fwd, _chunked_bwd)
