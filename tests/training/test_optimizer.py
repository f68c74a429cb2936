"""Moments of the optimizer, whatever the parameters are kept in."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stepjax.training.optimizer import make_adamw


def test_float32_moments_of_bfloat16_parameters_grow_on():
    """In bfloat16 second moments would stand still after a few updates."""
    tx = make_adamw(1e-3, b2=0.999)
    params = {"a": jnp.ones(4, jnp.bfloat16)}
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(400):
        step, state = update({"a": jnp.ones(4, jnp.bfloat16)}, state, params)
    first, second = (x for x in jax.tree.leaves(state) if x.shape == (4,))
    assert first.dtype == second.dtype == jnp.float32
    np.testing.assert_allclose(second, 1 - 0.999**400, rtol=1e-4)
    np.testing.assert_allclose(np.asarray(step["a"], np.float32), -1e-3, rtol=0.01)
    (updated,) = jax.tree.leaves(optax.apply_updates(params, step))
    assert updated.dtype == jnp.bfloat16
