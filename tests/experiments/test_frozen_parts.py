"""Runs in which parts of the policy do not learn."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from experiments.config import PolicyConfig
from experiments.errors import UsageError
from experiments.learner import make_learner
from experiments.loop import train
from tests.experiments.lever_world import (
    POLICY,
    LeverBackend,
    lever_config,
    start_params,
)


def shifted(params):
    return {"table": params["table"] + params["shift"]}


TWO_PARTS = dataclasses.replace(
    POLICY,
    evaluate=lambda params, *row, **options: POLICY.evaluate(
        shifted(params), *row, **options
    ),
)


class ShiftedBackend(LeverBackend):
    def collect(self, params, *args, **kwargs):
        return super().collect(shifted(params), *args, **kwargs)


def two_parts():
    table = start_params()["table"]
    return {"shift": np.full_like(table, 0.25), "table": table}


def frozen_config(folder, *patterns, **changes):
    return lever_config(folder, policy=PolicyConfig(freeze=patterns), **changes)


def learner_of_two_parts(config):
    return make_learner(
        config, TWO_PARTS, two_parts(), num_tasks=20, train_ids=np.arange(12)
    )


def test_what_is_frozen_has_no_moments(tmp_path):
    learner = learner_of_two_parts(frozen_config(tmp_path, "^shift$"))
    adam: Any = learner.like.opt_state[1][0]
    assert adam.mu["shift"] is None and adam.nu["shift"] is None
    assert adam.mu["table"].shape == learner.like.params["table"].shape
    places = jax.tree.structure(learner.state_sharding)
    assert places == jax.tree.structure(learner.like)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("shfit", "policy.freeze: 'shfit' is found in no parameter's path.*shift, tab"),
        (".", "leaves no parameter to train"),
    ],
)
def test_patterns_that_find_nothing_are_refused(tmp_path, pattern, said):
    with pytest.raises(UsageError, match=said) as error:
        learner_of_two_parts(frozen_config(tmp_path, pattern))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_run_with_parameters_at_rest_goes_on_with_them_only(tmp_path):
    class Broken(ShiftedBackend):
        def collect(self, *args, **kwargs):
            if len(self.calls) == 4:  # two evaluations and rounds 1 to 3
                raise ConnectionError("environment gone")
            return super().collect(*args, **kwargs)

    def run(folder, backend, *patterns):
        return train(
            frozen_config(tmp_path / folder, *patterns, rounds=4),
            backend=backend,
            policy=TWO_PARTS,
            start_params=two_parts(),
        )

    whole = run("whole", ShiftedBackend(), "^shift$")
    np.testing.assert_array_equal(whole.params["shift"], two_parts()["shift"])
    assert np.abs(whole.params["table"] - two_parts()["table"]).max() > 0.01
    with pytest.raises(ConnectionError):
        run("broken", Broken(), "^shift$")
    with pytest.raises(UsageError, match=r"policy\.freeze: \['\^shift\$'\] -> \[\]"):
        run("broken", ShiftedBackend())
    assert run("broken", ShiftedBackend(), "^shift$").params_digest == (
        whole.params_digest
    )
