"""From values per token to one sum and its weight.

Every reduction returns a `WeightedSum` that is not divided yet. Sums over parts of a
batch (micro-batches, devices, hosts) then add up, and the one division at the end is by
the weight of the *whole* batch. Dividing each part by its own token count instead would
make a token count more the fewer tokens its part happens to hold.
"""

import jax
import jax.numpy as jnp

from stepjax._checks import check_bool, check_integer, check_shapes
from stepjax.kernels.masked import safe_divide
from stepjax.kernels.segments import segment_ids
from stepjax.types import WeightedSum

__all__ = ["step_mean", "token_mean", "trajectory_mean", "trajectory_weights"]


def _prepare(
    where: str, values: jax.Array, token_mask: jax.Array, weight: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values with zeros under the mask, the mask as float32, the row weights."""
    sizes = check_shapes(where, values=(values, "S A"), token_mask=(token_mask, "S A"))
    check_bool(where, token_mask=token_mask)
    if weight is None:
        weight = jnp.ones((sizes["S"],), jnp.float32)
    check_shapes(where, token_mask=(token_mask, "S A"), weight=(weight, "S"))
    weight = _clean_weight(weight)
    live = jnp.asarray(token_mask) & (weight > 0)[:, None]
    values = jnp.where(live, jnp.asarray(values, jnp.float32), 0.0)
    return values, live.astype(jnp.float32), weight


def _clean_weight(weight: jax.Array) -> jax.Array:
    weight = jnp.asarray(weight, jnp.float32)
    return jnp.where(weight > 0, weight, 0.0)


def token_mean(
    values: jax.Array,
    token_mask: jax.Array,
    *,
    weight: jax.Array | None = None,
    trajectory_id: jax.Array | None = None,
) -> WeightedSum:
    """The mean over tokens: every token of the batch weighs the same.

    Args:
      values: [S, A] float. Value of each token; padding may hold anything.
      token_mask: [S, A] bool. True for tokens that count.
      weight: [S] float. Multiplier of each row, at least 0; 0 marks padding. None
        means 1 for all rows.
      trajectory_id: Not used; there so that all reductions are called alike.

    Returns:
      Sum of `weight * value` and sum of `weight` over real tokens.

    Raises:
      ValueError: At trace time, if shapes are wrong.

    Example:
      >>> mask = jnp.array([[True, False], [True, True]])
      >>> out = token_mean(jnp.array([[1.0, 9.0], [2.0, 3.0]]), mask)
      >>> print(out.total, out.weight)
      6.0 3.0

    Source: DAPO (arXiv:2503.14476), token-level loss.
    """
    del trajectory_id
    values, live, weight = _prepare("token_mean", values, token_mask, weight)
    return WeightedSum(
        total=jnp.sum(weight[:, None] * values),
        weight=jnp.sum(weight[:, None] * live),
    )


def step_mean(
    values: jax.Array,
    token_mask: jax.Array,
    *,
    weight: jax.Array | None = None,
    trajectory_id: jax.Array | None = None,
) -> WeightedSum:
    """The mean over steps of each step's token mean: every step weighs the same.

    Args:
      values: [S, A] float. Value of each token; padding may hold anything.
      token_mask: [S, A] bool. True for tokens that count.
      weight: [S] float. Multiplier of each row, at least 0; 0 marks padding. None
        means 1 for all rows.
      trajectory_id: Not used; there so that all reductions are called alike.

    Returns:
      Sum of `weight * mean over tokens` and sum of `weight`, over rows with a token.

    Raises:
      ValueError: At trace time, if shapes are wrong.

    Example:
      >>> mask = jnp.array([[True, False], [True, True]])
      >>> out = step_mean(jnp.array([[1.0, 9.0], [2.0, 3.0]]), mask)
      >>> print(out.total, out.weight)
      3.5 2.0

    Source: GRPO (arXiv:2402.03300), eq. 3, with a step in the place of an output.
    """
    del trajectory_id
    values, live, weight = _prepare("step_mean", values, token_mask, weight)
    count = jnp.sum(live, axis=1)
    row = safe_divide(jnp.sum(values, axis=1), count)
    weight = jnp.where(count > 0, weight, 0.0)
    return WeightedSum(total=jnp.sum(weight * row), weight=jnp.sum(weight))


def trajectory_weights(weight: jax.Array, trajectory_id: jax.Array) -> jax.Array:
    """Row weights scaled so that those of each trajectory sum to 1.

    With them as `StepBatch.weight`, `step_mean` gives every trajectory the same say,
    also when its rows are cut into micro-batches or mini-batches: compute them once,
    over all rows, before cutting.

    Args:
      weight: [S] float. Multiplier of each row, at least 0; 0 marks padding.
      trajectory_id: [S] int. Equal for the rows of one trajectory; any integers.

    Returns:
      [S] float32.

    Raises:
      ValueError: At trace time, if shapes differ.

    Example:
      >>> trajectory_weights(jnp.ones(3), jnp.array([7, 7, 4]))
      Array([0.5, 0.5, 1. ], dtype=float32)

    Source: ours, for `trajectory_mean`.
    """
    where = "trajectory_weights"
    check_shapes(where, weight=(weight, "S"), trajectory_id=(trajectory_id, "S"))
    check_integer(where, trajectory_id=trajectory_id)
    weight = _clean_weight(weight)
    ids = segment_ids(weight > 0, jnp.asarray(trajectory_id))
    total = jax.ops.segment_sum(weight, ids, num_segments=weight.shape[0])[ids]
    return safe_divide(weight, total)


def trajectory_mean(
    values: jax.Array,
    token_mask: jax.Array,
    *,
    trajectory_id: jax.Array,
    weight: jax.Array | None = None,
) -> WeightedSum:
    """The mean over trajectories of the mean over their steps.

    Every trajectory weighs the same, whatever its number of steps; inside it steps
    weigh as `weight` says. It must see all rows of a trajectory at once: if they are
    cut into parts, use `trajectory_weights` before cutting and then `step_mean`.

    Args:
      values: [S, A] float. Value of each token; padding may hold anything.
      token_mask: [S, A] bool. True for tokens that count.
      trajectory_id: [S] int. Equal for the rows of one trajectory; any integers.
      weight: [S] float. Multiplier of each row, at least 0; 0 marks padding. None
        means 1 for all rows.

    Returns:
      Sum over trajectories of their means, and the number of trajectories.

    Raises:
      ValueError: At trace time, if shapes are wrong.

    Example:
      >>> values, mask = jnp.array([[1.0], [3.0], [5.0]]), jnp.ones((3, 1), bool)
      >>> out = trajectory_mean(values, mask, trajectory_id=jnp.array([0, 0, 1]))
      >>> print(out.total, out.weight)
      7.0 2.0

    Source: a deviation from STEP (arXiv:2511.13091), in which long trajectories weigh
    more; MobileRL (arXiv:2509.18119) argues for a correction.
    """
    _, live, weight = _prepare("trajectory_mean", values, token_mask, weight)
    weight = jnp.where(jnp.any(live > 0, axis=1), weight, 0.0)
    return step_mean(
        values, token_mask, weight=trajectory_weights(weight, trajectory_id)
    )
