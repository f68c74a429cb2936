"""The smoothed success rate of every task: SR-Traj's memory across rounds."""

import jax
import jax.numpy as jnp

from stepjax._checks import (
    check_bool,
    check_count,
    check_integer,
    check_range,
    check_shapes,
)
from stepjax.types import SuccessRateRecord

__all__ = ["init_success_rate", "update_success_rate"]


def init_success_rate(
    num_tasks: int, *, initial_rate: float | jax.Array = 0.0
) -> SuccessRateRecord:
    """A record in which no task has been tried.

    Args:
      num_tasks: Number of tasks in the pool, T.
      initial_rate: Rate of every task before its first trajectory, a probability. At 0
        the cache of `resample_tasks` is empty at first, so the first pass over the
        tasks is plain uniform sampling.

    Returns:
      Record with `rate` [T] float32 and `visits` [T] int32.

    Raises:
      ValueError: On the call, if `num_tasks` < 1 or the rate is not in [0, 1].

    Example:
      >>> init_success_rate(2).rate
      Array([0., 0.], dtype=float32)

    Source: STEP (arXiv:2511.13091), section 5.1; the paper does not give the initial
    rate, 0 is our reading.
    """
    check_count("init_success_rate", minimum=1, num_tasks=num_tasks)
    check_range("init_success_rate", 0.0, 1.0, initial_rate=initial_rate)
    rate = jnp.broadcast_to(jnp.asarray(initial_rate, jnp.float32), (num_tasks,))
    return SuccessRateRecord(rate=rate, visits=jnp.zeros((num_tasks,), jnp.int32))


def update_success_rate(
    record: SuccessRateRecord,
    task_ids: jax.Array,
    success: jax.Array,
    valid: jax.Array,
    *,
    group_size: float | jax.Array,
) -> SuccessRateRecord:
    """The record after one round of trajectories.

    With n trajectories and u successes of a task in the round, and N = `group_size`:

        rate' = u / n                       if n >= N
        rate' = (u + (N - n) * rate) / N    otherwise

    an average of constant mass N: what the round did not collect, the past fills in.

    Args:
      record: The record before the round, for T tasks.
      task_ids: [M] int. Task each trajectory actually ran, in [0, T); others are not
        counted (`check_task_ids` finds them on the host).
      success: [M] bool or number. True, or above 0, for a success; anything if invalid.
      valid: [M] bool. False for trajectories that must not count (crashes, padding).
      group_size: Standard number of trajectories of a task in a round, N.

    Returns:
      The record with new rates, each in [0, 1], and visits. Tasks without a valid
      trajectory keep theirs.

    Raises:
      ValueError: At trace time, if shapes differ; on the call, if `group_size` < 1.

    Example:
      >>> record = init_success_rate(1, initial_rate=0.5)
      >>> ids, valid = jnp.array([0, 0]), jnp.array([True, True])
      >>> update_success_rate(
      ...     record, ids, jnp.array([True, False]), valid, group_size=4
      ... ).rate
      Array([0.5], dtype=float32)

    Source: STEP (arXiv:2511.13091), section 5.1, tracking update, with
    `alpha = 1 - n / N` put in. Invalid trajectories are ours; the paper has none.
    """
    where = "update_success_rate"
    check_shapes(
        where, task_ids=(task_ids, "M"), success=(success, "M"), valid=(valid, "M")
    )
    check_shapes(where, rate=(record.rate, "T"), visits=(record.visits, "T"))
    check_integer(where, task_ids=task_ids)
    check_bool(where, valid=valid)
    check_range(where, 1, float("inf"), group_size=group_size)
    task_ids, valid = jnp.asarray(task_ids), jnp.asarray(valid)
    solved = valid & (jnp.asarray(success).astype(jnp.float32) > 0)
    # Integer counts: the same on any number of devices, whatever the order of the sum.
    counts = jax.ops.segment_sum(
        jnp.stack([valid, solved], axis=1).astype(jnp.int32),
        task_ids,
        num_segments=record.rate.shape[0],
    )
    n, u = counts[:, 0].astype(jnp.float32), counts[:, 1].astype(jnp.float32)
    mass = jnp.maximum(jnp.float32(group_size), n)
    rate = jnp.where(n > 0, (u + (mass - n) * record.rate) / mass, record.rate)
    return SuccessRateRecord(
        rate=jnp.clip(rate, 0.0, 1.0), visits=record.visits + counts[:, 0]
    )
