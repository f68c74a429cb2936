import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.batching import (
    CompileCounter,
    bucket_size,
    concatenate_rows,
    flatten_steps,
    pack_single_update,
    pack_steps,
    pack_trajectories,
    rows_of_a_pass,
    take_rows,
    validate_batch,
)
from stepjax.types import Trajectories
from tests.training.toy import make_rows

M, L, A = 6, 4, 3


def make_trajectories(seed=0, num=M, steps=L):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, steps + 1, num)
    return Trajectories(
        task_id=rng.integers(0, 10, num, dtype=np.int32),
        prompt={
            "image": rng.normal(size=(num, steps, 2, 2)).astype(np.float32),
            "name": np.arange(num * steps, dtype=np.int32).reshape(num, steps),
        },
        action_tokens=rng.integers(0, 5, (num, steps, A), dtype=np.int32),
        token_mask=rng.random((num, steps, A)) < 0.5,
        log_prob=-rng.random((num, steps, A)).astype(np.float32),
        step_mask=np.arange(steps) < lengths[:, None],
        state_hash=rng.integers(0, 99, (num, steps), dtype=np.uint32),
        reward=rng.random(num).astype(np.float32),
        valid=np.arange(num) != 2,
    )


def expected_steps(trajectories):
    real = trajectories.step_mask & trajectories.valid[:, None]
    return [tuple(pair) for pair in np.argwhere(real)]


@pytest.mark.parametrize("on_device", [False, True])
def test_flatten_takes_real_steps_of_valid_trajectories(on_device):
    host = make_trajectories()
    given = jax.tree.map(jnp.asarray, host) if on_device else host
    advantage = np.arange(M, dtype=np.float32)
    rows = flatten_steps(given, advantage)
    steps = expected_steps(host)
    assert rows.prompt["name"].tolist() == [m * L + t for m, t in steps]
    assert rows.trajectory_id.tolist() == [m for m, _ in steps]
    assert rows.task_id.tolist() == [host.task_id[m] for m, _ in steps]
    assert rows.advantage.tolist() == [advantage[m] for m, _ in steps]
    assert set(rows.weight.tolist()) == {1.0}
    for index, (m, t) in enumerate(steps):
        np.testing.assert_array_equal(
            rows.action_tokens[index], host.action_tokens[m, t]
        )
        np.testing.assert_array_equal(rows.token_mask[index], host.token_mask[m, t])
        np.testing.assert_array_equal(rows.old_log_prob[index], host.log_prob[m, t])
        np.testing.assert_array_equal(
            rows.prompt["image"][index], host.prompt["image"][m, t]
        )
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(rows))
    validate_batch(rows, num_tasks=10)


def test_flatten_with_step_advantages_keep_and_weight():
    host = make_trajectories()
    advantage = np.arange(M * L, dtype=np.float32).reshape(M, L) % 3
    rows = flatten_steps(
        host, advantage, keep=advantage != 0, weight=np.arange(M) + 0.5
    )
    steps = [(m, t) for m, t in expected_steps(host) if advantage[m, t] != 0]
    assert rows.advantage.tolist() == [advantage[m, t] for m, t in steps]
    assert rows.weight.tolist() == [m + 0.5 for m, _ in steps]
    assert rows.weight.dtype == rows.advantage.dtype == np.float32
    # keep cannot bring back what did not happen.
    everything = flatten_steps(host, advantage, keep=np.ones((M, L), bool))
    assert everything.weight.shape[0] == len(expected_steps(host))


@pytest.mark.parametrize("name", ["advantage", "keep", "weight"])
def test_flatten_rejects_bad_shapes(name):
    given = {"advantage": np.zeros(M), name: np.zeros((L, M))}
    with pytest.raises(ValueError, match=rf"{name} must have shape \(6, 4\) or \(6,\)"):
        flatten_steps(make_trajectories(), **given)


def test_nothing_in_nothing_out():
    host = make_trajectories()
    rows = flatten_steps(host, np.zeros(M), keep=np.zeros((M, L), bool))
    assert rows.weight.shape == (0,)
    assert rows.prompt["image"].shape == (0, 2, 2)
    assert pack_steps(rows, seed=0, rows_per_update=8) == []
    assert pack_trajectories(rows, seed=0, rows_per_update=8, pad_to=8) == []
    assert pack_single_update(rows, micro_batch_size=8) == []
    validate_batch(rows)


def live_rows(batches):
    """Content of all rows with weight, as a sorted list."""
    content = []
    for batch in batches:
        live = take_rows(batch, np.flatnonzero(batch.weight))
        flat = [
            np.asarray(x).reshape(len(live.weight), -1) for x in jax.tree.leaves(live)
        ]
        content += np.concatenate(flat, axis=1).tolist()
    return sorted(content)


@pytest.mark.parametrize("count", [1, 5, 255, 256, 257, 300, 512, 513, 1000])
def test_equal_parts(count):
    rows = make_rows(count)
    batches = pack_steps(rows, seed=3, rows_per_update=256)
    sizes = [int((batch.weight != 0).sum()) for batch in batches]
    assert len(sizes) == -(-count // 256)
    assert max(sizes) - min(sizes) <= 1
    assert {batch.weight.shape for batch in batches} == {(256,)}
    assert live_rows(batches) == live_rows([rows])
    for batch in batches:
        validate_batch(batch, num_tasks=10)
        dead = batch.weight == 0
        assert not batch.token_mask[dead].any()
        assert not batch.advantage[dead].any()
        assert np.isfinite(batch.prompt["x"]).all()


def test_shuffle_follows_the_seed():
    rows = make_rows(100)

    def first(seed):
        return pack_steps(rows, seed=seed, rows_per_update=64)[0].old_log_prob

    np.testing.assert_array_equal(first((1, 2)), first((1, 2)))
    assert (first((1, 2)) != first((1, 3))).any()
    assert (first(1) != first(2)).any()


def test_buckets():
    rows = make_rows(70)
    batches = pack_steps(rows, seed=0, rows_per_update=64, pad_to=(128, 32, 48))
    assert [batch.weight.shape for batch in batches] == [(48,), (48,)]
    assert bucket_size(0, 8) == 8
    assert bucket_size(8, (16, 8)) == 8
    assert bucket_size(9, (16, 8)) == 16
    with pytest.raises(ValueError, match="17 rows do not fit the largest bucket, 16"):
        bucket_size(17, (16, 8))
    with pytest.raises(ValueError, match="rows_per_update must be at least 1, got 0"):
        pack_steps(rows, seed=0, rows_per_update=0)
    with pytest.raises(ValueError, match="bucket 64 is not a multiple .* 24"):
        pack_steps(rows, seed=0, rows_per_update=64, micro_batch_size=24)


@pytest.mark.parametrize(("count", "used"), [(1, 1), (8, 1), (9, 2), (33, 5), (64, 8)])
def test_rows_fill_few_micro_batches(count, used):
    """Row i is in micro-batch i modulo their number, as the train step cuts them."""
    rows = make_rows(count)
    (batch,) = pack_steps(rows, seed=0, rows_per_update=64, micro_batch_size=8)
    weight = batch.weight.reshape(8, 8)
    assert (weight != 0).any(axis=0).sum() == used
    assert live_rows([batch]) == live_rows([rows])


@pytest.mark.parametrize("count", [1, 17, 60, 300])
def test_trajectories_stay_together(count):
    rows = make_rows(count)
    batches = pack_trajectories(rows, seed=0, rows_per_update=32, pad_to=(16, 40))
    owners = [set(b.trajectory_id[b.weight != 0].tolist()) for b in batches]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert live_rows(batches) == live_rows([rows])
    sizes = [int((batch.weight != 0).sum()) for batch in batches]
    assert len(sizes) == -(-count // 32)
    assert max(sizes) - min(sizes) <= 5


def test_trajectories_get_more_batches_rather_than_overflow():
    rows = make_rows(64)
    rows = dataclasses.replace(
        rows, trajectory_id=(np.arange(64) // 10).astype(np.int32)
    )
    batches = pack_trajectories(rows, seed=0, rows_per_update=32, pad_to=32)
    assert len(batches) == 3
    with pytest.raises(ValueError, match="trajectory 0 has 10 rows, more than .* 8"):
        pack_trajectories(rows, seed=0, rows_per_update=8, pad_to=8)


def test_single_update():
    rows = make_rows(70)
    (batch,) = pack_single_update(rows, micro_batch_size=16)
    assert batch.weight.shape == (128,)
    assert live_rows([batch]) == live_rows([rows])
    (batch,) = pack_single_update(rows, micro_batch_size=16, pad_to=(80, 160))
    assert batch.weight.shape == (80,)
    (batch,) = pack_single_update(make_rows(16), micro_batch_size=16)
    assert batch.weight.shape == (16,)


def test_concatenate():
    left, right = make_rows(5, 0), make_rows(7, 1)
    rows = concatenate_rows(left, jax.tree.map(jnp.asarray, right))
    assert rows.weight.shape == (12,)
    np.testing.assert_array_equal(rows.prompt["x"][5:], right.prompt["x"])
    assert live_rows([rows]) == live_rows([left, right])
    assert concatenate_rows(left).weight.shape == (5,)
    wide = dataclasses.replace(right, prompt={**right.prompt, "x": np.zeros((7, 9))})
    with pytest.raises(ValueError, match=r"rows\[1\].prompt.x has shape \(9,\)"):
        concatenate_rows(left, wide)
    fewer = dataclasses.replace(right, prompt={"x": right.prompt["x"]})
    with pytest.raises(ValueError, match=r"rows\[1\] has other arrays"):
        concatenate_rows(left, fewer)
    with pytest.raises(ValueError, match="nothing to concatenate"):
        concatenate_rows()


def put(rows, name, index, value):
    array = np.array(getattr(rows, name))
    array[index] = value
    return dataclasses.replace(rows, **{name: array})


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("task_id", 17, 205, r"task_id\[17\] = 205 is outside \[0, 128\)\."),
        ("task_id", 3, -1, r"task_id\[3\] = -1 is outside"),
        ("weight", 2, np.nan, r"weight\[2\] = nan, but must be finite\."),
        ("weight", 2, -1.0, r"weight\[2\] = -1.0, but must not be negative"),
        ("advantage", 4, np.inf, r"advantage\[4\] = inf, but must be finite"),
        ("old_log_prob", (1, 0), np.nan, r"old_log_prob\[1, 0\] = nan, but must be"),
        ("old_log_prob", (1, 0), 0.5, r"old_log_prob\[1, 0\] = 0.5, but .* at most 0"),
    ],
)
def test_validate_names_the_entry(name, index, value, message):
    rows = make_rows(20)
    validate_batch(rows, num_tasks=128)
    with pytest.raises(ValueError, match=message) as caught:
        validate_batch(put(rows, name, index, value), num_tasks=128)
    assert "\n" not in str(caught.value)


def test_validate_ignores_padding():
    rows = put(make_rows(20), "weight", 4, 0)
    for name in ("advantage", "task_id"):
        rows = put(rows, name, 4, 10**6)
    rows = put(rows, "old_log_prob", (4, 0), np.nan)
    validate_batch(rows, num_tasks=10)


def test_validate_shapes_and_dtypes():
    rows = make_rows(20)
    short = dataclasses.replace(rows, prompt={**rows.prompt, "x": np.zeros((3, 6))})
    with pytest.raises(
        ValueError, match=r"prompt.x has shape \(3, 6\), but .* 20 rows"
    ):
        validate_batch(short)
    with pytest.raises(ValueError, match=r"old_log_prob has shape \(20, 2\)"):
        validate_batch(
            dataclasses.replace(rows, old_log_prob=np.zeros((20, 2), np.float32))
        )
    with pytest.raises(TypeError, match="task_id must be integer, got float32"):
        validate_batch(dataclasses.replace(rows, task_id=np.zeros(20, np.float32)))
    with pytest.raises(TypeError, match="token_mask must be bool, got int32"):
        validate_batch(
            dataclasses.replace(rows, token_mask=rows.token_mask.astype(np.int32))
        )


def test_compile_counter():
    function = jax.jit(lambda x: x * 2.5 + 1)
    inputs = [np.ones(3, np.float32), np.ones(4, np.float32)]
    counter = CompileCounter()
    function(inputs[0])
    first = counter.count
    assert first >= 1
    function(inputs[0])
    assert counter.count == first
    later = CompileCounter()
    function(inputs[1])
    assert counter.count - first == later.count >= 1


@pytest.mark.parametrize(
    ("rows", "at_most", "shards", "found"),
    [
        (256, 64, 1, 64),
        (256, 8, 1, 8),
        (250, 8, 1, 5),
        (96, 64, 1, 48),
        (96, 8, 4, 8),
        (250, 8, 2, 2),
        (256, 8, 32, 32),  # one a device is the least
        (8, 64, 4, 8),
        (1, 8, 1, 1),
    ],
)
def test_rows_of_a_pass_divide_the_update(rows, at_most, shards, found):
    assert rows_of_a_pass(rows, at_most, shards) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((254, 64), "rows_per_update = 254 has no divisor near 64.* is 2.*choose 256"),
        ((253, 8), "choose 256, a multiple of 8"),
        ((248, 64, 8), "on 8 devices is 8.*choose 256"),
        ((12, 8, 8), "12 is not divisible by the 8 devices"),
        ((8, 0), "at_most must be at least 1, got 0"),
    ],
)
def test_rows_that_cannot_be_cut_into_passes_are_refused(given, said):
    with pytest.raises(ValueError, match=said) as error:
        rows_of_a_pass(*given)
    assert "\n" not in str(error.value)
