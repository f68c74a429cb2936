"""Step-level groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepjax
from tests.kernels.common import close, count_traces, quick
from tests.reference import groups

pytestmark = pytest.mark.usefixtures("strict_dtypes")
literal = jax.jit(stepjax.step_group_advantages)
keep_plain = jax.jit(stepjax.step_group_advantages_keep_plain)
each = pytest.mark.parametrize("fn", [literal, keep_plain], ids=["literal", "keep"])
ALL = jnp.ones(8, bool)


# Group of 8: members that match, then (match, miss) for ddof 0 and for ddof 1.
VECTORS = [
    (1, 2.6458, -0.3780, 2.4749, -0.3536),
    (2, 1.7321, -0.5774, 1.6202, -0.5401),
    (4, 1.0000, -1.0000, 0.9354, -0.9354),
    (6, 0.5774, -1.7321, 0.5401, -1.6202),
    (7, 0.3780, -2.6458, 0.3536, -2.4749),
]


@each
@pytest.mark.parametrize(("m", "hit0", "miss0", "hit1", "miss1"), VECTORS)
def test_known_values(fn, m, hit0, miss0, hit1, miss1):
    match = jnp.arange(8) < m
    for ddof, hit, miss in ((0, hit0, miss0), (1, hit1, miss1)):
        got = fn(match, ALL, jnp.float32(1), ddof=ddof)
        want = np.where(np.arange(8) < m, hit, miss)
        np.testing.assert_allclose(got, want, atol=6e-5)
        half = fn(match, ALL, jnp.float32(0.5), ddof=ddof, weight=0.25)
        close(half, got / 8, 1e-6)


def test_all_match_is_zero_or_plain():
    assert not np.any(literal(ALL, ALL, jnp.float32(0.75)))
    got = keep_plain(ALL, ALL, jnp.float32(0.75), weight=0.25)
    assert got.tolist() == [0.75] + [0.0] * 7


@pytest.mark.parametrize("seed", range(15))
def test_matches_reference(seed):
    rng = np.random.default_rng(seed)
    match, mask = rng.random(8) < 0.5, rng.random(8) < 0.8
    match[0] = mask[0] = True
    want = groups.step_group(match, mask, 0.4, weight=0.5)
    close(literal(match, mask, jnp.float32(0.4), weight=0.5), want, 1e-5)


@each
def test_jit_and_vmap_agree(fn):
    rng = np.random.default_rng(0)
    match, mask = jnp.asarray(rng.random((6, 8)) < 0.6), jnp.ones((6, 8), bool)
    advantage = jnp.asarray(rng.random(6), jnp.float32)
    loop = np.stack([fn(*x) for x in zip(match, mask, advantage, strict=True)])
    close(jax.jit(jax.vmap(fn))(match, mask, advantage), loop, 1e-6)


@each
def test_padding_is_invisible(fn):
    mask = jnp.arange(8) < 5
    match = jnp.array([True, False, True, False, True, True, True, True])
    want = fn(match, mask, jnp.float32(1))
    assert np.array_equal(fn(match & mask, mask, jnp.float32(1)), want)
    assert not np.any(want[5:])
    close(fn(match[:5], mask[:5], jnp.float32(1)), want[:5], 1e-6)
    agree = match.at[1].set(True).at[3].set(True).at[7].set(False)
    plain = keep_plain(agree, mask, jnp.float32(1))
    assert plain.tolist() == [1.0] + [0.0] * 7, "a masked miss is no miss"


@each
@pytest.mark.parametrize("m", [1, 4, 8])
def test_gradients(fn, m):
    grad = jax.grad(lambda a: jnp.sum(fn(jnp.arange(8) < m, ALL, a) ** 2))
    assert np.isfinite(grad(jnp.float32(0.5)))


@each
def test_degenerate_inputs(fn):
    only = jnp.arange(8) == 0
    got = fn(ALL, only, jnp.float32(0.5))
    assert got.tolist()[1:] == [0.0] * 7
    assert not np.any(fn(ALL, jnp.zeros(8, bool), jnp.float32(0.5)))
    assert not np.any(fn(jnp.arange(8) < 3, ALL, jnp.float32(0)))


@each
def test_rejects_bad_shapes(fn):
    with pytest.raises(ValueError, match="match must have shape"):
        fn(jnp.ones((2, 8), bool), ALL, jnp.float32(1))
    with pytest.raises(ValueError, match="step_advantage must have shape"):
        fn(ALL, ALL, jnp.zeros(8))
    with pytest.raises(TypeError, match="match must be a bool"):
        fn(jnp.ones(8), ALL, jnp.float32(1))


@each
@quick
@given(st.permutations(range(1, 8)), st.integers(0, 127))
def test_order_of_alternatives_does_not_matter(fn, order, bits):
    match = jnp.array([True, *(bool(bits >> i & 1) for i in range(7))])
    order = np.array([0, *order])
    want = np.asarray(fn(match, ALL, jnp.float32(0.8)))[order]
    close(fn(match[order], ALL, jnp.float32(0.8)), want, 1e-6)


def test_numbers_are_traced():
    fn, traces = count_traces(stepjax.step_group_advantages)
    for number in (0.5, 1.0):
        fn(ALL, ALL, jnp.float32(1), std_floor=number, ddof=number, weight=number)
    assert len(traces) == 1


def test_augmentation_mask():
    steps = jnp.array([True, True, False])

    def fn(success, rate, **numbers):
        return stepjax.augmentation_mask(
            steps, jnp.array(success), jnp.float32(rate), **numbers
        ).tolist()

    assert fn(True, 0.1) == [True, True, False]
    assert fn(True, 0.2) == [True, True, False], "the threshold itself is included"
    assert fn(True, 0.21) == [False] * 3
    assert fn(False, 0.1) == [False] * 3
    assert fn(True, 0.5, threshold=0.6) == [True, True, False]
    with pytest.raises(TypeError, match="success must be a bool"):
        fn(1.0, 0.1)
    batched = jax.vmap(stepjax.augmentation_mask)(
        jnp.stack([steps, steps]), jnp.array([True, False]), jnp.zeros(2)
    )
    assert batched.tolist() == [[True, True, False], [False] * 3]
