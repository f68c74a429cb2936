"""Ragged groups: by id, and by equal state."""

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
by_state = jax.jit(stepjax.state_group_advantages)
by_state_std = jax.jit(stepjax.normalized_state_group_advantages)
ragged = jax.jit(
    functools.partial(stepjax.ragged_group_advantages, num_groups=5, std_floor=1e-3)
)


def random_trajectories(seed, num=16, length=6):
    rng = np.random.default_rng(seed)
    # Few distinct hashes, among them the extremes, so that states repeat.
    pool = np.array([0, 1, 7, 2**31, 2**32 - 1], np.uint32)
    return (
        rng.choice([0.0, 1.0, 0.9], num).astype(np.float32),
        rng.integers(0, 3, num).astype(np.int32),
        rng.choice(pool, (num, length)),
        np.arange(length) < rng.integers(0, length + 1, (num, 1)),
    )


def test_known_values():
    # Task 0 passes state 5 three times. Returns with discount 1/2: first trajectory
    # (success after two steps) 1/2 then 1; the second fails: 0, 0.
    # State 5: 1/2, 0, 0, mean 1/6; state 6: 1 alone. Task 1 passes state 5 alone.
    rewards, tasks = jnp.array([1.0, 0.0, 1.0]), jnp.array([0, 0, 1])
    hashes = jnp.array([[5, 6], [5, 5], [5, 0]], jnp.uint32)
    mask = jnp.array([[True, True], [True, True], [True, False]])
    got = by_state(rewards, tasks, hashes, mask, discount=0.5)
    close(got, [[1 / 3, 0.0], [-1 / 6, -1 / 6], [0.0, 0.0]], 1e-6)
    # Sample deviation of (1/2, 0, 0): sqrt((1/9 + 1/36 + 1/36) / 2) = sqrt(1/12).
    scaled = by_state_std(rewards, tasks, hashes, mask, discount=0.5)
    close(scaled, np.asarray(got) * np.sqrt(12), 1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_matches_reference(seed):
    data = random_trajectories(seed)
    close(by_state(*data, discount=0.9), groups.state_groups(*data, 0.9), 1e-5)
    rewards, ids, _, mask = data
    want = groups.ragged(
        lambda r, m: groups.z_score(r, m, 1e-3), rewards, ids, mask[:, 1]
    )
    close(ragged(rewards, ids, mask[:, 1]), want, 1e-5)


def test_ragged_equals_groups_in_a_rectangle():
    rewards = jnp.asarray(np.random.default_rng(0).random((5, 8)), jnp.float32)
    mask = jnp.arange(40).reshape(5, 8) % 7 != 0
    want = jax.vmap(functools.partial(stepjax.group_advantages, std_floor=1e-3))(
        rewards, mask
    )
    ids = jnp.repeat(jnp.arange(5), 8)
    close(ragged(rewards.ravel(), ids, mask.ravel()), want.ravel(), 1e-5)


@pytest.mark.parametrize("fn", [by_state, by_state_std], ids=["centered", "scaled"])
def test_jit_and_vmap_agree(fn):
    data = [random_trajectories(seed) for seed in range(3)]
    stacked = [
        jnp.stack([jnp.asarray(x) for x in xs]) for xs in zip(*data, strict=True)
    ]
    close(jax.vmap(fn)(*stacked), np.stack([fn(*d) for d in data]), 1e-6)


@pytest.mark.parametrize("fn", [by_state, by_state_std], ids=["centered", "scaled"])
def test_padding_is_invisible(fn):
    rewards, tasks, hashes, mask = random_trajectories(1)
    want = fn(rewards, tasks, hashes, mask)
    dead = ~mask.any(1)
    assert dead.any()
    dirty = np.where(dead, np.nan, rewards).astype(np.float32)
    got = fn(
        dirty,
        np.where(dead, 2**31 - 1, tasks).astype(np.int32),
        np.where(mask, hashes, 7).astype(np.uint32),
        mask,
    )
    assert np.array_equal(got, want)
    assert not np.any(np.asarray(want)[~mask])

    def total(rewards):
        return jnp.sum(fn(rewards, tasks, hashes, mask) ** 2)

    grad = jax.grad(total)(jnp.asarray(dirty))
    assert np.all(np.isfinite(grad))
    close(grad, jax.grad(total)(jnp.asarray(rewards)), 1e-6)


@pytest.mark.parametrize("fn", [by_state, by_state_std], ids=["centered", "scaled"])
def test_gradients(fn):
    _, tasks, hashes, mask = random_trajectories(2)
    for rewards in (jnp.full(16, 0.9), jnp.zeros(16)):
        grad = jax.grad(lambda r: jnp.sum(fn(r, tasks, hashes, mask)))(rewards)
        assert np.all(np.isfinite(grad))
    grad = jax.grad(lambda r: jnp.sum(ragged(r, tasks, mask[:, 0]) ** 2))(
        jnp.full(16, 0.9)
    )
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("value", [0.9, 0.35])
def test_degenerate_inputs(value):
    _, tasks, hashes, mask = random_trajectories(3)
    rewards = jnp.full(16, value)
    for fn in (by_state, by_state_std):
        assert not np.any(fn(rewards, tasks, hashes, mask, discount=1.0))
        assert not np.any(fn(rewards, tasks, hashes, np.zeros_like(mask)))
        unique = np.arange(96, dtype=np.uint32).reshape(16, 6)
        varied = jnp.linspace(0, 1, 16)
        assert not np.any(fn(varied, tasks, unique, mask)), "no state repeats"
    assert not np.any(ragged(rewards, tasks, mask[:, 0]))
    assert not np.any(ragged(jnp.arange(16.0), tasks, np.zeros(16, bool)))


def test_rejects_bad_shapes():
    rewards, tasks, hashes, mask = random_trajectories(0)
    with pytest.raises(ValueError, match="step_mask must have shape"):
        by_state(rewards, tasks, hashes, mask[:, :3])
    with pytest.raises(TypeError, match="state_hash must be an integer"):
        by_state(rewards, tasks, hashes.astype(np.float32), mask)
    with pytest.raises(ValueError, match="num_groups"):
        stepjax.ragged_group_advantages(rewards, tasks, mask[:, 0], num_groups=0)
    with pytest.raises(ValueError, match="group_ids must have shape"):
        ragged(rewards, tasks[:3], mask[:, 0])


@quick
@given(st.permutations(range(16)), st.integers(0, 10**6))
def test_order_and_renaming_of_states_do_not_matter(order, seed):
    rewards, tasks, hashes, mask = random_trajectories(seed)
    order = np.array(order)
    want = np.asarray(by_state(rewards, tasks, hashes, mask))[order]
    renamed = hashes[order] * np.uint32(2654435761) + np.uint32(17)
    got = by_state(rewards[order], tasks[order] + 5, renamed, mask[order])
    close(got, want, 2e-6)


def test_discounted_step_returns():
    mask = jnp.array([True, False, True, True, False])
    got = stepjax.discounted_step_returns(jnp.float32(2), mask, discount=0.5)
    assert got.tolist() == [0.5, 0.0, 1.0, 2.0, 0.0]
    for discount in (0.0, 1.0):
        got = stepjax.discounted_step_returns(jnp.float32(2), mask, discount=discount)
        close(got, groups.step_returns(2, mask, discount), 1e-6)


def test_segment_ids_number_groups_densely():
    mask = jnp.array([True, True, False, True])
    got = stepjax.segment_ids(mask, jnp.array([3, 9, 9, 3]), jnp.array([1, 1, 1, 2]))
    assert len(set(np.asarray(got)[np.asarray(mask)].tolist())) == 3
    assert np.all((got >= 0) & (got < 4))
    with pytest.raises(ValueError, match=r"keys\[1\] must have shape"):
        stepjax.segment_ids(mask, jnp.zeros(4, jnp.int32), jnp.zeros(3, jnp.int32))


def test_discount_is_traced():
    fn, traces = count_traces(stepjax.state_group_advantages)
    for discount in (0.5, 0.9, 1.0):
        fn(*random_trajectories(0), discount=discount)
    assert len(traces) == 1


def test_eight_devices_agree():
    data = random_trajectories(4, num=32)
    close(
        on_eight_devices(stepjax.state_group_advantages, *data), by_state(*data), 1e-6
    )
    rewards, tasks, _, mask = data
    fn = functools.partial(stepjax.ragged_group_advantages, num_groups=5)
    args = (rewards, tasks, mask[:, 0])
    close(on_eight_devices(fn, *args), fn(*args), 1e-6)
