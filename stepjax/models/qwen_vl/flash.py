"""The TPU kernel for attention whose pattern is known when the program is compiled.

It keeps no scores, and skips the blocks that no query sees: everything above the
diagonal, and in packed groups the keys of other responses. The compiler cannot split
the kernel over devices, so it runs under `jax.shard_map`, rows over `data` and `fsdp`
and heads over `tensor`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

__all__ = ["flash_attend"]

_LANES = 128
_BLOCK = 512


def _pad(array: jax.Array, axis: int, size: int, value: int = 0) -> jax.Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, widths, constant_values=value)


def _mask(length: int, heads: int, layout: tuple[int, int], ordered: bool) -> Any:
    """What of [length, length] is seen, apart from padding, for every head."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    prompt, response = layout
    shape = (length, length)
    if not ordered:
        mask = splash.FullMask(shape)
    elif not response:
        mask = splash.CausalMask(shape)
    else:
        slots = np.arange(length)
        group = np.where(slots < prompt, -1, (slots - prompt) // response)
        same = group[:, None] == group[None]
        seen = (slots[None] < prompt) | same
        mask = splash.NumpyMask(seen & (slots[None] <= slots[:, None]))
    return splash.MultiHeadMask([mask] * heads)


def _kernel(mask: Any, block: int, interpret: bool) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return splash.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )


def _local(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    *,
    layout: tuple[int, int],
    ordered: bool,
    interpret: bool,
) -> jax.Array:
    """The kernel on one device; [S, T, H, E] as in `flash_attend`."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads, width = query.shape[1:]
    block = min(_BLOCK, -(-length // _LANES) * _LANES)
    padded = -(-length // block) * block
    wide = -(-width // _LANES) * _LANES
    query = query * jnp.asarray(width**-0.5, query.dtype)
    parts = [
        _pad(_pad(part, 1, padded), 3, wide).transpose(0, 2, 1, 3)
        for part in (query, key, value)
    ]
    # Padding attends to padding, so that no row of the kernel's softmax is empty.
    ids = (_pad(segments, 1, padded, -1) < 0).astype(jnp.int32)
    kernel = _kernel(_mask(padded, heads, layout, ordered), block, interpret)

    def one(query, key, value, ids):
        return kernel(query, key, value, segment_ids=splash.SegmentIds(q=ids, kv=ids))

    rows: Any = jax.vmap(one)
    out = rows(*parts, ids).transpose(0, 2, 1, 3)
    return out[:, :length, :, :width].astype(query.dtype)


def flash_attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    *,
    layout: tuple[int, int],
    ordered: bool = True,
    mesh: Mesh | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Attention of entries to each other.

    Args:
      query: [S, T, H, E].
      key: [S, T, K, E].
      value: [S, T, K, E].
      segments: [S, T] int32, by the rule of `attention`.
      layout: (prompt, response), see `attention.attend`.
      ordered: Whether a query sees only the slots up to its own.
      mesh: Mesh with any of the axes data, fsdp and tensor; None for one device.
      interpret: Whether to run the kernel step by step, on any device: for tests.

    Returns:
      [S, T, H, E].
    """
    local = functools.partial(
        _local, layout=layout, ordered=ordered, interpret=interpret
    )
    if mesh is None:
        return local(query, key, value, segments)
    rows = tuple(axis for axis in ("data", "fsdp") if axis in mesh.axis_names)
    split = int(np.prod([mesh.shape[axis] for axis in rows], dtype=int))
    rows = rows if rows and query.shape[0] % split == 0 else None
    heads = "tensor" if "tensor" in mesh.axis_names else None
    if heads and key.shape[2] % mesh.shape[heads]:
        heads = None
    whole = P(rows, None, heads, None)
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(whole, whole, whole, P(rows, None)),
        out_specs=whole,
        check_vma=False,
    )(query, key, value, segments)
