"""SR-Traj: which copies of a round's tasks go to tasks that need them more."""

import jax
import jax.numpy as jnp

from stepjax._checks import (
    check_count,
    check_float,
    check_integer,
    check_range,
    check_shapes,
)

__all__ = ["cache_mask", "replacement_prob", "resample_tasks", "sampling_weights"]

Number = float | jax.Array


def replacement_prob(
    rate: jax.Array, *, threshold: Number = 0.6, sharpness: Number = 10.0
) -> jax.Array:
    """The probability that a copy of a task gives way to a cached task.

        p = 1 / (1 + exp(-sharpness * (rate - threshold)))

    Args:
      rate: [...] float. Smoothed success rates.
      threshold: Rate at which the probability is one half.
      sharpness: Steepness of the curve at the threshold, per unit of rate.

    Returns:
      [...] float32, probabilities.

    Example:
      >>> replacement_prob(jnp.array([0.6]))
      Array([0.5], dtype=float32)

    Source: STEP (arXiv:2511.13091), section 5.1, `p_rep`.
    """
    check_float("replacement_prob", rate=rate)
    rate = jnp.asarray(rate, jnp.float32)
    return jax.nn.sigmoid(jnp.float32(sharpness) * (rate - jnp.float32(threshold)))


def cache_mask(rate: jax.Array, *, threshold: Number = 0.6) -> jax.Array:
    """True for tasks that have been solved, but not often enough: the cache.

    Args:
      rate: [...] float. Smoothed success rates.
      threshold: Rate from which a task counts as mastered.

    Returns:
      [...] bool. `0 < rate < threshold`.

    Example:
      >>> cache_mask(jnp.array([0.0, 0.3, 0.6]))
      Array([False,  True, False], dtype=bool)

    Source: STEP (arXiv:2511.13091), section 5.1, `C_Q`.
    """
    check_float("cache_mask", rate=rate)
    rate = jnp.asarray(rate, jnp.float32)
    return (rate > 0) & (rate < jnp.float32(threshold))


def _check(where: str, task_ids: jax.Array, rate: jax.Array, group_size: int) -> None:
    check_shapes(where, task_ids=(task_ids, "B"), rate=(rate, "T"))
    check_integer(where, task_ids=task_ids)
    check_float(where, rate=rate)
    check_count(where, minimum=1, group_size=group_size)


def sampling_weights(
    task_ids: jax.Array,
    rate: jax.Array,
    *,
    group_size: int,
    threshold: Number = 0.6,
    sharpness: Number = 10.0,
    kept_copies: int | jax.Array = 1,
    unsolved_share: Number = 0.0,
) -> jax.Array:
    """The share of a round's trajectories each task is expected to get.

    The expectation of what `resample_tasks` draws with the same numbers and without
    `max_cache_copies`. With `task_ids = jnp.arange(T)` it is the expectation over an
    epoch.

    Args:
      task_ids: [B] int. Tasks of the round, in [0, T).
      rate: [T] float. Smoothed success rate of every task in the pool.
      group_size: Copies of each task before replacement, N.
      threshold: See `replacement_prob`.
      sharpness: See `replacement_prob`.
      kept_copies: Copies of each task that are never replaced.
      unsolved_share: See `resample_tasks`.

    Returns:
      [T] float32. Sums to 1.

    Raises:
      ValueError: At trace time, if shapes are wrong or `group_size` < 1.

    Example:
      >>> sampling_weights(jnp.array([0]), jnp.array([0.6, 0.3]), group_size=2)
      Array([0.75, 0.25], dtype=float32)

    Source: STEP (arXiv:2511.13091), section 5.1, in expectation.
    """
    _check("sampling_weights", task_ids, rate, group_size)
    task_ids, rate = jnp.asarray(task_ids), jnp.asarray(rate, jnp.float32)
    prob = replacement_prob(rate[task_ids], threshold=threshold, sharpness=sharpness)
    free = jnp.maximum(group_size - jnp.float32(kept_copies), 0.0) * prob  # [B]
    cache, unsolved = cache_mask(rate, threshold=threshold), rate == 0
    share = jnp.where(jnp.any(unsolved), jnp.float32(unsolved_share), 0.0)
    to_cache = jnp.where(jnp.any(cache), 1.0 - share, 0.0)
    own = group_size - free * (share + to_cache)
    expected = jnp.zeros_like(rate).at[task_ids].add(own)
    for pool, part in ((unsolved, share), (cache, to_cache)):
        each = jnp.sum(free) * part / jnp.maximum(jnp.sum(pool, dtype=jnp.float32), 1.0)
        expected = expected + jnp.where(pool, each, 0.0)
    return expected / (task_ids.shape[0] * group_size)


def _uniform_member(
    key: jax.Array, pool: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """[shape] int32: indices drawn uniformly where `pool` is True; 0 if nowhere."""
    members = jnp.nonzero(pool, size=pool.shape[0], fill_value=0)[0]
    count = jnp.maximum(jnp.sum(pool, dtype=jnp.int32), 1)
    return members[jax.random.randint(key, shape, 0, count)].astype(jnp.int32)


def _within_cap(
    key: jax.Array, target: jax.Array, replaced: jax.Array, cap: int | jax.Array
) -> jax.Array:
    """[M] bool: which replaced copies survive if each target takes at most `cap`.

    Copies aimed at one target are ranked by a random number, so that neither a low
    slot nor an early task is preferred.
    """
    position = jnp.arange(target.shape[0], dtype=jnp.int32)
    # Copies that stay sort last, behind every task id.
    group = jnp.where(replaced, target, jnp.iinfo(jnp.int32).max)
    priority = jax.random.uniform(key, target.shape)
    group, _, slot = jax.lax.sort((group, priority, position), num_keys=2)
    first = jnp.searchsorted(group, group, side="left").astype(jnp.int32)
    rank = jnp.zeros_like(position).at[slot].set(position - first)
    return replaced & (rank < cap)


def resample_tasks(
    key: jax.Array,
    task_ids: jax.Array,
    rate: jax.Array,
    *,
    group_size: int,
    threshold: Number = 0.6,
    sharpness: Number = 10.0,
    kept_copies: int | jax.Array = 1,
    max_cache_copies: int | jax.Array | None = None,
    unsolved_share: Number = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """The task of every slot of a round, and which slots changed hands.

    Each task fills N slots. Past the first `kept_copies`, a slot is replaced with
    probability `replacement_prob(rate)` by a task drawn uniformly, with replacement,
    from the cache (`cache_mask`; the task's own self is not excluded). The number of
    trajectories does not change. If the cache is empty, nothing is replaced.

    Two departures, both off by default:

    * `max_cache_copies` bounds the extra copies (beyond its own copies that were not
      replaced) one task receives over the whole call; a surplus copy, chosen at
      random, stays with its own task. It keeps a nearly empty cache from swallowing
      the round.
    * `unsolved_share`: with this probability a replaced copy goes to a task drawn
      uniformly from those at rate 0 (if there are any) instead of the cache, which
      never holds them.

    Args:
      key: PRNG key. The key is consumed.
      task_ids: [B] int. Tasks of the round, in [0, T).
      rate: [T] float. Smoothed success rate of every task in the pool.
      group_size: Copies of each task before replacement, N. A Python integer.
      threshold: See `replacement_prob` and `cache_mask`.
      sharpness: See `replacement_prob`.
      kept_copies: Copies of each task that are never replaced.
      max_cache_copies: Most extra copies of one task; None for no bound. May be traced.
      unsolved_share: Probability, see above. A task that must not be run at all, such
        as one held out for evaluation, needs a rate of 1 here: at 0 it counts as
        unsolved.

    Returns:
      `(slots, replaced)`: [B, N] int32 task ids, [B, N] bool, True where the copy was
      given away.

    Raises:
      ValueError: At trace time, if shapes are wrong; on the call, if a Python number is
        out of range.

    Example:
      >>> slots, replaced = resample_tasks(
      ...     jax.random.key(0), jnp.array([1]), jnp.array([0.3, 1.0]), group_size=4
      ... )
      >>> slots
      Array([[1, 0, 0, 0]], dtype=int32)

    Source: STEP (arXiv:2511.13091), section 5.1, budget reallocation. That the draw is
    uniform is our reading; `max_cache_copies` and `unsolved_share` are ours.
    """
    where = "resample_tasks"
    _check(where, task_ids, rate, group_size)
    check_range(where, 0, 1, threshold=threshold, unsolved_share=unsolved_share)
    check_range(where, 0, float("inf"), sharpness=sharpness, kept_copies=kept_copies)
    task_ids, rate = jnp.asarray(task_ids, jnp.int32), jnp.asarray(rate, jnp.float32)
    key_replace, key_cache, key_pool, key_unsolved, key_cap = jax.random.split(key, 5)
    shape = (task_ids.shape[0], group_size)
    cache, unsolved = cache_mask(rate, threshold=threshold), rate == 0

    prob = replacement_prob(rate[task_ids], threshold=threshold, sharpness=sharpness)
    replaced = jax.random.uniform(key_replace, shape) < prob[:, None]
    replaced &= (jnp.arange(group_size) >= kept_copies)[None, :]
    to_unsolved = jax.random.uniform(key_pool, shape) < jnp.float32(unsolved_share)
    to_unsolved &= jnp.any(unsolved)
    replaced &= to_unsolved | jnp.any(cache)
    target = jnp.where(
        to_unsolved,
        _uniform_member(key_unsolved, unsolved, shape),
        _uniform_member(key_cache, cache, shape),
    )
    if max_cache_copies is not None:
        check_range(where, 0, float("inf"), max_cache_copies=max_cache_copies)
        kept = _within_cap(
            key_cap, target.reshape(-1), replaced.reshape(-1), max_cache_copies
        )
        replaced = kept.reshape(shape)
    return jnp.where(replaced, target, task_ids[:, None]), replaced
