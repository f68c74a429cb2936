"""Keys and values that the decoder goes on from."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from stepjax.models.qwen_vl.dimensions import TextConfig

__all__ = ["Cache", "init_cache", "write", "write_layer"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """Keys and values of entries that were decoded before.

    Attributes:
      keys: [layers, S, C, kv_heads, head_dim], or a tuple of the layers' arrays.
      values: The same.
      segments: [S, C] int32, by the rule of `attention`; -1 where nothing stands.
      length: int32 scalar, slots in use; or [S] int32, where rows differ. The next T
        entries go to slots length .. length + T - 1, which must exist: nothing can
        check it inside a compiled program.
    """

    keys: Any
    values: Any
    segments: jax.Array
    length: jax.Array


def init_cache(
    config: TextConfig, rows: int, slots: int, dtype: Any, *, stacked: bool = True
) -> Cache:
    """An empty cache.

    Args:
      config: The decoder.
      rows: S.
      slots: C, the longest prompt with all its responses.
      dtype: Type of keys and values.
      stacked: One array for all layers, or one for each, which decodes faster together
        with parameters in layers.

    Returns:
      The cache.
    """
    shape = (rows, slots, config.num_kv_heads, config.head_dim)

    def zeros() -> Any:
        if stacked:
            return jnp.zeros((config.num_layers, *shape), dtype)
        return tuple(jnp.zeros(shape, dtype) for _ in range(config.num_layers))

    return Cache(
        keys=zeros(),
        values=zeros(),
        segments=jnp.full((rows, slots), -1, jnp.int32),
        length=jnp.int32(0),
    )


def write(array: jax.Array, new: jax.Array, length: jax.Array) -> jax.Array:
    """The array [S, C, ...] with new [S, T, ...] from slots `length` on."""
    new = new.astype(array.dtype)
    if length.ndim == 0:
        return jax.lax.dynamic_update_slice_in_dim(array, new, length, axis=1)
    rows = jnp.arange(array.shape[0])[:, None]
    return array.at[rows, _slots(length, new)].set(new)


def _slots(length: jax.Array, new: jax.Array) -> jax.Array:
    return length[:, None] + jnp.arange(new.shape[1])[None]


def write_layer(
    array: jax.Array, new: jax.Array, length: jax.Array, layer: jax.Array
) -> jax.Array:
    """The same in one layer of an array [layers, S, C, ...], in place."""
    new = new.astype(array.dtype)
    if length.ndim == 0:
        start = (layer, 0, length, 0, 0)
        return jax.lax.dynamic_update_slice(array, new[None], start)
    rows = jnp.arange(array.shape[1])[:, None]
    return array.at[layer, rows, _slots(length, new)].set(new)
