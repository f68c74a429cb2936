"""Advantages of one group, one trajectory, its steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepjax
from tests.kernels.common import close, count_traces, on_eight_devices, quick
from tests.reference import groups

pytestmark = pytest.mark.usefixtures("strict_dtypes")
z_score = functools.partial(stepjax.group_advantages, std_floor=1e-3)
GROUP = {
    "group": (jax.jit(z_score), lambda r, m: groups.z_score(r, m, 1e-3)),
    "centered": (jax.jit(stepjax.centered_advantages), groups.centered),
    "leave_one_out": (jax.jit(stepjax.leave_one_out_advantages), groups.leave_one_out),
}
each_group_kernel = pytest.mark.parametrize("name", GROUP)


@pytest.mark.parametrize(
    ("successes", "high", "low"),
    [
        # mean 1/16, sample deviation sqrt((15/16^2 + 15^2/16^2) / 15) = 1/4
        (1, 3.750, -0.250),
        (4, 1.677, -0.559),
        (8, 0.968, -0.968),
        (12, 0.559, -1.677),
        (15, 0.250, -3.750),
    ],
)
def test_known_values(successes, high, low):
    rewards = (jnp.arange(16) < successes).astype(jnp.float32)
    mask = jnp.ones(16, bool)
    got = z_score(rewards, mask)
    np.testing.assert_allclose(got[0], high, atol=6e-4)
    np.testing.assert_allclose(got[-1], low, atol=6e-4)
    rate = jnp.full(16, successes / 16, jnp.float32)
    ours = stepjax.success_rate_advantage(rewards, rate)
    # The positive part of the centered advantage, when the rate is the group's mean.
    close(ours, jnp.maximum(stepjax.centered_advantages(rewards, mask), 0.0))
    close(ours[0], np.float32(1 - successes / 16))
    both = stepjax.success_rate_baseline_advantage(rewards, rate)
    close(both, stepjax.centered_advantages(rewards, mask))


@each_group_kernel
@pytest.mark.parametrize("seed", range(15))
def test_matches_reference(name, seed):
    fn, reference = GROUP[name]
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 1.0, 0.9, 0.35], 16).astype(np.float32)
    mask = rng.random(16) < rng.random()
    close(fn(rewards, mask), reference(rewards, mask), 1e-5)


@each_group_kernel
def test_jit_and_vmap_agree(name):
    fn, _ = GROUP[name]
    rng = np.random.default_rng(0)
    rewards = jnp.asarray(rng.random((5, 16)), jnp.float32)
    mask = jnp.asarray(rng.random((5, 16)) < 0.7)
    loop = np.stack([fn(r, m) for r, m in zip(rewards, mask, strict=True)])
    close(jax.jit(jax.vmap(fn))(rewards, mask), loop, 1e-6)


@each_group_kernel
@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_padding_is_invisible(name, junk):
    fn, _ = GROUP[name]
    mask = jnp.arange(16) % 3 != 1
    clean = jnp.linspace(0, 1, 16)
    dirty = jnp.where(mask, clean, junk)
    assert np.array_equal(fn(clean, mask), fn(dirty, mask))
    assert not np.any(fn(dirty, mask)[~mask])
    short = fn(clean[mask], mask[mask])
    close(fn(dirty, mask)[mask], short, 1e-6)

    def total(rewards):
        return jnp.sum(fn(rewards, mask) ** 2)

    assert np.array_equal(jax.grad(total)(clean), jax.grad(total)(dirty))


@each_group_kernel
@pytest.mark.parametrize("kind", ["empty", "one", "equal", "spread"])
def test_gradients(name, kind):
    fn, _ = GROUP[name]
    mask = {"empty": jnp.zeros(16, bool), "one": jnp.arange(16) == 3}.get(
        kind, jnp.ones(16, bool)
    )
    rewards = jnp.linspace(0, 1, 16) if kind == "spread" else jnp.full(16, 0.9)
    grad = jax.grad(lambda r: jnp.sum(jnp.sin(fn(r, mask))))(rewards)
    assert np.all(np.isfinite(grad))


@each_group_kernel
@pytest.mark.parametrize("value", [0.9, 0.35, 0.0, 1.0])
def test_degenerate_inputs(name, value):
    fn, _ = GROUP[name]
    for count in range(17):
        out = fn(jnp.full(16, value, jnp.float32), jnp.arange(16) < count)
        assert not np.any(out), "a group that agrees carries no signal"


def test_group_below_the_floor_is_ignored():
    rewards, mask = jnp.array([0.5, 0.5001]), jnp.array([True, True])
    assert not np.any(stepjax.group_advantages(rewards, mask, std_floor=1e-3))
    assert np.all(stepjax.group_advantages(rewards, mask, std_floor=1e-6) != 0)


@each_group_kernel
def test_rejects_bad_shapes(name):
    fn, _ = GROUP[name]
    with pytest.raises(ValueError, match=r"rewards must have shape \[G\].*jax.vmap"):
        fn(jnp.zeros((2, 3)), jnp.ones((2, 3), bool))
    with pytest.raises(ValueError, match="mask must have shape"):
        fn(jnp.zeros(3), jnp.ones(4, bool))
    with pytest.raises(TypeError, match="mask must be a bool"):
        fn(jnp.zeros(3), jnp.ones(3))
    with pytest.raises(TypeError, match="rewards must be a float"):
        fn(jnp.zeros(3, jnp.int32), jnp.ones(3, bool))


@each_group_kernel
@quick
@given(st.permutations(range(16)), st.integers(0, 10**6))
def test_order_does_not_matter(name, order, seed):
    fn, _ = GROUP[name]
    rng = np.random.default_rng(seed)
    rewards = rng.random(16).astype(np.float32)
    mask, order = rng.random(16) < 0.7, np.array(order)
    close(fn(rewards[order], mask[order]), np.asarray(fn(rewards, mask))[order], 2e-5)


def test_std_floor_is_traced():
    fn, traces = count_traces(stepjax.group_advantages)
    for floor in (1e-6, 1e-3, 0.1):
        fn(jnp.arange(4.0), jnp.ones(4, bool), std_floor=floor)
    assert len(traces) == 1


def test_eight_devices_agree():
    rewards = jnp.asarray(np.random.default_rng(0).random(64), jnp.float32)
    mask = jnp.arange(64) % 5 != 0
    close(on_eight_devices(z_score, rewards, mask), z_score(rewards, mask), 1e-6)


# --- One trajectory -------------------------------------------------------------------


def test_success_rate_advantage_ignores_failures():
    reward = jnp.array([0.0, 1.0, 0.5, 1.0, -1.0])
    rate = jnp.array([0.3, 0.0, 0.5, 1.0, 0.5])
    got = stepjax.success_rate_advantage(reward, rate)
    assert got.tolist() == [0.0, 1.0, 0.25, 0.0, 0.0]
    grad = jax.grad(lambda r: jnp.sum(stepjax.success_rate_advantage(r, rate)))(reward)
    assert np.all(np.isfinite(grad))
    with pytest.raises(ValueError, match="rate must have the shape of reward"):
        stepjax.success_rate_advantage(reward, rate[:2])


def test_garbage_reward_of_an_invalid_trajectory_can_be_selected_away():
    got = stepjax.success_rate_advantage(jnp.array([jnp.nan]), jnp.array([0.5]))
    assert got.tolist() == [0.0]


@pytest.mark.parametrize(
    ("fn", "factor"),
    [
        (stepjax.step_advantages, 1.0),
        (stepjax.length_corrected_step_advantages, 1 / 3),
        (
            functools.partial(
                stepjax.length_corrected_step_advantages, reference_length=15.0
            ),
            5.0,
        ),
    ],
    ids=["plain", "per step", "reference 15"],
)
def test_steps_share_the_trajectory_advantage(fn, factor):
    mask = jnp.array([True, True, True, False])
    close(fn(jnp.float32(0.6), mask), 0.6 * factor * np.asarray(mask), 1e-6)
    assert not np.any(fn(jnp.float32(0.6), jnp.zeros(4, bool)))
    batched = jax.vmap(fn)(jnp.array([0.6, 0.3]), jnp.stack([mask, ~mask]))
    close(batched[0], fn(jnp.float32(0.6), mask), 1e-7)
    close(batched[1], fn(jnp.float32(0.3), ~mask), 1e-7)
    with pytest.raises(ValueError, match="trajectory_advantage must have shape"):
        fn(jnp.zeros(2), mask)
