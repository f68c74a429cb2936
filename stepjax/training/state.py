"""What a checkpoint holds, and the walk through the training tasks."""

import dataclasses
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from stepjax.training.freezing import split_params
from stepjax.types import SuccessRateRecord

__all__ = [
    "TaskSampler",
    "TrainState",
    "draw_tasks",
    "init_task_sampler",
    "init_train_state",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSampler:
    """A walk through the training tasks, one permutation per epoch.

    Attributes:
      order: [T] int32. Task ids of the current epoch, in the order they are drawn.
      position: [] int32. How many of `order` have been drawn already, in [0, T].
    """

    order: jax.Array  # [T] int32
    position: jax.Array  # [] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that changes while training; arrays only, so it shards and saves as is.

    Attributes:
      step: [] int32. Optimizer updates applied so far.
      round: [] int32. Rounds of trajectories finished so far; names the checkpoint.
      params: Pytree of float arrays, the master copy (float32).
      opt_state: State of the optax transformation.
      success_rate: Smoothed success rate of every task in the pool.
      sampler: Which tasks come next.
      key: [] typed PRNG key. Never consumed: callers fold `round` or `step` into it.
    """

    step: jax.Array  # [] int32
    round: jax.Array  # [] int32
    params: Any
    opt_state: Any
    success_rate: SuccessRateRecord
    sampler: TaskSampler
    key: jax.Array  # [] key


def init_train_state(
    key: jax.Array,
    params: Any,
    tx: optax.GradientTransformation,
    *,
    success_rate: SuccessRateRecord,
    task_ids: jax.Array,
    trainable: Any = None,
) -> TrainState:
    """A state at round 0, before any update.

    Arrays are copied: the train step donates its state, and the caller's `params`
    (a warm start shared by several runs, say) must survive that. For parameters too
    large to hold twice, call this inside `jax.jit` with `out_shardings`.

    Args:
      key: [] typed PRNG key (`jax.random.key`).
      params: Pytree of float arrays.
      tx: Optimizer.
      success_rate: Record of the whole pool, from `stepjax.init_success_rate`.
      task_ids: [T] int. Ids of the tasks to train on, each once.
      trainable: Pytree of bools as in `make_train_step`; parameters that do not learn
        get no optimizer state. None for all.

    Returns:
      A `TrainState` that shares no buffer with the arguments.

    Raises:
      TypeError: If `key` is not a typed key.
      ValueError: If `task_ids` is not a non-empty vector of distinct ids.
    """
    if not jnp.issubdtype(jnp.asarray(key).dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"key must be a typed PRNG key, got dtype {jnp.asarray(key).dtype}; "
            "make it with jax.random.key(seed)."
        )
    ids = _checked_task_ids(task_ids)

    # One program instead of one per parameter shape: half a second of every start.
    @jax.jit
    def build(key: jax.Array, params: Any, success_rate: Any, ids: Any) -> TrainState:
        sampler_key, key = jax.random.split(key)
        params = jax.tree.map(jnp.copy, params)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            round=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=tx.init(split_params(params, trainable)[0]),
            success_rate=jax.tree.map(jnp.copy, success_rate),
            sampler=init_task_sampler(sampler_key, ids),
            key=key,
        )

    return build(key, params, success_rate, ids)


def init_task_sampler(key: jax.Array, task_ids: jax.Array) -> TaskSampler:
    """A sampler at the start of a freshly shuffled epoch.

    Args:
      key: [] typed PRNG key, consumed.
      task_ids: [T] int. Ids of the tasks to draw from, each once.

    Returns:
      A `TaskSampler` with nothing drawn yet.

    Raises:
      ValueError: If `task_ids` is not a non-empty vector, or (when concrete) holds an
        id twice.
    """
    ids = _checked_task_ids(task_ids)
    return TaskSampler(
        order=jax.random.permutation(key, ids), position=jnp.zeros((), jnp.int32)
    )


def draw_tasks(
    sampler: TaskSampler, key: jax.Array, *, num_tasks: int
) -> tuple[TaskSampler, jax.Array]:
    """The next tasks of the epoch, and the sampler after drawing them.

    Every task is drawn once per epoch. When the epoch ends inside a draw, the tasks
    that were left are taken first and the draw is completed from the next permutation,
    in which tasks of this draw are moved behind the completion: a draw never holds the
    same task twice, and nobody loses their turn.

    Args:
      sampler: Where the walk stands.
      key: [] typed PRNG key, consumed; it shuffles the next epoch if this one ends.
      num_tasks: Tasks to draw, a Python int in [1, T].

    Returns:
      The advanced sampler and the task ids, [num_tasks] int32.

    Raises:
      ValueError: At trace time, if `num_tasks` is outside [1, T].

    Example:
      >>> import jax
      >>> sampler = init_task_sampler(jax.random.key(0), jax.numpy.arange(5))
      >>> sampler, first = draw_tasks(sampler, jax.random.key(1), num_tasks=3)
      >>> sampler, second = draw_tasks(sampler, jax.random.key(2), num_tasks=3)
      >>> len(set(first.tolist()) | set(second.tolist())), int(sampler.position)
      (5, 1)

    Source: STEP (arXiv:2511.13091) draws without replacement; that the remainder of an
    epoch is carried into the next one is ours.
    """
    total = sampler.order.shape[0]
    if not 1 <= num_tasks <= total:
        raise ValueError(
            f"num_tasks must be in [1, {total}] (the sampler holds {total} tasks), "
            f"got {num_tasks}; draw fewer tasks a round or train on more."
        )
    left = jnp.minimum(total - sampler.position, num_tasks)
    slot = jnp.arange(num_tasks)
    taken = sampler.order[jnp.minimum(sampler.position + slot, total - 1)]

    shuffled = jax.random.permutation(key, sampler.order)
    is_taken = jnp.any(
        (shuffled[:, None] == taken[None, :]) & (slot < left)[None, :], axis=1
    )
    rank = jnp.cumsum(~is_taken) - 1
    completes = ~is_taken & (rank < num_tasks - left)
    following = shuffled[jnp.argsort(~completes, stable=True)]

    drawn = jnp.where(slot < left, taken, following[jnp.maximum(slot - left, 0)])
    ends = left < num_tasks
    advanced = TaskSampler(
        order=jnp.where(ends, following, sampler.order),
        position=jnp.where(ends, num_tasks - left, sampler.position + num_tasks),
    )
    return advanced, drawn


def _checked_task_ids(task_ids: jax.Array) -> jax.Array:
    """`task_ids` as int32, refused if empty or (where values are known) repeated."""
    ids = jnp.asarray(task_ids, jnp.int32)
    if ids.ndim != 1 or ids.size == 0:
        raise ValueError(
            f"task_ids must have shape [T] with T >= 1, got {ids.shape}; "
            "pass the ids of the training tasks."
        )
    if not isinstance(ids, jax.core.Tracer):
        values, counts = np.unique(np.asarray(ids), return_counts=True)
        if values.size != ids.size:
            raise ValueError(
                f"task_ids must be distinct, but {values[counts.argmax()]} occurs "
                f"{counts.max()} times; list each task once."
            )
    return ids
