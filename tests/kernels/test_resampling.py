"""Budget reallocation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepjax
from tests.kernels.common import close, count_traces, on_eight_devices, quick
from tests.reference import sampling

pytestmark = pytest.mark.usefixtures("strict_dtypes")
RATE = jnp.array([0.0, 0.0, 0.3, 0.5, 0.7, 0.95, 1.0, 1.0])
IDS = jnp.array([0, 3, 4, 5, 6, 7])
draw = jax.jit(stepjax.resample_tasks, static_argnames=["group_size"])


@functools.partial(jax.jit, static_argnames=["group_size"])
def _draws(keys, ids, rate, *, group_size, **numbers):
    fn = functools.partial(stepjax.resample_tasks, group_size=group_size, **numbers)
    return jax.vmap(fn, in_axes=(0, None, None))(keys, ids, rate)


def many(num=400, *, ids=IDS, rate=RATE, group_size=8, **numbers):
    """Slots and flags of many independent draws, [num, B, N]."""
    # All numbers go in as arrays: one compilation serves nearly every test.
    numbers = {"sharpness": 10.0, "kept_copies": 1, "unsolved_share": 0.0} | numbers
    if "max_cache_copies" in numbers:
        numbers["max_cache_copies"] = jnp.int32(numbers["max_cache_copies"])
    keys = jax.random.split(jax.random.key(0), 400)
    out = _draws(keys, ids, rate, group_size=group_size, **numbers)
    return tuple(np.asarray(x)[:num] for x in out)


@pytest.mark.parametrize(
    ("rate", "prob", "kept"),
    [
        (0.0, 0.002473, 15.963),
        (0.2, 0.017986, 15.730),
        (0.4, 0.119203, 14.212),
        (0.5, 0.268941, 11.966),
        (0.6, 0.500000, 8.500),
        (0.7, 0.731059, 5.034),
        (0.8, 0.880797, 2.788),
        (0.9, 0.952574, 1.711),
        (1.0, 0.982014, 1.270),
    ],
)
def test_known_values(rate, prob, kept):
    got = stepjax.replacement_prob(jnp.array([rate]))
    np.testing.assert_allclose(got[0], prob, atol=5e-7)
    # One copy always stays, the other 15 with probability 1 - p.
    np.testing.assert_allclose(1 + 15 * (1 - got[0]), kept, atol=6e-4)
    assert stepjax.cache_mask(jnp.array([rate])).tolist() == [0 < rate < 0.6]


@pytest.mark.parametrize("unsolved_share", [0.0, 0.25])
@pytest.mark.parametrize(
    "rate",
    [RATE, RATE.at[:2].set(0.9), RATE.at[2:4].set(0.8)],
    ids=["mixed", "nothing unsolved", "empty cache"],
)
def test_matches_reference(rate, unsolved_share):
    numbers = {"kept_copies": 2, "unsolved_share": unsolved_share}
    want = sampling.expected_shares(
        IDS.tolist(), np.asarray(rate).tolist(), 8, **numbers
    )
    got = stepjax.sampling_weights(IDS, rate, group_size=8, **numbers)
    close(got, want, 1e-6)
    close(jnp.sum(got), 1.0, 1e-6)
    slots, replaced = many(rate=rate, **numbers)
    shares = np.bincount(slots.ravel(), minlength=8) / slots.size
    np.testing.assert_allclose(shares, want, atol=0.012)
    own = np.broadcast_to(np.asarray(IDS)[:, None], slots.shape[1:])
    assert np.all((slots == own) | replaced)
    allowed = np.asarray((rate == 0) if unsolved_share else jnp.zeros(8, bool))
    allowed = allowed | np.asarray(stepjax.cache_mask(rate))
    assert np.all(allowed[slots[replaced]])


def test_jit_and_vmap_agree():
    keys = jax.random.split(jax.random.key(1), 3)
    fn = functools.partial(
        stepjax.resample_tasks, group_size=6, max_cache_copies=2, unsolved_share=0.2
    )
    batched = jax.jit(jax.vmap(fn, in_axes=(0, None, None)))(keys, IDS, RATE)
    for got, want in zip(batched, fn(keys[1], IDS, RATE), strict=True):
        assert np.array_equal(got[1], want)


def test_padding_is_invisible():
    """Tasks outside cache and round change nothing, however many there are."""
    key = jax.random.key(2)
    want, flags = draw(key, IDS, RATE, group_size=8)
    more = jnp.concatenate([RATE, jnp.array([1.0, 0.8, jnp.nan, -1.0])])
    got, more_flags = draw(key, IDS, more, group_size=8)
    assert np.array_equal(got, want)
    assert np.array_equal(flags, more_flags)


def test_gradients():
    """The draw has no gradient; the expectation has a finite one."""
    slots, _ = draw(jax.random.key(0), IDS, RATE, group_size=4)
    assert slots.dtype == jnp.int32

    def spread(rate):
        return jnp.sum(stepjax.sampling_weights(IDS, rate, group_size=4) ** 2)

    assert np.all(np.isfinite(jax.grad(spread)(RATE)))
    assert np.all(np.isfinite(jax.grad(spread)(jnp.zeros(8)))), "empty cache"


def test_degenerate_inputs():
    for rate in (0.0, 1.0):
        slots, replaced = many(20, rate=jnp.full(8, rate))
        assert not replaced.any(), "an empty cache replaces nothing"
        assert np.all(slots == np.asarray(IDS)[None, :, None])
    slots, replaced = many(20, rate=RATE, group_size=1)
    assert not replaced.any(), "the one copy is kept"
    _, replaced = many(20, kept_copies=100)
    assert not replaced.any()
    _, replaced = many(20, sharpness=1e6, kept_copies=0)
    assert replaced[:, 2:].all(), "a hard threshold replaces all of a mastered task"
    assert not replaced[:, :2].any()


def test_rejects_bad_shapes():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="task_ids must have shape"):
        stepjax.resample_tasks(key, IDS[None], RATE, group_size=4)
    with pytest.raises(TypeError, match="task_ids must be an integer"):
        stepjax.resample_tasks(key, RATE, RATE, group_size=4)
    with pytest.raises(ValueError, match="group_size must be >= 1, got 0"):
        stepjax.resample_tasks(key, IDS, RATE, group_size=0)
    with pytest.raises(ValueError, match="threshold must be in"):
        stepjax.resample_tasks(key, IDS, RATE, group_size=4, threshold=1.5)
    with pytest.raises(ValueError, match="max_cache_copies"):
        stepjax.resample_tasks(key, IDS, RATE, group_size=4, max_cache_copies=-1)
    with pytest.raises(TypeError, match="group_size must be a Python integer"):
        jax.jit(lambda n: stepjax.resample_tasks(key, IDS, RATE, group_size=n))(4)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_kept_copies_are_kept(kept):
    _, replaced = many(50, kept_copies=kept)
    assert not replaced[..., :kept].any()
    assert replaced[..., kept].any()


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_cap_bounds_the_extra_copies_of_each_task(cap):
    rate = RATE.at[3].set(0.8)  # one cached task: task 2
    free, free_replaced = many(rate=rate)
    slots, replaced = many(rate=rate, max_cache_copies=cap)
    own = np.broadcast_to(np.asarray(IDS)[:, None], slots.shape[1:])
    wanted = free_replaced.sum((1, 2))
    assert np.array_equal(replaced.sum((1, 2)), np.minimum(wanted, cap))
    assert np.all(free_replaced | ~replaced), "the cap only takes away"
    assert np.all(slots[~replaced] == np.broadcast_to(own, slots.shape)[~replaced])
    if cap:
        # Among the mastered tasks, survival does not depend on place.
        rows = replaced.sum((0, 2))[-2:] / free_replaced.sum((0, 2))[-2:]
        columns = replaced.sum((0, 1))[1:] / free_replaced.sum((0, 1))[1:]
        assert np.ptp(rows) < 0.05
        assert np.ptp(columns) < 0.1


def test_cap_above_demand_changes_nothing():
    for cap in (10**6, jnp.int32(48)):
        for got, want in zip(many(50, max_cache_copies=cap), many(50), strict=True):
            assert np.array_equal(got, want)


@quick
@given(
    st.integers(0, 2**31 - 1),
    st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8),
    st.integers(0, 6),
    st.floats(0, 1),
)
def test_always_a_valid_round(seed, rate, cap, unsolved_share):
    rate = jnp.array(rate, jnp.float32)
    slots, replaced = draw(
        jax.random.key(seed),
        IDS,
        rate,
        group_size=8,
        max_cache_copies=cap,
        unsolved_share=unsolved_share,
    )
    slots, replaced = np.asarray(slots), np.asarray(replaced)
    assert slots.shape == (6, 8)
    assert np.all((slots >= 0) & (slots < 8))
    assert np.bincount(slots[replaced], minlength=8).max() <= cap
    targets = np.asarray(rate)[slots[replaced]]
    assert np.all(targets < 0.6)


def test_numbers_are_traced():
    fn = functools.partial(stepjax.resample_tasks, group_size=8)
    fn, traces = count_traces(fn)
    for cap, share in ((1, 0.0), (100, 0.3), (7, 1.0)):
        fn(
            jax.random.key(0),
            IDS,
            RATE,
            threshold=0.5 + share / 10,
            sharpness=9.0,
            kept_copies=cap,
            max_cache_copies=cap,
            unsolved_share=share,
        )
    assert len(traces) == 1


def test_eight_devices_agree():
    def fn(ids, rate):
        return stepjax.resample_tasks(
            jax.random.key(3),
            ids,
            rate,
            group_size=16,
            max_cache_copies=5,
            unsolved_share=0.25,
        )

    ids = jnp.arange(8) * 2
    rate = jnp.linspace(0, 1, 16)
    for got, want in zip(
        on_eight_devices(fn, ids, rate), jax.jit(fn)(ids, rate), strict=True
    ):
        assert np.array_equal(got, want)


def test_sampling_shifts_away_from_mastered_tasks():
    """The paper's Figure 2 in miniature: Bernoulli tasks whose rates are known."""
    rng = np.random.default_rng(0)
    truth = rng.beta(0.3, 0.42, size=128)
    record = stepjax.init_success_rate(128)
    update = jax.jit(stepjax.update_success_rate)
    shares, easy = [], truth > 0.8
    for round_number in range(32):
        if round_number % 8 == 0:
            order = rng.permutation(128)
        ids = jnp.asarray(order[16 * (round_number % 8) :][:16])
        slots, _ = draw(jax.random.key(round_number), ids, record.rate, group_size=16)
        tasks = np.asarray(slots).ravel()
        success = rng.random(256) < truth[tasks]
        record = update(record, tasks, success, np.ones(256, bool), group_size=16)
        shares.append(easy[tasks[success]].mean())
    assert np.mean(shares[:8]) > 0.45
    assert np.mean(shares[8:]) < 0.25
