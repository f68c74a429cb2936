"""A decoder small enough to read, with the face of `QwenVL`: attention by segments."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HEADS = 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    keys: jax.Array  # [layers, S, C, heads, head_dim]
    values: jax.Array
    segments: jax.Array  # [S, C] int32
    length: jax.Array  # [] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    """The fields of `VLPrompt`."""

    tokens: Any
    positions: Any
    segments: Any
    next_position: Any
    images: Any
    image_index: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class StandIn:
    vocabulary: int = 37
    width: int = 16
    layers: int = 2
    seed: int = 0

    def init(self, key):
        scale = self.width**-0.5

        def normal(number, *shape):
            return jax.random.normal(jax.random.fold_in(key, number), shape)

        width = self.width
        return {
            "embed": normal(0, self.vocabulary, width),
            "patch": normal(1, 3, width),
            "head": normal(2, width, self.vocabulary) * 2 * scale,
            "layers": [
                {
                    name: normal(10 + 10 * layer + i, width, width) * scale
                    for i, name in enumerate(("q", "k", "v", "o"))
                }
                for layer in range(self.layers)
            ],
        }

    def see(self, params, images):
        size, count, height, wide, _ = images.shape
        cells = images.reshape(size, count, height // 28, 28, wide // 28, 28, 3)
        mean = cells.mean((3, 5)).reshape(size, -1, 3) / 127.5 - 1.0
        return mean @ params["patch"]

    def embed(self, params, tokens, visual, image_index):
        x = params["embed"][tokens]
        if visual is None:
            return x
        index = jnp.maximum(image_index, 0)[..., None]
        shown = jnp.take_along_axis(visual, index, axis=1)
        return jnp.where(image_index[..., None] >= 0, shown, x)

    def unembed(self, params):
        return params["head"]

    def init_cache(self, size, capacity, dtype):
        shape = (self.layers, size, capacity, HEADS, self.width // HEADS)
        return Cache(
            keys=jnp.zeros(shape, dtype),
            values=jnp.zeros(shape, dtype),
            segments=jnp.full((size, capacity), -1, jnp.int32),
            length=jnp.int32(0),
        )

    def decode(
        self, params, x, positions, segments, cache=None, *, layout=None, fresh=False
    ):
        size, count, _ = x.shape
        assert layout in (None, (count, 0))  # there is no quicker way here
        assert not (fresh and cache is None)
        alone = cache is None
        cache = self.init_cache(size, count, x.dtype) if alone else cache
        start = cache.length
        first = jnp.broadcast_to(start, (size,))[:, None]
        mine = first + jnp.arange(count)[None]  # [S, T]
        rows = jnp.arange(size)[:, None]
        known = cache.segments.at[rows, mine].set(segments)
        slots = jnp.arange(known.shape[1])[None, None]
        sees = (slots <= mine[:, :, None]) & (known[:, None] >= 0)
        sees &= (known[:, None] == 0) | (known[:, None] == segments[:, :, None])
        wave = jnp.arange(self.width)[None, None]
        x = x + jnp.sin(positions.sum(1)[..., None] * 0.3**wave + wave)
        all_keys, all_values = [], []
        for number, layer in enumerate(params["layers"]):
            q, k, v = (
                (x @ layer[name]).reshape(size, count, HEADS, -1) for name in "qkv"
            )
            keys = cache.keys[number].at[rows, mine].set(k)
            values = cache.values[number].at[rows, mine].set(v)
            score = jnp.einsum("sthd,schd->shtc", q, keys) * self.width**-0.5
            share = jax.nn.softmax(jnp.where(sees[:, None], score, -1e9), axis=-1)
            read = jnp.einsum("shtc,schd->sthd", share, values)
            x = jnp.tanh(x + read.reshape(size, count, -1) @ layer["o"])
            all_keys.append(keys)
            all_values.append(values)
        cache = Cache(
            keys=jnp.stack(all_keys),
            values=jnp.stack(all_values),
            segments=known,
            length=start + count,
        )
        return x, (None if alone else cache)


def prompts(lengths, *, padded=12, seed=0, side=56):
    """Left-padded prompts, each with one image of `side` pixels."""
    rng = np.random.default_rng(seed)
    size, cells = len(lengths), (side // 28) ** 2
    tokens = np.zeros((size, padded), np.int32)
    index = np.full((size, padded), -1, np.int32)
    segments = np.full((size, padded), -1, np.int32)
    positions = np.zeros((size, 3, padded), np.int32)
    for row, length in enumerate(lengths):
        at = padded - length
        tokens[row, at:] = rng.integers(3, 30, length)
        index[row, at : at + cells] = np.arange(cells)
        segments[row, at:] = 0
        positions[row, :, at:] = np.arange(length)
    return Prompt(
        tokens=tokens,
        positions=positions,
        segments=segments,
        next_position=np.asarray(lengths, np.int32),
        images=rng.integers(0, 255, (size, 1, side, side, 3)).astype(np.uint8),
        image_index=index,
    )
