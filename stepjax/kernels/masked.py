"""Arithmetic that ignores padding, in value and in gradient."""

import jax
import jax.numpy as jnp

from stepjax._checks import check_bool, check_same_shape

__all__ = [
    "masked_center",
    "masked_mean",
    "masked_std",
    "masked_sum",
    "safe_divide",
]


def safe_divide(num: jax.Array, den: jax.Array) -> jax.Array:
    """The quotient, and 0 where the denominator is 0.

    Neither the value nor the gradient is NaN where `den` is 0.

    Args:
      num: [...] float. Numerator.
      den: [...] float. Denominator, of the same shape or a scalar.

    Returns:
      [...] float32. `num / den`; 0 where `den == 0`.

    Example:
      >>> safe_divide(jnp.array([1.0, 1.0]), jnp.array([2.0, 0.0]))
      Array([0.5, 0. ], dtype=float32)

    Source: ours; selecting twice is what keeps NaN out of the gradient.
    """
    num, den = jnp.asarray(num, jnp.float32), jnp.asarray(den, jnp.float32)
    usable = den != 0
    return jnp.where(usable, num / jnp.where(usable, den, 1.0), 0.0)


def _clean(where: str, x: jax.Array, mask: jax.Array) -> jax.Array:
    check_same_shape(where, x=x, mask=mask)
    check_bool(where, mask=mask)
    # Selecting before any arithmetic keeps NaN under the mask out of the gradient too.
    return jnp.where(mask, jnp.asarray(x, jnp.float32), 0.0)


def masked_sum(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The sum over real entries.

    Args:
      x: [...] float. Padding may hold anything.
      mask: [...] bool. True for real entries.

    Returns:
      [] float32.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> masked_sum(jnp.array([1.0, jnp.nan]), jnp.array([True, False]))
      Array(1., dtype=float32)

    Source: arithmetic.
    """
    return jnp.sum(_clean("masked_sum", x, mask))


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean over real entries, and 0 if there are none.

    Args:
      x: [...] float. Padding may hold anything.
      mask: [...] bool. True for real entries.

    Returns:
      [] float32.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False]))
      Array(2., dtype=float32)

    Source: arithmetic.
    """
    count = jnp.sum(mask, dtype=jnp.float32)
    return safe_divide(jnp.sum(_clean("masked_mean", x, mask)), count)


def masked_center(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Each real entry minus the mean of the real entries, exactly 0 if all are equal.

    The mean of seven times 0.9 is not 0.9 in float32. The smallest entry is therefore
    taken away first: equal entries become exact zeros before any rounding.

    Args:
      x: [...] float. Padding may hold anything.
      mask: [...] bool. True for real entries.

    Returns:
      [...] float32. 0 where `mask` is False.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> masked_center(jnp.array([1.0, 0.0]), jnp.array([True, True]))
      Array([ 0.5, -0.5], dtype=float32)

    Source: ours; the shift by the smallest entry changes rounding only.
    """
    x = _clean("masked_center", x, mask)
    if x.size == 0:
        return x
    lowest = jnp.min(jnp.where(mask, x, jnp.inf))
    # Centering does not depend on the shift, so its gradient is left out.
    shift = jax.lax.stop_gradient(jnp.where(jnp.any(mask), lowest, 0.0))
    shifted = jnp.where(mask, x - shift, 0.0)
    return jnp.where(mask, shifted - masked_mean(shifted, mask), 0.0)


def masked_std(
    x: jax.Array, mask: jax.Array, *, ddof: float | jax.Array = 1
) -> jax.Array:
    """The standard deviation of the real entries, in two passes.

    Args:
      x: [...] float. Padding may hold anything.
      mask: [...] bool. True for real entries.
      ddof: Subtracted from the count in the denominator; 1 is the sample deviation, 0
        the population deviation.

    Returns:
      [] float32. Exactly 0 if the entries agree or if at most `ddof` are real. Its
      gradient is 0 there, not NaN.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> masked_std(jnp.array([1.0, 3.0]), jnp.array([True, True]), ddof=0)
      Array(1., dtype=float32)

    Source: arithmetic.
    """
    centered = masked_center(x, mask)
    freedom = jnp.sum(mask, dtype=jnp.float32) - jnp.float32(ddof)
    variance = safe_divide(jnp.sum(centered**2), jnp.maximum(freedom, 0.0))
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)
