"""Moving state between the host, one device and all devices of all processes."""

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from stepjax.training.sharding import replicated
from stepjax.training.state import TrainState

__all__ = [
    "acting_params",
    "local_key",
    "place",
    "small_state",
    "tree_digest",
]

_PIECE_BYTES = 1 << 26  # of an array on its way to the host, or one row if it is larger


def place(tree: Any, shardings: Any) -> Any:
    """`tree` on the devices of `shardings`, which may be those of other processes too.

    Args:
      tree: Pytree of arrays that are whole on this process, and equal on all.
      shardings: One for each leaf, as a pytree of the same structure.

    Returns:
      Global arrays.
    """
    if jax.tree.leaves(shardings)[0].is_fully_addressable:
        return jax.device_put(tree, shardings)
    return jax.tree.map(_place_leaf, tree, shardings)


def _place_leaf(leaf: Any, sharding: Any) -> jax.Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        wrap = functools.partial(
            jax.random.wrap_key_data, impl=jax.random.key_impl(leaf)
        )
        data = np.asarray(jax.random.key_data(leaf))
        return jax.jit(wrap, out_shardings=sharding)(data)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])


def small_state(state: TrainState) -> TrainState:
    """All of a state but parameters and optimizer, on the host of each process."""
    return TrainState(
        step=jax.device_get(state.step),
        round=jax.device_get(state.round),
        params=None,
        opt_state=None,
        success_rate=jax.device_get(state.success_rate),
        sampler=jax.device_get(state.sampler),
        key=local_key(state.key),
    )


def acting_params(state: Any, policy: Any = None) -> Any:
    """The parameters where this process's environments can use them.

    Args:
      state: Whose `params` to use, such as the `TrainState` of a run; all processes ask
        together.
      policy: Who acts. One with `acting_copy`, such as
        `experiments.model_policy.ModelPolicy`, lays them out in its own way.

    Returns:
      By default all of them on one device of each process. With several processes every
      device holds them for a moment.
    """
    own_way = getattr(policy, "acting_copy", None)
    if own_way is not None:
        return own_way(state.params)
    sharding = jax.tree.leaves(state.params)[0].sharding
    if sharding.is_fully_addressable:
        if len(sharding.device_set) == 1:
            return state.params
        return jax.device_put(state.params, jax.local_devices()[0])
    everywhere = _copy_to(replicated(sharding.mesh))(state.params)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), everywhere)


@functools.cache
def _copy_to(sharding: Any) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def local_key(key: jax.Array) -> jax.Array:
    """`key` free of any mesh, so that it goes with arrays on any device."""
    data = jnp.asarray(np.asarray(jax.random.key_data(key)))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def tree_digest(tree: Any) -> str:
    """SHA-256 of every leaf's path, dtype, shape and bits.

    It is the same wherever the leaves lie. A large leaf, such as that of all layers, is
    read piece by piece along its first axis: it is nowhere whole that was not before.

    Args:
      tree: Pytree of arrays. Those that are spread over processes are gathered, a piece
        at a time; all processes ask together.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, jax.Array):
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            if leaf.is_fully_replicated:  # one device of this process has it all
                leaf = leaf.addressable_data(0)
        else:
            leaf = np.asarray(leaf)
        shape = leaf.shape or (1,)
        head = f"{jax.tree_util.keystr(path)} {leaf.dtype} {shape};"
        digest.update(head.encode())
        for piece in _pieces(leaf):
            digest.update(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _pieces(leaf: Any) -> Iterator[np.ndarray]:
    """The bits of an array on the host, a few of its first axis at a time."""
    if isinstance(leaf, np.ndarray) or leaf.nbytes <= _PIECE_BYTES or not leaf.ndim:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            mesh: Any = getattr(leaf.sharding, "mesh", None)
            leaf = _copy_to(replicated(mesh))(leaf).addressable_data(0)
        yield np.asarray(leaf)
        return
    count = leaf.shape[0]
    rows = min(count, max(1, _PIECE_BYTES * count // leaf.nbytes))
    read = _read_rows(leaf.sharding, leaf.ndim, rows)
    for at in range(0, count, rows):
        found = read(leaf, np.int32(at))
        piece = np.asarray(found.addressable_data(0))
        yield piece[: count - at]


@functools.cache
def _read_rows(sharding: Any, ndim: int, rows: int) -> Any:
    """`read(array, start)`: the bits of some rows, 0 behind the last, on every device.

    Only these rows are moved: each device offers those that it has.
    """
    if not isinstance(sharding, NamedSharding):
        return jax.jit(lambda leaf, start: _own_rows(leaf, start, rows))
    spec = (*sharding.spec, *[None] * (ndim - len(sharding.spec)))
    axes = spec[0] if isinstance(spec[0], tuple) else (spec[0],) if spec[0] else ()

    def read(part: jax.Array, start: Any) -> jax.Array:
        if not axes:
            return _own_rows(part, start, rows)
        first = jax.lax.axis_index(axes) * part.shape[0]
        return jax.lax.psum(_own_rows(part, start - first, rows), axes)

    mesh: Any = sharding.mesh
    mapped = jax.shard_map(
        read, mesh=mesh, in_specs=(P(*spec), P()), out_specs=P(None, *spec[1:])
    )
    return jax.jit(mapped, out_shardings=replicated(mesh))


def _own_rows(part: jax.Array, start: Any, rows: int) -> jax.Array:
    """[rows, ...] unsigned: the bits of rows `start` and on, 0 where there is none."""
    if part.dtype == jnp.bool_:
        part = part.astype(jnp.uint8)
    at = start + jnp.arange(rows, dtype=jnp.int32)
    there = (at >= 0) & (at < part.shape[0])
    found = part[jnp.clip(at, 0, part.shape[0] - 1)]
    kind = jnp.dtype(f"uint{8 * part.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(found, kind)  # a sum of -0.0 loses its sign
    there = there.reshape(-1, *[1] * (part.ndim - 1))
    return jnp.where(there, bits, jnp.zeros((), kind))
