"""Estimators of the KL divergence to a reference, and the entropy."""

import jax
import jax.numpy as jnp

from stepjax._checks import check_float, check_same_shape

__all__ = ["entropy", "kl_k1", "kl_k2", "kl_k3"]


def _difference(where: str, log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    check_same_shape(where, log_prob=log_prob, ref_log_prob=ref_log_prob)
    check_float(where, log_prob=log_prob, ref_log_prob=ref_log_prob)
    return jnp.asarray(log_prob, jnp.float32) - jnp.asarray(ref_log_prob, jnp.float32)


def kl_k1(log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    """The log-ratio: unbiased for the KL divergence, but noisy and often negative.

        k1 = log p - log p_ref,   tokens drawn from p

    Its own gradient is that of the log-probability and has mean 0: use it to measure
    or inside the reward, not as a loss term.

    Args:
      log_prob: [...] float. Under the current policy.
      ref_log_prob: [...] float. Under the reference.

    Returns:
      [...] float32.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> kl_k1(jnp.array([-1.0]), jnp.array([-1.5]))
      Array([0.5], dtype=float32)

    Source: J. Schulman, "Approximating KL divergence" (2020), k1.
    """
    return _difference("kl_k1", log_prob, ref_log_prob)


def kl_k2(log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    """Half the squared log-ratio: biased, never negative, right gradient on policy.

        k2 = (log p - log p_ref)^2 / 2

    Args:
      log_prob: [...] float. Under the current policy.
      ref_log_prob: [...] float. Under the reference.

    Returns:
      [...] float32.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> kl_k2(jnp.array([-1.0]), jnp.array([-2.0]))
      Array([0.5], dtype=float32)

    Source: J. Schulman, "Approximating KL divergence" (2020), k2.
    """
    return 0.5 * jnp.square(_difference("kl_k2", log_prob, ref_log_prob))


def kl_k3(log_prob: jax.Array, ref_log_prob: jax.Array) -> jax.Array:
    """The estimator GRPO uses: unbiased and never negative.

        k3 = exp(d) - d - 1,   d = log p_ref - log p

    Args:
      log_prob: [...] float. Under the current policy.
      ref_log_prob: [...] float. Under the reference.

    Returns:
      [...] float32. `d` is held in [-20, 20] to stay finite.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> kl_k3(jnp.array([-1.0]), jnp.array([-1.0]))
      Array([0.], dtype=float32)

    Source: GRPO (arXiv:2402.03300), eq. 4; J. Schulman, "Approximating KL divergence"
    (2020), k3. Some libraries also cut the value at 10; this does not.
    """
    d = jnp.clip(-_difference("kl_k3", log_prob, ref_log_prob), -20.0, 20.0)
    return jnp.expm1(d) - d


def entropy(logits: jax.Array) -> jax.Array:
    """The entropy of the distributions over the last axis, in nats.

    Args:
      logits: [..., V] float. -inf excludes an entry; at least one must be finite.

    Returns:
      [...] float32. Its gradient is finite, also where entries are excluded.

    Raises:
      TypeError: At trace time, if the logits are not floats.

    Example:
      >>> entropy(jnp.array([0.0, 0.0, -jnp.inf]))
      Array(0.6931472, dtype=float32)

    Source: Shannon; -sum p log p.
    """
    check_float("entropy", logits=logits)
    log_p = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32), axis=-1)
    p = jnp.exp(log_p)
    # 0 * -inf is NaN; an excluded entry contributes nothing.
    return -jnp.sum(p * jnp.where(p > 0, log_p, 0.0), axis=-1)
