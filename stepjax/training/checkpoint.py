"""Orbax save and restore: whole checkpoints only, checked, on any mesh.

All of Orbax's API is used here and nowhere else. A checkpoint holds the train state, a
JSON of the caller's, and for every array its shape, dtype and a checksum, computed on
the devices and independent of the mesh. Restoring compares them, so that a damaged
file, whatever the storage layer makes of it, cannot pass for a checkpoint.

Of several processes each reads its own parts and waits for nobody, then all agree: a
file that one of them cannot read is damage to all.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from stepjax.training.state import TrainState

__all__ = [
    "CheckpointError",
    "RestoredCheckpoint",
    "open_checkpoints",
    "restore_checkpoint",
    "save_checkpoint",
]


class CheckpointError(RuntimeError):
    """Checkpoints exist, but none of them can be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestoredCheckpoint:
    """What `restore_checkpoint` found.

    Attributes:
      state: The train state, placed as asked.
      metadata: The JSON saved with it.
      step: Name of the checkpoint: the round it was saved after.
      skipped: Newer checkpoints that could not be read, newest first, each with a
        one-line reason, which names the process if there are several. They were
        renamed to "<step>.unreadable".
    """

    state: TrainState
    metadata: dict[str, Any]
    step: int
    skipped: list[tuple[int, str]]


def open_checkpoints(
    directory: str | os.PathLike[str], *, max_to_keep: int
) -> ocp.CheckpointManager:
    """The checkpoints of one run; close them when done (it is a context manager).

    Half-written checkpoints of a killed process are removed, so a directory may have
    one writer at a time. `manager.wait_until_finished()` waits for the last save,
    `manager.close()` does too and must be called before the process exits.

    Args:
      directory: Created if missing. On several hosts: shared, and opened by all.
      max_to_keep: Newest checkpoints to keep, at least 1; with 2 or more there is one
        to fall back to.

    Returns:
      An Orbax `CheckpointManager` that saves in the background.

    Raises:
      ValueError: If `max_to_keep` is below 1.
      OSError: If the directory cannot be created or written.
    """
    if max_to_keep < 1:
        raise ValueError(
            f"max_to_keep must be at least 1, got {max_to_keep}; 2 or more leave a "
            "checkpoint to fall back to."
        )
    path = pathlib.Path(directory).resolve()
    path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(
            f"checkpoint directory {path} is not writable; choose another one or "
            "change its permissions."
        )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep,
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
        # Reading every old checkpoint's metadata here would let a damaged one keep
        # the directory from opening at all.
        lightweight_initialize=True,
    )
    return ocp.CheckpointManager(path, options=options)


def save_checkpoint(
    manager: ocp.CheckpointManager, state: TrainState, metadata: dict[str, Any]
) -> bool:
    """Whether a checkpoint of `state` was started; it is written in the background.

    The arrays are copied before the call returns, so the state may be donated at once.
    The first call of a process takes about a second (set-up and one compilation). An
    error of the previous save is raised here.

    Args:
      manager: From `open_checkpoints`.
      state: Its `round` names the checkpoint.
      metadata: JSON-serializable, such as the configuration.

    Returns:
      False if there is a checkpoint of this round already, True otherwise.
    """
    step = int(state.round)
    if step in manager.all_steps():
        return False
    meta = {"metadata": metadata, "leaves": _describe(state, _checksums(state))}
    return manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),  # pyright: ignore
            meta=ocp.args.JsonSave(meta),  # pyright: ignore
        ),
        force=True,
    )


def restore_checkpoint(
    manager: ocp.CheckpointManager, like: TrainState
) -> RestoredCheckpoint | None:
    """The newest checkpoint that reads back whole, or None in an empty directory.

    All processes call it together and use the same one. Checkpoints newer than it are
    damaged; they are renamed to "<step>.unreadable", because Orbax would refuse to save
    their rounds again.

    Args:
      manager: From `open_checkpoints`.
      like: A `TrainState` of arrays or of `jax.ShapeDtypeStruct`s with shardings: the
        shapes to expect and where to put them. The mesh may differ from the saving
        one.

    Returns:
      The checkpoint, with the list of those that were skipped, or None.

    Raises:
      ValueError: If a readable checkpoint holds other arrays than `like`: the run was
        made with another model or optimizer. Nothing is renamed.
      CheckpointError: If there are checkpoints and none can be read. Nothing is
        renamed.
    """
    with _without_echoes():
        return _restore_newest(manager, jax.tree.map(_abstract, like))


def _restore_newest(
    manager: ocp.CheckpointManager, target: TrainState
) -> RestoredCheckpoint | None:
    skipped: list[tuple[int, str]] = []
    # Process 0 says which there are: a shared folder's news may reach others late.
    for step in json.loads(_gather_text(json.dumps(_steps_on_disk(manager)))[0]):
        found = _read_everywhere(manager, step, target)
        if isinstance(found, str):
            skipped.append((step, found))
            continue
        state, metadata = found
        _set_aside(manager, [step for step, _ in skipped])
        return RestoredCheckpoint(
            state=state, metadata=metadata, step=step, skipped=skipped
        )
    if skipped:
        reasons = "; ".join(f"{step}: {reason}" for step, reason in skipped)
        raise CheckpointError(
            f"none of the {len(skipped)} checkpoints in {manager.directory} can be "
            f"read ({reasons}); restore them from a backup or start a new run folder."
        )
    return None


@contextlib.contextmanager
def _without_echoes() -> Iterator[None]:
    """Keeps one failed read from printing a traceback per array.

    The first array that fails ends Orbax's event loop; reads still in flight then
    report to nobody that it is closed. The failure itself is raised all the same.
    """
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous


class _MismatchError(ValueError):
    """A sound checkpoint of something else."""


_Found = tuple[TrainState, dict[str, Any], dict[str, Any]]
"""State, the caller's JSON, and what `_describe` said when both were saved."""


def _read_everywhere(
    manager: ocp.CheckpointManager, step: int, target: TrainState
) -> tuple[TrainState, dict[str, Any]] | str:
    """State and JSON, or why the checkpoint is damaged; the same on every process."""
    found, error = _try_to_read(manager, step, target)
    reason = _agree(step, error)
    if found is None or reason is not None:
        return str(reason)
    state, metadata, leaves = found
    sums = _describe(state, _checksums(state))
    torn = [name for name in sums if sums[name] != leaves[name]]
    damage = OSError(f"the data of {torn[0]} is damaged (checksum)") if torn else None
    reason = _agree(step, damage)
    return (state, metadata) if reason is None else reason


def _try_to_read(
    manager: ocp.CheckpointManager, step: int, target: TrainState
) -> tuple[_Found | None, Exception | None]:
    """What this process reads, or what kept it from it."""
    try:
        return _read(manager, step, target), None
    # Damage surfaces as whatever the storage layers raise: OSError, ValueError,
    # KeyError, JSON and TensorStore errors. The reason is reported.
    except Exception as error:
        return None, error


def _read(manager: ocp.CheckpointManager, step: int, target: TrainState) -> _Found:
    """This process's parts; `CheckpointManager.restore` would wait for the others."""
    directory = manager.directory / str(step)
    if not directory.is_dir() or step not in manager.all_steps():
        raise OSError("the checkpoint was not completed")
    meta = ocp.JsonCheckpointHandler().restore(directory / "meta")
    metadata, leaves = meta["metadata"], meta["leaves"]
    _compare(step, leaves, _describe(target, None))
    state = ocp.StandardCheckpointHandler().restore(
        directory / "state",
        args=ocp.args.StandardRestore(target),  # pyright: ignore
    )
    return state, metadata, leaves


def _agree(step: int, error: Exception | None) -> str | None:
    """Why no process uses a checkpoint, None if all can.

    Args:
      step: Of the checkpoint.
      error: What this process found wrong with it, None for nothing.

    Returns:
      The first process's reason, the same text on all.

    Raises:
      Exception: `error` itself if it is not about damage.
      RuntimeError: If another process has such an error.
    """
    ends = error is not None and not _is_damage(error)
    own = None if error is None else _one_line(error)
    told = _gather_text(json.dumps([ends, own]))
    if ends and error is not None:
        raise error
    skip = None
    for index, (at_end, reason) in enumerate(map(json.loads, told)):
        named = reason if len(told) == 1 else f"process {index}: {reason}"
        if at_end:
            raise RuntimeError(f"checkpoint {step} was not restored: {named}")
        if skip is None and reason is not None:
            skip = named
    return skip


def _is_damage(error: Exception) -> bool:
    other = isinstance(error, MemoryError | _MismatchError)
    return not other and "RESOURCE_EXHAUSTED" not in str(error)


def _gather_text(text: str) -> list[str]:
    """What every process passes, in order of processes; all call it together."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(data)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [
        row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)
    ]


def _compare(step: int, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    for name in sorted(saved.keys() | asked.keys()):
        left, right = (_shape_text(side.get(name)) for side in (saved, asked))
        if left != right:
            raise _MismatchError(
                f"checkpoint {step} has {left} for {name}, but this run needs {right}; "
                "use the settings the run was started with, or a new run folder."
            )


def _shape_text(leaf: dict[str, Any] | None) -> str:
    if leaf is None:
        return "nothing"
    return f"{leaf['dtype']}[{','.join(map(str, leaf['shape']))}]"


def _describe(tree: Any, checksums: Any) -> dict[str, dict[str, Any]]:
    """Shape, dtype and (if given) checksum of every leaf, by path."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    sums = [None] * len(paths) if checksums is None else checksums.tolist()
    described = {}
    for (path, leaf), checksum in zip(paths, sums, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        described[name] = {
            "shape": list(leaf.shape),
            "dtype": str(leaf.dtype),
            "checksum": checksum,
        }
    return described


def _checksums(state: TrainState) -> np.ndarray:
    """[number of leaves] uint32."""
    return np.asarray(jax.device_get(_jit_checksums(jax.tree.leaves(state))))


@jax.jit
def _jit_checksums(leaves: list[jax.Array]) -> jax.Array:
    return jnp.stack([_checksum(leaf) for leaf in leaves])


def _checksum(x: jax.Array) -> jax.Array:
    """Sum of all bits times an odd number per position, modulo 2**32.

    Integer sums are exact in any order, so every mesh gives the same result, and a
    change in any one element always shows.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        iota = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position = position + iota * jnp.uint32(stride)
    return jnp.sum(words * (2 * position + 1), dtype=jnp.uint32)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None)
    )


def _steps_on_disk(manager: ocp.CheckpointManager) -> list[int]:
    """Rounds with a directory, newest first, complete or not."""
    root = pathlib.Path(os.fspath(manager.directory))
    found = {int(p.name) for p in root.iterdir() if p.is_dir() and p.name.isdecimal()}
    return sorted(found | set(manager.all_steps()), reverse=True)


def _set_aside(manager: ocp.CheckpointManager, steps: list[int]) -> None:
    if not steps:
        return
    root = pathlib.Path(os.fspath(manager.directory))
    if jax.process_index() == 0:
        for step in steps:
            goal, number = root / f"{step}.unreadable", 1
            while goal.exists():
                number += 1
                goal = root / f"{step}.unreadable-{number}"
            (root / str(step)).rename(goal)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("stepjax_set_aside_checkpoints")
    manager.reload()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"[:300]
