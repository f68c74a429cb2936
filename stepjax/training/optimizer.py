"""AdamW, also with moments that take four bytes a parameter instead of eight."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["MOMENTS_DTYPES", "SmallAdamState", "make_adamw", "stochastic_round"]

MOMENTS_DTYPES = ("float32", "bfloat16")
"""What `make_adamw` can store moments in."""


class SmallAdamState(NamedTuple):
    """Moments of Adam in bfloat16.

    Attributes:
      count: [] int32. Updates so far.
      mu: First moments, as the parameters.
      nu: Second moments, as the parameters.
    """

    count: jax.Array
    mu: Any
    nu: Any


def make_adamw(
    learning_rate: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_grad_norm: float | None = None,
    moments_dtype: str = "float32",
) -> optax.GradientTransformation:
    """AdamW after clipping by global norm, with moments of the given dtype.

    A second moment with decay 0.999 moves by a thousandth of its size per update, less
    than bfloat16 can tell apart: rounded to nearest it would stand still. Moments in
    bfloat16 are therefore rounded up or down at random, in proportion, which is right
    on average. The draw depends on the update's number only, so a resumed run repeats
    it, on another mesh too.

    Args:
      learning_rate: Number or optax schedule.
      b1: Decay of the first moment, per update.
      b2: Decay of the second moment, per update.
      eps: Added to the root of the second moment.
      weight_decay: Decoupled, per unit of learning rate.
      max_grad_norm: Largest global norm of a gradient; None leaves gradients alone.
      moments_dtype: "float32" (optax's own AdamW of float32 parameters, whatever the
        parameters are in) or "bfloat16".

    Returns:
      The transformation.

    Raises:
      ValueError: If `moments_dtype` is another one.
    """
    if moments_dtype not in MOMENTS_DTYPES:
        raise ValueError(
            f"moments_dtype must be one of {MOMENTS_DTYPES}, got {moments_dtype!r}."
        )
    clip = [] if max_grad_norm is None else [optax.clip_by_global_norm(max_grad_norm)]
    if moments_dtype == "float32":
        adam = _scale_by_float32_adam(b1, b2, eps)
    else:
        adam = _scale_by_small_adam(b1, b2, eps)
    adamw = optax.chain(
        adam,
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
    # Nested as optax nests them, so that the state is named as optax names it.
    return optax.chain(*clip, adamw) if clip else adamw


def stochastic_round(x: jax.Array, key: jax.Array) -> jax.Array:
    """`x` in bfloat16, each entry rounded up or down so that its mean is exact.

    Args:
      x: [...] float32.
      key: [] key, consumed.

    Returns:
      [...] bfloat16. What is not finite stays what it is.
    """
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    bits = bits & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)


def _scale_by_float32_adam(
    b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """Optax's own, which would keep second moments in the type of the parameters."""
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=jnp.float32)

    def init(params: Any) -> optax.ScaleByAdamState:
        state: Any = adam.init(params)
        nu = jax.tree.map(lambda p: jnp.zeros_like(p, jnp.float32), params)
        return state._replace(nu=nu)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        large = jax.tree.map(lambda g: g.astype(jnp.float32), updates)
        return adam.update(large, state, params)

    return optax.GradientTransformation(init, update)


def _scale_by_small_adam(
    b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    def init(params: Any) -> SmallAdamState:
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.bfloat16), params)
        return SmallAdamState(count=jnp.zeros((), jnp.int32), mu=zeros, nu=zeros)

    def update(
        updates: Any, state: Any, params: Any = None
    ) -> tuple[Any, SmallAdamState]:
        del params
        count = state.count + 1
        key = jax.random.fold_in(jax.random.key(0), count)
        grads, structure = jax.tree.flatten(updates)
        results = []
        for index, (grad, mu, nu) in enumerate(
            zip(
                grads, jax.tree.leaves(state.mu), jax.tree.leaves(state.nu), strict=True
            )
        ):
            leaf_keys = jax.random.split(jax.random.fold_in(key, index))
            small = grad.astype(jnp.float32)
            mu = b1 * mu.astype(jnp.float32) + (1 - b1) * small
            nu = b2 * nu.astype(jnp.float32) + (1 - b2) * small * small
            step = (mu / (1 - b1**count)) / (jnp.sqrt(nu / (1 - b2**count)) + eps)
            results.append(
                (
                    step.astype(grad.dtype),
                    stochastic_round(mu, leaf_keys[0]),
                    stochastic_round(nu, leaf_keys[1]),
                )
            )
        step, mu, nu = (
            jax.tree.unflatten(structure, [row[i] for row in results]) for i in range(3)
        )
        return step, SmallAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)
