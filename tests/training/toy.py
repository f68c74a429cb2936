"""A small policy, a small loss and random rows, for the tests of this folder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stepjax.training.state import TrainState, init_train_state
from stepjax.types import (
    LossOutput,
    PolicyOutput,
    StepBatch,
    SuccessRateRecord,
    WeightedSum,
)

FEATURES, HIDDEN, TOKENS, VOCABULARY, TASKS = 6, 16, 3, 8, 10


def init_params(seed=0):
    rng = np.random.default_rng(seed)
    width = TOKENS * VOCABULARY

    def normal(*shape):
        return jnp.asarray(0.3 * rng.normal(size=shape), jnp.float32)

    return {
        "body": {"kernel": normal(FEATURES, HIDDEN)},
        "head": {"kernel": normal(HIDDEN, width), "bias": normal(width)},
    }


def policy_fn(params, prompt, action_tokens, token_mask):
    hidden = jnp.tanh(
        prompt["x"].astype(params["body"]["kernel"].dtype) @ params["body"]["kernel"]
    )
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"][None, :]
    logits = logits.reshape(*action_tokens.shape, VOCABULARY).astype(jnp.float32)
    log_probs = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probs, action_tokens[..., None], axis=-1)[..., 0]
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return PolicyOutput(
        log_prob=jnp.where(token_mask, chosen, 0.0),
        entropy=jnp.where(token_mask, entropy, 0.0),
    )


def loss_fn(output, batch):
    token_weight = batch.weight[:, None] * batch.token_mask
    ratio = jnp.exp(output.log_prob - batch.old_log_prob)
    weight = jnp.sum(token_weight)
    total = -jnp.sum(token_weight * batch.advantage[:, None] * ratio)
    entropy = jnp.sum(token_weight * output.entropy)
    return LossOutput(
        loss=WeightedSum(total=total, weight=weight),
        metrics={"entropy": WeightedSum(total=entropy, weight=weight)},
    )


def make_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    token_mask = rng.random((count, TOKENS)) < 0.7
    token_mask[:, 0] = True
    return StepBatch(
        prompt={
            "x": rng.normal(size=(count, FEATURES)).astype(np.float32),
            "label": rng.integers(0, 9, (count, 2, 2), dtype=np.int32),
        },
        action_tokens=rng.integers(0, VOCABULARY, (count, TOKENS), dtype=np.int32),
        token_mask=token_mask,
        old_log_prob=np.where(
            token_mask, -2.1 + 0.1 * rng.random((count, TOKENS)), 0.0
        ).astype(np.float32),
        advantage=rng.normal(size=count).astype(np.float32),
        weight=rng.choice([0.25, 1.0], count).astype(np.float32),
        task_id=rng.integers(0, TASKS, count, dtype=np.int32),
        trajectory_id=(np.arange(count) // 5).astype(np.int32),
    )


def make_optimizer():
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))


def make_state(tx, seed=0):
    return init_train_state(
        jax.random.key(seed),
        init_params(seed),
        tx,
        success_rate=SuccessRateRecord(
            rate=jnp.zeros((TASKS,)), visits=jnp.zeros((TASKS,), jnp.int32)
        ),
        task_ids=jnp.arange(TASKS),
    )


def host(tree):
    """Numpy copies of all leaves, typed keys as their data."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(
        lambda x: np.array(jax.random.key_data(x) if is_key(x) else x), tree
    )


def assert_identical(left: TrainState, right: TrainState):
    jax.tree.map(np.testing.assert_array_equal, host(left), host(right))


def assert_close(left, right, tolerance=2e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=tolerance),
        host(left),
        host(right),
    )
