"""Groups that share a prompt, frozen parameters and small moments in the train step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepjax.batching import (
    CompileCounter,
    concatenate_rows,
    group_rows,
    pack_groups,
    prompt_ids,
    take_rows,
)
from stepjax.training.freezing import merge_params, split_params, trainable_mask
from stepjax.training.optimizer import make_adamw, stochastic_round
from stepjax.training.sharding import (
    batch_sharding,
    infer_state_sharding,
    make_mesh,
    shard_batch,
    shard_state,
)
from stepjax.training.state import init_train_state
from stepjax.training.step import jit_train_step, make_train_step
from stepjax.types import PolicyOutput, SuccessRateRecord
from tests.training.toy import (
    TASKS,
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

SGD = optax.sgd(0.3)
GROUP = 4


def any_policy(params, prompt, action_tokens, token_mask):
    """The toy policy, for grouped batches too."""
    if action_tokens.ndim == 3:
        size = action_tokens.shape[1]
        prompt = jax.tree.map(lambda x: jnp.repeat(x, size, axis=0), prompt)
        flat = (x.reshape(-1, x.shape[-1]) for x in (action_tokens, token_mask))
        out = policy_fn(params, prompt, *flat)
        return jax.tree.map(lambda x: x.reshape(action_tokens.shape), out)
    return policy_fn(params, prompt, action_tokens, token_mask)


def rows_with_shared_prompts():
    """Eleven rows: groups of 4, 3 and 2, and two that are alone; shuffled."""
    rows = make_rows(11)
    of = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4])
    rows = dataclasses.replace(
        rows, prompt=jax.tree.map(lambda leaf: leaf[of], rows.prompt)
    )
    return take_rows(rows, np.random.default_rng(0).permutation(11))


def one_update(batch, *, tx=SGD, **options):
    step = jax.jit(make_train_step(any_policy, tx, loss_fn, **options))
    return step(make_state(tx), batch)


def test_prompt_ids_tell_equal_prompts():
    ids = prompt_ids(rows_with_shared_prompts())
    assert ids[0] == 0
    assert sorted(np.bincount(ids).tolist()) == [1, 1, 2, 3, 4]


def test_group_rows_keeps_every_row_once():
    rows = rows_with_shared_prompts()
    alone, groups = group_rows(rows, prompt_ids(rows), group_size=3)
    # 4 = 3 + 1, 3, 2, 1, 1
    assert alone.weight.shape == (3,)
    assert groups.action_tokens.shape[:2] == (3, 3)
    assert groups.prompt["x"].shape[0] == 3
    live = groups.weight > 0
    assert live.sum() == 8
    assert not groups.token_mask[~live].any()
    found = np.concatenate([alone.advantage, groups.advantage[live]])
    np.testing.assert_array_equal(np.sort(found), np.sort(rows.advantage))
    for row in range(3):
        member = groups.advantage[row, 0]
        (source,) = np.flatnonzero(rows.advantage == member)
        np.testing.assert_array_equal(groups.prompt["x"][row], rows.prompt["x"][source])


@pytest.mark.parametrize("bad", [{"group_size": 1}, {"prompt_id": np.zeros(3, int)}])
def test_group_rows_rejects(bad):
    rows = make_rows(4)
    options = {"prompt_id": np.zeros(4, int), "group_size": 2} | bad
    with pytest.raises(ValueError, match=next(iter(bad))):
        group_rows(rows, options.pop("prompt_id"), **options)


@pytest.mark.parametrize(
    "micro_batch_size", [pytest.param(None, marks=pytest.mark.slow), 2]
)
def test_groups_change_nothing(micro_batch_size):
    rows = rows_with_shared_prompts()
    whole, whole_metrics = one_update(rows)
    (pair,) = pack_groups(
        rows,
        seed=0,
        rows_per_update=64,
        group_size=GROUP,
        pad_to=(4, 6),
        micro_batch_size=micro_batch_size,
    )
    parts, parts_metrics = one_update(pair, micro_batch_size=micro_batch_size)
    assert_close(whole.params, parts.params)
    assert_close(whole_metrics, parts_metrics, tolerance=1e-5)


def test_pack_groups_is_fair_and_compiles_once():
    rows = concatenate_rows(*[make_rows(40, seed) for seed in range(2)])
    of = np.minimum(np.arange(80), 60)  # 60 rows alone, a group of 20
    rows = dataclasses.replace(
        rows, prompt=jax.tree.map(lambda leaf: leaf[of], rows.prompt)
    )
    options = {"rows_per_update": 20, "group_size": GROUP, "pad_to": (32, 4)}
    updates = pack_groups(rows, seed=1, micro_batch_size=4, **options)
    assert len(updates) == 4
    sizes = [sum(int((part.weight > 0).sum()) for part in pair) for pair in updates]
    assert sum(sizes) == 80
    assert max(sizes) - min(sizes) <= 1
    whole = [int((pair[1].weight > 0).all(axis=1).sum()) for pair in updates]
    assert min(whole) >= 1  # groups are in all updates, most of them whole
    only_alone = pack_groups(make_rows(16), seed=1, micro_batch_size=4, **options)
    step = jax.jit(make_train_step(any_policy, SGD, loss_fn, micro_batch_size=4))
    state, _ = step(make_state(SGD), updates[0])
    counter = CompileCounter()
    for pair in [*updates[1:], *only_alone]:
        state, metrics = step(state, pair)
        assert float(metrics["updates"]) == 1
    assert counter.count == 0
    assert pack_groups(take_rows(rows, []), seed=0, **options) == []


def test_no_update_is_tiny_or_larger_than_asked_for():
    rows = make_rows(33)
    of = np.repeat([0, 1, 2], [16, 16, 1])
    rows = dataclasses.replace(
        rows, prompt=jax.tree.map(lambda leaf: leaf[of], rows.prompt)
    )
    options = {"rows_per_update": 16, "group_size": 16, "pad_to": (16, 8)}
    updates, again = (pack_groups(rows, seed=(3, 1), **options) for _ in range(2))
    assert_identical(updates, again)
    parts = [part for pair in updates for part in pair]
    sizes = [int((part.weight > 0).sum()) for part in parts]
    assert [a + b for a, b in zip(sizes[::2], sizes[1::2], strict=True)] == [11] * 3
    found = np.concatenate([part.advantage[part.weight > 0] for part in parts])
    np.testing.assert_array_equal(np.sort(found), np.sort(rows.advantage))
    reads = sum(int((part.weight > 0).any(axis=1).sum()) for part in parts[1::2])
    reads += sum(sizes[::2])
    assert reads <= 3 + 2  # a prompt more for each cut
    for size in (1, 16, 17, 32):
        some = pack_groups(take_rows(rows, np.arange(size)), seed=0, **options)
        assert len(some) == -(-size // 16)


def test_garbage_in_empty_places_is_invisible():
    rows = rows_with_shared_prompts()
    _, groups = group_rows(rows, prompt_ids(rows), group_size=GROUP)
    garbled = dataclasses.replace(
        groups,
        advantage=np.where(groups.weight > 0, groups.advantage, 1e6).astype(np.float32),
        old_log_prob=np.where(groups.token_mask, groups.old_log_prob, -30).astype(
            np.float32
        ),
    )
    assert_identical(one_update(groups)[0], one_update(garbled)[0])


@pytest.mark.slow
def test_groups_on_a_mesh_equal_one_device():
    rows = rows_with_shared_prompts()
    (pair,) = pack_groups(
        rows, seed=0, rows_per_update=64, group_size=GROUP, pad_to=(8, 8)
    )
    mesh = make_mesh(2, 2, 2)
    sharding = infer_state_sharding(jax.eval_shape(lambda: make_state(SGD)), mesh)
    step = jit_train_step(
        make_train_step(any_policy, SGD, loss_fn),
        state_sharding=sharding,
        batch_sharding=batch_sharding(mesh),
    )
    state = shard_state(make_state(SGD), sharding)
    state, _ = step(state, shard_batch(pair, batch_sharding(mesh)))
    assert_close(state.params, one_update(pair)[0].params)
    with pytest.raises(ValueError, match="not divisible"):
        step(state, jax.tree.map(lambda leaf: leaf[:3], pair))


# --- A reference policy ---------------------------------------------------------------


def loss_to_reference(output, batch, ref_log_prob=None):
    """The toy loss, and the squared distance from a reference if there is one."""
    plain = loss_fn(output, batch)
    if ref_log_prob is None:
        return plain
    token_weight = batch.weight[:, None] * batch.token_mask
    far = jnp.sum(token_weight * (output.log_prob - ref_log_prob) ** 2)
    loss = dataclasses.replace(plain.loss, total=plain.loss.total + far)
    return dataclasses.replace(plain, loss=loss)


@pytest.mark.parametrize(
    "micro_batch_size", [pytest.param(None, marks=pytest.mark.slow), 2]
)
def test_a_reference_reads_groups_as_rows(micro_batch_size):
    rows = rows_with_shared_prompts()
    (pair,) = pack_groups(
        rows, seed=0, rows_per_update=64, group_size=GROUP, pad_to=(4, 6)
    )
    reference, found = init_params(7), []
    for batch, size in ((rows, None), (pair, micro_batch_size)):
        step = make_train_step(
            any_policy, SGD, loss_to_reference, micro_batch_size=size
        )
        found.append(jax.jit(step)(make_state(SGD), batch, reference))
    (one, one_metrics), (other, other_metrics) = found
    assert_close(one.params, other.params, tolerance=1e-6)
    assert_close(one_metrics, other_metrics, tolerance=1e-5)
    plain, _ = one_update(rows)
    gap = np.abs(plain.params["head"]["kernel"] - one.params["head"]["kernel"])
    assert gap.max() > 1e-3


def test_a_reference_reads_a_prompt_once_a_group():
    """A forward pass beside forward and backward, however many share the prompt."""
    queries, size, width = 2, 8, 128

    def policy(params, prompt, action_tokens, token_mask):
        for _ in range(4):  # all the work is in the prompt
            prompt = jnp.tanh(prompt @ params["body"])
        scores = prompt @ params["head"]
        scores = scores.reshape(*scores.shape[:1], *[1] * (action_tokens.ndim - 1))
        log_prob = jnp.where(token_mask, -jnp.square(scores - action_tokens), 0.0)
        return PolicyOutput(log_prob=log_prob, entropy=jnp.zeros_like(log_prob))

    params = {"body": jnp.ones((width, width)), "head": jnp.ones(width)}
    rows = make_rows(queries * size)
    batch = jax.tree.map(
        lambda leaf: leaf.reshape(queries, size, *leaf.shape[1:]),
        dataclasses.replace(rows, prompt=None),
    )
    batch = dataclasses.replace(batch, prompt=np.ones((queries, width), np.float32))
    state = dataclasses.replace(make_state(SGD), params=params)
    step = jax.jit(make_train_step(policy, SGD, loss_to_reference))
    plain, kept = (
        step.lower(state, batch, *more).cost_analysis()["flops"]
        for more in ((), (params,))
    )
    assert 1.2 * plain < kept < 1.5 * plain


# --- Frozen parameters ----------------------------------------------------------------


def frozen_state(tx, mask):
    return init_train_state(
        jax.random.key(0),
        init_params(),
        tx,
        success_rate=SuccessRateRecord(
            rate=jnp.zeros((TASKS,)), visits=jnp.zeros((TASKS,), jnp.int32)
        ),
        task_ids=jnp.arange(TASKS),
        trainable=mask,
    )


@pytest.mark.slow
def test_frozen_parameters_rest_and_have_no_state():
    tx = make_optimizer()
    mask = trainable_mask(init_params(), ["^body/"])
    state = frozen_state(tx, mask)
    sizes = [x.size for x in jax.tree.leaves(state.opt_state)]
    head = sum(x.size for x in jax.tree.leaves(init_params()["head"]))
    assert sum(sizes) < 2 * head + 10
    rows = make_rows(16)
    step = jax.jit(make_train_step(policy_fn, tx, loss_fn, trainable=mask))
    after, metrics = step(state, rows)
    assert_identical(after.params["body"], init_params()["body"])
    assert float(metrics["updates"]) == 1
    # What learns takes the step it would take if all learned, but for the clipping.
    whole, _ = jax.jit(make_train_step(policy_fn, optax.sgd(0.1), loss_fn))(
        make_state(optax.sgd(0.1)), rows
    )
    part, _ = jax.jit(
        make_train_step(policy_fn, optax.sgd(0.1), loss_fn, trainable=mask)
    )(frozen_state(optax.sgd(0.1), mask), rows)
    assert_close(part.params["head"], whole.params["head"])
    sharding = infer_state_sharding(jax.eval_shape(lambda: state), make_mesh(1, 8, 1))
    assert jax.tree.structure(sharding) == jax.tree.structure(state)


def test_frozen_parameters_may_be_anything():
    """No gradient is taken of them, so infinite ones do not matter where unused."""
    params = init_params() | {"unused": {"table": jnp.full(3, jnp.inf)}}
    mask = trainable_mask(params, ["unused"])
    trained, frozen = split_params(params, mask)
    assert len(jax.tree.leaves(frozen)) == 1
    assert_identical(merge_params(trained, frozen), params)
    assert split_params(params, None) == (params, None)


def test_trainable_mask_rejects_typos():
    with pytest.raises(ValueError, match="visoin"):
        trainable_mask(init_params(), ["visoin"])
    with pytest.raises(ValueError, match="no parameter"):
        trainable_mask(init_params(), ["."])


@pytest.mark.slow
def test_adamw_in_float32_is_optax():
    grads = jax.tree.map(lambda p: 0.1 * p, init_params())
    ours = make_adamw(1e-2, weight_decay=0.1, max_grad_norm=1.0)
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1)
    )
    states = [tx.init(init_params()) for tx in (ours, theirs)]
    for _ in range(3):
        found = [
            tx.update(grads, state, init_params())
            for tx, state in zip((ours, theirs), states, strict=True)
        ]
        assert_close(found[0][0], found[1][0], tolerance=1e-8)
        states = [state for _, state in found]
    with pytest.raises(ValueError, match="moments_dtype"):
        make_adamw(1e-2, moments_dtype="int8")


def test_small_moments_follow_large_ones():
    """Rounded to nearest, second moments would stop growing after a few updates."""
    tx = make_adamw(1.0, b2=0.999, moments_dtype="bfloat16")
    params = {"a": jnp.zeros(512)}
    state = tx.init(params)
    moments = [x for x in jax.tree.leaves(state) if x.shape == (512,)]
    assert {x.dtype for x in moments} == {jnp.dtype(jnp.bfloat16)}
    update = jax.jit(lambda g, s: tx.update(g, s, params))
    for _ in range(400):
        step, state = update({"a": jnp.ones(512)}, state)
    second = [x for x in jax.tree.leaves(state) if x.shape == (512,)][1]
    np.testing.assert_allclose(
        np.mean(np.asarray(second, np.float32)), 1 - 0.999**400, rtol=0.01
    )
    np.testing.assert_allclose(host(step)["a"], -1.0, rtol=0.1)


def test_stochastic_rounding():
    x = jnp.full(100_000, 1.001, jnp.float32)
    rounded = np.asarray(stochastic_round(x, jax.random.key(0)), np.float32)
    assert set(np.unique(rounded).tolist()) == {1.0, 1.0078125}
    np.testing.assert_allclose(rounded.mean(), 1.001, atol=1e-4)
    odd = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, jnp.nan, -2.0])
    same = np.asarray(stochastic_round(odd, jax.random.key(1)), np.float32)
    np.testing.assert_array_equal(same, odd)
