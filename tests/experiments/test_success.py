import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.evaluation import evaluate, mean_scores
from experiments.success import solved
from stepjax.rollout.backend import TaskTable


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_only_the_whole_reward_is_a_success(array):
    rewards = array(np.array([0.0, 1e-3, 0.5, 0.999, 1 - 1e-7, 1.0], np.float32))
    assert solved(rewards).tolist() == [False, False, False, False, True, True]


class Found(NamedTuple):
    valid: np.ndarray
    reward: np.ndarray


def table():
    return TaskTable(
        names=("a", "b", "c"),
        train_ids=np.array([0, 1], np.int32),
        unseen_ids=np.array([2], np.int32),
        domains=("x", "x", "x"),
        infeasible=np.array([False, True, False]),
        instruction=lambda task, seed: "",
    )


def test_shares_of_a_reward_are_scores_and_no_success():
    rewards = np.array([1.0, 0.5, 0.5, 0.5, 0.25, 0.9], np.float32)
    valid = np.array([True, True, True, True, True, False])
    found = Found(valid, rewards)
    backend = types.SimpleNamespace(tasks=table(), collect=lambda *_, **__: found)
    got = evaluate(backend, None, jax.random.key(0), episodes_per_task=2)
    assert got.success.tolist() == [0.5, 0.0, 0.0]
    assert got.metrics["eval/train_success"] == 0.5
    assert got.metrics["eval/train_score"] == pytest.approx((0.75 + 0.5) / 2)
    assert got.metrics["eval/unseen_score"] == 0.25  # the fault counts nowhere


def test_no_score_without_an_episode():
    found = mean_scores(table(), np.arange(3), np.array([np.nan, np.nan, 0.5]))
    assert found == {"eval/unseen_score": 0.5}
