"""Where arrays live: the mesh, the sharding of batches, the sharding of the state."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stepjax.training.state import TrainState
from stepjax.types import StepBatch

__all__ = [
    "MESH_AXES",
    "Rules",
    "batch_parts",
    "batch_sharding",
    "check_rows",
    "infer_param_sharding",
    "infer_state_sharding",
    "make_mesh",
    "replicated",
    "shard_batch",
    "shard_state",
]

MESH_AXES = ("data", "fsdp", "tensor")
Rules = Sequence[tuple[str, P]]


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    *,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A device mesh with axes "data", "fsdp" and "tensor".

    Batches are split over data and fsdp, parameters over fsdp (and tensor, by rule).

    Args:
      data: Devices along the axis; -1 takes what the other two leave. One axis at most
        may be -1.
      fsdp: Likewise.
      tensor: Likewise.
      devices: Devices to use, all of them; None means `jax.devices()`.

    Returns:
      A mesh of Auto axis types.

    Raises:
      ValueError: If a size is neither positive nor -1, if two are -1, or if the product
        is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes: dict[str, int] = dict(zip(MESH_AXES, (data, fsdp, tensor), strict=True))
    asked = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    bad = [axis for axis, size in sizes.items() if size < 1 and size != -1]
    if bad:
        raise ValueError(
            f"mesh ({asked}): {bad[0]} must be a positive number or -1; "
            "-1 takes the devices the other axes leave."
        )
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ValueError(
            f"mesh ({asked}): only one axis may be -1, got {' and '.join(free)}; "
            f"set {free[-1]} to 1."
        )
    fixed = math.prod(size for size in sizes.values() if size != -1)
    count = len(devices)
    if free and count % fixed == 0:
        sizes[free[0]] = count // fixed
    elif free or fixed != count:
        others = " times ".join(a for a in MESH_AXES if a not in free)
        fix = f"choose {others} that divides {count}" if free else "set one axis to -1"
        verb = "does not divide" if free else "is not"
        raise ValueError(
            f"mesh ({asked}) does not fit: {others} = {fixed} {verb} the number of "
            f"devices, {count}; {fix}."
        )
    shape, types = tuple(sizes.values()), (AxisType.Auto,) * len(MESH_AXES)
    try:
        return jax.make_mesh(shape, MESH_AXES, axis_types=types, devices=devices)
    except NotImplementedError:  # no axis of some TPU slices has the size of ours
        grid = mesh_utils.create_device_mesh(
            shape, devices, allow_split_physical_axes=True
        )
        return Mesh(grid, MESH_AXES, axis_types=types)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that puts a full copy on every device of `mesh`."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every leaf of a `StepBatch`: rows over "data" and "fsdp"."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def check_rows(rows: int, sharding: NamedSharding) -> None:
    """Nothing, or a ValueError if `rows` cannot be split evenly by `sharding`."""
    axes = sharding.spec[0] if len(sharding.spec) else None
    names = (axes,) if isinstance(axes, str) else tuple(axes or ())
    shards = math.prod(sharding.mesh.shape[name] for name in names)
    if rows % shards:
        raise ValueError(
            f"batch has {rows} rows, not divisible by the {shards} devices of mesh "
            f"axes {names}; pad batches to a multiple of {shards} rows."
        )


def batch_parts(batch: Any) -> tuple[StepBatch, ...]:
    """The parts of a batch: itself, or those of a tuple."""
    return (batch,) if isinstance(batch, StepBatch) else tuple(batch)


def shard_batch(batch: Any, sharding: NamedSharding) -> Any:
    """`batch` on the devices of `sharding`; every host passes the whole batch.

    Args:
      batch: Padded batch of numpy or jax arrays, or a tuple of them, equal on all
        hosts.
      sharding: From `batch_sharding`.

    Returns:
      The batch as global arrays.

    Raises:
      ValueError: If the devices of the batch axes do not divide the rows.
    """
    for part in batch_parts(batch):
        check_rows(part.weight.shape[0], sharding)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]),
        batch,
    )


def shard_state(state: TrainState, state_sharding: Any) -> TrainState:
    """`state` placed as `state_sharding` says; use the result instead of the argument.

    Leaves that lie right already are not copied, so donating the result invalidates
    them in the argument too.
    """
    return jax.device_put(state, state_sharding)


def infer_param_sharding(params_shapes: Any, mesh: Mesh, rules: Rules = ()) -> Any:
    """The sharding of every parameter.

    The first rule whose pattern is found in a parameter's path decides. Without one,
    the largest dimension that the fsdp axis divides is split over it (the first of
    equals), and a parameter without such a dimension is replicated.

    Args:
      params_shapes: Pytree of arrays or `jax.ShapeDtypeStruct`s.
      mesh: From `make_mesh`.
      rules: Pairs of regular expression (searched in paths such as
        "decoder/layer_0/kernel") and `PartitionSpec`.

    Returns:
      A pytree of `NamedSharding`s of the same structure.

    Raises:
      ValueError: If a rule's spec names an unknown axis, has more entries than the
        parameter has dimensions, or splits a dimension unevenly.
    """

    def choose(path: Any, leaf: Any) -> NamedSharding:
        name = _path_name(path)
        for pattern, spec in rules:
            if re.search(pattern, name):
                _check_spec(name, leaf.shape, spec, mesh)
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, _default_spec(leaf.shape, mesh.shape["fsdp"]))

    return jax.tree_util.tree_map_with_path(choose, params_shapes)


def infer_state_sharding(
    state_shapes: TrainState, mesh: Mesh, rules: Rules = ()
) -> TrainState:
    """The sharding of every leaf of the train state.

    Parameters as in `infer_param_sharding`. A leaf of the optimizer state that belongs
    to a parameter (its path ends in the parameter's path, and the shapes agree) follows
    the parameter. Everything else is replicated.

    Args:
      state_shapes: A `TrainState`, or its shapes from `jax.eval_shape`.
      mesh: From `make_mesh`.
      rules: See `infer_param_sharding`; paths start below `params`.

    Returns:
      A `TrainState` of `NamedSharding`s, for `jit_train_step` and `restore_checkpoint`.

    Raises:
      ValueError: As `infer_param_sharding`.
    """
    everywhere = jax.tree.map(lambda _: replicated(mesh), state_shapes)
    params = infer_param_sharding(state_shapes.params, mesh, rules)
    by_name = {
        _path_name(path): (leaf.shape, sharding)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(state_shapes.params),
            jax.tree.leaves(params),
            strict=True,
        )
    }

    def follow(path: Any, leaf: Any) -> NamedSharding:
        parts = _path_name(path).split("/")
        for start in range(len(parts)):
            shape, sharding = by_name.get("/".join(parts[start:]), (None, None))
            if sharding is not None and shape == leaf.shape:
                return sharding
        return replicated(mesh)

    return TrainState(
        step=everywhere.step,
        round=everywhere.round,
        params=params,
        opt_state=jax.tree_util.tree_map_with_path(follow, state_shapes.opt_state),
        success_rate=everywhere.success_rate,
        sampler=everywhere.sampler,
        key=everywhere.key,
    )


def _path_name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _default_spec(shape: tuple[int, ...], fsdp: int) -> P:
    divisible = [size for size in shape if fsdp > 1 and size and size % fsdp == 0]
    if not divisible:
        return P()
    axis = shape.index(max(divisible))
    return P(*[None] * axis, "fsdp")


def _check_spec(name: str, shape: tuple[int, ...], spec: P, mesh: Mesh) -> None:
    if len(spec) > len(shape):
        raise ValueError(
            f"rule for parameter {name}: {spec} has {len(spec)} entries, but the "
            f"parameter has shape {shape}; give at most one entry per dimension."
        )
    for size, entry in zip(shape, spec, strict=False):
        names = (entry,) if isinstance(entry, str) else tuple(entry or ())
        unknown = [axis for axis in names if axis not in mesh.shape]
        if unknown:
            raise ValueError(
                f"rule for parameter {name}: {spec} names axis {unknown[0]!r}; "
                f"the mesh has {mesh.axis_names}."
            )
        parts = math.prod(mesh.shape[axis] for axis in names)
        if size % parts:
            raise ValueError(
                f"rule for parameter {name}: {spec} splits a dimension of size {size} "
                f"(shape {shape}) over {parts} devices; shard another dimension or "
                "change the mesh."
            )
