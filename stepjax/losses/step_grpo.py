"""The STEP loss: ratio, clipped loss, KL and entropy terms over a batch of steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stepjax._checks import check_shapes
from stepjax.losses.kl import kl_k3
from stepjax.losses.policy import clipped_ratio_loss, token_ratio
from stepjax.losses.reductions import token_mean
from stepjax.types import LossOutput, StepBatch, WeightedSum

__all__ = ["step_grpo_loss"]

Number = float | jax.Array


def step_grpo_loss(
    log_prob: jax.Array,
    batch: StepBatch,
    *,
    clip_eps_low: Number = 0.2,
    clip_eps_high: Number = 0.3,
    dual_clip: Number = 3.0,
    kl_coef: Number = 0.0,
    ref_log_prob: jax.Array | None = None,
    entropy_coef: Number = 0.0,
    entropy: jax.Array | None = None,
    sampler_weight: jax.Array | None = None,
    ratio_fn: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = token_ratio,
    reduction: Callable[..., WeightedSum] = token_mean,
) -> LossOutput:
    """The loss of a batch of steps and what to log, as sums that are not divided yet.

        l = w_sampler * clipped(ratio, A) + kl_coef * k3 - entropy_coef * entropy

    Add the outputs of micro-batches with `jax.tree.map(jnp.add, a, b)` and divide once,
    by the weight of the whole mini-batch (`safe_divide(loss.total, loss.weight)`). The
    result then does not depend on how the batch is cut over micro-batches, devices or
    hosts; dividing each part by its own token count would.

    Args:
      log_prob: [S, A] float. Of the action tokens under the current policy.
      batch: The steps. Rows of weight 0 and masked tokens may hold anything.
      clip_eps_low: How far below 1 a ratio counts.
      clip_eps_high: How far above 1 a ratio counts.
      dual_clip: Ratio at which the loss of a negative advantage stops growing;
        infinity for no bound.
      kl_coef: Weight of the KL term. 0 while `ref_log_prob` is None.
      ref_log_prob: [S, A] float. Under the frozen reference, or None. Not
        differentiated.
      entropy_coef: Weight of the entropy bonus. 0 while `entropy` is None.
      entropy: [S, A] float. Entropy of each token's distribution, in nats, or None;
        logged if given.
      sampler_weight: [S, A] float. Multiplier of the policy loss, from
        `truncated_importance_weight`, or None for 1.
      ratio_fn: Ratio of one step, `token_ratio` or `sequence_ratio`.
      reduction: `token_mean`, `step_mean`, `trajectory_mean` or your own.

    Returns:
      Loss and the metrics `ratio`, `clip_fraction`, `approx_kl` (to the policy that
      acted), and `kl` (to the reference) and `entropy` where these were given; metrics
      are token means and are not differentiated.

    Raises:
      ValueError: At trace time, if shapes are wrong or a coefficient comes without its
        array.

    Example:
      >>> batch = StepBatch(
      ...     prompt=None, action_tokens=jnp.zeros((1, 2), jnp.int32),
      ...     token_mask=jnp.array([[True, False]]), old_log_prob=jnp.zeros((1, 2)),
      ...     advantage=jnp.array([0.5]), weight=jnp.ones(1),
      ...     task_id=jnp.zeros(1, jnp.int32), trajectory_id=jnp.zeros(1, jnp.int32),
      ... )
      >>> out = step_grpo_loss(jnp.zeros((1, 2)), batch)
      >>> print(out.loss.total, out.loss.weight)
      -0.5 1.0

    Source: STEP (arXiv:2511.13091) gives the advantages; its objective is in an
    appendix we could not read. The clip bounds 0.2, 0.3 and 3.0, the token mean and the
    absent KL term are those of ARPO (arXiv:2505.16282), the closest known recipe.
    """
    _check(
        log_prob, batch, kl_coef, ref_log_prob, entropy_coef, entropy, sampler_weight
    )
    live = jnp.asarray(batch.token_mask) & (jnp.asarray(batch.weight) > 0)[:, None]

    def clean(x: jax.Array) -> jax.Array:
        # Before any arithmetic, or NaN in padding would reach the gradient.
        return jnp.where(live, jnp.asarray(x, jnp.float32), 0.0)

    new, old = clean(log_prob), jax.lax.stop_gradient(clean(batch.old_log_prob))
    ratio = jax.vmap(ratio_fn)(new, old, live)
    if ratio.ndim == 1:
        ratio = jnp.broadcast_to(ratio[:, None], live.shape)
    values, clipped = clipped_ratio_loss(
        ratio,
        clean(jnp.broadcast_to(jnp.asarray(batch.advantage)[:, None], live.shape)),
        clip_eps_low=clip_eps_low,
        clip_eps_high=clip_eps_high,
        dual_clip=dual_clip,
    )
    logged = {
        "ratio": ratio,
        "clip_fraction": clipped.astype(jnp.float32),
        # Tokens were drawn from the old policy, so that is the one the mean runs over.
        "approx_kl": kl_k3(old, new),
    }
    if sampler_weight is not None:
        values = values * jax.lax.stop_gradient(clean(sampler_weight))
    if ref_log_prob is not None:
        kl = kl_k3(new, jax.lax.stop_gradient(clean(ref_log_prob)))
        values = values + jnp.float32(kl_coef) * kl
        logged["kl"] = kl
    if entropy is not None:
        bonus = clean(entropy)
        values = values - jnp.float32(entropy_coef) * bonus
        logged["entropy"] = bonus
    return LossOutput(
        loss=reduction(
            values, live, weight=batch.weight, trajectory_id=batch.trajectory_id
        ),
        metrics={
            name: token_mean(jax.lax.stop_gradient(x), live, weight=batch.weight)
            for name, x in logged.items()
        },
    )


def _check(
    log_prob: jax.Array,
    batch: StepBatch,
    kl_coef: Number,
    ref_log_prob: jax.Array | None,
    entropy_coef: Number,
    entropy: jax.Array | None,
    sampler_weight: jax.Array | None,
) -> None:
    arrays: dict[str, tuple[Any, str]] = {
        "log_prob": (log_prob, "S A"),
        "batch.token_mask": (batch.token_mask, "S A"),
        "batch.old_log_prob": (batch.old_log_prob, "S A"),
        "batch.advantage": (batch.advantage, "S"),
        "batch.weight": (batch.weight, "S"),
        "batch.trajectory_id": (batch.trajectory_id, "S"),
    }
    optional = {
        "ref_log_prob": ref_log_prob,
        "entropy": entropy,
        "sampler_weight": sampler_weight,
    }
    arrays |= {k: (v, "S A") for k, v in optional.items() if v is not None}
    check_shapes("step_grpo_loss", **arrays)
    for name, coef, needed in (
        ("kl_coef", kl_coef, "ref_log_prob"),
        ("entropy_coef", entropy_coef, "entropy"),
    ):
        off = isinstance(coef, int | float) and coef == 0
        if not off and optional[needed] is None:
            raise ValueError(
                f"step_grpo_loss: {name} needs {needed}, which is None. Pass "
                f"{needed} [S, A] or leave {name} at 0."
            )
