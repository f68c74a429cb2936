"""The pointer policy: acting and training agree, and padding is invisible."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.envs.actions import ActionKind
from stepjax.models.pointer import make_pointer_policy, token_mask_of
from stepjax.types import ScreenPrompt

pytestmark = pytest.mark.slow
ROWS, WORDS, WIDGETS, LABEL, PAST = 6, 10, 7, 4, 3


def random_prompt(seed: int, rows: int = ROWS) -> ScreenPrompt:
    rng = np.random.default_rng(seed)
    widget_words = rng.integers(1, 300, (rows, WIDGETS, LABEL))
    widget_words[..., 2:] = 0
    words = rng.integers(1, 300, (rows, WORDS))
    words[:, 8:] = 0
    return ScreenPrompt(
        words=jnp.asarray(words, jnp.int32),
        clause=jnp.asarray(np.arange(WORDS) // 4 + np.zeros((rows, 1)), jnp.int32),
        widget_words=jnp.asarray(widget_words, jnp.int32),
        widget_role=jnp.asarray(rng.integers(0, 16, (rows, WIDGETS)), jnp.int32),
        widget_state=jnp.asarray(rng.integers(0, 8, (rows, WIDGETS)), jnp.int32),
        widget_box=jnp.asarray(rng.random((rows, WIDGETS, 4)), jnp.float32),
        widget_mask=jnp.asarray(np.tile(np.arange(WIDGETS) < 5, (rows, 1))),
        history_kind=jnp.full((rows, PAST), -1, jnp.int32),
        history_words=jnp.zeros((rows, PAST, LABEL), jnp.int32),
    )


@pytest.fixture(scope="module")
def policy():
    plain = make_pointer_policy(width=16, layers=2, heads=2)
    return dataclasses.replace(
        plain,
        init=jax.jit(plain.init),
        sample=jax.jit(plain.sample),
        evaluate=jax.jit(plain.evaluate),
    )


@pytest.fixture(scope="module")
def params(policy):
    return policy.init(jax.random.key(0), random_prompt(0))


def row_keys(seed: int, rows: int = ROWS) -> jax.Array:
    return jax.random.split(jax.random.key(seed), rows)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_training_sees_the_distribution_that_acted(policy, params, temperature):
    prompt = random_prompt(1)
    tokens, mask, log_prob = policy.sample(
        params, prompt, row_keys(1), temperature=temperature
    )
    again = policy.evaluate(params, prompt, tokens, mask, temperature=temperature)
    np.testing.assert_allclose(again.log_prob, log_prob, atol=1e-5)
    assert np.all(np.asarray(again.entropy)[~np.asarray(mask)] == 0)


def test_samples_follow_their_log_probs(policy, params):
    rows = 4096
    one = jax.tree.map(lambda leaf: leaf[:1], random_prompt(2))
    prompt = jax.tree.map(lambda leaf: jnp.repeat(leaf, rows, axis=0), one)
    tokens, mask, log_prob = policy.sample(
        params, prompt, row_keys(2, rows), temperature=1.0
    )
    kinds = np.asarray(tokens[:, 0])
    for kind in np.unique(kinds):
        share = np.mean(kinds == kind)
        prob = float(np.exp(np.asarray(log_prob)[kinds == kind][0, 0]))
        assert abs(share - prob) < 4 * np.sqrt(prob * (1 - prob) / rows) + 1e-3


def test_greedy_takes_the_likeliest_and_ignores_the_key(policy, params):
    prompt = random_prompt(3)
    first = policy.sample(params, prompt, row_keys(3), temperature=0.0)
    second = policy.sample(params, prompt, row_keys(4), temperature=0.0)
    np.testing.assert_array_equal(first[0], second[0])
    sampled = policy.sample(params, prompt, row_keys(5), temperature=1.0)
    at_one = policy.evaluate(params, prompt, sampled[0], sampled[1], temperature=1.0)
    assert np.all(np.asarray(first[2][:, 0] >= at_one.log_prob[:, 0] - 1e-6))


def test_tokens_point_at_real_widgets_and_words_only(policy, params):
    prompt = random_prompt(6, rows=512)
    tokens, mask, _ = policy.sample(params, prompt, row_keys(6, 512), temperature=3.0)
    tokens, mask = np.asarray(tokens), np.asarray(mask)
    assert tokens[mask[:, 1], 1].max() < 5
    assert tokens[mask[:, 2], 2].max() < 8
    assert np.all(tokens[~mask] == 0)
    np.testing.assert_array_equal(mask, token_mask_of(jnp.asarray(tokens[:, 0])))
    assert set(tokens[mask[:, 2], 0]) == {int(ActionKind.TYPE)}


def test_rows_do_not_influence_each_other(policy, params):
    prompt, keys = random_prompt(7), row_keys(7)
    whole = policy.sample(params, prompt, keys, temperature=1.0)
    part = policy.sample(
        params,
        jax.tree.map(lambda leaf: leaf[2:4], prompt),
        keys[2:4],
        temperature=1.0,
    )
    np.testing.assert_array_equal(whole[0][2:4], part[0])
    np.testing.assert_allclose(whole[2][2:4], part[2], atol=1e-5)


def test_padding_is_invisible(policy, params):
    prompt = random_prompt(8)
    junk = dataclasses.replace(
        prompt,
        widget_words=prompt.widget_words.at[:, 5:].set(77),
        widget_box=prompt.widget_box.at[:, 5:].set(1e6),
        clause=prompt.clause.at[:, 8:].set(5),
    )
    tokens, mask, _ = policy.sample(params, prompt, row_keys(8), temperature=1.0)

    def loss(params, prompt):
        output = policy.evaluate(params, prompt, tokens, mask, temperature=1.0)
        return output.log_prob.sum() + output.entropy.sum()

    gradient = jax.jit(jax.grad(loss))
    clean, dirty = gradient(params, prompt), gradient(params, junk)
    np.testing.assert_allclose(loss(params, prompt), loss(params, junk), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_widget_order_only_renumbers_the_choice(policy, params):
    prompt = random_prompt(9)
    order = np.array([3, 1, 4, 0, 2, 5, 6])
    shuffled = dataclasses.replace(
        prompt,
        **{
            name: getattr(prompt, name)[:, order]
            for name in (
                "widget_words",
                "widget_role",
                "widget_state",
                "widget_box",
                "widget_mask",
            )
        },
    )
    tokens = jnp.tile(jnp.array([[int(ActionKind.CLICK), 3, 0]]), (ROWS, 1))
    moved = tokens.at[:, 1].set(0)  # widget 3 now stands first
    mask = token_mask_of(tokens[:, 0])
    before = policy.evaluate(params, prompt, tokens, mask, temperature=1.0)
    after = policy.evaluate(params, shuffled, moved, mask, temperature=1.0)
    np.testing.assert_allclose(before.log_prob, after.log_prob, atol=1e-5)


def test_rejects_impossible_sizes():
    with pytest.raises(ValueError, match="layers must be >= 1, got 0"):
        make_pointer_policy(layers=0)
