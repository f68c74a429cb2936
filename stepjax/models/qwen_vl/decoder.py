"""The decoder: embedded entries to hidden states, with or without a cache."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stepjax.models.qwen_vl import attention
from stepjax.models.qwen_vl.cache import Cache, write, write_layer
from stepjax.models.qwen_vl.dimensions import QwenVLConfig, TextConfig
from stepjax.models.qwen_vl.parts import Setup, dense, norm, rotate, run_stack

__all__ = ["DecoderLayer", "decode", "final_norm"]

_ACTIVATION = ("batch", "length", "embed")


class DecoderLayer(nn.Module):
    """A layer of the decoder.

    Attributes:
      config: The model.
      mode: How to compute.
    """

    config: QwenVLConfig
    mode: Setup

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        angles: jax.Array,
        attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    ) -> jax.Array:
        """The entries after the layer.

        Args:
          x: [S, T, D].
          angles: [S, T, E / 2] float32.
          attend: From query [S, T, H, E], key and value [S, T, K, E] to [S, T, H, E].

        Returns:
          [S, T, D].
        """
        eps = self.config.text.rms_norm_eps
        asked = norm(self.mode, "rms", eps, "embed", "attn_norm")(x)
        x = x + self._attend(asked, angles, attend)
        fed = norm(self.mode, "rms", eps, "embed", "mlp_norm")(x)
        return self.mode.constrain(x + self._feed(fed), _ACTIVATION)

    def _attend(self, x: jax.Array, angles: jax.Array, attend: Callable) -> jax.Array:
        text, setup = self.config.text, self.mode

        def project(name: str, heads: int, axis: str) -> jax.Array:
            size, names = (heads, text.head_dim), (axis, "head_dim")
            linear = dense(
                setup, size, ("embed",), names, bias=True, name=name, lora=setup.lora
            )
            return setup.constrain(linear(x), ("batch", "length", *names))

        query = rotate(project("query", text.num_heads, "heads"), angles)
        key = rotate(project("key", text.num_kv_heads, "kv_heads"), angles)
        out = attend(query, key, project("value", text.num_kv_heads, "kv_heads"))
        names = ("heads", "head_dim")
        out = setup.constrain(out, ("batch", "length", *names))
        size = (text.hidden_size,)
        linear = dense(
            setup, size, names, ("embed",), bias=False, name="out", lora=setup.lora
        )
        return linear(out)

    def _feed(self, x: jax.Array) -> jax.Array:
        text, setup = self.config.text, self.mode
        more: dict[str, Any] = {"bias": False, "lora": setup.lora}

        def widen(name: str) -> jax.Array:
            size = (text.intermediate_size,)
            out = dense(setup, size, ("embed",), ("mlp",), name=name, **more)(x)
            return setup.constrain(out, ("batch", "length", "mlp"))

        hidden = nn.silu(widen("gate")) * widen("up")
        size = (text.hidden_size,)
        return dense(setup, size, ("mlp",), ("embed",), name="down", **more)(hidden)


def final_norm(config: QwenVLConfig, setup: Setup) -> nn.Module:
    """The norm after the last layer."""
    return norm(setup, "rms", config.text.rms_norm_eps, "embed")


def _angles(positions: jax.Array, config: TextConfig) -> jax.Array:
    """[S, T, E / 2] float32: each frequency turns with time, row or column."""
    half = config.head_dim // 2
    speed = config.rope_theta ** -(np.arange(half, dtype=np.float32) / half)
    axis = np.repeat(np.arange(3), config.mrope_section)
    turning = positions.transpose(0, 2, 1)[..., axis].astype(jnp.float32)
    return turning * speed[None, None]


def decode(
    params: Any,
    x: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
    cache: Cache | None,
    config: QwenVLConfig,
    setup: Setup,
    *,
    layout: tuple[int, int] | None = None,
    fresh: bool = False,
) -> tuple[jax.Array, Cache | None]:
    """Hidden states after the final norm, and the cache with the new entries.

    Args:
      params: The "decoder" part of the parameters; "layers" is stacked or a tuple.
      x: [S, T, D].
      positions: [S, 3, T] int32.
      segments: [S, T] int32.
      cache: Entries before these, or None.
      config: The model.
      setup: How to compute.
      layout: (prompt, response) of packed entries, see `attention.attend`.
      fresh: Whether the cache is known to be empty, which saves reading it.

    Returns:
      Hidden states [S, T, D] of `setup.dtype`, and the cache or None.
    """
    angles = _angles(positions, config.text)
    x = setup.constrain(x.astype(setup.dtype), _ACTIVATION)
    if cache is None:
        x = _without_cache(params["layers"], x, angles, segments, config, setup, layout)
    else:
        known = segments, layout, fresh
        x, cache = _with_cache(params["layers"], x, angles, known, cache, config, setup)
    normed: Any = final_norm(config, setup).apply({"params": params["norm"]}, x)
    return normed, cache


def _own(segments: jax.Array, layout: tuple[int, int] | None, setup: Setup):
    """Attention of entries to each other."""

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return attention.attend(
            query,
            key,
            value,
            query_segments=segments,
            key_segments=segments,
            offset=0,
            layout=layout,
            kind=setup.attention,
            mesh=setup.mesh,
        )

    return attend


def _without_cache(layers, x, angles, segments, config, setup, layout):
    layer = DecoderLayer(config, setup)
    attend = _own(segments, layout, setup)

    def apply(x, params):
        return layer.apply({"params": params}, x, angles, attend)

    return run_stack(apply, x, layers, setup)


def _with_cache(layers, x, angles, known, cache, config, setup):
    segments, layout, fresh = known
    slots = cache.segments.shape[1]
    if x.shape[1] > slots:
        raise ValueError(
            f"decode: {x.shape[1]} entries do not fit a cache of {slots} slots: make "
            "it larger."
        )
    seen = write(cache.segments, segments, cache.length)
    layer = DecoderLayer(config, setup)
    stacked = not isinstance(cache.keys, tuple)
    own = _own(segments, layout, setup)

    def step(x, params, keys, values, index):
        written = []

        def attend(query, key, value):
            if stacked:
                new = [
                    write_layer(memory, part, cache.length, index)
                    for memory, part in ((keys, key), (values, value))
                ]
                read = [jax.lax.dynamic_index_in_dim(m, index, 0, False) for m in new]
            else:
                new = [
                    write(memory, part, cache.length)
                    for memory, part in ((keys, key), (values, value))
                ]
                read = new
            written.extend(new)
            if fresh:
                return own(query, key, value)
            read = [memory.astype(query.dtype) for memory in read]
            return attention.attend(
                query,
                *read,
                query_segments=segments,
                key_segments=seen,
                offset=cache.length,
            )

        x_out: Any = layer.apply({"params": params}, x, angles, attend)
        return x_out, *written

    x, keys, values = _run_cached(step, x, layers, cache, config, setup)
    length = cache.length + x.shape[1]
    return x, Cache(keys=keys, values=values, segments=seen, length=length)


def _run_cached(step, x, layers, cache, config, setup):
    """The layers over a cache, which stays in place; a loop, or written out."""
    count = config.text.num_layers
    in_layers = isinstance(layers, (tuple, list))
    stacked = not isinstance(cache.keys, tuple)
    if stacked and not in_layers and setup.scan:

        def body(carry, entry):
            x, keys, values = carry
            params, index = entry
            return step(x, params, keys, values, index), None

        carry = (x, cache.keys, cache.values)
        return jax.lax.scan(body, carry, (layers, jnp.arange(count)))[0]
    keys, values = cache.keys, cache.values
    outs = []
    for index in range(count):
        own = layers[index] if in_layers else jax.tree.map(lambda p: p[index], layers)  # noqa: B023
        if stacked:
            x, keys, values = step(x, own, keys, values, index)
        else:
            x, *new = step(x, own, keys[index], values[index], index)
            outs.append(new)
    if not stacked:
        keys, values = (tuple(part) for part in zip(*outs, strict=True))
    return x, keys, values
