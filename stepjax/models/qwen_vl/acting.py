"""A copy of the parameters to act with: small, and on the devices of one process.

Training keeps float32 masters on the devices of all processes. A process samples for
its own environments, with a copy in the type it computes in, split over groups of its
own devices as `tensor` splits it in training: by heads and by the wide axes of
feed-forward parts. Nothing is gathered while tokens are drawn, and each member of a
group holds its heads' part of the cache. Parameters that are used in float32 (those of
norms) stay so: the numbers are those of the masters.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from stepjax.models.qwen_vl.attention import resolve
from stepjax.models.qwen_vl.casting import cast_params, used_types
from stepjax.models.qwen_vl.sharding import (
    ACTIVATION_RULES,
    PARAM_RULES,
    SEQUENCE_RULES,
    MeshAxes,
    activation_constraint,
    check_model_mesh,
    param_sharding,
)

__all__ = [
    "ACTING_RULES",
    "acting_copy",
    "acting_mesh",
    "cast_copy",
    "groups_in_processes",
    "mesh_of",
    "model_on_mesh",
    "place_copy",
]

ACTING_RULES: dict[str, MeshAxes] = {
    name: "tensor" if axis == "tensor" else None for name, axis in PARAM_RULES.items()
}
"""Mesh axis of each axis of a parameter of the copy: whole on each group."""

_AXES = ("data", "fsdp", "tensor")


def acting_mesh(model: Any, mesh: Mesh) -> Mesh:
    """This process's devices, in groups that share a copy of the parameters.

    Groups are those along `tensor` in training. Where it has none, they are as large as
    the model's dimensions and the number of devices allow.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      mesh: Of training, with axes data, fsdp and tensor.

    Returns:
      A mesh of the same axes: a group along tensor, groups along data.

    Raises:
      ValueError: If a group of training has devices of several processes.
    """
    groups = _groups(model, mesh)
    own = [group for group in groups if group[0].process_index == jax.process_index()]
    return _mesh(np.array(own))


def groups_in_processes(mesh: Mesh) -> Mesh:
    """The mesh, its devices rearranged so that no `tensor` group leaves a process.

    Args:
      mesh: Of training, with axes data, fsdp and tensor.

    Returns:
      The same mesh if that is so already.

    Raises:
      ValueError: If groups do not fit the devices of a process.
    """
    size = mesh.shape["tensor"]
    if not _crossing(mesh.devices.reshape(-1, size)):
        return mesh
    counts = {len(devices) for devices in _by_process(mesh)}
    if any(count % size for count in counts):
        raise ValueError(
            f"mesh.tensor = {size} makes groups of devices of several processes, but "
            "the devices of a group sample together, in one process; choose a divisor "
            f"of the {min(counts)} devices of a process."
        )
    order = [device for devices in _by_process(mesh) for device in devices]
    grid = np.array(order).reshape(mesh.devices.shape)
    return Mesh(grid, mesh.axis_names, axis_types=mesh.axis_types)


def acting_copy(model: Any, params: Any, mesh: Mesh) -> Any:
    """The copy, on this process's devices; all processes call it together.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters, as they are trained on `mesh`.
      mesh: Of training, with axes data, fsdp and tensor.

    Returns:
      The tree on `acting_mesh`. On one device the parameters themselves, if they have
      the type that the model computes in.

    Raises:
      ValueError: As `acting_mesh`.
    """
    if mesh.size == 1:
        return cast_copy(model, params)
    everywhere = _mesh(_groups(model, mesh))
    goal = param_sharding(model, everywhere, ACTING_RULES)
    if list(everywhere.devices.flat) == list(mesh.devices.flat):
        spread = _program(model, mesh, everywhere)(params)
    else:  # only `device_put` knows how to change the order of devices
        spread = jax.device_put(_program(model, mesh, None)(params), goal)
    own = acting_mesh(model, mesh)
    if own == everywhere:
        return spread
    order = list(own.devices.flat)
    where = param_sharding(model, own, ACTING_RULES)
    return jax.tree.map(functools.partial(_own_part, order=order), spread, where)


def cast_copy(model: Any, params: Any) -> Any:
    """The parameters in the types that they are used in, where they are.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters, on devices.

    Returns:
      A tree of the model's type, but for the parameters of norms. Arrays that have
      their type already are themselves in it; `params` itself if nothing changes.
    """
    leaves, structure = jax.tree.flatten(params)
    types = jax.tree.leaves(used_types(model, params))
    other = [at for at, leaf in enumerate(leaves) if leaf.dtype != types[at]]
    if not other:
        return params
    wanted = tuple(types[at] for at in other)
    cast = _cast([leaves[at] for at in other], wanted)
    for at, leaf in zip(other, cast, strict=True):
        leaves[at] = leaf
    return jax.tree.unflatten(structure, leaves)


def place_copy(model: Any, params: Any, mesh: Mesh) -> Any:
    """The copy of parameters that are whole, such as numpy arrays.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters.
      mesh: From `acting_mesh`.

    Returns:
      The tree on `mesh`.
    """

    def put(leaf: Any, dtype: Any, sharding: NamedSharding) -> jax.Array:
        return jax.device_put(np.asarray(leaf).astype(dtype), sharding)

    where = param_sharding(model, mesh, ACTING_RULES)
    return jax.tree.map(put, params, used_types(model, params), where)


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that parameters are spread over; None for one device, and for numpy."""
    sharding = getattr(next(iter(jax.tree.leaves(params)), None), "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.num_devices == 1:
        return None
    mesh = sharding.mesh
    return mesh if isinstance(mesh, Mesh) else None


def model_on_mesh(model: Any, mesh: Mesh | None, *, training: bool = False) -> Any:
    """The model, its activations pinned to a mesh.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      mesh: With axes data, fsdp and tensor; None for the model as it is.
      training: Whether what layers keep for the backward pass is split by length over
        tensor, too: beside the state, nothing is larger.

    Returns:
      The model; where "auto" chose its attention, it chooses again.
    """
    if mesh is None:
        return model
    kind, dtype = model.setup.attention, model.setup.dtype
    if kind == resolve("auto", dtype):
        kind = resolve("auto", dtype, mesh)
    rules = SEQUENCE_RULES if training else ACTIVATION_RULES
    pin = activation_constraint(mesh, rules)
    setup = dataclasses.replace(model.setup, constrain=pin, mesh=mesh, attention=kind)
    return dataclasses.replace(model, setup=setup)


# --- Groups of devices ----------------------------------------------------------------


@functools.cache
def _groups(model: Any, mesh: Mesh) -> np.ndarray:
    """[groups, devices of a group], process after process."""
    size = mesh.shape["tensor"]
    if size > 1:
        groups = groups_in_processes(mesh).devices.reshape(-1, size)
        return np.array(sorted(groups, key=lambda group: group[0].process_index))
    devices = _by_process(mesh)
    count = min(len(own) for own in devices)
    fitting = [
        number
        for number in range(1, count + 1)
        if all(len(own) % number == 0 for own in devices) and _divides(model, number)
    ]
    return np.concatenate([np.array(own).reshape(-1, fitting[-1]) for own in devices])


def _divides(model: Any, size: int) -> bool:
    shape = jax.sharding.AbstractMesh((1, 1, size), _AXES)
    try:
        check_model_mesh(model, shape, ACTING_RULES)  # pyright: ignore
    except ValueError:
        return False
    return True


def _by_process(mesh: Mesh) -> list[list[Any]]:
    """The devices of each process, in the order of the mesh."""
    found: dict[int, list[Any]] = {}
    for device in mesh.devices.flat:
        found.setdefault(device.process_index, []).append(device)
    return [found[process] for process in sorted(found)]


def _crossing(groups: np.ndarray) -> bool:
    return any(len({device.process_index for device in group}) > 1 for group in groups)


def _mesh(groups: np.ndarray) -> Mesh:
    return Mesh(groups[:, None], _AXES, axis_types=(AxisType.Auto,) * len(_AXES))


# --- Arrays ---------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=1)
def _cast(leaves: list[jax.Array], types: tuple) -> list[jax.Array]:
    return [leaf.astype(dtype) for leaf, dtype in zip(leaves, types, strict=True)]


@functools.cache
def _program(model: Any, mesh: Mesh, goal: Mesh | None) -> Callable[[Any], Any]:
    """What casts parameters and, if there is a goal, spreads them over it."""
    if goal is None:
        where = param_sharding(model, mesh)
    else:
        where = param_sharding(model, goal, ACTING_RULES)
    return jax.jit(functools.partial(cast_params, model), out_shardings=where)


def _own_part(leaf: jax.Array, where: NamedSharding, *, order: list) -> jax.Array:
    """A global array, whole in every process, as an array of this process."""
    parts = {shard.device: shard.data for shard in leaf.addressable_shards}
    return jax.make_array_from_single_device_arrays(
        leaf.shape, where, [parts[device] for device in order]
    )
