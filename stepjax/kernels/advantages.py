"""Advantages: of one group of trajectories, of one trajectory, of its steps."""

import jax
import jax.numpy as jnp

from stepjax._checks import (
    check_bool,
    check_float,
    check_same_shape,
    check_shapes,
)
from stepjax.kernels.masked import masked_center, masked_std, safe_divide

__all__ = [
    "centered_advantages",
    "group_advantages",
    "leave_one_out_advantages",
    "length_corrected_step_advantages",
    "step_advantages",
    "success_rate_advantage",
    "success_rate_baseline_advantage",
]

Number = float | jax.Array


def _check_group(where: str, rewards: jax.Array, mask: jax.Array) -> None:
    check_shapes(where, rewards=(rewards, "G"), mask=(mask, "G"))
    check_float(where, rewards=rewards)
    check_bool(where, mask=mask)


def group_advantages(
    rewards: jax.Array, mask: jax.Array, *, std_floor: Number = 1e-6
) -> jax.Array:
    """Advantage of each trajectory relative to its group, in units of its spread.

        A_i = (r_i - mean(r)) / std(r)        and 0 for all i if std(r) <= std_floor

    Mean and sample deviation (ddof 1) run over real trajectories only. A group whose
    rewards agree carries no signal and gets exact zeros, and so does a group of one; a
    plain `+ eps` in the denominator does not achieve that in float32.

    Args:
      rewards: [G] float. Outcome of each trajectory; padding may hold anything.
      mask: [G] bool. True for real trajectories.
      std_floor: Deviation, in reward units, at or below which the group is ignored.

    Returns:
      [G] float32. Zero where `mask` is False. Not differentiated by the losses.

    Raises:
      ValueError: At trace time, if the arguments are not rank 1 or differ in shape
        (batched input: wrap the call in `jax.vmap`).

    Example:
      >>> rewards, mask = jnp.array([1.0, 0.5, 0.0]), jnp.array([True, True, True])
      >>> group_advantages(rewards, mask, std_floor=1e-3)
      Array([ 1.,  0., -1.], dtype=float32)

    Source: GRPO (arXiv:2402.03300), eq. for outcome supervision; the baseline T-GRPO of
    STEP (arXiv:2511.13091), section 4.1. The floor takes the place of the usual
    epsilon; a group of one gets 0, where some libraries hand back the raw reward.
    """
    _check_group("group_advantages", rewards, mask)
    centered = masked_center(rewards, mask)
    std = masked_std(rewards, mask)
    return safe_divide(centered, jnp.where(std > jnp.float32(std_floor), std, 0.0))


def centered_advantages(rewards: jax.Array, mask: jax.Array) -> jax.Array:
    """Advantage of each trajectory relative to its group's mean reward.

        A_i = r_i - mean(r)

    Args:
      rewards: [G] float. Outcome of each trajectory; padding may hold anything.
      mask: [G] bool. True for real trajectories.

    Returns:
      [G] float32. Exact zeros if the group agrees; zero where `mask` is False.

    Raises:
      ValueError: At trace time, if the arguments are not rank 1 or differ in shape.

    Example:
      >>> centered_advantages(jnp.array([1.0, 0.0]), jnp.array([True, True]))
      Array([ 0.5, -0.5], dtype=float32)

    Source: Dr. GRPO (arXiv:2503.20783).
    """
    _check_group("centered_advantages", rewards, mask)
    return masked_center(rewards, mask)


def leave_one_out_advantages(rewards: jax.Array, mask: jax.Array) -> jax.Array:
    """Advantage of each trajectory relative to the mean of the others.

        A_i = r_i - mean(r without r_i) = n / (n - 1) * (r_i - mean(r))

    Args:
      rewards: [G] float. Outcome of each trajectory; padding may hold anything.
      mask: [G] bool. True for real trajectories.

    Returns:
      [G] float32. Exact zeros if the group agrees or has one member; zero where `mask`
      is False.

    Raises:
      ValueError: At trace time, if the arguments are not rank 1 or differ in shape.

    Example:
      >>> leave_one_out_advantages(jnp.array([1.0, 0.0]), jnp.array([True, True]))
      Array([ 1., -1.], dtype=float32)

    Source: RLOO (arXiv:2402.14740).
    """
    _check_group("leave_one_out_advantages", rewards, mask)
    count = jnp.sum(mask, dtype=jnp.float32)
    return masked_center(rewards, mask) * safe_divide(count, count - 1.0)


def _check_rates(where: str, reward: jax.Array, rate: jax.Array) -> None:
    check_same_shape(where, reward=reward, rate=rate)
    check_float(where, reward=reward, rate=rate)


def success_rate_advantage(reward: jax.Array, rate: jax.Array) -> jax.Array:
    """Advantage of a successful trajectory, larger the rarer success is on its task.

        A = (1 - rate) * R  if R > 0,  else 0

    Failed trajectories get 0: the method drops them. The paper's rate is the one after
    the round's update, which makes a task that was always solved weigh nothing. For the
    rate before the update, which does not contain the trajectory it weighs, pass that
    one; then first successes weigh 1.

    Args:
      reward: [...] float. Outcome, R. Select by validity afterwards.
      rate: [...] float. Smoothed success rate of the trajectory's task,
        `record.rate[task_id]`.

    Returns:
      [...] float32.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> success_rate_advantage(jnp.array([1.0, 0.0]), jnp.array([0.25, 0.25]))
      Array([0.75, 0.  ], dtype=float32)

    Source: STEP (arXiv:2511.13091), section 5.2. That the rate is the updated one is
    our reading.
    """
    _check_rates("success_rate_advantage", reward, rate)
    reward, rate = jnp.asarray(reward, jnp.float32), jnp.asarray(rate, jnp.float32)
    return jnp.where(reward > 0, (1.0 - rate) * jnp.where(reward > 0, reward, 0.0), 0.0)


def success_rate_baseline_advantage(reward: jax.Array, rate: jax.Array) -> jax.Array:
    """Advantage of a trajectory against its task's success rate, failures kept.

        A = R - rate

    Args:
      reward: [...] float. Outcome, R.
      rate: [...] float. Smoothed success rate of the trajectory's task.

    Returns:
      [...] float32. Negative for failures.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> rate = jnp.array([0.25, 0.25])
      >>> success_rate_baseline_advantage(jnp.array([1.0, 0.0]), rate)
      Array([ 0.75, -0.25], dtype=float32)

    Source: a deviation from STEP (arXiv:2511.13091), whose `(1 - rate) * R` it equals
    on successes of reward 1; SPO (arXiv:2509.13232) uses it with the earlier rate.
    """
    _check_rates("success_rate_baseline_advantage", reward, rate)
    return jnp.asarray(reward, jnp.float32) - jnp.asarray(rate, jnp.float32)


def _check_steps(where: str, advantage: jax.Array, step_mask: jax.Array) -> None:
    check_shapes(
        where, trajectory_advantage=(advantage, ""), step_mask=(step_mask, "L")
    )
    check_bool(where, step_mask=step_mask)


def step_advantages(trajectory_advantage: jax.Array, step_mask: jax.Array) -> jax.Array:
    """Advantage of each step: that of its trajectory.

    Args:
      trajectory_advantage: [] float.
      step_mask: [L] bool. True for steps that happened.

    Returns:
      [L] float32. Zero where `step_mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> step_advantages(jnp.array(0.5), jnp.array([True, True, False]))
      Array([0.5, 0.5, 0. ], dtype=float32)

    Source: STEP (arXiv:2511.13091), section 5.2, step decomposition.
    """
    _check_steps("step_advantages", trajectory_advantage, step_mask)
    return jnp.where(step_mask, jnp.asarray(trajectory_advantage, jnp.float32), 0.0)


def length_corrected_step_advantages(
    trajectory_advantage: jax.Array,
    step_mask: jax.Array,
    *,
    reference_length: Number = 1.0,
) -> jax.Array:
    """Advantage of each step, scaled so that long trajectories do not weigh more.

        A_t = A * reference_length / (number of steps)

    Args:
      trajectory_advantage: [] float.
      step_mask: [L] bool. True for steps that happened.
      reference_length: Number of steps at which the factor is 1.

    Returns:
      [L] float32. Zero where `step_mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> length_corrected_step_advantages(jnp.array(0.5), jnp.array([True, True]))
      Array([0.25, 0.25], dtype=float32)

    Source: a deviation from STEP (arXiv:2511.13091), where every step of a trajectory
    carries the full advantage and long trajectories contribute more.
    """
    _check_steps("length_corrected_step_advantages", trajectory_advantage, step_mask)
    length = jnp.sum(step_mask, dtype=jnp.float32)
    factor = safe_divide(jnp.asarray(reference_length, jnp.float32), length)
    return step_advantages(trajectory_advantage * factor, step_mask)
