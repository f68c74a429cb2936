import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepjax.batching import (
    CompileCounter,
    pack_single_update,
    pack_steps,
    take_rows,
)
from stepjax.training.sharding import (
    batch_sharding,
    infer_state_sharding,
    make_mesh,
    shard_batch,
    shard_state,
)
from stepjax.training.step import cast_floating, jit_train_step, make_train_step
from stepjax.types import LossOutput, PolicyOutput
from tests.training.toy import (
    assert_close,
    assert_identical,
    host,
    init_params,
    loss_fn,
    make_optimizer,
    make_rows,
    make_state,
    policy_fn,
)

# Plain descent: Adam divides by the size of a gradient and would hide a wrong scale.
SGD = optax.sgd(0.3)


def one_update(batch, *, tx=SGD, **options):
    step = jax.jit(make_train_step(policy_fn, tx, loss_fn, **options))
    return step(make_state(tx), batch)


def padded(rows, size, **options):
    (batch,) = pack_steps(rows, seed=0, rows_per_update=size, **options)
    return batch


def test_known_gradient():
    """The update is the gradient of one quotient over the whole batch."""
    rows = make_rows(13)

    def objective(params):
        output = policy_fn(params, rows.prompt, rows.action_tokens, rows.token_mask)
        weight = rows.weight[:, None] * rows.token_mask
        ratio = jnp.exp(output.log_prob - rows.old_log_prob)
        return -jnp.sum(weight * rows.advantage[:, None] * ratio) / jnp.sum(weight)

    loss, grads = jax.jit(jax.value_and_grad(objective))(init_params())
    expected = jax.tree.map(lambda p, g: p - 0.3 * g, init_params(), grads)
    state, metrics = one_update(rows)
    assert_close(state.params, expected)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    assert int(state.step) == 1
    assert float(metrics["rows"]) == 13
    assert float(metrics["updates"]) == 1
    assert float(metrics["nonfinite"]) == 0


@pytest.mark.parametrize(
    "micro_batch_size",
    [8, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 4, 16, 32))],
)
def test_micro_batch_split_is_invisible(micro_batch_size):
    batch = padded(make_rows(27), 32)
    whole, whole_metrics = one_update(batch)
    parts, parts_metrics = one_update(batch, micro_batch_size=micro_batch_size)
    assert_close(whole.params, parts.params)
    assert_close(whole_metrics, parts_metrics, tolerance=1e-5)


def test_unequal_weights_are_normalized_globally():
    """A micro-batch with little weight counts little, not as much as the others."""
    rows = make_rows(8)
    rows = dataclasses.replace(
        rows, weight=np.array([1, 1e-3, 1, 1e-3, 1, 1e-3, 1, 1e-3], np.float32)
    )
    assert_close(
        one_update(rows)[0].params, one_update(rows, micro_batch_size=4)[0].params
    )


def test_padding_is_invisible():
    rows = make_rows(20)
    exact, metrics = one_update(rows)
    for size in (24, 64):
        more, more_metrics = one_update(padded(rows, size))
        assert_close(exact.params, more.params)
        assert_close(metrics, more_metrics, tolerance=1e-5)


@pytest.mark.slow
def test_padding_by_whole_micro_batches_is_exactly_invisible():
    rows = make_rows(16)
    small = padded(rows, 16, micro_batch_size=8)
    large = padded(rows, 16, pad_to=64, micro_batch_size=8)
    left, _ = one_update(small, micro_batch_size=8)
    right, _ = one_update(large, micro_batch_size=8)
    assert_identical(left, right)


def test_garbage_in_padding_is_invisible():
    batch = padded(make_rows(20), 24)
    dead = batch.weight == 0
    garbled = dataclasses.replace(
        batch,
        old_log_prob=np.where(dead[:, None], -30, batch.old_log_prob).astype(
            np.float32
        ),
        advantage=np.where(dead, 1e6, batch.advantage).astype(np.float32),
    )
    assert_identical(one_update(batch)[0], one_update(garbled)[0])


def test_row_order_is_invisible():
    rows = make_rows(24)
    shuffled = take_rows(rows, np.random.default_rng(1).permutation(24))
    for options in ({}, {"micro_batch_size": 8}):
        left, left_metrics = one_update(rows, **options)
        right, right_metrics = one_update(shuffled, **options)
        assert_close(left.params, right.params)
        assert_close(left_metrics, right_metrics, tolerance=1e-5)


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 8}], ids=["one", "micro"])
def test_batch_without_weight_changes_nothing(options):
    rows = dataclasses.replace(make_rows(24), weight=np.zeros(24, np.float32))
    rows.prompt["x"][:] = np.nan
    tx = make_optimizer()
    state, metrics = one_update(rows, tx=tx, **options)
    assert_identical(state, make_state(tx))
    assert all(np.isfinite(value) for value in metrics.values())
    assert float(metrics["updates"]) == 0
    assert float(metrics["nonfinite"]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 8}], ids=["one", "micro"])
def test_numbers_gone_bad_keep_the_last_good_state(bad, options):
    rows = make_rows(24)
    rows.advantage[5] = bad
    tx = make_optimizer()
    state, metrics = one_update(rows, tx=tx, **options)
    assert_identical(state, make_state(tx))
    assert float(metrics["nonfinite"]) == 1
    assert float(metrics["updates"]) == 0


def test_bad_weight_or_bad_update_is_caught():
    rows = make_rows(8)
    rows.weight[0] = np.nan
    assert float(one_update(rows)[1]["nonfinite"]) == 1
    state, metrics = one_update(make_rows(8), tx=optax.sgd(np.inf))
    assert float(metrics["nonfinite"]) == 1
    assert_identical(state, make_state(SGD))


@pytest.mark.slow
def test_remat_changes_nothing():
    batch = padded(make_rows(27), 32)
    assert_close(one_update(batch)[0], one_update(batch, remat=True)[0])
    assert_close(
        one_update(batch)[0], one_update(batch, remat=True, micro_batch_size=8)[0]
    )


@pytest.mark.slow
def test_bfloat16_compute_keeps_float32_masters():
    seen = []

    def spy(params, *args):
        seen.extend(leaf.dtype for leaf in jax.tree.leaves(params))
        return policy_fn(params, *args)

    tx = make_optimizer()
    step = make_train_step(spy, tx, loss_fn, compute_dtype=jnp.bfloat16)
    rows = make_rows(32)
    state, metrics = jax.jit(step)(make_state(tx), rows)
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}
    floats = [
        x.dtype
        for x in jax.tree.leaves((state.params, state.opt_state))
        if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    assert set(floats) == {jnp.dtype(jnp.float32)}
    reference, expected = one_update(rows, tx=tx)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=0.02)
    np.testing.assert_allclose(metrics["grad_norm"], expected["grad_norm"], rtol=0.05)
    # A step of Adam is 1e-2 in each entry; the two must agree on most signs.
    agree = jax.tree.map(
        lambda start, a, b: np.mean(np.sign(a - start) == np.sign(b - start)),
        host(init_params()),
        host(state.params),
        host(reference.params),
    )
    assert min(jax.tree.leaves(agree)) > 0.9


def test_cast_floating_leaves_integers_alone():
    tree = {"a": jnp.ones(2), "b": jnp.arange(2)}
    cast = cast_floating(tree, jnp.bfloat16)
    assert cast["a"].dtype == jnp.bfloat16
    assert cast["b"].dtype == jnp.int32
    assert cast_floating(tree, None) is tree


def test_no_recompilation_within_a_bucket():
    tx = make_optimizer()
    step = jax.jit(make_train_step(policy_fn, tx, loss_fn, micro_batch_size=8))
    state = make_state(tx)
    sizes = [64, 33, 40, 8, 1, 17]
    batches = [
        pack_single_update(make_rows(n), micro_batch_size=8, pad_to=64)[0]
        for n in sizes
    ]
    state, _ = step(state, batches[0])
    counter = CompileCounter()
    rows = []
    for batch in batches[1:]:
        state, metrics = step(state, batch)
        rows.append(int(metrics["rows"]))
    assert rows == sizes[1:]
    assert counter.count == 0
    step(state, pack_single_update(make_rows(70), micro_batch_size=8)[0])
    assert counter.count >= 1


def run_sharded(mesh, batches, **options):
    tx = make_optimizer()
    state = make_state(tx)
    sharding = infer_state_sharding(jax.eval_shape(lambda: state), mesh)
    step = jit_train_step(
        make_train_step(policy_fn, tx, loss_fn, **options),
        state_sharding=sharding,
        batch_sharding=batch_sharding(mesh),
    )
    state = shard_state(state, sharding)
    for batch in batches:
        state, metrics = step(state, batch)
    return state, metrics


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=pytest.mark.slow), {"micro_batch_size": 16}],
    ids=["one", "micro"],
)
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 2, 2),
        *(pytest.param(s, marks=pytest.mark.slow) for s in [(8, 1, 1), (1, 8, 1)]),
    ],
    ids=str,
)
def test_eight_devices_equal_one(sizes, options):
    batches = [padded(make_rows(50, seed), 64) for seed in range(3)]
    one = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    left, left_metrics = run_sharded(one, batches, **options)
    right, right_metrics = run_sharded(make_mesh(*sizes), batches, **options)
    assert_close(left, right, tolerance=1e-5)
    assert_close(left_metrics, right_metrics, tolerance=1e-4)


def test_state_is_donated_and_stays_sharded():
    mesh = make_mesh(2, 2, 2)
    tx = make_optimizer()
    state = make_state(tx)
    sharding = infer_state_sharding(state, mesh)
    step = jit_train_step(
        make_train_step(policy_fn, tx, loss_fn),
        state_sharding=sharding,
        batch_sharding=batch_sharding(mesh),
    )
    placed = shard_state(state, sharding)
    batch = shard_batch(padded(make_rows(50), 64), batch_sharding(mesh))
    new_state, _ = step(placed, batch)
    donated = (placed.params, placed.opt_state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(batch))
    jax.tree.map(
        lambda leaf, expected: (
            leaf.sharding.is_equivalent_to(expected, leaf.ndim)
            or pytest.fail(str(leaf.sharding))
        ),
        new_state,
        sharding,
    )
    kernel = new_state.params["head"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 2
    counter = CompileCounter()
    step(new_state, batch)
    assert counter.count == 0


def test_rows_must_divide():
    mesh = make_mesh(8, 1, 1)
    with pytest.raises(ValueError, match="100 rows, not divisible by the 8 devices"):
        run_sharded(mesh, [make_rows(100)])
    with pytest.raises(
        ValueError, match="27 rows, not divisible by micro_batch_size 8"
    ):
        one_update(make_rows(27), micro_batch_size=8)
    with pytest.raises(ValueError, match="micro_batch_size must be at least 1, got 0"):
        make_train_step(policy_fn, SGD, loss_fn, micro_batch_size=0)


def test_metric_names_must_not_clash():
    def clashing(output: PolicyOutput, batch) -> LossOutput:
        result = loss_fn(output, batch)
        return LossOutput(loss=result.loss, metrics={"loss": result.loss})

    with pytest.raises(ValueError, match=r"metrics named \['loss'\]"):
        step = make_train_step(policy_fn, SGD, clashing)
        jax.eval_shape(step, make_state(SGD), make_rows(4))
