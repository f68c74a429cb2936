"""Sampling: equal to teacher forcing, to each other, and to the distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.models.qwen_vl.generate import cut_at_stop, draw_tokens, generate
from tests.models.qwen_vl.stand_in import StandIn, prompts

pytestmark = pytest.mark.slow  # compilers take longer than the tests

MODEL = StandIn()
STOP = (1, 2)
TOKENS = 9


@functools.cache
def params():
    return MODEL.init(jax.random.key(0))


@functools.cache
def sampler(group, *, max_new_tokens=TOKENS, top_p=1.0, stop=STOP):
    def run(params, prompt, keys, temperature):
        return generate(
            MODEL,
            params,
            prompt,
            keys,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            stop_tokens=stop,
            top_p=top_p,
        )

    del group
    return jax.jit(run)


def keys_of(size, group, seed=1):
    return jax.random.split(jax.random.key(seed), (size, group))


def forced_log_probs(prompt, tokens, mask, temperature):
    """Log-probabilities of [S, A] tokens by one pass over prompt and response."""
    found = _forced(params(), prompt, tokens, mask, np.float32(temperature))
    return np.asarray(found)


@jax.jit
def _forced(tree, prompt, tokens, mask, temperature):
    size, count = tokens.shape
    visual = MODEL.see(tree, prompt.images)
    told = MODEL.embed(tree, prompt.tokens, visual, prompt.image_index)
    said = MODEL.embed(tree, tokens, None, None)
    place = prompt.next_position[:, None, None] + jnp.arange(count)[None, None]
    hidden, _ = MODEL.decode(
        tree,
        jnp.concatenate([told, said], 1),
        jnp.concatenate(
            [prompt.positions, jnp.broadcast_to(place, (size, 3, count))], 2
        ),
        jnp.concatenate([prompt.segments, jnp.where(mask, 0, -1)], 1),
    )
    logits = hidden[:, -count - 1 : -1] @ tree["head"] / temperature
    every = jax.nn.log_softmax(logits, axis=-1)
    chosen = jnp.take_along_axis(every, tokens[..., None], -1)[..., 0]
    return jnp.where(mask, chosen, 0.0)


@pytest.mark.parametrize("group", [1, 4])
def test_log_probs_equal_teacher_forcing(group):
    prompt = prompts([12, 7, 9])
    out = sampler(group)(params(), prompt, keys_of(3, group), 0.7)
    assert out.tokens.shape == (3, group, TOKENS)
    for member in range(group):
        tokens, mask = (np.asarray(x[:, member]) for x in (out.tokens, out.token_mask))
        expected = forced_log_probs(prompt, tokens, mask, 0.7)
        np.testing.assert_allclose(out.log_prob[:, member], expected, atol=1e-5)


def test_group_members_equal_single_responses():
    prompt, keys = prompts([12, 7, 9]), keys_of(3, 5)
    whole = sampler(5)(params(), prompt, keys, 1.0)
    for member in range(5):
        one = sampler(1)(params(), prompt, keys[:, member : member + 1], 1.0)
        np.testing.assert_array_equal(whole.tokens[:, member], one.tokens[:, 0])
        np.testing.assert_array_equal(whole.token_mask[:, member], one.token_mask[:, 0])
        np.testing.assert_allclose(
            whole.log_prob[:, member], one.log_prob[:, 0], atol=1e-5
        )


def test_rows_do_not_depend_on_neighbors_or_padding():
    keys = keys_of(3, 1)
    whole = sampler(1)(params(), prompts([12, 7, 9]), keys, 1.0)
    for row in range(3):
        alone = jax.tree.map(lambda x, row=row: x[row : row + 1], prompts([12, 7, 9]))
        out = sampler(1)(params(), alone, keys[row : row + 1], 1.0)
        np.testing.assert_array_equal(whole.tokens[row], out.tokens[0])


def test_responses_end_with_their_stop_token():
    stop = tuple(range(1, 20))  # so many that most responses are short
    out = sampler(4, stop=stop)(params(), prompts([12, 7, 9]), keys_of(3, 4), 1.0)
    tokens, mask = np.asarray(out.tokens), np.asarray(out.token_mask)
    ends = np.isin(tokens, stop) & mask
    for row in np.ndindex(3, 4):
        count = mask[row].sum()
        assert count >= 1 and mask[row][:count].all() and not mask[row][count:].any()
        assert not ends[row][: count - 1].any()
        assert ends[row][count - 1] or count == TOKENS
        assert not tokens[row][count:].any()
        assert not np.asarray(out.log_prob)[row][count:].any()
    assert (mask.sum(-1) < TOKENS).mean() > 0.5


def test_greedy_takes_the_likeliest_token_whatever_the_key():
    prompt = prompts([12, 7, 9])
    first, second = (
        sampler(1)(params(), prompt, keys_of(3, 1, seed), 0.0) for seed in (1, 2)
    )
    np.testing.assert_array_equal(first.tokens, second.tokens)
    tokens, mask = np.asarray(first.tokens[:, 0]), np.asarray(first.token_mask[:, 0])
    expected = forced_log_probs(prompt, tokens, mask, 1.0)
    np.testing.assert_allclose(first.log_prob[:, 0], expected, atol=1e-5)


def test_draws_follow_the_distribution():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    count = 4000
    keys = jax.random.split(jax.random.key(0), count)
    token, log_prob = draw_tokens(
        jnp.ones((count, 1)), logits[None], keys, 3, temperature=1.0
    )
    shares = np.bincount(token, minlength=4) / count
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    np.testing.assert_allclose(log_prob, logits[token], atol=1e-5)


def test_top_p_keeps_the_likeliest_and_reports_the_cut_distribution():
    logits = jnp.log(jnp.array([0.05, 0.5, 0.3, 0.15]))
    keys = jax.random.split(jax.random.key(0), 2000)
    token, log_prob = draw_tokens(
        jnp.ones((2000, 1)), logits[None], keys, 0, temperature=1.0, top_p=0.7
    )
    assert set(np.unique(token)) == {1, 2}  # 0.5, then 0.3 crosses 0.7
    expected = np.log(np.array([0.0, 0.5 / 0.8, 0.3 / 0.8])[token])
    np.testing.assert_allclose(log_prob, expected, atol=1e-5)


def test_one_token_is_enough():
    out = sampler(2, max_new_tokens=1)(params(), prompts([5]), keys_of(1, 2), 1.0)
    assert np.asarray(out.token_mask).all() and out.tokens.shape == (1, 2, 1)


def test_stop_strings_cut_after_the_token_that_completes_them():
    def decode(tokens):
        return "".join("abcdef"[token] for token in tokens)

    tokens, mask = np.array([0, 1, 2, 3, 0]), np.array([True] * 4 + [False])
    assert (
        cut_at_stop(tokens, mask, decode, ["bc"]).tolist() == [True] * 3 + [False] * 2
    )
    assert cut_at_stop(tokens, mask, decode, ["ca", "da"]).tolist() == mask.tolist()
    assert cut_at_stop(tokens, mask, decode, []).tolist() == mask.tolist()
    assert cut_at_stop(tokens, mask, decode, ["a"]).tolist() == [True] + [False] * 4
