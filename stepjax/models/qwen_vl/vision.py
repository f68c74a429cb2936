"""The vision tower: patches of an image to visual tokens."""

import functools
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stepjax.models.qwen_vl import attention
from stepjax.models.qwen_vl.dimensions import QwenVLConfig, VisionConfig
from stepjax.models.qwen_vl.parts import Setup, dense, norm, rotate, run_stack
from stepjax.models.qwen_vl.tables import VisionLayout, vision_layout

__all__ = [
    "IMAGE_MEAN",
    "IMAGE_STD",
    "Merger",
    "VisionBlock",
    "patch_embed",
    "patches_of",
    "see_grid",
]

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of each color over the images that the weights were trained on, of 1."""

IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of each color, of 1."""

_EPS = 1e-6
_ACTIVATION = ("batch", "length", "vision_embed")


def patches_of(images: jax.Array, config: VisionConfig) -> jax.Array:
    """Normalized patches, block after block.

    Args:
      images: [B, H, W, C] uint8, sides multiples of `config.token_size`.
      config: The tower.

    Returns:
      [B, P, C * temporal_patch_size * patch_size ** 2] float32: colors, frames, rows,
      columns; all frames of a patch are the same.
    """
    batch, height, width, colors = images.shape
    mean, std = (
        np.reshape(np.array(row, np.float32), (1, 1, 1, -1))
        for row in (IMAGE_MEAN, IMAGE_STD)
    )
    pixels = (images.astype(jnp.float32) / 255 - mean) / std
    merge, size = config.merge_size, config.patch_size
    down, across = height // config.token_size, width // config.token_size
    pixels = pixels.reshape(batch, down, merge, size, across, merge, size, colors)
    pixels = pixels.transpose(0, 1, 4, 2, 5, 7, 3, 6)
    pixels = pixels.reshape(batch, -1, colors, 1, size, size)
    shape = (*pixels.shape[:3], config.temporal_patch_size, size, size)
    return jnp.broadcast_to(pixels, shape).reshape(*shape[:2], config.patch_dim)


def patch_embed(config: QwenVLConfig, setup: Setup) -> nn.Module:
    """The layer from patches [..., patch_dim] to [..., vision_embed]."""
    width = (config.vision.hidden_size,)
    return dense(setup, width, ("patch",), ("vision_embed",), bias=False)


class VisionBlock(nn.Module):
    """A block of the tower.

    Attributes:
      config: The model.
      mode: How to compute.
    """

    config: QwenVLConfig
    mode: Setup

    @property
    def _linear(self) -> dict[str, Any]:
        """What all linear layers of a block have in common."""
        lora = self.mode.lora
        return {"bias": True, "lora": lora if lora and lora.vision else None}

    def _norm(self, name: str) -> nn.Module:
        kind = "rms" if self.config.vision.window_size else "layer"
        return norm(self.mode, kind, _EPS, "vision_embed", name)

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: jax.Array, segments: jax.Array, window: int
    ) -> jax.Array:
        """The patches after the block.

        Args:
          x: [B, L, D].
          angles: [L, E / 2] float32.
          segments: [L] int32, 0 for patches and -1 for padding.
          window: Slots that attend to each other; divides L.

        Returns:
          [B, L, D].
        """
        x = x + self._attend(self._norm("norm1")(x), angles, segments, window)
        x = x + self._feed(self._norm("norm2")(x))
        return self.mode.constrain(x, _ACTIVATION)

    def _attend(self, x, angles, segments, window):
        vision, setup = self.config.vision, self.mode
        heads = (vision.num_heads, vision.head_dim)
        names = ("vision_heads", "head_dim")

        def project(name: str) -> jax.Array:
            linear = dense(
                setup, heads, ("vision_embed",), names, name=name, **self._linear
            )
            out = linear(x)
            return setup.constrain(out, ("batch", "length", *names))

        query = rotate(project("query"), angles[None])
        key = rotate(project("key"), angles[None])
        parts = [query, key, project("value")]
        parts = [part.reshape(-1, window, *heads) for part in parts]
        rows = jnp.broadcast_to(segments, x.shape[:2]).reshape(-1, window)
        out = attention.attend(
            *parts,
            query_segments=rows,
            key_segments=rows,
            layout=(window, 0),
            kind=setup.attention,
            mesh=setup.mesh,
        )
        out = out.reshape(*x.shape[:2], *heads)
        width = (vision.hidden_size,)
        linear = dense(
            setup, width, names, ("vision_embed",), name="out", **self._linear
        )
        return linear(out)

    def _feed(self, x: jax.Array) -> jax.Array:
        vision, setup = self.config.vision, self.mode

        def widen(name: str) -> jax.Array:
            size = (vision.intermediate_size,)
            names = (("vision_embed",), ("vision_mlp",))
            into = dense(setup, size, *names, name=name, **self._linear)
            return setup.constrain(into(x), ("batch", "length", "vision_mlp"))

        if vision.window_size:
            hidden = nn.silu(widen("gate")) * widen("up")
        else:
            hidden = widen("up")
            hidden = hidden * nn.sigmoid(1.702 * hidden)
        width = (vision.hidden_size,)
        names = (("vision_mlp",), ("vision_embed",))
        down = dense(setup, width, *names, name="down", **self._linear)
        return down(hidden)


class Merger(nn.Module):
    """Blocks of patches [B, L, D] to tokens [B, L / merge_size ** 2, embed].

    Attributes:
      config: Dimensions.
      mode: How it computes.
    """

    config: QwenVLConfig
    mode: Setup

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The tokens."""
        vision, setup = self.config.vision, self.mode
        kind = "rms" if vision.window_size else "layer"
        x = norm(setup, kind, _EPS, "vision_embed", "norm")(x)
        wide = vision.hidden_size * vision.merge_size**2
        x = x.reshape(x.shape[0], -1, wide)
        names = (("vision_embed",), ("vision_mlp",))
        x = dense(setup, (wide,), *names, bias=True, name="up")(x)
        x = nn.gelu(x, approximate=False)
        size = (self.config.text.hidden_size,)
        x = dense(setup, size, ("vision_mlp",), ("embed",), bias=True, name="down")(x)
        return setup.constrain(x, ("batch", "length", "embed"))


def _angles(layout: VisionLayout, config: VisionConfig) -> jax.Array:
    """[L, E / 2] float32: a quarter of a head turns with rows, one with columns."""
    half = config.head_dim // 2
    speed = 1e4 ** -(np.arange(0, half, 2, dtype=np.float32) / half)
    angles = layout.positions[:, :, None].astype(np.float32) * speed
    return jnp.asarray(np.concatenate(list(angles), axis=-1), jnp.float32)


def _runs(config: VisionConfig) -> tuple[int, list[tuple[int, int, bool]]]:
    """The shortest pattern of blocks that repeats, as runs (start, stop, windows)."""
    full = config.full_attention_layers
    windows = [bool(config.window_size) and i not in full for i in range(config.depth)]
    period = next(
        p
        for p in range(1, config.depth + 1)
        if config.depth % p == 0 and windows == windows[:p] * (config.depth // p)
    )
    starts = [i for i in range(period) if i == 0 or windows[i] != windows[i - 1]]
    stops = [*starts[1:], period]
    return period, [(a, b, windows[a]) for a, b in zip(starts, stops, strict=True)]


def see_grid(
    params: Any,
    patches: jax.Array,
    grid: tuple[int, int],
    config: QwenVLConfig,
    setup: Setup,
) -> jax.Array:
    """Visual tokens of images of one size.

    Args:
      params: The "vision" part of the parameters.
      patches: [B, P, patch_dim], block after block.
      grid: Rows and columns of patches.
      config: The model.
      setup: How to compute.

    Returns:
      [B, N, D] of `setup.dtype`.
    """
    vision = config.vision
    layout = vision_layout(grid, vision)
    segments = jnp.where(layout.real, 0, -1)
    angles = _angles(layout, vision)
    x: Any = patch_embed(config, setup).apply(
        {"params": params["patch_embed"]}, patches
    )
    x = setup.constrain(x[:, layout.patch] if vision.window_size else x, _ACTIVATION)
    block = VisionBlock(config, setup)
    period, runs = _runs(vision)

    def apply(window, x, block_params):
        return block.apply({"params": block_params}, x, angles, segments, window)

    def repeat(x, group):
        for start, stop, windows in runs:
            window = layout.window if windows else len(layout.patch)
            some = jax.tree.map(operator.itemgetter(slice(start, stop)), group)
            x = run_stack(functools.partial(apply, window), x, some, setup)
        return x

    groups = jax.tree.map(
        lambda leaf: leaf.reshape(-1, period, *leaf.shape[1:]), params["blocks"]
    )
    x = run_stack(repeat, x, groups, Setup(scan=setup.scan))
    merged: Any = Merger(config, setup).apply({"params": params["merger"]}, x)
    return merged[:, layout.token]
