"""Behavior cloning: it learns what was shown, and the same way every time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.training.cloning import clone_policy
from stepjax.types import PolicyOutput


def table_policy(params, prompt, action_tokens, token_mask):
    log_probs = jax.nn.log_softmax(params["table"][prompt])  # [S, V]
    log_prob = jnp.take_along_axis(log_probs, action_tokens, axis=-1)
    return PolicyOutput(
        log_prob=jnp.where(token_mask, log_prob, 0.0),
        entropy=jnp.zeros_like(log_prob),
    )


def clone(**changes):
    prompt = np.repeat(np.arange(3), 40)
    tokens = np.where(np.arange(120) % 4 == 0, 1, 2)[:, None].astype(np.int32)
    mask = np.ones((120, 1), bool)
    tokens[prompt == 2], mask[prompt == 2] = 0, False  # shown, but not to be imitated
    settings = {
        "key": jax.random.key(0),
        "num_steps": 300,
        "batch_size": 64,
        "learning_rate": 0.1,
    }
    params = {"table": jnp.zeros((3, 4))}
    return clone_policy(
        table_policy, params, prompt, tokens, mask, **(settings | changes)
    )


def test_shares_of_demonstrated_actions_are_learned():
    learned = np.asarray(jax.nn.softmax(clone()["table"], axis=-1))
    np.testing.assert_allclose(learned[:2, 1], 0.25, atol=0.06)
    np.testing.assert_allclose(learned[:2, 2], 0.75, atol=0.06)
    np.testing.assert_allclose(learned[2], 0.25, atol=1e-6)


def test_same_key_same_bits_and_loss_falls():
    losses = []
    first = clone(report=lambda step, loss: losses.append((step, loss)))
    np.testing.assert_array_equal(first["table"], clone()["table"])
    assert [step for step, _ in losses] == [50, 100, 150, 200, 250, 300]
    assert losses[-1][1] < losses[0][1]


def test_the_learning_rate_may_rise_first():
    def moved(**changes):
        return float(jnp.max(jnp.abs(clone(steps_per_report=1, **changes)["table"])))

    assert moved(num_steps=2, warmup_steps=1) < 1.1 * moved(num_steps=1)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="warmup_steps must be in"):
            clone(num_steps=3, warmup_steps=wrong)


def test_the_memory_of_squared_gradients_can_be_set():
    usual, short = clone(num_steps=50), clone(num_steps=50, b2=0.9)
    assert not np.array_equal(usual["table"], short["table"])
    np.testing.assert_array_equal(
        usual["table"], clone(num_steps=50, b2=0.999)["table"]
    )


def test_rejects_no_updates():
    with pytest.raises(ValueError, match="num_steps must be >= 1, got 0"):
        clone(num_steps=0)
