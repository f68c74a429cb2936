"""Rows: step samples as a `StepBatch` of numpy arrays, without padding."""

from typing import Any

import jax
import numpy as np

from stepjax.types import StepBatch, Trajectories

__all__ = ["concatenate_rows", "flatten_steps", "row_layout", "take_rows"]


def flatten_steps(
    trajectories: Trajectories,
    advantage: Any,
    *,
    keep: Any = None,
    weight: Any = 1.0,
) -> StepBatch:
    """The step samples of a round: steps that happened, in valid trajectories.

    Args:
      trajectories: One round, numpy or jax.
      advantage: [M] or [M, L] float. Of the trajectory, or of each step.
      keep: [M, L] bool. Further restricts the steps, for example to those whose
        advantage is not zero; None keeps all.
      weight: Number, [M] or [M, L] float. Multiplier of the row in the loss.

    Returns:
      Rows: a `StepBatch` of numpy arrays with S = number of steps kept, ordered by
      trajectory and step; `trajectory_id` is the index in the round.

    Raises:
      ValueError: If `advantage`, `keep` or `weight` has another shape.
    """
    host = jax.device_get(trajectories)
    shape = host.step_mask.shape
    real = np.asarray(host.step_mask, bool) & np.asarray(host.valid, bool)[:, None]
    if keep is not None:
        real = real & _per_step("keep", keep, shape).astype(bool)
    chosen = np.flatnonzero(real)

    def take(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        return np.take(leaf.reshape(-1, *leaf.shape[2:]), chosen, axis=0)

    trajectory: Any = (chosen // shape[1]).astype(np.int32)
    return StepBatch(
        prompt=jax.tree.map(take, host.prompt),
        action_tokens=take(host.action_tokens),
        token_mask=take(host.token_mask),
        old_log_prob=take(host.log_prob),
        advantage=take(_per_step("advantage", advantage, shape)).astype(np.float32),
        weight=take(_per_step("weight", weight, shape)).astype(np.float32),
        task_id=np.take(np.asarray(host.task_id, np.int32), trajectory),
        trajectory_id=trajectory,
    )


def concatenate_rows(*rows: StepBatch) -> StepBatch:
    """All rows of several sets, in order; ids are kept as they are.

    Args:
      *rows: Sets of rows with the same prompt structure and token axis, such as those
        of `flatten_steps` and the groups of the augmentation.

    Returns:
      Rows of numpy arrays.

    Raises:
      ValueError: If no set is given, or they differ in structure or trailing shapes.
    """
    if not rows:
        raise ValueError("rows: nothing to concatenate; pass at least one set of rows.")
    first = row_layout(rows[0])
    for index, other in enumerate(rows[1:], start=1):
        layout = row_layout(other)
        if [name for name, _ in layout] != [name for name, _ in first]:
            raise ValueError(
                f"rows[{index}] has other arrays than rows[0]; all sets must have one "
                "prompt structure."
            )
        for (name, expected), (_, got) in zip(first, layout, strict=True):
            if expected != got:
                raise ValueError(
                    f"rows[{index}].{name} has shape {got} after the row axis, but "
                    f"rows[0] has {expected}; all sets must have one layout."
                )
    host = jax.device_get(rows)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *host)


def take_rows(rows: StepBatch, index: Any) -> StepBatch:
    """The rows at positions `index` ([n] int), in that order."""
    return jax.tree.map(lambda leaf: np.take(np.asarray(leaf), index, axis=0), rows)


def row_layout(
    rows: StepBatch, *, whole: bool = False
) -> list[tuple[str, tuple[int, ...]]]:
    """Path and trailing (or whole) shape of every leaf, in order of the leaves."""
    return [
        (
            jax.tree_util.keystr(path, simple=True, separator="."),
            np.shape(leaf) if whole else np.shape(leaf)[1:],
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(rows)
    ]


def _per_step(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`values` as [M, L]."""
    array = np.asarray(jax.device_get(values))
    if array.shape == shape[:1]:
        array = array[:, None]
    elif array.shape not in ((), shape):
        raise ValueError(
            f"{name} must have shape {shape} or {shape[:1]}, got {array.shape}."
        )
    return np.broadcast_to(array, shape)
