"""SL-GRPO: step-level groups for tasks that rarely succeed."""

import jax
import jax.numpy as jnp

from stepjax._checks import check_bool, check_float, check_shapes
from stepjax.kernels.masked import masked_center, masked_std, safe_divide

__all__ = [
    "augmentation_mask",
    "step_group_advantages",
    "step_group_advantages_keep_plain",
]

Number = float | jax.Array


def augmentation_mask(
    step_mask: jax.Array,
    success: jax.Array,
    rate: jax.Array,
    *,
    threshold: Number = 0.2,
) -> jax.Array:
    """True for steps to be replaced by a step-level group.

    Those are the steps of successful trajectories on tasks at or below the threshold.

    Args:
      step_mask: [L] bool. True for steps that happened.
      success: [] bool. Whether the trajectory succeeded and is valid.
      rate: [] float. Smoothed success rate of its task, after the round's update.
      threshold: Rate up to which steps are augmented.

    Returns:
      [L] bool.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> augmentation_mask(
      ...     jnp.array([True, False]), jnp.array(True), jnp.array(0.1)
      ... )
      Array([ True, False], dtype=bool)

    Source: STEP (arXiv:2511.13091), section 5.3, `s_low`.
    """
    where = "augmentation_mask"
    check_shapes(
        where, step_mask=(step_mask, "L"), success=(success, ""), rate=(rate, "")
    )
    check_bool(where, step_mask=step_mask, success=success)
    check_float(where, rate=rate)
    low = jnp.asarray(rate, jnp.float32) <= jnp.float32(threshold)
    return step_mask & success & low


def step_group_advantages(
    match: jax.Array,
    mask: jax.Array,
    step_advantage: jax.Array,
    *,
    std_floor: Number = 1e-6,
    ddof: Number = 1,
    weight: Number = 1.0,
) -> jax.Array:
    """Advantages of the actions sampled again at one step.

        A_k = weight * A_step * (R_k - mean(R)) / std(R),   R_k = 1 if A_k matches A_0

    If all members match, the formula is 0/0; taken literally with the usual epsilon it
    is 0, and so it is here: the step then teaches nothing.
    `step_group_advantages_keep_plain` treats that case otherwise.

    Args:
      match: [A] bool. Whether each member's action matches the one taken. Index 0 is
        the action taken, so `match[0]` is True. Padding may hold anything.
      mask: [A] bool. True for real members. If the action taken cannot be compared
        (unparseable), leave the step out instead of masking index 0.
      step_advantage: [] float. Advantage of the step that the group replaces.
      std_floor: Deviation at or below which the group carries no signal.
      ddof: 1 for the sample deviation, 0 for the population deviation.
      weight: Multiplier of all rows of the group. 1 is the paper's; one step becomes
        several rows with advantages above 1, so less may serve better.

    Returns:
      [A] float32. Zero where `mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> match, mask = jnp.array([True, False]), jnp.array([True, True])
      >>> step_group_advantages(match, mask, jnp.array(0.5), ddof=0)
      Array([ 0.5, -0.5], dtype=float32)

    Source: STEP (arXiv:2511.13091), section 5.3. The paper does not say which
    deviation; 1 follows the common libraries. `weight` is ours.
    """
    where = "step_group_advantages"
    check_shapes(
        where,
        match=(match, "A"),
        mask=(mask, "A"),
        step_advantage=(step_advantage, ""),
    )
    check_bool(where, match=match, mask=mask)
    check_float(where, step_advantage=step_advantage)
    rewards = jnp.asarray(match).astype(jnp.float32)
    std = masked_std(rewards, mask, ddof=ddof)
    scale = safe_divide(
        jnp.float32(weight) * jnp.asarray(step_advantage, jnp.float32),
        jnp.where(std > jnp.float32(std_floor), std, 0.0),
    )
    return masked_center(rewards, mask) * scale


def step_group_advantages_keep_plain(
    match: jax.Array,
    mask: jax.Array,
    step_advantage: jax.Array,
    *,
    std_floor: Number = 1e-6,
    ddof: Number = 1,
    weight: Number = 1.0,
) -> jax.Array:
    """Advantages as in `step_group_advantages`, unless all members match.

    Then the action taken keeps the plain advantage of its step, not multiplied by
    `weight`, and the others get 0: the step counts once, as if it had not been
    augmented.

    Args:
      match: [A] bool. Index 0 is the action taken.
      mask: [A] bool. True for real members.
      step_advantage: [] float. Advantage of the step that the group replaces.
      std_floor: Deviation at or below which the group carries no signal.
      ddof: 1 for the sample deviation, 0 for the population deviation.
      weight: Multiplier of all rows of a group that does not agree.

    Returns:
      [A] float32. Zero where `mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> every = jnp.array([True, True])
      >>> step_group_advantages_keep_plain(every, every, jnp.array(0.5))
      Array([0.5, 0. ], dtype=float32)

    Source: a deviation from STEP (arXiv:2511.13091), section 5.3, for the case in which
    its formula is 0/0.
    """
    advantages = step_group_advantages(
        match, mask, step_advantage, std_floor=std_floor, ddof=ddof, weight=weight
    )
    agree = jnp.all(match | ~mask)
    first = jnp.arange(jnp.shape(match)[0]) == 0
    plain = jnp.where(first & mask, jnp.asarray(step_advantage, jnp.float32), 0.0)
    return jnp.where(agree, plain, advantages)
