"""Decoding through a cache, in groups and packed, equals every sequence by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.models.qwen_vl.cache import Cache
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.model import make_qwen_vl

CONFIG = PRESETS["tiny-qwen2.5-vl"]
MODEL = make_qwen_vl(CONFIG, dtype=jnp.float32)
ROWS, PROMPT, GROUP, RESPONSE = 2, 12, 3, 4
PADDING = (0, 5)  # Entries of padding on the left of each row's prompt.


@pytest.fixture(autouse=True, scope="module")
def quick_compiles():
    """Programs that run once: compiling them well costs more than it saves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache
def params():
    """Weights large enough that every entry matters, biases and norms too."""
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        start = float(path[-1].key == "scale")
        return np.float32(start + 0.1 * rng.normal(size=leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def entries():
    """Prompts [S, T, D], responses [S, G, A, D], their positions and segments."""
    # numpy, since a first call under `jit` would keep tracers.
    rng = np.random.default_rng(1)
    width = CONFIG.text.hidden_size
    prompt = np.float32(rng.normal(size=(ROWS, PROMPT, width)))
    response = np.float32(rng.normal(size=(ROWS, GROUP, RESPONSE, width)))
    slots = np.arange(PROMPT)[None] - np.array(PADDING)[:, None]
    segments = np.where(slots < 0, -1, 0)
    # Three different axes, as if an image stood in the prompt.
    prompt_at = np.stack([slots // 2, slots, slots // 3], axis=1)
    start = slots[:, -1] + 1
    at = start[:, None] + np.arange(RESPONSE)[None]
    response_at = np.broadcast_to(at[:, None], (ROWS, 3, RESPONSE))
    return prompt, response, np.maximum(prompt_at, 0), response_at, segments


@functools.cache
def separate():
    """Hidden states [S, G, A, D] of responses, each after its own prompt."""
    prompt, response, prompt_at, response_at, segments = entries()
    parts = [prompt.repeat(GROUP, 0), response.reshape(-1, *response.shape[2:])]
    x = np.concatenate(parts, axis=1)
    positions = np.concatenate([prompt_at, response_at], axis=2).repeat(GROUP, 0)
    zeros = np.zeros((ROWS, RESPONSE), int)
    segments = np.concatenate([segments, zeros], axis=1).repeat(GROUP, 0)
    hidden, cache = jax.jit(MODEL.decode)(params(), x, positions, segments)
    assert cache is None
    hidden = np.asarray(hidden)[:, PROMPT:].reshape(response.shape)
    assert hidden.std() > 0.1
    return hidden


def close(ours, theirs=None):
    theirs = separate() if theirs is None else theirs
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def as_group():
    """Responses step by step: [A, S, G, D], positions [A, S, 3, G], segments [S, G]."""
    _, response, _, response_at, _ = entries()
    x = response.transpose(2, 0, 1, 3)
    positions = np.broadcast_to(
        response_at.transpose(2, 0, 1)[..., None], (RESPONSE, ROWS, 3, GROUP)
    )
    return x, positions, np.tile(np.arange(1, GROUP + 1), (ROWS, 1))


def filled(tree, *, stacked=True, fresh=True, slots=32, rows=False):
    prompt, _, positions, _, segments = entries()
    cache = MODEL.init_cache(ROWS, slots, stacked=stacked)
    if rows:
        cache = with_length(cache, jnp.zeros(ROWS, jnp.int32))
    return MODEL.decode(tree, prompt, positions, segments, cache, fresh=fresh)


def with_length(cache, length):
    parts = {"keys": cache.keys, "values": cache.values, "segments": cache.segments}
    return Cache(length=length, **parts)


def decode_group(tree, cache):
    """Hidden states [S, G, A, D], all responses of a row at once."""
    x, positions, segments = as_group()

    def step(cache, entry):
        hidden, cache = MODEL.decode(tree, *entry, segments, cache)
        return cache, hidden

    cache, hidden = jax.lax.scan(step, cache, (jnp.asarray(x), jnp.asarray(positions)))
    return hidden.transpose(1, 2, 0, 3), cache


def test_groups_decode_from_one_prefill():
    @jax.jit
    def run(tree):
        return decode_group(tree, filled(tree)[1])

    hidden, cache = run(params())
    close(hidden)
    assert int(cache.length) == PROMPT + GROUP * RESPONSE
    used = np.asarray(cache.segments)
    assert (used[:, int(cache.length) :] == -1).all()
    np.testing.assert_array_equal(used[1, : PADDING[1]], [-1] * PADDING[1])


@pytest.mark.slow
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("rows", [True, False])
def test_other_forms_of_the_cache_are_equal(stacked, rows):
    @jax.jit
    def run(tree):
        tree = tree if stacked else MODEL.in_layers(tree)
        return decode_group(tree, filled(tree, stacked=stacked, rows=rows)[1])

    hidden, cache = run(params())
    close(hidden)
    assert cache.length.shape == ((ROWS,) if rows else ())


@pytest.mark.slow
def test_one_sequence_token_by_token():
    prompt, response, prompt_at, response_at, segments = entries()

    @jax.jit
    def run(tree):
        start, cache = filled(tree, fresh=False)
        outs = []
        for i in range(RESPONSE):
            at = slice(i, i + 1)
            zeros = jnp.zeros((ROWS, 1), jnp.int32)
            hidden, cache = MODEL.decode(
                tree, response[:, 0, at], response_at[..., at], zeros, cache
            )
            outs.append(hidden)
        return start, jnp.concatenate(outs, axis=1)

    start, hidden = run(params())
    close(hidden, separate()[:, 0])
    alone, _ = jax.jit(MODEL.decode)(params(), prompt, prompt_at, segments)
    real = segments == 0
    close(start[real], alone[real])


@pytest.mark.slow
def test_rows_may_be_of_different_length():
    """A row that starts later, in the same cache, sees nothing of the others."""
    _, response, _, response_at, _ = entries()

    @jax.jit
    def run(tree):
        cache = filled(tree, rows=True)[1]
        # Row 1 had three more entries once, which were given up: they are overwritten.
        junk = jnp.ones((ROWS, 3, CONFIG.text.hidden_size))
        at = jnp.zeros((ROWS, 3, 3), jnp.int32)
        cache = MODEL.decode(tree, junk, at, at[:, 0] - 1, cache)[1]
        cache = with_length(cache, cache.length - jnp.array([0, 3]))
        zeros = jnp.zeros((ROWS, RESPONSE), jnp.int32)
        return MODEL.decode(tree, response[:, 0], response_at, zeros, cache)

    hidden, cache = run(params())
    close(hidden, separate()[:, 0])
    used = PROMPT + RESPONSE
    np.testing.assert_array_equal(cache.length, [used + 3, used])


@pytest.mark.parametrize("known", [True, False])
def test_packed_responses_equal_separate_ones(known):
    prompt, response, prompt_at, response_at, segments = entries()
    x = np.concatenate([prompt, response.reshape(ROWS, -1, prompt.shape[2])], axis=1)
    positions = np.concatenate([prompt_at, np.tile(response_at, (1, 1, GROUP))], axis=2)
    groups = np.repeat(np.arange(1, GROUP + 1), RESPONSE)
    segments = np.concatenate([segments, np.tile(groups, (ROWS, 1))], axis=1)
    layout = (PROMPT, RESPONSE) if known else None
    decode = jax.jit(functools.partial(MODEL.decode, layout=layout))
    hidden, _ = decode(params(), x, positions, segments)
    close(hidden[:, PROMPT:].reshape(response.shape))


def value_and_grad(**options):
    model = make_qwen_vl(CONFIG, dtype=jnp.float32, **options)
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 56, 84, 3), np.uint8)
    tokens = jnp.arange(10)[None]
    index = jnp.where((tokens >= 2) & (tokens < 8), tokens - 2, -1)
    positions = jnp.broadcast_to(tokens[:, None], (1, 3, 10))

    @jax.jit
    @jax.value_and_grad
    def loss(tree):
        x = model.embed(tree, tokens, model.see(tree, images), index)
        hidden, _ = model.decode(tree, x, positions, jnp.zeros((1, 10), jnp.int32))
        logits = hidden @ model.unembed(tree)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)
        return -jnp.mean(picked)

    return loss(params())


@pytest.mark.slow
def test_what_is_kept_and_loops_do_not_change_gradients():
    value, grads = value_and_grad()
    for form in ({"remat": "full"}, {"remat": "dots"}, {"scan": False}):
        other, others = value_and_grad(**form)
        np.testing.assert_allclose(other, value, rtol=1e-6)
        for mine, theirs in zip(
            jax.tree.leaves(grads), jax.tree.leaves(others), strict=True
        ):
            scale = float(jnp.max(jnp.abs(mine))) + 1e-6
            np.testing.assert_allclose(theirs, mine, rtol=0, atol=1e-5 * scale)


def test_more_entries_than_slots_are_refused():
    with pytest.raises(ValueError, match="12 entries do not fit a cache of 8 slots"):
        filled(params(), slots=8)


def test_a_wrong_layout_is_refused():
    prompt, _, positions, _, segments = entries()
    for layout in [(13, 1), (5, 4), (5, 0), (-1, 13)]:
        with pytest.raises(ValueError, match="must fill the 12 entries"):
            MODEL.decode(params(), prompt, positions, segments, layout=layout)
