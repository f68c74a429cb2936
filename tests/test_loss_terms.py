"""Ratios, KL estimators and the entropy, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import stepjax
from tests.kernels.common import close

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_sequence_ratio_is_the_geometric_mean():
    new, old = jnp.log(jnp.array([0.4, 0.2, 0.9])), jnp.log(jnp.array([0.1, 0.1, 0.1]))
    mask = jnp.array([True, True, False])
    # Ratios 4 and 2: sqrt(8).
    close(stepjax.sequence_ratio(new, old, mask), np.float32(np.sqrt(8)), 1e-5)
    grad = jax.grad(stepjax.sequence_ratio)(new, old, mask)
    close(grad, np.sqrt(8) * np.array([0.5, 0.5, 0.0]), 1e-5)
    assert stepjax.sequence_ratio(new, old, ~mask & mask) == 1
    with pytest.raises(ValueError, match="log_prob must have shape"):
        stepjax.sequence_ratio(new[None], old[None], mask[None])


def test_importance_weight_is_truncated_and_not_differentiated():
    old, sampler = jnp.array([0.0, -1.0, 5e3]), jnp.array([-0.5, -0.5, -5e3])
    fn = stepjax.truncated_importance_weight
    close(fn(old, sampler, max_weight=1.2), [1.2, np.exp(-0.5), 1.2], 1e-6)
    assert not np.any(jax.grad(lambda x: jnp.sum(fn(x, sampler)))(old))


def test_kl_estimators():
    new, ref = jnp.log(jnp.array([0.5, 0.2])), jnp.log(jnp.array([0.25, 0.4]))
    d = np.log([2.0, 0.5])
    close(stepjax.kl_k1(new, ref), d, 1e-6)
    close(stepjax.kl_k2(new, ref), d**2 / 2, 1e-6)
    close(stepjax.kl_k3(new, ref), np.exp(-d) + d - 1, 1e-6)
    # Means over the policy: k1 and k3 are the divergence, here over two outcomes.
    p, q = np.array([0.3, 0.7]), np.array([0.6, 0.4])
    truth = np.sum(p * np.log(p / q))
    log_p, log_q = jnp.log(jnp.float32(p)), jnp.log(jnp.float32(q))
    for fn in (stepjax.kl_k1, stepjax.kl_k3):
        np.testing.assert_allclose(np.sum(p * fn(log_p, log_q)), truth, rtol=1e-5)
    far = stepjax.kl_k3(jnp.array([-1e4, 0.0]), jnp.array([0.0, -1e4]))
    assert np.all(np.isfinite(far))
    tiny = stepjax.kl_k3(jnp.array([-1.0]), jnp.array([-1.0 + 1e-5]))
    assert tiny[0] >= 0


def test_entropy():
    close(stepjax.entropy(jnp.zeros((2, 4))), np.full(2, np.log(4)), 1e-6)
    logits = jnp.array([1.0, -jnp.inf, 2.0, -jnp.inf])
    close(stepjax.entropy(logits), stepjax.entropy(logits[::2]), 1e-6)
    grad = jax.grad(stepjax.entropy)(logits)
    assert np.all(np.isfinite(grad))
    close(grad[::2], jax.grad(stepjax.entropy)(logits[::2]), 1e-6)
    check_grads(
        stepjax.entropy,
        (jnp.array([0.3, -1.0, 0.7]),),
        order=1,
        modes="rev",
        rtol=0.02,
        atol=1e-3,
        eps=1e-2,
    )
