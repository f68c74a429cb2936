"""Random parameters of a whole model, and the names of their axes.

The tree is described in `model`.
"""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stepjax.models.qwen_vl import decoder, vision
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.parts import Setup, init_stack

__all__ = ["axes_of", "boxed_params"]

_STACKS = ("blocks", "layers")


def _init(module: nn.Module, keys: Iterator[jax.Array], x: jax.Array) -> Any:
    return module.init(next(keys), x)["params"]


def _vision(config: QwenVLConfig, setup: Setup, keys: Iterator[jax.Array]) -> Any:
    image = config.vision
    size = image.merge_size**2
    x = jnp.zeros((1, size, image.hidden_size), setup.dtype)
    angles = jnp.zeros((size, image.head_dim // 2))
    args = (x, angles, jnp.zeros(size, jnp.int32), size)
    patches = jnp.zeros((1, 1, image.patch_dim))
    block = vision.VisionBlock(config, setup)
    return {
        "patch_embed": _init(vision.patch_embed(config, setup), keys, patches),
        "blocks": init_stack(block, next(keys), image.depth, *args),
        "merger": _init(vision.Merger(config, setup), keys, x),
    }


def _decoder(config: QwenVLConfig, setup: Setup, keys: Iterator[jax.Array]) -> Any:
    text = config.text
    x = jnp.zeros((1, 1, text.hidden_size), setup.dtype)
    angles = jnp.zeros((1, 1, text.head_dim // 2))
    layer = decoder.DecoderLayer(config, setup)
    args = (x, angles, lambda query, key, value: query)
    return {
        "layers": init_stack(layer, next(keys), text.num_layers, *args),
        "norm": _init(decoder.final_norm(config, setup), keys, x),
    }


def boxed_params(config: QwenVLConfig, setup: Setup, key: jax.Array) -> Any:
    """Random parameters, each boxed with the logical names of its axes.

    Args:
      config: Dimensions.
      setup: Types.
      key: A key.

    Returns:
      The tree; "layers" is missing from the names of stacked ones.
    """
    keys = iter(jax.random.split(key, 8))
    sizes = {"vocab": config.text.vocab_size, "embed": config.text.hidden_size}

    def table(*names: str) -> Any:
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), names)
        shape = tuple(sizes[name] for name in names)
        return init(next(keys), shape, setup.param_dtype)

    parts = {
        "vision": _vision(config, setup, keys),
        "embed": {"embedding": table("vocab", "embed")},
        "decoder": _decoder(config, setup, keys),
    }
    if not config.text.tie_word_embeddings:
        parts["head"] = {"kernel": table("embed", "vocab")}
    return parts


def axes_of(config: QwenVLConfig, setup: Setup) -> Any:
    """A tree like the parameters', of tuples of the logical names of their axes."""
    boxed = jax.eval_shape(
        lambda key: boxed_params(config, setup, key), jax.random.key(0)
    )

    def names(path: Any, box: Any) -> tuple[str, ...]:
        stacked = any(getattr(part, "key", "") in _STACKS for part in path)
        return ("layers", *box.names) if stacked else tuple(box.names)

    return jax.tree_util.tree_map_with_path(
        names, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned)
    )
