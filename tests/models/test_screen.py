"""The screenshot policy: acting and training agree, padding is invisible, it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.envs.actions import ActionKind
from stepjax.envs.screen_actions import (
    AIMED_KINDS,
    COARSE_COLUMNS,
    COARSE_ROWS,
    SCREEN_KEYS,
    SCREEN_KINDS,
)
from stepjax.models.screen import make_screen_policy, screen_token_mask
from stepjax.training.cloning import clone_policy
from stepjax.types import ScreenshotPrompt
from tests.models.painted import HEIGHT, SIDE, WIDTH, WORDS, fine_position, paint

pytestmark = pytest.mark.slow  # compilers take longer than the tests

ROWS, REAL_WORDS, PAST = 6, 5, 3
TYPE, PRESS = map(SCREEN_KINDS.index, (ActionKind.TYPE, ActionKind.PRESS))


def random_prompt(seed: int, rows: int = ROWS) -> ScreenshotPrompt:
    rng = np.random.default_rng(seed)
    words = rng.integers(1, 300, (rows, WORDS))
    words[:, REAL_WORDS:] = 0
    kinds = rng.integers(-1, max(ActionKind) + 1, (rows, PAST))
    places = rng.random((rows, PAST, 2)) * np.where(kinds % 2, 1, -1)[..., None]
    return ScreenshotPrompt(
        screenshot=jnp.asarray(rng.integers(0, 256, (rows, 20, 32, 3)), jnp.uint8),
        words=jnp.asarray(words, jnp.int32),
        clause=jnp.asarray(np.arange(WORDS) // 3 + np.zeros((rows, 1)), jnp.int32),
        history_kind=jnp.asarray(kinds, jnp.int32),
        history_place=jnp.asarray(places, jnp.float32),
        history_word=jnp.asarray(rng.integers(0, 300, (rows, PAST)), jnp.int32),
    )


def jitted(**sizes):
    plain = make_screen_policy(**sizes)
    return dataclasses.replace(
        plain,
        init=jax.jit(plain.init),
        sample=jax.jit(plain.sample),
        evaluate=jax.jit(plain.evaluate),
    )


@pytest.fixture(scope="module")
def policy():
    return jitted(width=16, layers=2, heads=2)


@pytest.fixture(scope="module")
def params(policy):
    return policy.init(jax.random.key(0), random_prompt(0))


def row_keys(seed: int, rows: int = ROWS) -> jax.Array:
    return jax.random.split(jax.random.key(seed), rows)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_training_sees_the_distribution_that_acted(policy, params, temperature):
    prompt = random_prompt(1, rows=64)
    tokens, mask, log_prob = policy.sample(
        params, prompt, row_keys(1, 64), temperature=temperature
    )
    assert tokens.shape == mask.shape == log_prob.shape == (64, 4)
    assert tokens.dtype == jnp.int32 and mask.dtype == bool
    again = policy.evaluate(params, prompt, tokens, mask, temperature=temperature)
    np.testing.assert_allclose(again.log_prob, log_prob, atol=1e-5)
    assert np.all(np.asarray(again.entropy)[~np.asarray(mask)] == 0)
    assert np.all(np.asarray(again.log_prob)[~np.asarray(mask)] == 0)


def test_every_token_follows_its_log_probs(policy, params):
    rows = 4096
    one = jax.tree.map(lambda leaf: leaf[:1], random_prompt(2))
    prompt = jax.tree.map(lambda leaf: jnp.repeat(leaf, rows, axis=0), one)
    tokens, _, log_prob = policy.sample(
        params, prompt, row_keys(2, rows), temperature=1.0
    )
    kinds, log_prob = np.asarray(tokens[:, 0]), np.asarray(log_prob)
    for kind in np.unique(kinds):
        share, prob = np.mean(kinds == kind), np.exp(log_prob[kinds == kind][0, 0])
        assert abs(share - prob) < 4 * np.sqrt(prob * (1 - prob) / rows) + 1e-3
    # Given a click, the share of the commonest coarse cell.
    clicks = kinds == 0
    cells = np.asarray(tokens[:, 1])[clicks]
    common = np.bincount(cells).argmax()
    prob = np.exp(log_prob[clicks][cells == common][0, 1])
    share = np.mean(cells == common)
    assert abs(share - prob) < 4 * np.sqrt(prob / clicks.sum()) + 1e-3


def test_greedy_takes_the_likeliest_and_ignores_the_key(policy, params):
    prompt = random_prompt(3)
    first = policy.sample(params, prompt, row_keys(3), temperature=0.0)
    second = policy.sample(params, prompt, row_keys(4), temperature=0.0)
    np.testing.assert_array_equal(first[0], second[0])
    sampled = policy.sample(params, prompt, row_keys(5), temperature=1.0)
    at_one = policy.evaluate(params, prompt, sampled[0], sampled[1], temperature=1.0)
    assert np.all(np.asarray(first[2][:, 0] >= at_one.log_prob[:, 0] - 1e-6))


def test_tokens_name_only_what_there_is(policy, params):
    prompt = random_prompt(6, rows=512)
    tokens, mask, _ = policy.sample(params, prompt, row_keys(6, 512), temperature=3.0)
    tokens, mask = np.asarray(tokens), np.asarray(mask)
    kinds = tokens[:, 0]
    assert set(kinds) == set(range(len(SCREEN_KINDS)))
    aimed = np.isin(kinds, [SCREEN_KINDS.index(kind) for kind in AIMED_KINDS])
    np.testing.assert_array_equal(mask[:, 1], aimed)
    np.testing.assert_array_equal(mask[:, 2], aimed)
    np.testing.assert_array_equal(mask[:, 3], (kinds == TYPE) | (kinds == PRESS))
    np.testing.assert_array_equal(mask, screen_token_mask(jnp.asarray(kinds)))
    assert np.all(tokens[~mask] == 0)
    assert tokens[:, 1].max() < COARSE_COLUMNS * COARSE_ROWS and tokens[:, 2].max() < 64
    assert tokens[kinds == TYPE, 3].max() < REAL_WORDS
    pressed = tokens[kinds == PRESS, 3]
    assert pressed.min() >= WORDS and pressed.max() < WORDS + len(SCREEN_KEYS)


def test_nothing_is_typed_where_nothing_is_said(policy, params):
    prompt = random_prompt(7, rows=512)
    silent = dataclasses.replace(prompt, words=jnp.zeros_like(prompt.words))
    tokens, mask, log_prob = policy.sample(
        params, silent, row_keys(7, 512), temperature=3.0
    )
    assert TYPE not in np.asarray(tokens[:, 0])
    output = policy.evaluate(params, silent, tokens, mask, temperature=3.0)
    assert np.all(np.isfinite(output.log_prob)) and np.all(np.isfinite(log_prob))


def test_rows_do_not_influence_each_other(policy, params):
    prompt, keys = random_prompt(7), row_keys(7)
    whole = policy.sample(params, prompt, keys, temperature=1.0)
    part = policy.sample(
        params, jax.tree.map(lambda leaf: leaf[2:4], prompt), keys[2:4], temperature=1.0
    )
    np.testing.assert_array_equal(whole[0][2:4], part[0])
    np.testing.assert_allclose(whole[2][2:4], part[2], atol=1e-5)


def test_padding_is_invisible_and_gradients_are_finite(policy, params):
    prompt = random_prompt(8)
    far_away = prompt.history_place < 0
    junk = dataclasses.replace(
        prompt,
        clause=prompt.clause.at[:, REAL_WORDS:].set(5),
        history_place=jnp.where(far_away, -77.0, prompt.history_place),
    )
    tokens, mask, _ = policy.sample(params, prompt, row_keys(8), temperature=1.0)
    odd = tokens.at[:3, 0].set(TYPE)  # a masked word token is never looked at
    masks = jnp.concatenate([screen_token_mask(odd[:, 0])[:3], mask[3:]])

    def loss(params, prompt):
        output = policy.evaluate(params, prompt, odd, masks, temperature=1.0)
        return output.log_prob.sum() + output.entropy.sum()

    gradient = jax.jit(jax.grad(loss))
    clean, dirty = gradient(params, prompt), gradient(params, junk)
    np.testing.assert_allclose(loss(params, prompt), loss(params, junk), rtol=1e-5)
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_past_and_the_picture_matter(policy, params):
    prompt = random_prompt(9)
    tokens = jnp.zeros((ROWS, 4), jnp.int32)
    mask = screen_token_mask(tokens[:, 0])
    before = policy.evaluate(params, prompt, tokens, mask, temperature=1.0).log_prob
    for name in ("history_kind", "history_word", "words", "screenshot"):
        changed = dataclasses.replace(prompt, **{name: getattr(prompt, name)[::-1]})
        after = policy.evaluate(params, changed, tokens, mask, temperature=1.0).log_prob
        assert np.abs(np.asarray(before - after)).max() > 1e-4, name


@pytest.mark.parametrize("sizes", [{"layers": 0}, {"heads": 0}, {"width": 1}])
def test_rejects_impossible_sizes(sizes):
    with pytest.raises(ValueError, match="must be >="):
        make_screen_policy(**sizes)


def test_learns_to_click_the_square_that_is_named():
    policy = jitted()
    shown, unseen = paint(1500, seed=0), paint(200, seed=1)
    params = policy.init(
        jax.random.key(0), jax.tree.map(lambda leaf: leaf[:2], shown.prompt)
    )
    params = clone_policy(
        policy.evaluate,
        params,
        shown.prompt,
        shown.tokens,
        screen_token_mask(shown.tokens[:, 0]),
        key=jax.random.key(1),
        num_steps=150,
        batch_size=32,
        learning_rate=3e-3,
    )
    tokens, _, _ = policy.sample(
        params, unseen.prompt, row_keys(2, 200), temperature=0.0
    )
    tokens = np.asarray(tokens)
    inside = fine_position(tokens) - unseen.corner
    hits = (tokens[:, 0] == 0) & ((inside >= 0) & (inside < SIDE)).all(axis=1)
    assert hits.mean() > 0.9, hits.mean()
    assert unseen.prompt.screenshot.shape[1:3] == (HEIGHT, WIDTH)
