"""The optimizer that a run's settings ask for."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import OptimizerConfig
from experiments.learner import make_optimizer


def steps_of(count, **settings):
    """Sizes of the first updates of a parameter whose gradient is always 1."""
    settings = {"learning_rate": 0.1, "weight_decay": 0.0} | settings
    tx = make_optimizer(OptimizerConfig(**settings))
    params = {"w": jnp.zeros(1)}
    state, found = tx.init(params), []
    for _ in range(count):
        moved, state = tx.update({"w": jnp.ones(1)}, state, params)
        found.append(-float(moved["w"][0]))
    return np.array(found)


def test_the_learning_rate_is_constant_or_rises_first():
    np.testing.assert_allclose(steps_of(3), 0.1, rtol=1e-4)
    rising = [0.025, 0.05, 0.075, 0.1, 0.1]
    np.testing.assert_allclose(steps_of(5, warmup_updates=3), rising, rtol=1e-4)


def test_a_warm_up_that_cannot_be():
    with pytest.raises(ValueError, match="optim.warmup_updates"):
        OptimizerConfig(warmup_updates=-1)
