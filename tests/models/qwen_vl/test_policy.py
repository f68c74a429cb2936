"""The policy: evaluation equals sampling, gradients equal naive ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.models.qwen_vl.policy import (
    chunked_entropy,
    make_qwen_vl_policy,
    response_mask,
)
from tests.models.qwen_vl.stand_in import StandIn, prompts
from tests.models.qwen_vl.test_generate import forced_log_probs, keys_of, params

pytestmark = pytest.mark.slow  # compilers take longer than the tests

STOP = tuple(range(1, 8))


@functools.cache
def policy():
    return make_qwen_vl_policy(
        StandIn(), max_new_tokens=6, stop_tokens=STOP, chunk_size=10
    )


@functools.cache
def sampled(temperature=0.7):
    prompt = prompts([12, 7, 9])
    sample = jax.jit(policy().sample)
    found = sample(params(), prompt, keys_of(3, 1)[:, 0], temperature=temperature)
    return prompt, *found


def test_evaluate_reports_what_sampling_reported():
    prompt, tokens, mask, log_prob = sampled()
    out = jax.jit(policy().evaluate)(params(), prompt, tokens, mask, temperature=0.7)
    np.testing.assert_allclose(out.log_prob, log_prob, atol=1e-5)
    assert not np.asarray(out.log_prob)[~np.asarray(mask)].any()
    assert not np.asarray(out.entropy)[~np.asarray(mask)].any()


def test_mask_of_finds_the_response_again():
    _, tokens, mask, _ = sampled()
    np.testing.assert_array_equal(policy().mask_of(tokens), mask)
    found = response_mask(jnp.array([[9, 9, 1, 9, 1], [9, 9, 9, 9, 9]]), [1])
    np.testing.assert_array_equal(found, [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def test_padding_tokens_do_not_matter():
    prompt, tokens, mask, _ = sampled()
    noisy = jnp.where(mask, tokens, 11)
    run = jax.jit(policy().evaluate)
    np.testing.assert_array_equal(
        run(params(), prompt, tokens, mask).log_prob,
        run(params(), prompt, noisy, mask).log_prob,
    )


def test_gradients_equal_the_naive_ones():
    prompt, tokens, mask, _ = sampled()

    def ours(tree):
        out = policy().evaluate(tree, prompt, tokens, mask, temperature=0.7)
        return jnp.sum(out.log_prob)

    def naive(tree):
        model = StandIn()
        visual = model.see(tree, jnp.asarray(prompt.images))
        told = model.embed(tree, prompt.tokens, visual, prompt.image_index)
        x = jnp.concatenate([told, model.embed(tree, tokens, None, None)], 1)
        place = prompt.next_position[:, None, None] + np.arange(6)[None, None]
        positions = [prompt.positions, np.broadcast_to(place, (3, 3, 6))]
        segments = [prompt.segments, jnp.where(mask, 0, -1)]
        hidden, _ = model.decode(
            tree, x, jnp.concatenate(positions, 2), jnp.concatenate(segments, 1)
        )
        logits = jax.nn.log_softmax(hidden[:, -7:-1] @ tree["head"] / 0.7)
        chosen = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0]
        return jnp.sum(jnp.where(mask, chosen, 0.0))

    found, expected = (
        jax.jit(jax.grad(ours))(params()),
        jax.jit(jax.grad(naive))(params()),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        found,
        expected,
    )


@pytest.mark.parametrize("chunk_size", [1, 10, 37, 100])
def test_entropy_in_slices(chunk_size):
    hidden = jax.random.normal(jax.random.key(0), (5, 16))
    head = 3 * jax.random.normal(jax.random.key(1), (16, 37))
    log_probs = jax.nn.log_softmax(hidden @ head)
    np.testing.assert_allclose(
        chunked_entropy(hidden, head, chunk_size=chunk_size),
        -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1),
        atol=1e-5,
    )


def test_a_group_comes_from_one_prefill():
    prompt, keys = prompts([12, 7, 9]), keys_of(3, 4)
    tokens, mask, log_prob = jax.jit(policy().sample_group)(
        params(), prompt, keys, temperature=1.0
    )
    for member in range(4):
        expected = forced_log_probs(
            prompt, np.asarray(tokens[:, member]), np.asarray(mask[:, member]), 1.0
        )
        np.testing.assert_allclose(log_prob[:, member], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stop_tokens": ()}, "stop_tokens"),
        ({"stop_tokens": (1,), "max_new_tokens": 0}, "max_new_tokens"),
        ({"stop_tokens": (1,), "top_p": 0.0}, "top_p"),
    ],
)
def test_bad_settings_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        make_qwen_vl_policy(StandIn(), **options)
