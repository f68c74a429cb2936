"""The types in which parameters are used, whatever type they are kept in."""

from typing import Any

import jax
import numpy as np

__all__ = ["cast_params", "used_types"]


def used_types(model: Any, params: Any) -> Any:
    """The type in which each parameter is used.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters, or their shapes.

    Returns:
      A tree of dtypes: the model's, but what norms use stays as it is.
    """

    def choose(path: Any, leaf: Any) -> Any:
        in_norm = any("norm" in str(getattr(part, "key", "")) for part in path)
        return np.dtype(leaf.dtype if in_norm else model.setup.dtype)

    return jax.tree_util.tree_map_with_path(choose, params)


def cast_params(model: Any, params: Any) -> Any:
    """The parameters in the types in which they are used; may be traced.

    Args:
      model: A `stepjax.models.qwen_vl.model.QwenVL`.
      params: Its parameters.

    Returns:
      A tree of the same shapes. Gradients have the types of `params`.
    """
    types = used_types(model, params)
    return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), params, types)
