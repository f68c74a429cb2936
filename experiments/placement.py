"""Moving state between the host, one device and all devices of all processes."""

import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.training.sharding import replicated
from stepjax.training.state import TrainState

__all__ = [
    "acting_params",
    "local_key",
    "place",
    "small_state",
    "tree_digest",
]


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


def acting_params(state: TrainState, policy: Any = None) -> Any:
    """The parameters where this process's environments can use them.

    Args:
      state: Of the run; all processes ask together.
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

    Args:
      tree: Pytree of arrays. Those that are spread over processes are gathered, one at
        a time; all processes ask together.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if not leaf.is_fully_replicated:
                mesh: Any = getattr(leaf.sharding, "mesh", None)
                leaf = _copy_to(replicated(mesh))(leaf)
            leaf = leaf.addressable_data(0)
        array = np.ascontiguousarray(jax.device_get(leaf))
        head = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};"
        digest.update(head.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
