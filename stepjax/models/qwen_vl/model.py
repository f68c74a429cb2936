"""Qwen2-VL and Qwen2.5-VL, the models under UI-TARS, as functions over a tree.

The tree that `QwenVL.init` makes, with the logical names of its axes. Leaves under
"blocks" and "layers" have a leading axis "layers". D is the decoder's width, V the
tower's, M the merged width V * merge_size ** 2; heads and head_dim are apart.

```
vision
  patch_embed/kernel                 [patch, vision_embed]; patch = color, frame, y, x
  blocks
    norm1, norm2                     scale (and bias: qwen2_vl) [vision_embed]
    query, key, value                kernel [vision_embed, vision_heads, head_dim],
                                     bias [vision_heads, head_dim]
    out                              kernel [vision_heads, head_dim, vision_embed], bias
    gate (qwen2_5_vl only), up       kernel [vision_embed, vision_mlp], bias
    down                             kernel [vision_mlp, vision_embed], bias
  merger
    norm                             scale (and bias: qwen2_vl) [vision_embed]
    up                               kernel [vision_embed, vision_mlp] = [M, M], bias
    down                             kernel [vision_mlp, embed] = [M, D], bias
embed/embedding                      [vocab, embed]
decoder
  layers
    attn_norm, mlp_norm              scale [embed]
    query                            kernel [embed, heads, head_dim], bias
    key, value                       kernel [embed, kv_heads, head_dim], bias
    out                              kernel [heads, head_dim, embed]
    gate, up                         kernel [embed, mlp]
    down                             kernel [mlp, embed]
  norm/scale                         [embed]
head/kernel                          [embed, vocab]; absent with tied embeddings
```

With LoRA, chosen kernels have `lora_a` [inputs, rank] and `lora_b` [rank, outputs]
beside them, in float32.

Activations are named ("batch", "length", ...) for `constrain`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from stepjax.models.qwen_vl import decoder, vision
from stepjax.models.qwen_vl.attention import resolve
from stepjax.models.qwen_vl.cache import Cache as Cache
from stepjax.models.qwen_vl.cache import init_cache
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.lora import LoRA
from stepjax.models.qwen_vl.parameters import axes_of, boxed_params
from stepjax.models.qwen_vl.parts import REMAT, Setup
from stepjax.models.qwen_vl.tables import num_visual

__all__ = ["QwenVL", "make_qwen_vl"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenVL:
    """A model: its dimensions, how it computes, and pure functions of parameters.

    Attributes:
      config: Dimensions.
      setup: Types, attention, what to keep for the backward pass, shardings.
    """

    config: QwenVLConfig
    setup: Setup

    def init(self, key: jax.Array) -> Any:
        """Random parameters of `param_dtype`, in the tree of the module's docstring."""
        return nn.unbox(boxed_params(self.config, self.setup, key))

    def logical_axes(self) -> Any:
        """A tree like the parameters', of tuples of the names of their axes."""
        return axes_of(self.config, self.setup)

    def see(self, params: Any, images: jax.Array) -> jax.Array:
        """Visual tokens of screenshots of one size.

        Args:
          params: The tree.
          images: [S, I, H, W, 3] uint8; H and W are multiples of 28, or whatever
            `config.vision.token_size` is.

        Returns:
          [S, I * N, D]; N = H / 28 * W / 28, row by row, image after image.
        """
        if images.ndim != 5:
            raise ValueError(
                f"see: images must have shape [S, I, H, W, 3], got {images.shape}."
            )
        rows, count, height, width, _ = images.shape
        side = self.config.vision.token_size
        if images.dtype != jnp.uint8:
            raise ValueError(f"see: images must be uint8, got {images.dtype}.")
        if not height or not width or height % side or width % side:
            raise ValueError(
                f"see: height and width of images must be multiples of {side}, got "
                f"{height} x {width}: resize them first."
            )
        flat = images.reshape(-1, *images.shape[2:])
        patches = vision.patches_of(flat, self.config.vision)
        size = self.config.vision.patch_size
        grid = (height // size, width // size)
        seen = vision.see_grid(params["vision"], patches, grid, self.config, self.setup)
        return seen.reshape(rows, count * seen.shape[1], seen.shape[2])

    def see_patches(
        self, params: Any, patches: jax.Array, grids: Sequence[tuple[int, int]]
    ) -> jax.Array:
        """Visual tokens of images of any sizes.

        Args:
          params: The tree.
          patches: [P, patch_dim], as an image processor gives them: normalized, block
            after block, image after image.
          grids: Per image, rows and columns of patches; static.

        Returns:
          [N, D], image after image.
        """
        grids = [(int(rows), int(columns)) for rows, columns in grids]
        sizes = [rows * columns for rows, columns in grids]
        if patches.shape != (sum(sizes), self.config.vision.patch_dim):
            raise ValueError(
                f"see_patches: patches must have shape [{sum(sizes)}, "
                f"{self.config.vision.patch_dim}] for grids {grids}, got "
                f"{patches.shape}."
            )
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        seen: dict[int, jax.Array] = {}
        for grid in dict.fromkeys(grids):
            num_visual(grid, self.config.vision)
            same = [i for i, other in enumerate(grids) if other == grid]
            batch = jnp.stack([patches[ends[i] - sizes[i] : ends[i]] for i in same])
            out = vision.see_grid(
                params["vision"], batch, grid, self.config, self.setup
            )
            seen.update(zip(same, out, strict=True))
        if not grids:
            return jnp.zeros((0, self.config.text.hidden_size), self.setup.dtype)
        return jnp.concatenate([seen[i] for i in range(len(grids))])

    def embed(
        self,
        params: Any,
        tokens: jax.Array,
        visual: jax.Array | None = None,
        image_index: jax.Array | None = None,
    ) -> jax.Array:
        """Entries of the decoder for text and visual tokens.

        Args:
          params: The tree.
          tokens: [S, T] int32.
          visual: [S, V, D] from `see`, or None for text only.
          image_index: [S, T] int32, which visual token of its row stands there; -1
            for text.

        Returns:
          [S, T, D] of the activations' type.
        """
        table = params["embed"]["embedding"]
        x = jnp.take(table, tokens, axis=0).astype(self.setup.dtype)
        if (visual is None) != (image_index is None):
            raise ValueError("embed: give both visual and image_index, or neither.")
        if visual is not None and image_index is not None and visual.shape[1]:
            index = jnp.maximum(image_index, 0)[:, :, None]
            picked = jnp.take_along_axis(visual.astype(x.dtype), index, axis=1)
            x = jnp.where(image_index[:, :, None] >= 0, picked, x)
        return self.setup.constrain(x, ("batch", "length", "embed"))

    def decode(
        self,
        params: Any,
        x: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        cache: Cache | None = None,
        *,
        layout: tuple[int, int] | None = None,
        fresh: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states after the final norm.

        Args:
          params: The tree, or that of `in_layers`.
          x: [S, T, D] from `embed`.
          positions: [S, 3, T] int32, rotary positions; 0 in padding will do.
          segments: [S, T] int32: -1 padding, 0 prompt, g >= 1 the g-th response.
          cache: Entries that come before, or None.
          layout: Static (prompt, response) if the T entries are a prompt and then
            whole responses, see `attention.attend`. (T, 0) says that there is no
            response. None is always right, and slower.
          fresh: Static: the cache is known to be empty, as in a prefill.

        Returns:
          [S, T, D], and the cache with the new entries, or None.
        """
        return decoder.decode(
            params["decoder"],
            x,
            positions,
            segments,
            cache,
            self.config,
            self.setup,
            layout=layout,
            fresh=fresh,
        )

    def unembed(self, params: Any) -> jax.Array:
        """The matrix [D, vocab] from hidden states to logits."""
        if self.config.text.tie_word_embeddings:
            return params["embed"]["embedding"].T
        return params["head"]["kernel"]

    def init_cache(
        self, rows: int, slots: int, dtype: Any = None, *, stacked: bool = True
    ) -> Cache:
        """An empty cache of `slots` entries for each of `rows` prompts."""
        dtype = self.setup.dtype if dtype is None else dtype
        return init_cache(self.config.text, rows, slots, dtype, stacked=stacked)

    def in_layers(self, params: Any) -> Any:
        """The tree with "decoder/layers" as a tuple of layers, which decodes faster.

        Use it together with `init_cache(stacked=False)`. It copies the layers, so make
        it once for many steps.
        """
        stack = params["decoder"]["layers"]
        layers = tuple(
            jax.tree.map(lambda leaf: leaf[i], stack)  # noqa: B023
            for i in range(self.config.text.num_layers)
        )
        return params | {"decoder": params["decoder"] | {"layers": layers}}


def make_qwen_vl(
    config: QwenVLConfig,
    *,
    dtype: Any = jnp.bfloat16,
    param_dtype: Any = jnp.float32,
    remat: str = "none",
    attention: str = "auto",
    scan: bool = True,
    constrain: Callable[[jax.Array, tuple[str, ...]], jax.Array] | None = None,
    mesh: Mesh | None = None,
    lora: LoRA | None = None,
) -> QwenVL:
    """A model.

    Args:
      config: Dimensions, such as `PRESETS["qwen2.5-vl-7b"]`.
      dtype: Type of the activations; norms, rotations and softmaxes are in float32.
      param_dtype: Type of the parameters.
      remat: What the backward pass finds: "none" keeps all, "full" computes each layer
        again, "dots" keeps results of matmuls.
      attention: "auto", "plain", "cudnn" (GPU, 16 bits) or "tpu_flash".
      scan: Whether layers are a loop in the program, which compiles faster.
      constrain: `constrain(array, names) -> array` pins shardings of activations by
        the names of their axes.
      mesh: Mesh of data, fsdp and tensor for "tpu_flash", which the compiler cannot
        split by itself; None for one device.
      lora: Kernels to adapt; the tree then holds adapters beside them.

    Returns:
      The model.

    Example:
      >>> import jax
      >>> from stepjax.models.qwen_vl.config import PRESETS
      >>> model = make_qwen_vl(PRESETS["tiny-qwen2-vl"])
      >>> params = model.init(jax.random.key(0))
      >>> model.unembed(params).shape
      (64, 512)
    """
    if remat not in REMAT:
        raise ValueError(
            f"make_qwen_vl: remat must be one of {list(REMAT)}, got {remat!r}."
        )
    options = {} if constrain is None else {"constrain": constrain}
    setup = Setup(
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
        attention=resolve(attention, dtype, mesh),
        remat=remat,
        scan=scan,
        mesh=mesh,
        lora=lora,
        **options,
    )
    return QwenVL(config=config, setup=setup)
