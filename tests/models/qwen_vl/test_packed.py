import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import stepjax
from stepjax.models.qwen_vl.acting import cast_copy
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.generate import generate
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.packed import make_packed_evaluate
from stepjax.models.qwen_vl.policy import make_qwen_vl_policy
from stepjax.models.qwen_vl.prompt import VLPrompt
from stepjax.training.state import init_train_state
from stepjax.training.step import make_train_step
from stepjax.types import StepBatch

pytestmark = pytest.mark.slow  # compilers take longer than the tests

ROWS, GROUP, ACTION, PROMPT, SIDE = 2, 3, 5, 24, 56
VISUAL = (SIDE // 28) ** 2


def make_model(name="tiny-qwen2.5-vl", **options):
    options = {"dtype": jnp.float32, "attention": "plain"} | options
    return make_qwen_vl(PRESETS[name], **options)


@functools.cache
def shaken_params(name="tiny-qwen2.5-vl"):
    """Random parameters far from the flat start, biases and norms included."""
    params = make_model(name).init(jax.random.key(0))
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    leaves = [
        leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype)
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, leaves)


def make_prompts(rows=ROWS, seed=0):
    """Prompts of different lengths, each with one picture."""
    rng = np.random.default_rng(seed)
    segments = np.zeros((rows, PROMPT), np.int32)
    image_index = np.full((rows, PROMPT), -1, np.int32)
    for row in range(rows):
        segments[row, : 3 * row] = -1
        image_index[row, 10 : 10 + VISUAL] = np.arange(VISUAL)
    place = np.broadcast_to(np.arange(PROMPT), (rows, 3, PROMPT)).copy()
    place[:, 1, 10 : 10 + VISUAL] += 1
    place[:, 2, 10 : 10 + VISUAL] += np.arange(VISUAL)
    return VLPrompt(
        tokens=rng.integers(0, 400, (rows, PROMPT), dtype=np.int32),
        positions=place.astype(np.int32),
        segments=segments,
        next_position=np.full(rows, PROMPT + 3, np.int32) + np.arange(rows),
        images=rng.integers(0, 256, (rows, 1, SIDE, SIDE, 3), dtype=np.uint8),
        image_index=image_index,
    )


def make_actions(rows=ROWS, group=GROUP, length=ACTION, seed=0):
    rng = np.random.default_rng(seed)
    ends = rng.integers(1, length + 1, (rows, group))
    mask = np.arange(length) < ends[..., None]
    mask[0, 0] = True
    return rng.integers(0, 400, (rows, group, length), dtype=np.int32), mask


def repeated(prompt, times):
    return jax.tree.map(lambda x: np.repeat(x, times, axis=0), prompt)


def flat(x):
    return x.reshape(-1, *x.shape[2:])


@pytest.mark.parametrize("name", ["tiny-qwen2-vl", "tiny-qwen2.5-vl"])
def test_packed_equals_rows_and_so_do_gradients(name):
    model, params = make_model(name), shaken_params(name)
    evaluate = make_packed_evaluate(model, chunk_size=100)
    reference = make_qwen_vl_policy(model, max_new_tokens=ACTION, stop_tokens=(501,))
    prompt, (tokens, mask) = make_prompts(), make_actions()
    weight = np.random.default_rng(2).normal(size=mask.shape).astype(np.float32)

    @jax.jit
    def packed(params):
        out = evaluate(params, prompt, tokens, mask, temperature=0.7)
        return jnp.sum(out.log_prob * weight), out

    @jax.jit
    def unpacked(params):
        out = reference.evaluate(
            params, repeated(prompt, GROUP), flat(tokens), flat(mask), temperature=0.7
        )
        return jnp.sum(out.log_prob * flat(weight)), out

    (_, one), one_grad = jax.value_and_grad(packed, has_aux=True)(params)
    (_, other), other_grad = jax.value_and_grad(unpacked, has_aux=True)(params)
    for field in ("log_prob", "entropy"):
        np.testing.assert_allclose(
            flat(getattr(one, field)), getattr(other, field), rtol=1e-5, atol=1e-5
        )
    for left, right in zip(
        jax.tree.leaves(one_grad), jax.tree.leaves(other_grad), strict=True
    ):
        scale = float(jnp.max(jnp.abs(right)))
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5 * scale)


def test_members_do_not_see_each_other_nor_what_is_masked():
    evaluate = jax.jit(make_packed_evaluate(make_model(), entropy=False))
    prompt, (tokens, mask) = make_prompts(), make_actions()
    out = evaluate(shaken_params(), prompt, tokens, mask).log_prob
    other = np.where(mask, tokens, 77)
    other[:, 1] = (other[:, 1] + 5) % 400
    changed = evaluate(shaken_params(), prompt, other, mask).log_prob
    np.testing.assert_array_equal(out[:, [0, 2]], changed[:, [0, 2]])
    assert np.all(np.abs(np.asarray(out - changed)[:, 1])[mask[:, 1]] > 0)
    assert np.all(np.asarray(out)[~mask] == 0)


def test_evaluate_agrees_with_the_sampler():
    model, params, prompt = make_model(), shaken_params(), make_prompts()
    keys = jax.random.split(jax.random.key(3), (ROWS, GROUP))
    said = generate(
        model,
        params,
        prompt,
        keys,
        temperature=0.7,
        max_new_tokens=4,
        stop_tokens=(501,),
    )
    out = make_packed_evaluate(model)(
        params, prompt, said.tokens, said.token_mask, temperature=0.7
    )
    np.testing.assert_allclose(out.log_prob, said.log_prob, rtol=1e-4, atol=1e-4)


def test_one_token_and_one_member():
    evaluate = make_packed_evaluate(make_model())
    prompt, (tokens, mask) = make_prompts(), make_actions(length=1)
    out = evaluate(shaken_params(), prompt, tokens, mask)
    alone = evaluate(shaken_params(), prompt, tokens[:, 0], mask[:, 0])
    np.testing.assert_allclose(out.log_prob[:, 0], alone.log_prob, rtol=1e-5)
    with pytest.raises(ValueError, match=r"\[S, A\] or \[Q, G, A\]"):
        evaluate(shaken_params(), prompt, tokens[0, 0], mask[0, 0])


def test_masters_are_read_as_those_who_act_read_them():
    """Ratios and divergences are between the numbers of one set of types."""
    model = make_model(dtype=jnp.bfloat16)
    evaluate = jax.jit(make_packed_evaluate(model))
    prompt, (tokens, mask) = make_prompts(), make_actions()
    masters = shaken_params()
    trained = evaluate(masters, prompt, tokens, mask)
    acted = evaluate(cast_copy(model, masters), prompt, tokens, mask)
    np.testing.assert_array_equal(trained.log_prob, acted.log_prob)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), masters)
    norms_too = evaluate(rounded, prompt, tokens, mask)
    assert np.abs(norms_too.log_prob - acted.log_prob).max() > 0


def make_batches():
    """The same rows grouped, and one by one."""
    prompt, (tokens, mask) = make_prompts(), make_actions()
    rng = np.random.default_rng(5)
    shape = tokens.shape[:2]
    grouped = StepBatch(
        prompt=prompt,
        action_tokens=tokens,
        token_mask=mask,
        old_log_prob=np.where(mask, -6.0, 0.0).astype(np.float32),
        advantage=rng.normal(size=shape).astype(np.float32),
        weight=np.ones(shape, np.float32),
        task_id=np.zeros(shape, np.int32),
        trajectory_id=np.zeros(shape, np.int32),
    )
    grouped.weight[1, 2] = 0
    rows = jax.tree.map(flat, StepBatch(**vars(grouped) | {"prompt": None}))
    return grouped, StepBatch(**vars(rows) | {"prompt": repeated(prompt, GROUP)})


def test_train_step_of_groups_equals_that_of_rows():
    model, params, tx = make_model(), shaken_params(), optax.sgd(0.1)
    evaluate = make_packed_evaluate(model)

    def loss_fn(output, batch):
        return stepjax.step_grpo_loss(output.log_prob, batch)

    step = jax.jit(make_train_step(evaluate, tx, loss_fn))
    state = init_train_state(
        jax.random.key(0),
        params,
        tx,
        success_rate=stepjax.init_success_rate(2),
        task_ids=jnp.arange(2),
    )
    grouped, rows = make_batches()
    one, one_metrics = step(state, grouped)
    other, other_metrics = step(state, rows)
    np.testing.assert_allclose(one_metrics["loss"], other_metrics["loss"], rtol=1e-5)
    assert float(one_metrics["rows"]) == float(other_metrics["rows"]) == 5
    norm = float(other_metrics["grad_norm"])
    assert norm > 0.1
    for left, right in zip(
        jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6 * norm)
