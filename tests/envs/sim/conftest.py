import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.envs import sim

LENGTH = 15


@pytest.fixture(scope="session")
def pool():
    return sim.load_world()


@pytest.fixture(scope="session")
def quiet(pool):
    """The pool without misclicks, pop-ups and wandering."""
    zero = jnp.float32(0.0)
    return dataclasses.replace(pool, slip_prob=zero, popup_prob=zero, wander_prob=zero)


@pytest.fixture(scope="session")
def table():
    return sim.task_table()


@pytest.fixture(scope="session")
def play():
    """One compiled function for whole episodes: of the oracle, or of given tokens."""

    def episode(pool, task, seed, tokens, by_oracle):
        def one_step(state, given):
            chosen = jnp.where(by_oracle, sim.oracle(pool, state), given)
            record = {
                "prompt": sim.observe(pool, state),
                "hash": sim.state_hash(pool, state),
                "success": sim.success(pool, state),
                "ended": sim.ended(state),
                "tokens": chosen,
            }
            return sim.step(pool, state, chosen), record

        state = sim.reset(pool, task, seed)
        state, records = jax.lax.scan(one_step, state, tokens)
        return state, sim.success(pool, state), records

    compiled = jax.jit(jax.vmap(episode, (None, 0, 0, 0, None)))

    def run(pool, *, tokens=None, seed=0, tasks=None):
        tasks = pool.tasks if tasks is None else tasks
        num = tasks.task_id.shape[0]
        given = np.zeros((num, LENGTH, 3), np.int32)
        if tokens is not None:
            given[...] = tokens
        seeds = np.arange(num, dtype=np.uint32) + np.uint32(1000 * seed)
        return compiled(pool, tasks, seeds, given, tokens is None)

    return run
