"""Layers that the vision tower and the decoder share, and what runs them in a stack."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from stepjax.models.qwen_vl.lora import LoRA

__all__ = [
    "REMAT",
    "Linear",
    "Setup",
    "dense",
    "init_stack",
    "norm",
    "remat",
    "rotate",
    "run_stack",
]

REMAT = ("none", "full", "dots")
"""What a stack keeps for the backward pass: all, nothing, or results of matmuls."""


def _same(array: jax.Array, names: tuple[str, ...]) -> jax.Array:
    del names
    return array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """How a model computes; its numbers do not depend on it, but for rounding.

    Attributes:
      dtype: Type of the activations.
      param_dtype: Type of the parameters.
      attention: "plain", "cudnn" or "tpu_flash".
      remat: One of `REMAT`.
      scan: Whether stacks are loops in the compiled program, or written out.
      constrain: `constrain(array, names)` is called on activations with names of their
        axes, to pin shardings; by default nothing. One with `parts(name)`, as
        `sharding.activation_constraint` makes it, also says what lengths must divide.
      mesh: Where "tpu_flash" is split, or None for one device.
      lora: Which kernels are adapted, or None.
    """

    dtype: Any = jnp.bfloat16
    param_dtype: Any = jnp.float32
    attention: str = "plain"
    remat: str = "none"
    scan: bool = True
    constrain: Callable[[jax.Array, tuple[str, ...]], jax.Array] = _same
    mesh: Mesh | None = None
    lora: LoRA | None = None


class Linear(nn.DenseGeneral):
    """A linear layer over the last axes of its input, with LoRA if it is asked for.

    Attributes:
      lora: Of the product beside the kernel, or None.
      names: Logical names of the input axes, and of the output axes.
    """

    lora: LoRA | None = None
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[..., outputs] from [..., inputs]."""
        out = super().__call__(inputs)
        if self.lora is None:
            return out
        into, outof = self.names
        last = tuple(range(inputs.ndim - len(into), inputs.ndim))
        sizes = tuple(inputs.shape[axis] for axis in last)
        rank, first = self.lora.rank, tuple(range(len(into)))
        # Uniform in +-1 / sqrt(inputs).
        spread = nn.initializers.variance_scaling(
            1 / 3, "fan_in", "uniform", in_axis=first, out_axis=-1
        )
        narrow = nn.with_logical_partitioning(spread, (*into, "rank"))
        zeros = nn.initializers.zeros_init()
        widen = nn.with_logical_partitioning(zeros, ("rank", *outof))
        # As small as they are, masters in less than float32 would save nothing.
        a = self.param("lora_a", narrow, (*sizes, rank), jnp.float32)
        b = self.param("lora_b", widen, (rank, *out.shape[last[0] :]), jnp.float32)
        x, a, b = (part.astype(out.dtype) for part in (inputs, a, b))
        hidden = jax.lax.dot_general(x, a, ((last, first), ((), ())))
        return out + self.lora.scale * jnp.tensordot(hidden, b, axes=1)


def dense(
    setup: Setup,
    features: tuple[int, ...],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    *,
    bias: bool,
    name: str | None = None,
    lora: LoRA | None = None,
) -> Linear:
    """A linear layer over the last axes of its input.

    Args:
      setup: Types.
      features: Sizes of the output's axes.
      inputs: Logical names of the kernel's input axes.
      outputs: Logical names of its output axes; the bias has them too.
      bias: Whether there is one.
      name: Name in the parameter tree.
      lora: Adapts the kernel if it is one of its targets.

    Returns:
      The module.
    """
    chosen = lora is not None and name in lora.targets
    init = nn.initializers.normal(0.02)
    zeros = nn.initializers.zeros_init()
    return Linear(
        features,
        axis=tuple(range(-len(inputs), 0)),
        use_bias=bias,
        dtype=setup.dtype,
        param_dtype=setup.param_dtype,
        kernel_init=nn.with_logical_partitioning(init, (*inputs, *outputs)),
        bias_init=nn.with_logical_partitioning(zeros, outputs),
        name=name,
        lora=lora if chosen else None,
        names=(inputs, outputs),
    )


def norm(
    setup: Setup, kind: str, eps: float, axis: str, name: str | None = None
) -> nn.Module:
    """A norm computed in float32: "rms", or "layer" with mean and bias."""
    ones = nn.with_logical_partitioning(nn.initializers.ones_init(), (axis,))
    shared = {
        "epsilon": eps,
        "dtype": setup.dtype,
        "param_dtype": setup.param_dtype,
        "scale_init": ones,
        "use_fast_variance": False,
        "name": name,
    }
    if kind == "rms":
        return nn.RMSNorm(**shared)
    zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), (axis,))
    return nn.LayerNorm(bias_init=zeros, **shared)


def rotate(array: jax.Array, angles: jax.Array) -> jax.Array:
    """Heads with their halves rotated against each other, computed in float32.

    Args:
      array: [S, T, H, E].
      angles: [S, T, E / 2] float32, radians.

    Returns:
      [S, T, H, E] of the same type.
    """
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(array.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(array.dtype)


def remat(function: Callable, setup: Setup) -> Callable:
    """The function, keeping for its backward pass what `setup.remat` says."""
    if setup.remat == "none":
        return function
    policy = None
    if setup.remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(function, policy=policy, prevent_cse=not setup.scan)


def run_stack(layer: Callable, x: Any, params: Any, setup: Setup) -> Any:
    """The layers of a stack, one after another.

    Args:
      layer: `layer(x, layer_params) -> x`.
      x: What goes through, any pytree.
      params: A tree whose leaves have a leading axis of layers.
      setup: Whether to loop or to write out, and what to keep.

    Returns:
      What comes out.
    """
    layer = remat(layer, setup)
    count = jax.tree.leaves(params)[0].shape[0]
    if setup.scan and count > 1:
        return jax.lax.scan(lambda x, p: (layer(x, p), None), x, params)[0]
    for index in range(count):
        x = layer(x, jax.tree.map(lambda leaf: leaf[index], params))  # noqa: B023
    return x


def init_stack(module: nn.Module, key: jax.Array, count: int, *args: Any) -> Any:
    """Parameters of `count` layers on a leading axis, boxed with their axes' names."""
    keys = jax.random.split(key, count)
    return jax.vmap(lambda key: module.init(key, *args)["params"])(keys)
