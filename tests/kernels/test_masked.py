"""Masked arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepjax.kernels import masked
from tests.kernels.common import close, quick
from tests.reference import groups

pytestmark = pytest.mark.usefixtures("strict_dtypes")
REDUCTIONS = [
    masked.masked_sum,
    masked.masked_mean,
    masked.masked_center,
    masked.masked_std,
]
ids = [fn.__name__ for fn in REDUCTIONS]


def test_known_values():
    x, mask = jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])
    assert masked.masked_sum(x, mask) == 4
    assert masked.masked_mean(x, mask) == 2
    assert masked.masked_center(x, mask).tolist() == [-1, 1, 0]
    assert masked.masked_std(x, mask, ddof=0) == 1
    # ((1 - 2)^2 + (3 - 2)^2) / (2 - 1) = 2
    close(masked.masked_std(x, mask), np.sqrt(2.0))


@pytest.mark.parametrize("seed", range(20))
def test_matches_reference(seed):
    rng = np.random.default_rng(seed)
    x, mask = rng.normal(size=9).astype(np.float32), rng.random(9) < 0.6
    close(masked.masked_center(x, mask), groups.centered(x, mask))
    for ddof in (0, 1):
        close(masked.masked_std(x, mask, ddof=ddof), groups.std(x, mask, ddof))


@pytest.mark.parametrize("fn", REDUCTIONS, ids=ids)
def test_jit_and_vmap_agree(fn):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(5, 7)), jnp.float32)
    mask = jnp.asarray(rng.random((5, 7)) < 0.5)
    loop = jnp.stack([fn(a, b) for a, b in zip(x, mask, strict=True)])
    close(jax.jit(jax.vmap(fn))(x, mask), loop)


@pytest.mark.parametrize("fn", REDUCTIONS, ids=ids)
@pytest.mark.parametrize("junk", [np.nan, np.inf, -1e30])
def test_padding_is_invisible(fn, junk):
    mask = jnp.array([True, True, False, True])
    clean = jnp.array([0.9, 0.2, 0.0, 0.4])
    dirty = clean.at[2].set(junk)
    assert np.array_equal(fn(clean, mask), fn(dirty, mask))

    def total(x):
        return jnp.sum(fn(x, mask) ** 2)

    assert np.array_equal(jax.grad(total)(clean), jax.grad(total)(dirty))
    assert jax.grad(total)(dirty)[2] == 0


@pytest.mark.parametrize("fn", REDUCTIONS, ids=ids)
@pytest.mark.parametrize("mask", [[True] * 3, [False] * 3, [True, False, False]])
def test_gradients(fn, mask):
    equal = jnp.full(3, 0.9)
    grad = jax.grad(lambda x: jnp.sum(fn(x, jnp.array(mask))))(equal)
    assert np.all(np.isfinite(grad))


def test_center_gradient_is_that_of_the_formula():
    x, mask = jnp.array([0.1, 0.7, 0.4]), jnp.array([True] * 3)
    jacobian = jax.jacobian(masked.masked_center)(x, mask)
    close(jacobian, np.eye(3) - 1 / 3)


@pytest.mark.parametrize("value", [0.9, 0.35, 1e-7, 1e7])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 12, 64])
def test_degenerate_inputs(value, count):
    x, mask = jnp.full(64, value, jnp.float32), jnp.arange(64) < count
    assert not np.any(masked.masked_center(x, mask))
    assert masked.masked_std(x, mask) == 0
    nobody = jnp.zeros(64, bool)
    for fn in REDUCTIONS:
        assert not np.any(fn(x, nobody))


def test_safe_divide():
    num, den = jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])
    assert masked.safe_divide(num, den).tolist() == [0.0, 0.5]
    for argument in (0, 1):
        grad = jax.grad(lambda *a: jnp.sum(masked.safe_divide(*a)), argument)(num, den)
        assert np.all(np.isfinite(grad))
    assert masked.safe_divide(num, jnp.float32(2)).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("fn", REDUCTIONS, ids=ids)
def test_rejects_bad_shapes(fn):
    with pytest.raises(ValueError, match="mask"):
        fn(jnp.zeros(3), jnp.ones(4, bool))
    with pytest.raises(TypeError, match="mask must be a bool array"):
        fn(jnp.zeros(3), jnp.ones(3))


@quick
@given(st.permutations(range(6)), st.floats(-3, 3, width=32))
def test_order_and_shift_do_not_matter(order, shift):
    x = jnp.array([0.1, 0.9, 0.35, 0.2, 0.9, 0.5])
    mask = jnp.array([True, True, False, True, True, True])
    order = jnp.array(order)
    want = masked.masked_center(x, mask)[order]
    close(masked.masked_center((x + jnp.float32(shift))[order], mask[order]), want)
