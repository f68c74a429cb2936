"""Behavior cloning: the warm start without which training never sees a success."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stepjax.types import PolicyOutput

__all__ = ["clone_policy"]


def clone_policy(
    policy_fn: Callable[..., PolicyOutput],
    params: Any,
    prompt: Any,
    action_tokens: jax.Array,
    token_mask: jax.Array,
    *,
    key: jax.Array,
    num_steps: int,
    batch_size: int,
    learning_rate: float,
    b2: float = 0.999,
    warmup_steps: int = 0,
    steps_per_report: int = 50,
    report: Callable[[int, float], None] | None = None,
) -> Any:
    """Parameters that imitate demonstrated actions, from maximum likelihood.

        loss = - sum(log pi(token)) / number of tokens

    Adam with a cosine learning rate; each step draws its rows at random.

    Args:
      policy_fn: `policy_fn(params, prompt, action_tokens, token_mask)`.
      params: Where to start.
      prompt: Pytree with leading axis S, what the demonstrator saw.
      action_tokens: [S, A] int32. What it did.
      token_mask: [S, A] bool. True for tokens it chose.
      key: Consumed.
      num_steps: Optimizer updates, rounded up to whole reports.
      batch_size: Rows of an update.
      learning_rate: At its highest; it falls to zero.
      b2: Decay of Adam's mean of squared gradients. With a policy whose first
        gradients are far larger than all later ones, 0.98 forgets them in time.
      warmup_steps: Updates in which the learning rate rises from zero, of `num_steps`.
      steps_per_report: Updates between two calls of `report`.
      report: `report(updates_done, mean_loss)` with the loss in nats per token.

    Returns:
      The trained parameters.

    Raises:
      ValueError: At the call, if there are no rows, a count is below 1, or
        `warmup_steps` leaves no update at the full rate.

    Example:
      See docs/composing.md.
    """
    num_rows = action_tokens.shape[0]
    counts = {
        "rows": num_rows,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "steps_per_report": steps_per_report,
    }
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"clone_policy: {name} must be >= 1, got {value}.")
    num_reports = -(-num_steps // steps_per_report)
    if not 0 <= warmup_steps < num_steps:
        raise ValueError(
            f"clone_policy: warmup_steps must be in [0, num_steps = {num_steps}), got "
            f"{warmup_steps}."
        )
    rest = num_reports * steps_per_report - warmup_steps
    schedule = optax.cosine_decay_schedule(learning_rate, rest)
    if warmup_steps:
        rising = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        schedule = optax.join_schedules([rising, schedule], [warmup_steps])
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=b2))

    def loss_fn(params: Any, rows: tuple) -> jax.Array:
        log_prob = policy_fn(params, *rows).log_prob
        return -jnp.sum(log_prob) / jnp.maximum(jnp.sum(rows[2]), 1)

    @jax.jit
    def run(carry: tuple, data: tuple, key: jax.Array) -> tuple:
        def update(carry: tuple, key: jax.Array) -> tuple:
            params, opt_state = carry
            picked = jax.random.randint(key, (batch_size,), 0, num_rows)
            rows = jax.tree.map(lambda leaf: leaf[picked], data)
            loss, grads = jax.value_and_grad(loss_fn)(params, rows)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        carry, losses = jax.lax.scan(
            update, carry, jax.random.split(key, steps_per_report)
        )
        return carry, jnp.mean(losses)

    carry = (params, tx.init(params))
    data = jax.tree.map(jnp.asarray, (prompt, action_tokens, token_mask))
    for number in range(num_reports):
        carry, loss = run(carry, data, jax.random.fold_in(key, number))
        if report is not None:
            report((number + 1) * steps_per_report, float(loss))
    return carry[0]
