"""Host arrays as bytes and back: what processes tell each other about a round."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.launch.frames import join_parts, split_parts

__all__ = ["arrays_to_bytes", "bytes_to_arrays"]


def arrays_to_bytes(tree: Any) -> bytes:
    """Dtype, shape and content of every leaf of `tree`, without its structure.

    Args:
      tree: Pytree of numpy arrays, of any dtype numpy or jax knows but objects.

    Returns:
      Bytes for `bytes_to_arrays`.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    heads = [[leaf.dtype.name, leaf.shape] for leaf in leaves]
    contents = [np.ascontiguousarray(leaf).tobytes() for leaf in leaves]
    return join_parts([json.dumps(heads).encode(), *contents])


def bytes_to_arrays(data: bytes, like: Any) -> Any:
    """The arrays of `data` in the structure of `like`.

    Args:
      data: From `arrays_to_bytes`.
      like: Pytree of the structure and dtypes to expect; shapes may differ.

    Returns:
      A pytree of numpy arrays, which cannot be written to.

    Raises:
      ValueError: If the number of leaves or a dtype is another.
    """
    leaves, structure = jax.tree.flatten(like)
    head, *contents = split_parts(data)
    heads = json.loads(head)
    if not len(heads) == len(contents) == len(leaves):
        raise ValueError(f"{len(contents)} arrays arrived instead of {len(leaves)}.")
    found = []
    for (name, shape), content, leaf in zip(heads, contents, leaves, strict=True):
        if name != np.asarray(leaf).dtype.name:
            raise ValueError(f"an array of {name} arrived instead of {leaf.dtype}.")
        array = np.frombuffer(content, jnp.dtype(name)).reshape(shape)
        found.append(array)
    return jax.tree.unflatten(structure, found)
