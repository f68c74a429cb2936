"""The plan of a round: held-out tasks are never run, whatever the record says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import stepjax
from experiments.config import AlgoConfig
from experiments.round import plan_round
from stepjax.training.state import init_train_state

TRAINED = np.arange(0, 40, 2)  # odd tasks are held out


def make_state(rate):
    state = init_train_state(
        jax.random.key(0),
        {"w": jnp.zeros(2)},
        optax.sgd(1.0),
        success_rate=stepjax.init_success_rate(40),
        task_ids=jnp.asarray(TRAINED, jnp.int32),
    )
    record = dataclasses.replace(state.success_rate, rate=jnp.asarray(rate))
    return dataclasses.replace(state, success_rate=record)


@pytest.mark.parametrize("unsolved_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("held_out_rate", [0.0, 0.3, 1.0])
def test_held_out_tasks_are_never_run(unsolved_share, held_out_rate):
    rate = np.full(40, held_out_rate, np.float32)
    # Mastered tasks give copies away; two are unsolved and two half solved.
    rate[TRAINED] = 1.0
    rate[TRAINED[:2]], rate[TRAINED[2:4]] = 0.0, 0.4
    algo = AlgoConfig(tasks_per_round=8, group_size=8, unsolved_share=unsolved_share)
    plan = plan_round(make_state(rate), algo)
    assert plan.replaced.sum() > 10  # the test means something
    assert set(plan.task_ids.tolist()) <= set(TRAINED.tolist())
    assert plan.cache_size == 2
