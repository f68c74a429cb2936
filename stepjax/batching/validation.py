"""Checks of batches on the host: what `jit` cannot say, an index and a value can."""

from typing import Any

import jax
import numpy as np

from stepjax.batching.rows import row_layout
from stepjax.types import StepBatch

__all__ = ["validate_batch"]


def validate_batch(batch: StepBatch, *, num_tasks: int | None = None) -> None:
    """Nothing, or an error that names the first bad entry; host arrays, before upload.

    Args:
      batch: Rows or a padded batch.
      num_tasks: Size of the task pool; None leaves ids unchecked.

    Raises:
      TypeError: If ids or tokens are not integers or `token_mask` is not bool.
      ValueError: If shapes disagree, a number that counts is not finite, a weight is
        negative, a log-probability is positive, or a task id is outside the pool.
    """
    host = jax.device_get(batch)
    size = host.weight.shape[0]
    for name, trailing in row_layout(host, whole=True):
        if not trailing or trailing[0] != size:
            raise ValueError(
                f"{name} has shape {trailing}, but weight has {size} rows; every "
                "array of a batch needs the same leading axis."
            )
    tokens = host.action_tokens.shape
    for name in ("token_mask", "old_log_prob"):
        if getattr(host, name).shape != tokens or len(tokens) != 2:
            raise ValueError(
                f"{name} has shape {getattr(host, name).shape}, but action_tokens has "
                f"{tokens}; both must be [S, A]."
            )
    for name in ("action_tokens", "task_id", "trajectory_id"):
        if not np.issubdtype(getattr(host, name).dtype, np.integer):
            dtype = getattr(host, name).dtype
            raise TypeError(f"{name} must be integer, got {dtype}; cast it to int32.")
    if host.token_mask.dtype != np.bool_:
        dtype = host.token_mask.dtype
        raise TypeError(f"token_mask must be bool, got {dtype}; True is a real token.")
    _check_values(host, num_tasks)


def _check_values(batch: StepBatch, num_tasks: int | None) -> None:
    weight = np.asarray(batch.weight)
    live = weight != 0
    tokens = np.asarray(batch.token_mask) & live[:, None]
    _reject("weight", weight, ~np.isfinite(weight), "must be finite")
    _reject("weight", weight, weight < 0, "must not be negative")
    _reject(
        "advantage",
        batch.advantage,
        live & ~np.isfinite(batch.advantage),
        "must be finite",
    )
    log_prob = np.asarray(batch.old_log_prob)
    good = np.isfinite(log_prob) & (log_prob <= 1e-4)
    _reject("old_log_prob", log_prob, tokens & ~good, "must be finite and at most 0")
    if num_tasks is not None:
        ids = np.asarray(batch.task_id)
        outside = live & ((ids < 0) | (ids >= num_tasks))
        _reject("task_id", ids, outside, f"is outside [0, {num_tasks})", "")


def _reject(
    name: str, values: Any, bad: np.ndarray, rule: str, joiner: str = ", but "
) -> None:
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        value = np.asarray(values)[where]
        index = ", ".join(map(str, where))
        raise ValueError(f"{name}[{index}] = {value}{joiner or ' '}{rule}.")
