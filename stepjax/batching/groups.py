"""Rows that share a prompt, side by side, so that the prompt is paid for once.

A grouped batch is a `StepBatch` whose arrays have one axis more: prompts lead with Q,
everything else with [Q, G], G being the members of a group. Empty places have weight 0
and an empty token mask.
"""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from stepjax.batching.packing import Seed, pad_rows
from stepjax.batching.rows import take_rows
from stepjax.types import StepBatch

__all__ = ["group_rows", "pack_groups", "prompt_ids"]


def prompt_ids(rows: StepBatch) -> np.ndarray:
    """A number for every row, equal for rows whose prompts are equal byte by byte.

    The members of a step-level group get one number, and so do the first steps of
    several attempts at one task if their screens agree.

    Args:
      rows: n step samples, numpy or jax.

    Returns:
      [n] int32, from 0 in order of first appearance.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(rows.prompt))]
    known: dict[bytes, int] = {}
    ids = np.zeros(np.shape(rows.weight)[0], np.int32)
    for row in range(len(ids)):
        digest = hashlib.blake2b(digest_size=16)
        for leaf in leaves:
            digest.update(np.ascontiguousarray(leaf[row]).view(np.uint8).data)
        ids[row] = known.setdefault(digest.digest(), len(known))
    return ids


def group_rows(
    rows: StepBatch, prompt_id: Any, *, group_size: int
) -> tuple[StepBatch, StepBatch]:
    """The rows that are alone with their prompt, and the others in groups.

    Args:
      rows: n step samples.
      prompt_id: [n] int. Equal for rows of one prompt, from `prompt_ids`.
      group_size: Places of a group, G; more rows of one prompt make several groups.

    Returns:
      Rows as they were, and a grouped batch [Q, G]; either may be empty.

    Raises:
      ValueError: If `group_size` is below 2 or `prompt_id` has another length.
    """
    size = np.shape(rows.weight)[0]
    ids = np.asarray(prompt_id)
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size}.")
    if ids.shape != (size,):
        raise ValueError(
            f"prompt_id must have shape ({size},), one number a row, got {ids.shape}."
        )
    order = np.argsort(ids, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(ids[order])) + 1) if size else []
    chunks = [
        run[start : start + group_size]
        for run in runs
        for start in range(0, len(run), group_size)
    ]
    alone = np.sort(np.array([c[0] for c in chunks if len(c) == 1], np.int64))
    members = np.zeros((sum(len(c) > 1 for c in chunks), group_size), np.int64)
    live = np.zeros(members.shape, bool)
    for row, chunk in enumerate(c for c in chunks if len(c) > 1):
        members[row], live[row, : len(chunk)] = chunk[0], True
        members[row, : len(chunk)] = chunk
    return take_rows(rows, alone), _gather(rows, members, live)


def pack_groups(
    rows: StepBatch,
    *,
    seed: Seed,
    rows_per_update: int,
    group_size: int,
    pad_to: tuple[int | Sequence[int], int | Sequence[int]],
    prompt_id: Any = None,
    micro_batch_size: int | None = None,
    num_updates: int | None = None,
) -> list[tuple[StepBatch, StepBatch]]:
    """Batches of two parts, for updates of almost equal size.

    The train step takes such a pair as one batch: it adds up both and divides once. A
    part with nothing in it holds padding, which the train step skips, so that a run
    compiles one program for each pair of buckets.

    Args:
      rows: n step samples.
      seed: Decides the shuffle; an int, or ints such as (seed, round).
      rows_per_update: Rows of an update to aim at.
      group_size: Places of a group, G.
      pad_to: Bucket sizes of single rows, and of groups.
      prompt_id: [n] int, or None for `prompt_ids(rows)`.
      micro_batch_size: The train step's, if it cuts batches.
      num_updates: Updates to make; None for ceil(n / rows_per_update). Processes that
        hold different rows agree on one number and pass it.

    Returns:
      Pairs of a batch [S] and a grouped batch [Q, G], numpy; none if there are no rows.

    Raises:
      ValueError: If a part fits no bucket, or a number is below 1.
    """
    for name, value in (("rows_per_update", rows_per_update), ("updates", num_updates)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    size = np.shape(rows.weight)[0]
    if not size:
        return []
    ids = prompt_ids(rows) if prompt_id is None else prompt_id
    alone, groups = group_rows(rows, ids, group_size=group_size)
    count = num_updates or math.ceil(size / rows_per_update)
    rng = np.random.default_rng(seed)
    parts = []
    for part, buckets in zip((alone, groups), pad_to, strict=True):
        total = np.shape(part.weight)[0]
        shares = np.array_split(rng.permutation(total), count)
        if not total:
            # Nothing to repeat here: padding is made of the first row there is.
            part = _filler(rows, group_size if part is groups else None)
        padded = [pad_rows(part, s, buckets, micro_batch_size) for s in shares]
        # The longer shares of groups go where the shorter ones of rows went.
        parts.append(padded if part is not groups else padded[::-1])
    return list(zip(*parts, strict=True))


def _gather(rows: StepBatch, members: np.ndarray, live: np.ndarray) -> StepBatch:
    """The rows at `members` [Q, G] as a grouped batch, weight 0 where not `live`."""
    grouped = take_rows(dataclasses.replace(rows, prompt=None), members)
    first = members[:, 0]
    return dataclasses.replace(
        grouped,
        prompt=jax.tree.map(lambda x: np.take(np.asarray(x), first, 0), rows.prompt),
        token_mask=np.asarray(grouped.token_mask) & live[..., None],
        advantage=np.where(live, grouped.advantage, 0).astype(np.float32),
        weight=np.where(live, grouped.weight, 0).astype(np.float32),
    )


def _filler(rows: StepBatch, group_size: int | None) -> StepBatch:
    """One row, or one group, of padding."""
    if group_size is None:
        return take_rows(rows, np.zeros(1, np.int64))
    members = np.zeros((1, group_size), np.int64)
    return _gather(rows, members, np.zeros(members.shape, bool))
