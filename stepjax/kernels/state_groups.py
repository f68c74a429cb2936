"""Groups that are ragged: trajectories by group id, steps by equal state (GiGPO)."""

import jax
import jax.numpy as jnp

from stepjax._checks import (
    check_bool,
    check_count,
    check_float,
    check_integer,
    check_shapes,
)
from stepjax.kernels.masked import safe_divide
from stepjax.kernels.segments import segment_center, segment_ids, segment_std

__all__ = [
    "discounted_step_returns",
    "normalized_state_group_advantages",
    "ragged_group_advantages",
    "state_group_advantages",
]

Number = float | jax.Array


def ragged_group_advantages(
    rewards: jax.Array,
    group_ids: jax.Array,
    mask: jax.Array,
    *,
    num_groups: int,
    std_floor: Number = 1e-6,
) -> jax.Array:
    """Advantage of each trajectory in its group, for groups of any size in any order.

    What `group_advantages` gives group by group, without arranging the trajectories as
    `[groups, members]` first.

    Args:
      rewards: [M] float. Outcome of each trajectory; padding may hold anything.
      group_ids: [M] int. Group of each trajectory, in [0, num_groups).
      mask: [M] bool. True for real trajectories.
      num_groups: Upper bound of the group ids, a Python integer.
      std_floor: Deviation, in reward units, at or below which a group is ignored.

    Returns:
      [M] float32. Zero where `mask` is False and in groups that agree.

    Raises:
      ValueError: At trace time, if the arguments are not rank 1 or differ in shape.

    Example:
      >>> rewards = jnp.array([1.0, 0.9, 0.5, 0.9, 0.0])
      >>> ids, mask = jnp.array([0, 1, 0, 1, 0]), jnp.ones(5, bool)
      >>> ragged_group_advantages(rewards, ids, mask, num_groups=2)
      Array([ 1.,  0.,  0.,  0., -1.], dtype=float32)

    Source: GRPO (arXiv:2402.03300), outcome supervision; as `group_advantages`.
    """
    where = "ragged_group_advantages"
    check_shapes(
        where, rewards=(rewards, "M"), group_ids=(group_ids, "M"), mask=(mask, "M")
    )
    check_float(where, rewards=rewards)
    check_integer(where, group_ids=group_ids)
    check_bool(where, mask=mask)
    check_count(where, minimum=1, num_groups=num_groups)
    ids, mask = jnp.asarray(group_ids), jnp.asarray(mask)
    return _normalized(rewards, ids, mask, num_groups, std_floor)


def _normalized(
    x: jax.Array, ids: jax.Array, mask: jax.Array, num_segments: int, std_floor: Number
) -> jax.Array:
    centered, count = segment_center(x, ids, mask, num_segments=num_segments)
    std = segment_std(centered, count, ids, num_segments=num_segments)
    return safe_divide(centered, jnp.where(std > jnp.float32(std_floor), std, 0.0))


def discounted_step_returns(
    reward: jax.Array, step_mask: jax.Array, *, discount: Number = 0.95
) -> jax.Array:
    """The return of each step of a trajectory that is rewarded once, at its end.

        R_t = discount ** (number of steps after t) * R

    Args:
      reward: [] float. Outcome of the trajectory, R.
      step_mask: [L] bool. True for steps that happened.
      discount: Factor per step, in [0, 1].

    Returns:
      [L] float32. Zero where `step_mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> discounted_step_returns(
      ...     jnp.array(1.0), jnp.array([True, True, False]), discount=0.5
      ... )
      Array([0.5, 1. , 0. ], dtype=float32)

    Source: GiGPO (arXiv:2505.10978), `R_t` with a terminal reward only.
    """
    where = "discounted_step_returns"
    check_shapes(where, reward=(reward, ""), step_mask=(step_mask, "L"))
    check_float(where, reward=reward)
    check_bool(where, step_mask=step_mask)
    step_mask = jnp.asarray(step_mask)
    done = jnp.cumsum(step_mask, dtype=jnp.int32)
    left = (done[-1:] - done).astype(jnp.float32)
    scale = jnp.power(jnp.float32(discount), left)
    return jnp.where(step_mask, scale * jnp.asarray(reward, jnp.float32), 0.0)


def _rows(
    where: str,
    rewards: jax.Array,
    task_ids: jax.Array,
    state_hash: jax.Array,
    step_mask: jax.Array,
    discount: Number,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns, state-group ids and masks of all steps, as [M * L] rows."""
    check_shapes(
        where,
        rewards=(rewards, "M"),
        task_ids=(task_ids, "M"),
        state_hash=(state_hash, "M L"),
        step_mask=(step_mask, "M L"),
    )
    check_float(where, rewards=rewards)
    check_integer(where, task_ids=task_ids, state_hash=state_hash)
    check_bool(where, step_mask=step_mask)
    shape = jnp.shape(step_mask)
    returns = jax.vmap(lambda r, m: discounted_step_returns(r, m, discount=discount))(
        jnp.asarray(rewards, jnp.float32), jnp.asarray(step_mask)
    )
    mask = jnp.asarray(step_mask).reshape(-1)
    tasks = jnp.broadcast_to(jnp.asarray(task_ids)[:, None], shape).reshape(-1)
    ids = segment_ids(mask, tasks, jnp.asarray(state_hash).reshape(-1))
    return returns.reshape(-1), ids, mask


def state_group_advantages(
    rewards: jax.Array,
    task_ids: jax.Array,
    state_hash: jax.Array,
    step_mask: jax.Array,
    *,
    discount: Number = 0.95,
) -> jax.Array:
    """Advantage of each step among all steps taken in the same state of the same task.

        A_t = R_t - mean of R over the steps of the task with an equal state hash

    A state visited once has no rival and gets 0, so where no state repeats all are 0.
    Add it, times a weight (1 in the paper), to the trajectory's own group advantage.

    Args:
      rewards: [M] float. Outcome of each trajectory; padding may hold anything.
      task_ids: [M] int. Task of each trajectory; states are compared inside a task.
      state_hash: [M, L] int or uint. Equal hashes mean equal states.
      step_mask: [M, L] bool. True for steps that happened (in valid trajectories).
      discount: Factor per step of the step returns, see `discounted_step_returns`.

    Returns:
      [M, L] float32. Zero where `step_mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong.

    Example:
      >>> hashes = jnp.array([[5, 6], [5, 7]], dtype=jnp.uint32)
      >>> state_group_advantages(
      ...     jnp.array([1.0, 0.0]), jnp.array([0, 0]), hashes, jnp.ones((2, 2), bool),
      ...     discount=1.0,
      ... )
      Array([[ 0.5,  0. ],
             [-0.5,  0. ]], dtype=float32)

    Source: GiGPO (arXiv:2505.10978), the step term with F = 1, which is its code's
    default. STEP's own baseline "GiGRPO" leaves this term out.
    """
    returns, ids, mask = _rows(
        "state_group_advantages", rewards, task_ids, state_hash, step_mask, discount
    )
    centered, _ = segment_center(returns, ids, mask, num_segments=mask.shape[0])
    return centered.reshape(jnp.shape(step_mask))


def normalized_state_group_advantages(
    rewards: jax.Array,
    task_ids: jax.Array,
    state_hash: jax.Array,
    step_mask: jax.Array,
    *,
    discount: Number = 0.95,
    std_floor: Number = 1e-6,
) -> jax.Array:
    """Advantages as in `state_group_advantages`, in units of each state group's spread.

    Args:
      rewards: [M] float. Outcome of each trajectory; padding may hold anything.
      task_ids: [M] int. Task of each trajectory.
      state_hash: [M, L] int or uint. Equal hashes mean equal states.
      step_mask: [M, L] bool. True for steps that happened (in valid trajectories).
      discount: Factor per step of the step returns.
      std_floor: Sample deviation at or below which a state group is ignored.

    Returns:
      [M, L] float32. Zero where `step_mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong.

    Example:
      >>> hashes = jnp.full((3, 1), 5, dtype=jnp.uint32)
      >>> normalized_state_group_advantages(
      ...     jnp.array([1.0, 0.5, 0.0]), jnp.array([0, 0, 0]), hashes,
      ...     jnp.ones((3, 1), bool),
      ... )[:, 0]
      Array([ 1.,  0., -1.], dtype=float32)

    Source: GiGPO (arXiv:2505.10978), the step term with F = std.
    """
    returns, ids, mask = _rows(
        "normalized_state_group_advantages",
        rewards,
        task_ids,
        state_hash,
        step_mask,
        discount,
    )
    advantages = _normalized(returns, ids, mask, mask.shape[0], std_floor)
    return advantages.reshape(jnp.shape(step_mask))
