"""What a round's metrics say about an outside sampler."""

import dataclasses

import numpy as np
import pytest

from experiments.watch import sampler_metrics, warnings_for
from stepjax.types import StepBatch


def rows(said):
    leaves = {
        "action_tokens": np.zeros((2, 3), np.int32),
        "token_mask": np.array([[True, True, False], [True, False, False]]),
        "old_log_prob": np.full((2, 3), -1.0, np.float32),
        "advantage": np.ones(2, np.float32),
        "weight": np.ones(2, np.float32),
        "task_id": np.zeros(2, np.int32),
        "trajectory_id": np.zeros(2, np.int32),
    }
    return StepBatch(prompt={}, sampler_log_prob=said, **leaves)


def test_distance_and_difference_are_of_real_tokens():
    said = np.array([[-0.7, -1.6, np.nan], [-1.0, 5.0, np.inf]], np.float32)
    found = sampler_metrics(rows(said))
    assert found == {
        "sampler/log_prob_gap": pytest.approx(0.3),
        "sampler/kl": pytest.approx(-0.1),
    }
    assert any("processed_logprobs" in text for text in warnings_for(found))


def test_a_near_sampler_is_no_worry():
    said = np.full((2, 3), -1.02, np.float32)
    found = sampler_metrics(rows(said))
    assert 0 < found["sampler/log_prob_gap"] < 0.1
    assert not warnings_for(found)


def test_nothing_is_said_of_the_trainer_itself_or_of_no_rows():
    assert sampler_metrics(rows(None)) == {}
    none = rows(np.zeros((2, 3), np.float32))
    none = dataclasses.replace(none, token_mask=np.zeros((2, 3), bool))
    assert sampler_metrics(none) == {}
