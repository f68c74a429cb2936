"""Statistics of ragged groups that lie scattered over rows, without a Python loop.

Groups are found by sorting keys, so nothing has to know how many there are or how
large they get: shapes stay static and the number of rows bounds the number of groups.
"""

import jax
import jax.numpy as jnp

from stepjax._checks import check_bool, check_integer, check_shapes
from stepjax.kernels.masked import safe_divide

__all__ = ["segment_center", "segment_ids", "segment_std"]


def segment_ids(mask: jax.Array, *keys: jax.Array) -> jax.Array:
    """A small integer per row, equal for real rows with equal keys.

    Args:
      mask: [R] bool. True for real rows.
      *keys: [R] integers of any width; rows belong together if all keys agree.

    Returns:
      [R] int32 in [0, R). The number of a masked row means nothing.

    Raises:
      ValueError: At trace time, if shapes differ.

    Example:
      >>> segment_ids(jnp.array([True] * 3), jnp.array([7, 5, 7]))
      Array([1, 0, 1], dtype=int32)

    Source: ours; sorting takes the place of a dictionary.
    """
    where = "segment_ids"
    check_shapes(
        where, mask=(mask, "R"), **{f"keys[{i}]": (k, "R") for i, k in enumerate(keys)}
    )
    check_bool(where, mask=mask)
    check_integer(where, **{f"keys[{i}]": k for i, k in enumerate(keys)})
    position = jnp.arange(jnp.shape(mask)[0], dtype=jnp.int32)
    *ordered, row = jax.lax.sort(
        (*(jnp.where(mask, k, jnp.zeros_like(k)) for k in keys), position),
        num_keys=len(keys),
    )
    starts = jnp.zeros(position.shape, bool)
    for key in ordered:
        starts |= jnp.concatenate([jnp.zeros((1,), bool), key[1:] != key[:-1]])
    number = jnp.cumsum(starts, dtype=jnp.int32)
    return jnp.zeros_like(position).at[row].set(number, unique_indices=True)


def segment_center(
    x: jax.Array, ids: jax.Array, mask: jax.Array, *, num_segments: int
) -> tuple[jax.Array, jax.Array]:
    """Each real row minus its group's mean, and the size of its group.

    As in `masked_center`, the group's smallest entry is taken away first: groups that
    agree become exact zeros.

    Args:
      x: [R] float. Padding may hold anything.
      ids: [R] int in [0, num_segments). Group of each row.
      mask: [R] bool. True for real rows.
      num_segments: Upper bound of the number of groups, a Python integer.

    Returns:
      `(centered, count)`: [R] float32 each; `centered` is 0 where `mask` is False.

    Example:
      >>> ids, mask = jnp.array([0, 0, 1]), jnp.array([True] * 3)
      >>> segment_center(jnp.array([1.0, 0.0, 5.0]), ids, mask, num_segments=2)[0]
      Array([ 0.5, -0.5,  0. ], dtype=float32)

    Source: arithmetic, as `masked_center`.
    """
    x = jnp.where(mask, jnp.asarray(x, jnp.float32), 0.0)
    lowest = jax.ops.segment_min(jnp.where(mask, x, jnp.inf), ids, num_segments)
    shift = jax.lax.stop_gradient(jnp.where(mask, lowest[ids], 0.0))
    shifted = x - shift
    count = _spread(mask.astype(jnp.float32), ids, num_segments)
    mean = safe_divide(_spread(shifted, ids, num_segments), count)
    return jnp.where(mask, shifted - mean, 0.0), count


def segment_std(
    centered: jax.Array,
    count: jax.Array,
    ids: jax.Array,
    *,
    num_segments: int,
    ddof: float | jax.Array = 1,
) -> jax.Array:
    """The standard deviation of each row's group.

    Args:
      centered: [R] float32, from `segment_center`.
      count: [R] float32, from `segment_center`.
      ids: [R] int in [0, num_segments). Group of each row.
      num_segments: As given to `segment_center`.
      ddof: Subtracted from the count in the denominator.

    Returns:
      [R] float32. Exactly 0 for groups that agree or have at most `ddof` rows.

    Example:
      >>> ids, mask = jnp.array([0, 0]), jnp.array([True, True])
      >>> centered, count = segment_center(
      ...     jnp.array([1.0, 3.0]), ids, mask, num_segments=1
      ... )
      >>> segment_std(centered, count, ids, num_segments=1, ddof=0)
      Array([1., 1.], dtype=float32)

    Source: arithmetic, as `masked_std`.
    """
    freedom = jnp.maximum(count - jnp.float32(ddof), 0.0)
    variance = safe_divide(_spread(centered**2, ids, num_segments), freedom)
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)


def _spread(x: jax.Array, ids: jax.Array, num_segments: int) -> jax.Array:
    return jax.ops.segment_sum(x, ids, num_segments)[ids]
