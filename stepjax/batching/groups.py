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
    ids = _checked_ids(rows, prompt_id, group_size)
    alone, members, live = _side_by_side(ids, group_size)
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
) -> list[tuple[StepBatch, StepBatch]]:
    """Batches of two parts, for k = ceil(n / rows_per_update) updates of equal size.

    Groups and single rows are shuffled and laid in a line, groups at equal distances,
    and the line is cut into k parts that differ by one row at most. A cut may go
    through a group, whose prompt is then read twice (k - 1 cuts): updates of whole
    groups could be tiny, or larger than asked for.

    The train step takes such a pair as one batch: it adds up both and divides once. A
    part with nothing in it holds padding, which the train step skips, so that a run
    compiles one program for each pair of buckets.

    Args:
      rows: n step samples.
      seed: Decides the shuffle; an int, or ints such as (seed, round).
      rows_per_update: Most rows of one update.
      group_size: Places of a group, G.
      pad_to: Bucket sizes of single rows, and of groups.
      prompt_id: [n] int, or None for `prompt_ids(rows)`.
      micro_batch_size: The train step's, if it cuts batches.

    Returns:
      Pairs of a batch [S] and a grouped batch [Q, G], numpy; none if there are no rows.

    Raises:
      ValueError: If a part fits no bucket, `rows_per_update` is below 1, or as
        `group_rows`.
    """
    if rows_per_update < 1:
        raise ValueError(f"rows_per_update must be at least 1, got {rows_per_update}.")
    size = np.shape(rows.weight)[0]
    if not size:
        return []
    ids = prompt_ids(rows) if prompt_id is None else prompt_id
    ids = _checked_ids(rows, ids, group_size)
    line, count = _line(ids, group_size, seed), math.ceil(size / rows_per_update)
    pairs = []
    for part in np.array_split(line, count):
        alone, members, live = _side_by_side(ids[part], group_size)
        # Padding of a part without rows is made of the first row there is.
        single = take_rows(rows, part[alone] if len(alone) else part[:1])
        if len(members):
            grouped = _gather(rows, part[members], live)
        else:
            grouped = _nobody(rows, group_size)
        pairs.append(
            (
                pad_rows(single, np.arange(len(alone)), pad_to[0], micro_batch_size),
                pad_rows(grouped, np.arange(len(members)), pad_to[1], micro_batch_size),
            )
        )
    return pairs


def _checked_ids(rows: StepBatch, prompt_id: Any, group_size: int) -> np.ndarray:
    size, ids = np.shape(rows.weight)[0], np.asarray(prompt_id)
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size}.")
    if ids.shape != (size,):
        raise ValueError(
            f"prompt_id must have shape ({size},), one number a row, got {ids.shape}."
        )
    return ids


def _line(ids: np.ndarray, group_size: int, seed: Seed) -> np.ndarray:
    """[n] int: all rows, shuffled; members of a group next to each other."""
    rng = np.random.default_rng(seed)
    alone, members, live = _side_by_side(ids, group_size)
    chunks, where = [], []
    groups = [row[there] for row, there in zip(members, live, strict=True)]
    for kind in (alone[:, None], groups):
        chunks += [kind[at] for at in rng.permutation(len(kind))]
        where.append((np.arange(len(kind)) + 0.5) / max(1, len(kind)))
    order = np.argsort(np.concatenate(where), kind="stable")
    return np.concatenate([chunks[at] for at in order])


def _side_by_side(
    ids: np.ndarray, group_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are alone [n], the others in groups [Q, G], and where there is one."""
    order = np.argsort(ids, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(ids[order])) + 1) if len(ids) else []
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
    return alone, members, live


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


def _nobody(rows: StepBatch, group_size: int) -> StepBatch:
    """One group without members."""
    members = np.zeros((1, group_size), np.int64)
    return _gather(rows, members, np.zeros(members.shape, bool))
