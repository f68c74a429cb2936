"""Ratios, clipped losses, KL estimators, reductions, and the STEP loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import stepjax
from stepjax.types import StepBatch
from tests.kernels.common import close, count_traces, on_eight_devices, quick
from tests.reference import objective

pytestmark = pytest.mark.usefixtures("strict_dtypes")
CLIP = {"clip_eps_low": 0.2, "clip_eps_high": 0.3}
ROWS, TOKENS = 16, 3


def random_batch(seed, spread=0.6):
    """A batch with padding rows, masked tokens and both signs; and its log-probs."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, TOKENS)
    old = -rng.random(shape) * 3
    batch = StepBatch(
        prompt=None,
        action_tokens=np.zeros(shape, np.int32),
        token_mask=np.arange(TOKENS) < rng.integers(1, TOKENS + 1, (ROWS, 1)),
        old_log_prob=old.astype(np.float32),
        advantage=rng.normal(size=ROWS).astype(np.float32),
        weight=np.where(rng.random(ROWS) < 0.8, 1 + rng.random(ROWS), 0).astype("f4"),
        task_id=np.zeros(ROWS, np.int32),
        trajectory_id=rng.integers(0, 5, ROWS).astype(np.int32) * 1000 - 7,
    )
    log_prob = (old + rng.normal(size=shape) * spread).astype(np.float32)
    return jax.tree.map(jnp.asarray, batch), jnp.asarray(log_prob)


def terms(seed):
    rng = np.random.default_rng(seed + 100)
    ref = jnp.asarray(-rng.random((ROWS, TOKENS)) * 3, jnp.float32)
    return ref, jnp.asarray(rng.random((ROWS, TOKENS)), jnp.float32)


full = jax.jit(
    functools.partial(
        stepjax.step_grpo_loss, **CLIP, dual_clip=3.0, kl_coef=0.1, entropy_coef=0.01
    )
)


def mean_loss(log_prob, batch, **numbers):
    loss = stepjax.step_grpo_loss(log_prob, batch, **(CLIP | numbers)).loss
    return stepjax.safe_divide(loss.total, loss.weight)


# Ratio, advantage, loss, clipped. low 0.2, high 0.3, dual 3.
CLIP_TABLE = [
    (1.0, 2.0, -2.0, False),
    (1.2, 1.0, -1.2, False),
    (1.5, 1.0, -1.3, True),  # above 1 + high with A > 0
    (0.5, 1.0, -0.5, False),  # below with A > 0: not clipped
    (0.5, -1.0, 0.8, True),  # below 1 - low with A < 0
    (2.0, -1.0, 2.0, False),  # above with A < 0: not clipped
    (5.0, -1.0, 3.0, True),  # dual clip
    (5.0, 0.0, 0.0, False),
]


@pytest.mark.parametrize(("ratio", "advantage", "want", "cut"), CLIP_TABLE)
def test_known_values(ratio, advantage, want, cut):
    fn = functools.partial(stepjax.clipped_ratio_loss, **CLIP, dual_clip=3.0)
    loss, clipped = fn(jnp.float32(ratio), jnp.float32(advantage))
    close(loss, np.float32(want), 1e-6)
    assert bool(clipped) is cut
    grad = jax.grad(lambda r: fn(r, jnp.float32(advantage))[0])(jnp.float32(ratio))
    close(grad, np.float32(0.0 if cut else -advantage), 1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_matches_reference(seed):
    batch, log_prob = random_batch(seed)
    ref, entropy = terms(seed)
    got = full(log_prob, batch, ref_log_prob=ref, entropy=entropy)
    total, weight = objective.step_loss(
        log_prob,
        batch,
        low=0.2,
        high=0.3,
        dual=3.0,
        kl=0.1,
        ref=ref,
        bonus=0.01,
        entropy=entropy,
    )
    np.testing.assert_allclose(got.loss.total, total, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(got.loss.weight, weight, rtol=1e-6)
    live = np.asarray(batch.token_mask) * np.asarray(batch.weight)[:, None]
    ratio = np.exp(np.asarray(log_prob) - np.asarray(batch.old_log_prob))
    np.testing.assert_allclose(
        got.metrics["ratio"].total, np.sum(live * ratio), rtol=1e-5
    )
    np.testing.assert_allclose(
        got.metrics["entropy"].total, np.sum(live * entropy), rtol=1e-5
    )
    assert set(got.metrics) == {"ratio", "clip_fraction", "approx_kl", "kl", "entropy"}


def test_jit_and_vmap_agree():
    data = [random_batch(seed) for seed in range(3)]
    stacked, log_probs = jax.tree.map(lambda *x: jnp.stack(x), *data)[::1]
    batched = jax.jit(jax.vmap(mean_loss, in_axes=(0, 0)))(log_probs, stacked)
    close(batched, np.stack([mean_loss(lp, b) for b, lp in data]), 1e-5)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize(
    "ratio_fn", [stepjax.token_ratio, stepjax.sequence_ratio], ids=["token", "sequence"]
)
def test_padding_is_invisible(junk, ratio_fn):
    batch, log_prob = random_batch(1)
    ref, entropy = terms(1)
    dead_row = batch.weight == 0
    dead = dead_row[:, None] | ~batch.token_mask
    assert dead_row.any()
    fn = jax.jit(
        functools.partial(
            stepjax.step_grpo_loss,
            **CLIP,
            kl_coef=0.1,
            entropy_coef=0.01,
            ratio_fn=ratio_fn,
        )
    )

    def dirty(x, where=dead):
        return jnp.where(where, jnp.float32(junk), x)

    spoiled = dataclasses.replace(
        batch,
        old_log_prob=dirty(batch.old_log_prob),
        advantage=dirty(batch.advantage, dead_row),
        weight=jnp.where(dead_row, jnp.nan, batch.weight),
        trajectory_id=jnp.where(dead_row, -1, batch.trajectory_id),
    )

    def run(log_prob, batch, ref, entropy):
        out = fn(log_prob, batch, ref_log_prob=ref, entropy=entropy)
        return out.loss.total, out

    grad = jax.grad(run, has_aux=True)
    want, want_out = grad(log_prob, batch, ref, entropy)
    got, got_out = grad(dirty(log_prob), spoiled, dirty(ref), dirty(entropy))
    assert np.array_equal(want, got)
    assert not np.any(np.asarray(got)[np.asarray(dead)])
    for a, b in zip(jax.tree.leaves(want_out), jax.tree.leaves(got_out), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("gap", [0.0, np.log(0.8), np.log(1.3), 30.0, -30.0, 1e4])
@pytest.mark.parametrize("advantage", [1.0, 0.0, -1.0])
@pytest.mark.parametrize("dual", [3.0, np.inf])
def test_gradients(gap, advantage, dual):
    fn = functools.partial(stepjax.clipped_policy_loss, **CLIP, dual_clip=dual)
    old = jnp.zeros(1)
    grad = jax.grad(lambda x: jnp.sum(fn(x, old, jnp.full(1, advantage))))
    value = grad(jnp.full(1, gap, jnp.float32))
    assert np.all(np.isfinite(value))
    if gap == 0:
        assert value.tolist() == [-advantage], "the full policy gradient at ratio 1"


@pytest.mark.slow
def test_gradients_are_smooth_and_stopped_where_promised():
    batch, log_prob = random_batch(2, spread=0.05)
    ref, entropy = terms(2)
    run = functools.partial(
        mean_loss, kl_coef=0.1, entropy_coef=0.01, ref_log_prob=ref, entropy=entropy
    )
    check_grads(
        lambda x: run(x, batch),
        (log_prob,),
        order=1,
        modes="rev",
        rtol=0.02,
        atol=2e-3,
        eps=1e-2,
    )
    stopped = jax.grad(
        lambda advantage, old, ref: mean_loss(
            log_prob,
            dataclasses.replace(batch, advantage=advantage, old_log_prob=old),
            kl_coef=0.1,
            ref_log_prob=ref,
        ),
        argnums=(0, 1, 2),
    )(batch.advantage, batch.old_log_prob, ref)
    assert not any(np.any(x) for x in stopped)

    def metrics(x):
        out = stepjax.step_grpo_loss(x, batch)
        return sum(m.total for m in out.metrics.values())

    assert not np.any(jax.grad(metrics)(log_prob))


def test_degenerate_inputs():
    batch, log_prob = random_batch(3)
    empty = dataclasses.replace(batch, weight=jnp.zeros(ROWS))
    for reduction in (stepjax.token_mean, stepjax.step_mean, stepjax.trajectory_mean):
        out = stepjax.step_grpo_loss(log_prob, empty, reduction=reduction)
        assert out.loss.total == 0
        assert out.loss.weight == 0
        assert stepjax.safe_divide(out.loss.total, out.loss.weight) == 0


def test_rejects_bad_shapes():
    batch, log_prob = random_batch(0)
    with pytest.raises(ValueError, match="log_prob must have shape"):
        stepjax.step_grpo_loss(log_prob[0], batch)
    with pytest.raises(ValueError, match="batch.token_mask must have shape"):
        stepjax.step_grpo_loss(log_prob[:, :2], batch)
    with pytest.raises(ValueError, match="kl_coef needs ref_log_prob"):
        stepjax.step_grpo_loss(log_prob, batch, kl_coef=0.1)
    with pytest.raises(ValueError, match="entropy_coef needs entropy"):
        stepjax.step_grpo_loss(log_prob, batch, entropy_coef=jnp.float32(0.1))
    with pytest.raises(ValueError, match="clip_eps_low must be in"):
        stepjax.step_grpo_loss(log_prob, batch, clip_eps_low=1.5)
    with pytest.raises(ValueError, match="dual_clip must be in"):
        stepjax.step_grpo_loss(log_prob, batch, dual_clip=0.5)
    with pytest.raises(ValueError, match="advantage"):
        stepjax.clipped_policy_loss(log_prob, log_prob, batch.advantage, **CLIP)
    with pytest.raises(ValueError, match="ref_log_prob"):
        stepjax.kl_k3(log_prob, log_prob[0])


# --- Parts add up ---------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_micro_batches_add_up_to_the_batch(parts):
    batch, log_prob = random_batch(5)
    run = jax.jit(functools.partial(stepjax.step_grpo_loss, **CLIP))
    whole = run(log_prob, batch)
    cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), (log_prob, batch))
    pieces = [run(*jax.tree.map(lambda x, i=i: x[i], cut)) for i in range(parts)]
    total = jax.tree.map(lambda *x: sum(x), *pieces)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(total), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    local = np.mean([stepjax.safe_divide(p.loss.total, p.loss.weight) for p in pieces])
    exact = whole.loss.total / whole.loss.weight
    assert abs(local - exact) > 1e-3, "a mean of local means is another number"


def test_trajectory_weights_survive_cutting():
    batch, log_prob = random_batch(6)
    trajectory = functools.partial(
        stepjax.step_grpo_loss, **CLIP, reduction=stepjax.trajectory_mean
    )
    whole = trajectory(log_prob, batch).loss
    weights = stepjax.trajectory_weights(batch.weight, batch.trajectory_id)
    scaled = dataclasses.replace(batch, weight=weights)
    halves = [
        stepjax.step_grpo_loss(lp, b, **CLIP, reduction=stepjax.step_mean).loss
        for lp, b in (
            jax.tree.map(lambda x, s=s: x[s], (log_prob, scaled))
            for s in (slice(0, 8), slice(8, None))
        )
    ]
    close(halves[0].total + halves[1].total, whole.total, 1e-5)
    close(halves[0].weight + halves[1].weight, whole.weight, 1e-5)


def test_eight_devices_agree():
    batch, log_prob = random_batch(7)
    want = mean_loss(log_prob, batch)
    leaves, tree = jax.tree.flatten((log_prob, batch))

    def run(*leaves):
        return mean_loss(*jax.tree.unflatten(tree, leaves))

    close(on_eight_devices(run, *leaves), want, 1e-5)


def test_numbers_are_traced():
    batch, log_prob = random_batch(0)
    fn, traces = count_traces(stepjax.step_grpo_loss)
    for number in (0.1, 0.2, 0.3):
        fn(
            log_prob,
            batch,
            clip_eps_low=number,
            clip_eps_high=number,
            dual_clip=1 + number,
        )
    assert len(traces) == 1


# --- Reductions -----------------------------------------------------------------------


def test_reductions_by_hand():
    values = jnp.array([[1.0, 3.0], [5.0, 9.0], [7.0, 9.0], [9.0, 9.0]])
    mask = jnp.array([[True, True], [True, False], [True, False], [False, False]])
    ids = jnp.array([4, 4, -2, 8])
    token = stepjax.token_mean(values, mask)
    assert (token.total, token.weight) == (16, 4)
    step = stepjax.step_mean(values, mask)  # 2 + 5 + 7; the last row has no token
    assert (step.total, step.weight) == (14, 3)
    trajectory = stepjax.trajectory_mean(values, mask, trajectory_id=ids)
    assert (trajectory.total, trajectory.weight) == (3.5 + 7, 2)
    weight = jnp.array([3.0, 1.0, 2.0, 5.0])
    token = stepjax.token_mean(values, mask, weight=weight)
    assert (token.total, token.weight) == (3 * 4 + 5 + 14, 6 + 1 + 2)
    trajectory = stepjax.trajectory_mean(values, mask, weight=weight, trajectory_id=ids)
    # (3 * 2 + 1 * 5) / 4 + 7: inside a trajectory the weights count, outside not.
    assert (trajectory.total, trajectory.weight) == (2.75 + 7, 2)


@quick
@given(st.integers(0, 10**6), st.permutations(range(ROWS)))
def test_trajectories_weigh_the_same_in_any_order(seed, order):
    batch, values = random_batch(seed)
    order = jnp.array(order)
    want = objective.trajectory_mean(
        values, batch.token_mask, batch.weight, batch.trajectory_id
    )
    got = jax.jit(stepjax.trajectory_mean)(
        values[order],
        batch.token_mask[order],
        weight=batch.weight[order],
        trajectory_id=batch.trajectory_id[order],
    )
    np.testing.assert_allclose((got.total, got.weight), want, rtol=1e-4, atol=1e-4)


def test_sampler_weight_multiplies_the_policy_loss():
    batch, log_prob = random_batch(0)
    half = jnp.full(log_prob.shape, 0.5)
    close(
        mean_loss(log_prob, batch, sampler_weight=half),
        0.5 * mean_loss(log_prob, batch),
        1e-6,
    )
