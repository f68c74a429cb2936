"""Parameters that do not learn: no gradient, no optimizer state, no second copy.

A mask says which leaves of a parameter tree are trained. Splitting by it gives two
trees of the old structure, with None where a leaf is in the other one. None is no leaf
to jax, so gradients and moments exist for the trained leaves only.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax

__all__ = ["merge_params", "split_params", "trainable_mask"]


def trainable_mask(params: Any, frozen: Sequence[str]) -> Any:
    """Which leaves of `params` are trained.

    Args:
      params: Pytree of arrays or of shapes.
      frozen: Regular expressions, searched in paths such as "vision/block/kernel"; a
        leaf is frozen if one of them is found.

    Returns:
      A pytree of Python bools of the same structure.

    Raises:
      ValueError: If an expression is found in no path (a typo would train what should
        rest), or if nothing is left to train.

    Example:
      >>> params = {"vision": {"kernel": 1.0}, "decoder": {"kernel": 2.0}}
      >>> trainable_mask(params, ["^vision/"])
      {'decoder': {'kernel': True}, 'vision': {'kernel': False}}
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
    ]
    for pattern in frozen:
        if not any(re.search(pattern, name) for name in names):
            raise ValueError(
                f"frozen: {pattern!r} is found in no parameter's path; paths look like "
                f"{', '.join(names[:3])}."
            )
    mask = [not any(re.search(p, name) for p in frozen) for name in names]
    if not any(mask):
        raise ValueError(
            f"frozen: {list(frozen)} leaves no parameter to train; freeze fewer."
        )
    return jax.tree.unflatten(structure, mask)


def split_params(params: Any, mask: Any) -> tuple[Any, Any]:
    """The trained and the frozen part of `params`, None where the other has the leaf.

    Args:
      params: Pytree of arrays.
      mask: From `trainable_mask`; None trains everything.

    Returns:
      Two pytrees; `merge_params` undoes the split.
    """
    if mask is None:
        return params, None
    trained = jax.tree.map(lambda on, leaf: leaf if on else None, mask, params)
    frozen = jax.tree.map(lambda on, leaf: None if on else leaf, mask, params)
    return trained, frozen


def merge_params(trained: Any, frozen: Any) -> Any:
    """The whole tree from the two parts of `split_params`.

    Args:
      trained: The trained part.
      frozen: The frozen part, or None if there is none.

    Returns:
      A pytree without None.
    """
    if frozen is None:
        return trained
    return jax.tree.map(
        lambda one, other: other if one is None else one,
        trained,
        frozen,
        is_leaf=lambda leaf: leaf is None,
    )
