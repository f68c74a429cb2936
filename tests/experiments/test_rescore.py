"""Rows that a server sampled: what the trainer says of them, and what that weighs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import stepjax
from experiments.config import AlgoConfig, ExperimentConfig
from experiments.learner import _train_step, make_optimizer
from stepjax.training.state import init_train_state
from stepjax.types import PolicyOutput
from tests.experiments.test_qwen_vl import fake_policy, taken_rows

HEAT = 0.5
ACTION = 3


def evaluate(params, prompt, action_tokens, token_mask, *, temperature):
    """Token n of prompt p has log-probability -(n + p) / 10, by the temperature."""
    said = -(action_tokens + prompt[:, None]) / 10 / temperature
    said = jnp.where(token_mask, said + params["shift"], 0.0)
    return PolicyOutput(log_prob=said, entropy=jnp.zeros_like(said))


POLICY = dataclasses.replace(
    fake_policy([[0]]), evaluate=evaluate, remote=True, max_importance=1.5
)
PARAMS = {"shift": np.zeros((), np.float32)}


def rows_of(count, gap):
    """Rows whose sampler says `gap` [ACTION] more than the trainer, junk in padding."""
    rows = taken_rows([0] * count)
    tokens = np.arange(count * ACTION, dtype=np.int32).reshape(count, ACTION) % 7
    mask = np.ones((count, ACTION), bool)
    mask[1::2, 2:] = False
    own = -(tokens + np.arange(count)[:, None]) / 10 / HEAT
    said = np.where(mask, own + np.asarray(gap), 7.0).astype(np.float32)
    rows = dataclasses.replace(
        rows, action_tokens=tokens, token_mask=mask, old_log_prob=said
    )
    return rows, np.where(mask, own, 0.0)


def test_both_log_probabilities_stand_where_they_belong():
    rows, own = rows_of(21, 0.25)  # parts of eight, the last one short
    scored = POLICY.rescore(PARAMS, rows, HEAT)
    np.testing.assert_allclose(scored.old_log_prob, own, atol=1e-6)
    np.testing.assert_allclose(
        scored.sampler_log_prob, np.where(rows.token_mask, own + 0.25, 0.0), atol=1e-6
    )
    same = {"old_log_prob": rows.old_log_prob, "sampler_log_prob": None}
    for name, leaf in vars(dataclasses.replace(scored, **same)).items():
        assert leaf is getattr(rows, name)


def test_rows_that_the_trainer_sampled_stay_as_they_are():
    rows, _ = rows_of(3, 0.25)
    near = dataclasses.replace(POLICY, remote=False)
    assert near.rescore(PARAMS, rows, HEAT) is rows


def test_the_loss_weighs_tokens_by_trainer_over_server():
    gap = np.array([-0.3, 0.5, -2.0])  # the last is cut off at `max_importance`
    rows, _ = rows_of(1, gap)
    rows = dataclasses.replace(rows, advantage=np.array([2.0], np.float32))
    scored = POLICY.rescore(PARAMS, rows, HEAT)
    config = ExperimentConfig(algo=AlgoConfig(temperature=HEAT))
    step = jax.jit(_train_step(POLICY, config, 1))
    state = init_train_state(
        jax.random.key(0),
        PARAMS,
        make_optimizer(config.optim),
        success_rate=stepjax.init_success_rate(1),
        task_ids=jnp.arange(1),
    )
    weights = np.array([np.exp(0.3), np.exp(-0.5), 1.5])
    _, metrics = step(state, scored)
    np.testing.assert_allclose(metrics["loss"], -2.0 * weights.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["ratio"], 1.0, rtol=1e-5)
    # The gradient with respect to a shift of all log-probabilities is weighed, too.
    np.testing.assert_allclose(metrics["grad_norm"], 2.0 * weights.mean(), rtol=1e-5)
