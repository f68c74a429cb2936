"""The train step with the policy and the loss that experiments use."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import stepjax
from stepjax.batching import flatten_steps, pack_single_update, pack_steps
from stepjax.models.pointer import make_pointer_policy
from stepjax.training.sharding import (
    batch_sharding,
    infer_state_sharding,
    make_mesh,
    shard_state,
)
from stepjax.training.state import init_train_state
from stepjax.training.step import jit_train_step, make_train_step
from stepjax.types import ScreenPrompt, Trajectories
from tests.training.toy import assert_close, host

ROUND, STEPS, WORDS, WIDGETS, LABEL, PAST = 12, 4, 6, 5, 2, 2
POLICY = make_pointer_policy(width=16, layers=1, heads=2)
# Plain descent: Adam would blow rounding of near-zero gradients up to its step size.
TX = optax.sgd(1.0)


def make_prompt(rng, rows):
    def words(*shape):
        return rng.integers(1, 300, (rows, *shape), dtype=np.int32)

    return ScreenPrompt(
        words=words(WORDS),
        clause=words(WORDS) % 2,
        widget_words=words(WIDGETS, LABEL),
        widget_role=words(WIDGETS) % 16,
        widget_state=words(WIDGETS) % 8,
        widget_box=rng.random((rows, WIDGETS, 4), np.float32),
        widget_mask=np.tile(np.arange(WIDGETS) < 4, (rows, 1)),
        history_kind=np.full((rows, PAST), -1, np.int32),
        history_words=np.zeros((rows, PAST, LABEL), np.int32),
    )


@functools.cache
def make_round():
    """Start parameters and trajectories they sampled."""
    rng = np.random.default_rng(0)
    prompt = make_prompt(rng, ROUND * STEPS)
    params = jax.jit(POLICY.init)(jax.random.key(0), prompt)
    keys = jax.random.split(jax.random.key(1), ROUND * STEPS)
    sampled = jax.jit(functools.partial(POLICY.sample, temperature=1.0))(
        params, prompt, keys
    )
    shaped = jax.tree.map(
        lambda x: np.asarray(x).reshape(ROUND, STEPS, *x.shape[1:]), (prompt, sampled)
    )
    prompt, (tokens, token_mask, log_prob) = shaped
    trajectories = Trajectories(
        task_id=np.arange(ROUND, dtype=np.int32) // 4,
        prompt=prompt,
        action_tokens=tokens,
        token_mask=token_mask,
        log_prob=log_prob,
        step_mask=np.arange(STEPS) < rng.integers(1, STEPS + 1, (ROUND, 1)),
        state_hash=np.zeros((ROUND, STEPS), np.uint32),
        reward=(np.arange(ROUND) % 2).astype(np.float32),
        valid=np.ones(ROUND, bool),
    )
    advantage = jax.vmap(functools.partial(stepjax.group_advantages, std_floor=1e-6))(
        trajectories.reward.reshape(3, 4), jnp.ones((3, 4), bool)
    ).reshape(-1)
    return params, flatten_steps(trajectories, advantage)


def loss_fn(output, batch, reduction=stepjax.token_mean):
    return stepjax.step_grpo_loss(
        output.log_prob,
        batch,
        entropy=output.entropy,
        entropy_coef=0.01,
        reduction=reduction,
    )


def make_state():
    params, _ = make_round()
    return init_train_state(
        jax.random.key(0),
        params,
        TX,
        success_rate=stepjax.init_success_rate(3),
        task_ids=jnp.arange(3),
    )


def one_update(batch, loss=loss_fn, **options):
    step = jax.jit(make_train_step(POLICY.evaluate, TX, loss, **options))
    return step(make_state(), batch)


@pytest.mark.slow
def test_split_padding_and_order_are_invisible():
    _, rows = make_round()
    whole, metrics = one_update(rows)
    assert float(metrics["updates"]) == 1
    np.testing.assert_allclose(metrics["ratio"], 1.0, atol=1e-5)
    assert float(metrics["entropy"]) > 0
    (shuffled,) = pack_steps(rows, seed=0, rows_per_update=64)
    (cut,) = pack_single_update(rows, micro_batch_size=8)
    for other in (
        one_update(shuffled),
        one_update(cut, micro_batch_size=8),
    ):
        assert_close(whole.params, other[0].params, tolerance=1e-5)
        assert_close(metrics, other[1], tolerance=1e-5)


@pytest.mark.slow
def test_trajectory_mean_survives_the_cut():
    """As weights over all rows first; a mean per trajectory and part would not."""
    _, rows = make_round()
    weight = stepjax.trajectory_weights(
        jnp.asarray(rows.weight), jnp.asarray(rows.trajectory_id)
    )
    weighted = dataclasses.replace(rows, weight=np.asarray(weight))
    direct = functools.partial(loss_fn, reduction=stepjax.trajectory_mean)
    by_step = functools.partial(loss_fn, reduction=stepjax.step_mean)
    (cut,) = pack_single_update(weighted, micro_batch_size=8)
    left, left_metrics = one_update(rows, direct)
    right, right_metrics = one_update(cut, by_step, micro_batch_size=8)
    assert_close(left.params, right.params, tolerance=1e-5)
    np.testing.assert_allclose(left_metrics["loss"], right_metrics["loss"], atol=1e-5)


@pytest.mark.slow
def test_devices_are_invisible():
    _, rows = make_round()
    batches = pack_steps(rows, seed=0, rows_per_update=20, pad_to=32)
    results = []
    for mesh in (make_mesh(devices=jax.devices()[:1]), make_mesh(2, 2, 2)):
        sharding = infer_state_sharding(jax.eval_shape(make_state), mesh)
        step = jit_train_step(
            make_train_step(POLICY.evaluate, TX, loss_fn),
            state_sharding=sharding,
            batch_sharding=batch_sharding(mesh),
        )
        state = shard_state(make_state(), sharding)
        for batch in batches:
            state, _ = step(state, batch)
        results.append(host(state))
    assert int(results[0].step) == len(batches) >= 2
    assert_close(*results, tolerance=2e-5)


@pytest.mark.slow
def test_rewarded_actions_become_likelier():
    params, rows = make_round()
    step = jax.jit(make_train_step(POLICY.evaluate, optax.adam(1e-2), loss_fn))
    state = dataclasses.replace(make_state(), opt_state=optax.adam(1e-2).init(params))
    for _ in range(5):
        state, _ = step(state, rows)
    now = jax.jit(POLICY.evaluate)(
        state.params, rows.prompt, rows.action_tokens, rows.token_mask
    )
    gain = (now.log_prob - rows.old_log_prob).sum(axis=1)
    assert gain[rows.advantage > 0].mean() > 0 > gain[rows.advantage < 0].mean()
