"""Importance ratios and the clipped policy loss built on them."""

import jax
import jax.numpy as jnp

from stepjax._checks import (
    check_bool,
    check_float,
    check_range,
    check_same_shape,
    check_shapes,
)
from stepjax.kernels.masked import masked_mean

__all__ = [
    "clipped_policy_loss",
    "clipped_ratio_loss",
    "sequence_ratio",
    "token_ratio",
    "truncated_importance_weight",
]

Number = float | jax.Array
_MAX_LOG_RATIO = 20.0


def _log_ratio(log_prob: jax.Array, old_log_prob: jax.Array) -> jax.Array:
    old = jax.lax.stop_gradient(jnp.asarray(old_log_prob, jnp.float32))
    return jnp.asarray(log_prob, jnp.float32) - old


def token_ratio(
    log_prob: jax.Array, old_log_prob: jax.Array, token_mask: jax.Array
) -> jax.Array:
    """The importance ratio of each token of a step.

    Args:
      log_prob: [A] float. Under the current policy; padding may hold anything.
      old_log_prob: [A] float. Under the policy that acted. Not differentiated.
      token_mask: [A] bool. True for tokens the policy chose.

    Returns:
      [A] float32. `exp(log_prob - old_log_prob)`, the difference held in [-20, 20]; 1
      where `token_mask` is False.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> token_ratio(jnp.zeros(2), jnp.zeros(2), jnp.array([True, False]))
      Array([1., 1.], dtype=float32)

    Source: PPO (arXiv:1707.06347), eq. 6.
    """
    _check_step("token_ratio", log_prob, old_log_prob, token_mask)
    log_ratio = jnp.where(token_mask, _log_ratio(log_prob, old_log_prob), 0.0)
    return jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def sequence_ratio(
    log_prob: jax.Array, old_log_prob: jax.Array, token_mask: jax.Array
) -> jax.Array:
    """The importance ratio of a whole step, its geometric mean over tokens.

        s = exp(mean over tokens of (log p - log p_old))

    Clip it with much smaller bounds than a token's ratio (3e-4 and 4e-4 in the paper)
    and reduce with `step_mean`.

    Args:
      log_prob: [A] float. Under the current policy; padding may hold anything.
      old_log_prob: [A] float. Under the policy that acted. Not differentiated.
      token_mask: [A] bool. True for tokens the policy chose.

    Returns:
      [] float32. 1 if no token is real.

    Raises:
      ValueError: At trace time, if shapes are wrong (batched input: `jax.vmap`).

    Example:
      >>> new, old = jnp.log(jnp.array([0.4, 0.1])), jnp.log(jnp.array([0.1, 0.1]))
      >>> print(f"{sequence_ratio(new, old, jnp.array([True, True])):.3f}")
      2.000

    Source: GSPO (arXiv:2507.18071), the sequence-level ratio.
    """
    _check_step("sequence_ratio", log_prob, old_log_prob, token_mask)
    mean = masked_mean(_log_ratio(log_prob, old_log_prob), token_mask)
    return jnp.exp(jnp.clip(mean, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def _check_step(
    where: str, log_prob: jax.Array, old_log_prob: jax.Array, token_mask: jax.Array
) -> None:
    check_shapes(
        where,
        log_prob=(log_prob, "A"),
        old_log_prob=(old_log_prob, "A"),
        token_mask=(token_mask, "A"),
    )
    check_float(where, log_prob=log_prob, old_log_prob=old_log_prob)
    check_bool(where, token_mask=token_mask)


def clipped_ratio_loss(
    ratio: jax.Array,
    advantage: jax.Array,
    *,
    clip_eps_low: Number,
    clip_eps_high: Number,
    dual_clip: Number = jnp.inf,
) -> tuple[jax.Array, jax.Array]:
    """The clipped loss of given ratios, and where clipping took hold.

        l = max(-A * ratio, -A * clip(ratio, 1 - low, 1 + high))
        l = min(l, -A * dual_clip)   if A < 0

    Args:
      ratio: [...] float. Importance ratios, of tokens or of whole steps.
      advantage: [...] float, same shape or a scalar. Not differentiated.
      clip_eps_low: How far below 1 a ratio counts.
      clip_eps_high: How far above 1 a ratio counts.
      dual_clip: Ratio at which the loss of a negative advantage stops growing, above 1;
        infinity for no bound.

    Returns:
      `(loss, clipped)`: [...] float32, to be minimized, and [...] bool, True where the
      gradient is cut off.

    Raises:
      ValueError: At trace time, if shapes differ; on the call, if a Python number is
        out of range.

    Example:
      >>> loss, clipped = clipped_ratio_loss(
      ...     jnp.array([2.0, 2.0]), jnp.array([1.0, -1.0]),
      ...     clip_eps_low=0.2, clip_eps_high=0.25,
      ... )
      >>> print(loss, clipped)
      [-1.25  2.  ] [ True False]

    Source: PPO (arXiv:1707.06347), eq. 7; upper bound apart: DAPO (arXiv:2503.14476);
    dual clip: arXiv:1912.09729, eq. 8.
    """
    where = "clipped_ratio_loss"
    if jnp.ndim(advantage) > 0:
        check_same_shape(where, ratio=ratio, advantage=advantage)
    check_float(where, ratio=ratio, advantage=advantage)
    check_range(where, 0, 1, clip_eps_low=clip_eps_low)
    check_range(where, 0, float("inf"), clip_eps_high=clip_eps_high)
    check_range(where, 1, float("inf"), dual_clip=dual_clip)
    ratio = jnp.asarray(ratio, jnp.float32)
    gain = jax.lax.stop_gradient(jnp.asarray(advantage, jnp.float32))
    low, high = 1.0 - jnp.float32(clip_eps_low), 1.0 + jnp.float32(clip_eps_high)
    plain = -gain * ratio
    cut = -gain * jnp.clip(ratio, low, high)
    # Not jnp.maximum: at a tie (every unclipped token) it would split the gradient.
    loss = jnp.where(plain >= cut, plain, cut)
    negative = gain < 0
    # An infinite bound times an advantage of 0 would be NaN.
    ceiling = jnp.where(negative, -gain, 1.0) * jnp.float32(dual_clip)
    above = negative & (loss > ceiling)
    return jnp.where(above, ceiling, loss), (cut > plain) | above


def clipped_policy_loss(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantage: jax.Array,
    *,
    clip_eps_low: Number,
    clip_eps_high: Number,
    dual_clip: Number = jnp.inf,
) -> jax.Array:
    """The clipped policy loss of each token.

    Args:
      log_prob: [...] float. Under the current policy. Put zeros under a mask first.
      old_log_prob: [...] float. Under the policy that acted. Not differentiated.
      advantage: [...] float, same shape or a scalar. Not differentiated.
      clip_eps_low: How far below 1 a ratio counts.
      clip_eps_high: How far above 1 a ratio counts.
      dual_clip: See `clipped_ratio_loss`; infinity for no bound.

    Returns:
      [...] float32, to be minimized.

    Raises:
      ValueError: At trace time, if shapes differ; on the call, if a Python number is
        out of range.

    Example:
      >>> clipped_policy_loss(
      ...     jnp.log(jnp.array([0.4])), jnp.log(jnp.array([0.1])), jnp.array([1.0]),
      ...     clip_eps_low=0.2, clip_eps_high=0.25,
      ... )
      Array([-1.25], dtype=float32)

    Source: as `clipped_ratio_loss`, with the ratio of each token.
    """
    where = "clipped_policy_loss"
    check_same_shape(where, log_prob=log_prob, old_log_prob=old_log_prob)
    check_float(where, log_prob=log_prob, old_log_prob=old_log_prob)
    log_ratio = _log_ratio(log_prob, old_log_prob)
    ratio = jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))
    loss, _ = clipped_ratio_loss(
        ratio,
        advantage,
        clip_eps_low=clip_eps_low,
        clip_eps_high=clip_eps_high,
        dual_clip=dual_clip,
    )
    return loss


def truncated_importance_weight(
    old_log_prob: jax.Array, sampler_log_prob: jax.Array, *, max_weight: Number = 2.0
) -> jax.Array:
    """Weights that correct for a sampler whose log-probabilities differ from ours.

        w = min(p_old / p_sampler, max_weight)

    An inference engine and a trainer give the same token slightly different
    probabilities. Multiply the token losses by `w`.

    Args:
      old_log_prob: [...] float. Of the acting policy, computed by the trainer.
      sampler_log_prob: [...] float. As the sampler reported it.
      max_weight: Largest weight.

    Returns:
      [...] float32. Not differentiated.

    Raises:
      ValueError: At trace time, if the shapes differ.

    Example:
      >>> truncated_importance_weight(jnp.array([0.0, -2.0]), jnp.array([-2.0, -2.0]))
      Array([2., 1.], dtype=float32)

    Source: DART-GUI (arXiv:2509.23866), `min(pi_train_old / pi_rollout_old, C)`.
    """
    where = "truncated_importance_weight"
    check_same_shape(
        where, old_log_prob=old_log_prob, sampler_log_prob=sampler_log_prob
    )
    check_float(where, old_log_prob=old_log_prob, sampler_log_prob=sampler_log_prob)
    log_ratio = _log_ratio(old_log_prob, sampler_log_prob)
    weight = jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))
    return jax.lax.stop_gradient(jnp.minimum(weight, jnp.float32(max_weight)))
