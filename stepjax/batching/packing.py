"""Rows to batches of fixed shape: shuffled, cut into updates, padded to buckets.

Padding rows repeat a real row with weight 0 and an empty token mask, so that no policy
meets input it could choke on and no id falls outside its range.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from stepjax.batching.rows import take_rows
from stepjax.types import StepBatch

__all__ = [
    "Seed",
    "bucket_size",
    "pack_single_update",
    "pack_steps",
    "pack_trajectories",
    "pad_rows",
]

Seed = int | Sequence[int]


def bucket_size(size: int, buckets: int | Sequence[int]) -> int:
    """The smallest bucket that holds `size` rows.

    Args:
      size: Rows to hold.
      buckets: One or more batch sizes.

    Returns:
      One of `buckets`.

    Raises:
      ValueError: If no bucket is large enough.

    Example:
      >>> bucket_size(100, (64, 128, 256))
      128
    """
    choices = [buckets] if isinstance(buckets, int) else sorted(buckets)
    for bucket in choices:
        if size <= bucket:
            return bucket
    raise ValueError(
        f"{size} rows do not fit the largest bucket, {max(choices, default=0)}; "
        "add a larger bucket or put fewer rows into an update."
    )


def pack_steps(
    rows: StepBatch,
    *,
    seed: Seed,
    rows_per_update: int,
    pad_to: int | Sequence[int] | None = None,
    micro_batch_size: int | None = None,
) -> list[StepBatch]:
    """Batches for k = ceil(n / rows_per_update) updates, of almost equal size.

    Equal parts rather than full batches and a rest: a tiny last batch would get an
    optimizer update of full size. Parts differ by one row at most.

    Args:
      rows: n step samples.
      seed: Decides the shuffle; an int, or ints such as (seed, round).
      rows_per_update: Most rows of one batch.
      pad_to: Bucket sizes; None pads to `rows_per_update`.
      micro_batch_size: The train step's, if it cuts batches: rows are then placed so
        that it can skip as many micro-batches as possible.

    Returns:
      k batches of numpy arrays; none if there are no rows.

    Raises:
      ValueError: If a part fits no bucket, a bucket is not a multiple of
        `micro_batch_size`, or a number is below 1.
    """
    _check_positive("rows_per_update", rows_per_update)
    size = np.shape(rows.weight)[0]
    order = np.random.default_rng(seed).permutation(size)
    parts = np.array_split(order, max(1, math.ceil(size / rows_per_update)))
    buckets = rows_per_update if pad_to is None else pad_to
    return [pad_rows(rows, p, buckets, micro_batch_size) for p in parts if p.size]


def pack_trajectories(
    rows: StepBatch,
    *,
    seed: Seed,
    rows_per_update: int,
    pad_to: int | Sequence[int],
    micro_batch_size: int | None = None,
) -> list[StepBatch]:
    """Batches as `pack_steps` makes them, but no trajectory is split over two.

    Trajectories, in shuffled order and longest first, go to the batch that is emptiest
    so far. There are ceil(n / rows_per_update) batches, or more if the largest bucket
    demands it; leave some slack in it, as batches are equal only up to a trajectory.

    Args:
      rows: n step samples; equal `trajectory_id` marks one trajectory.
      seed: Decides the shuffle; an int, or ints such as (seed, round).
      rows_per_update: Rows of a batch to aim at.
      pad_to: Bucket sizes.
      micro_batch_size: As in `pack_steps`.

    Returns:
      Batches of numpy arrays; none if there are no rows.

    Raises:
      ValueError: If one trajectory is larger than every bucket, or as `pack_steps`.
    """
    _check_positive("rows_per_update", rows_per_update)
    size = np.shape(rows.weight)[0]
    if not size:
        return []
    largest = pad_to if isinstance(pad_to, int) else max(pad_to, default=0)
    ids, group, lengths = np.unique(
        np.asarray(rows.trajectory_id), return_inverse=True, return_counts=True
    )
    if lengths.max() > largest:
        raise ValueError(
            f"trajectory {ids[lengths.argmax()]} has {lengths.max()} rows, more than "
            f"the largest bucket, {largest}; add a larger bucket."
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(ids))
    longest_first = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    count = math.ceil(size / rows_per_update)
    while True:
        load = np.zeros(count, np.int64)
        part_of = np.zeros(len(ids), np.int64)
        for trajectory in longest_first:
            part = int(load.argmin())
            part_of[trajectory] = part
            load[part] += lengths[trajectory]
        if load.max() <= largest:
            break
        count += 1
    part_of_row = part_of[group]
    order = rng.permutation(size)
    parts = [order[part_of_row[order] == part] for part in range(count)]
    return [pad_rows(rows, p, pad_to, micro_batch_size) for p in parts if p.size]


def pack_single_update(
    rows: StepBatch,
    *,
    micro_batch_size: int,
    pad_to: int | Sequence[int] | None = None,
) -> list[StepBatch]:
    """One batch with all rows, for one update made of micro-batches.

    Args:
      rows: n step samples.
      micro_batch_size: The train step's. Micro-batches that hold padding only are
        skipped by it, so generous buckets cost memory, not time.
      pad_to: Bucket sizes; None means `micro_batch_size` times a power of two, which
        bounds the number of compilations by the logarithm of n.

    Returns:
      A list of one batch, or an empty list if there are no rows.

    Raises:
      ValueError: As `pack_steps`.
    """
    _check_positive("micro_batch_size", micro_batch_size)
    size = np.shape(rows.weight)[0]
    if not size:
        return []
    parts = math.ceil(size / micro_batch_size)
    doubled = micro_batch_size << (parts - 1).bit_length()
    buckets = doubled if pad_to is None else pad_to
    return [pad_rows(rows, np.arange(size), buckets, micro_batch_size)]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")


def pad_rows(
    rows: StepBatch,
    index: np.ndarray,
    buckets: int | Sequence[int],
    micro_batch_size: int | None,
) -> StepBatch:
    """The rows at `index` in a batch of the smallest bucket that holds them.

    Args:
      rows: Step samples, or a grouped batch.
      index: [n] int. Rows to take; none gives a batch of padding.
      buckets: Bucket sizes.
      micro_batch_size: As in `pack_steps`.

    Returns:
      A batch of numpy arrays.

    Raises:
      ValueError: If no bucket is large enough, or as `pack_steps`.
    """
    size = bucket_size(len(index), buckets)
    source = np.full(size, index[0] if len(index) else 0)
    live = np.zeros(size, bool)
    slots = _slots(size, len(index), micro_batch_size)
    source[slots], live[slots] = index, True
    batch = take_rows(rows, source)
    weight = np.asarray(batch.weight)
    live = live.reshape(size, *[1] * (weight.ndim - 1))  # [S], or [Q, 1] of groups
    return dataclasses.replace(
        batch,
        token_mask=np.asarray(batch.token_mask) & live[..., None],
        advantage=np.where(live, batch.advantage, 0).astype(np.float32),
        weight=np.where(live, weight, 0).astype(np.float32),
    )


def _slots(size: int, count: int, micro_batch_size: int | None) -> np.ndarray:
    """Positions for `count` rows in a batch of `size`, filling few micro-batches.

    The train step gives row i to micro-batch i modulo the number of micro-batches.
    """
    if micro_batch_size is None:
        return np.arange(count)
    _check_positive("micro_batch_size", micro_batch_size)
    if size % micro_batch_size:
        raise ValueError(
            f"bucket {size} is not a multiple of micro_batch_size {micro_batch_size}; "
            "choose buckets that are."
        )
    parts = size // micro_batch_size
    used = math.ceil(count / micro_batch_size)
    slots = np.arange(size).reshape(micro_batch_size, parts)[:, :used]
    return slots.reshape(-1)[:count]
