"""The smoothed success rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepjax
from stepjax.types import SuccessRateRecord
from tests.kernels.common import close, count_traces, on_eight_devices, quick
from tests.reference import sampling

pytestmark = pytest.mark.usefixtures("strict_dtypes")


update_success_rate = jax.jit(stepjax.update_success_rate)


def record_of(rate):
    rate = jnp.asarray(rate, jnp.float32)
    return SuccessRateRecord(rate=rate, visits=jnp.zeros(rate.shape, jnp.int32))


# (rate before, successes, collected) -> rate after, for a standard budget of 16. The
# fifth: (2 + (1 - 4/16) * 0.5 * 16) / 16 = (2 + 6) / 16 = 0.5.
VECTORS = [
    (0.0, 0, 0, 0.0),
    (0.5, 0, 0, 0.5),
    (0.0, 4, 16, 0.25),
    (1.0, 0, 1, 0.9375),
    (1.0, 1, 1, 1.0),
    (0.5, 2, 4, 0.5),
    (0.25, 3, 8, 0.3125),
    (0.2, 1, 2, 0.2375),
    (0.9, 5, 20, 0.25),
]


@pytest.mark.parametrize(("old", "successes", "collected", "new"), VECTORS)
def test_known_values(old, successes, collected, new):
    ids = jnp.zeros(24, jnp.int32)
    success = jnp.arange(24) < successes
    valid = jnp.arange(24) < collected
    after = update_success_rate(record_of([old]), ids, success, valid, group_size=16)
    close(after.rate, [new], 1e-7)
    assert after.visits.tolist() == [collected]


def random_round(seed, num_tasks=7, size=40):
    rng = np.random.default_rng(seed)
    return (
        rng.random(num_tasks).astype(np.float32),
        rng.integers(0, num_tasks, size).astype(np.int32),
        rng.random(size) < 0.4,
        rng.random(size) < 0.8,
    )


@pytest.mark.parametrize("seed", range(20))
def test_matches_reference(seed):
    rate, ids, success, valid = random_round(seed)
    after = update_success_rate(record_of(rate), ids, success, valid, group_size=6)
    close(after.rate, sampling.update_record(rate, ids, success, valid, 6))
    assert after.visits.sum() == valid.sum()


def test_jit_and_vmap_agree():
    rounds = [random_round(seed) for seed in range(4)]

    def update(rate, ids, success, valid):
        return stepjax.update_success_rate(
            record_of(rate), ids, success, valid, group_size=5
        ).rate

    loop = np.stack([update(*r) for r in rounds])
    stacked = [
        jnp.stack([jnp.asarray(x) for x in xs]) for xs in zip(*rounds, strict=True)
    ]
    close(jax.jit(jax.vmap(update))(*stacked), loop, 1e-7)


def test_padding_is_invisible():
    rate, ids, success, valid = random_round(3)
    record = record_of(rate)
    want = update_success_rate(record, ids, success, valid, group_size=6)
    reward = np.where(valid, success.astype(np.float32), np.nan).astype(np.float32)
    got = update_success_rate(record, ids, reward, valid, group_size=6)
    assert np.array_equal(got.rate, want.rate)
    padded = update_success_rate(
        record,
        np.concatenate([ids, [0, 1, 10**6]]).astype(np.int32),
        np.concatenate([success, [True] * 3]),
        np.concatenate([valid, [False] * 3]),
        group_size=6,
    )
    assert np.array_equal(padded.rate, want.rate)
    assert np.array_equal(padded.visits, want.visits)


def test_gradients():
    _, ids, success, valid = random_round(4)

    def total(rate):
        after = update_success_rate(
            SuccessRateRecord(rate=rate, visits=jnp.zeros(7, jnp.int32)),
            ids,
            success,
            valid,
            group_size=6,
        )
        return jnp.sum(after.rate)

    assert np.all(np.isfinite(jax.grad(total)(jnp.full(7, 0.5))))


def test_degenerate_inputs():
    record = stepjax.init_success_rate(3, initial_rate=0.5)
    none = jnp.zeros(4, bool)
    ids = jnp.zeros(4, jnp.int32)
    after = update_success_rate(record, ids, none, none, group_size=16)
    assert after.rate.tolist() == [0.5, 0.5, 0.5]
    empty = jnp.zeros(0, jnp.int32)
    after = update_success_rate(record, empty, empty > 0, empty > 0, group_size=16)
    assert after.rate.tolist() == [0.5, 0.5, 0.5]
    for rate, outcome in ((0.0, False), (1.0, True)):
        record = stepjax.init_success_rate(1, initial_rate=rate)
        for n in (1, 17):
            after = update_success_rate(
                record,
                jnp.zeros(n, jnp.int32),
                jnp.full(n, outcome),
                jnp.ones(n, bool),
                group_size=16,
            )
            assert after.rate.tolist() == [rate], n


def test_rejects_bad_shapes():
    record = stepjax.init_success_rate(3)
    ids, flags = jnp.zeros(4, jnp.int32), jnp.ones(4, bool)
    with pytest.raises(ValueError, match="success must have shape"):
        stepjax.update_success_rate(record, ids, flags[:3], flags, group_size=4)
    with pytest.raises(TypeError, match="valid must be a bool"):
        stepjax.update_success_rate(record, ids, flags, ids, group_size=4)
    with pytest.raises(ValueError, match="group_size"):
        stepjax.update_success_rate(record, ids, flags, flags, group_size=0)
    with pytest.raises(ValueError, match="num_tasks must be >= 1, got 0"):
        stepjax.init_success_rate(0)
    with pytest.raises(ValueError, match="initial_rate"):
        stepjax.init_success_rate(3, initial_rate=1.5)


@quick
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_order_does_not_matter_and_rates_stay_probabilities(random, group_size):
    rate, ids, success, valid = random_round(random.randrange(10**6))
    order = np.array(random.sample(range(40), 40))
    update = update_success_rate
    record = record_of(rate)
    size = jnp.float32(group_size)
    want = update(record, ids, success, valid, group_size=size)
    got = update(record, ids[order], success[order], valid[order], group_size=size)
    assert np.array_equal(got.rate, want.rate)
    assert np.all((want.rate >= 0) & (want.rate <= 1))


def test_group_size_is_traced():
    rate, ids, success, valid = random_round(0)
    update, traces = count_traces(stepjax.update_success_rate)
    for size in (4, 8, 16):
        update(record_of(rate), ids, success, valid, group_size=size)
    assert len(traces) == 1


def test_eight_devices_agree():
    rate, ids, success, valid = random_round(5, num_tasks=16, size=64)

    def update(rate, ids, success, valid):
        return stepjax.update_success_rate(
            record_of(rate), ids, success, valid, group_size=6
        )

    want = update(*map(jnp.asarray, (rate, ids, success, valid)))
    got = on_eight_devices(update, rate, ids, success, valid)
    close(got.rate, want.rate, 1e-7)
    assert np.array_equal(got.visits, want.visits)


@pytest.mark.parametrize("bad", [-1, 128])
def test_ids_outside_the_pool_are_named(bad):
    ids = np.zeros((2, 8), np.int64)
    ids[1, 5] = bad
    with pytest.raises(ValueError, match=rf"task_ids\[1, 5\] = {bad} is outside"):
        stepjax.check_task_ids(ids, 128)
    with pytest.raises(TypeError, match="must be integers"):
        stepjax.check_task_ids(np.zeros(3), 128)
    assert stepjax.check_task_ids([], 4).shape == (0,)
    assert stepjax.check_task_ids(jnp.arange(4), 4).dtype == np.int32
