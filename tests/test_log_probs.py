"""Token log-probabilities, whole and in chunks of the vocabulary."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepjax
from tests.kernels.common import close, quick

pytestmark = pytest.mark.usefixtures("strict_dtypes")
N, D, V = 6, 5, 23


def data(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return (
        jnp.asarray(rng.normal(size=(N, D)) * scale, jnp.float32),
        jnp.asarray(rng.normal(size=(D, V)), jnp.float32),
        jnp.asarray(rng.integers(0, V, N), jnp.int32),
        jnp.asarray(rng.normal(size=N), jnp.float32),
    )


def naive(hidden, head, tokens):
    return stepjax.token_log_probs(hidden @ head, tokens)


@functools.cache
def program(fn, **numbers):
    """Value and gradients of a weighted sum, compiled."""

    def total(hidden, head, tokens, cotangent):
        out = fn(hidden, head, tokens, **numbers)
        return jnp.sum(out * cotangent), out

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


def test_known_values():
    logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]]))
    got = stepjax.token_log_probs(logits, jnp.array([1, 0]))
    close(got, np.log([0.75, 0.5]), 1e-6)
    got = stepjax.token_log_probs(logits.astype(jnp.bfloat16), jnp.array([1, 0]))
    assert got.dtype == jnp.float32


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("chunk_size", [1, 4, 8, 22, 23, 1000])
def test_matches_reference(chunk_size, scale):
    """Chunks that divide the vocabulary, that do not, of one column, and only one."""
    args = data(0, scale)
    (_, want), want_grads = program(naive)(*args)
    chunked = program(stepjax.chunked_token_log_probs, chunk_size=chunk_size)
    (_, got), grads = chunked(*args)
    hidden, head = np.float64(args[0]), np.float64(args[1])
    logits = hidden @ head
    exact = np.take_along_axis(logits, np.asarray(args[2])[:, None], 1)[:, 0]
    exact -= np.log(np.sum(np.exp(logits - logits.max(1, keepdims=True)), 1))
    exact -= logits.max(1)
    close(got, exact, 1e-4 if scale > 1 else 2e-6)
    close(got, want, 1e-4 if scale > 1 else 2e-6)
    for a, b in zip(grads, want_grads, strict=True):
        close(a, b, 1e-3 if scale > 1 else 5e-6)


@pytest.mark.slow
def test_jit_and_vmap_agree():
    fn = functools.partial(stepjax.chunked_token_log_probs, chunk_size=8)
    many = [data(seed) for seed in range(3)]
    hidden, _, tokens, _ = (jnp.stack(x) for x in zip(*many, strict=True))
    head = many[0][1]
    batched = jax.jit(jax.vmap(fn, in_axes=(0, None, 0)))(hidden, head, tokens)
    close(batched, np.stack([fn(h, head, t) for h, _, t, _ in many]), 2e-6)

    def total(head):
        return jnp.sum(jax.vmap(fn, in_axes=(0, None, 0))(hidden, head, tokens))

    def total_naive(head):
        return jnp.sum(jax.vmap(naive, in_axes=(0, None, 0))(hidden, head, tokens))

    close(jax.grad(total)(head), jax.grad(total_naive)(head), 1e-5)


@pytest.mark.parametrize("junk", [np.nan, np.inf])
def test_padding_is_invisible(junk):
    """Rows whose result nobody reads may hold anything, also for the head."""
    hidden, head, tokens, cotangent = data(1)
    mask = jnp.arange(N) % 3 != 0

    def total(hidden, head):
        out = stepjax.chunked_token_log_probs(hidden, head, tokens, chunk_size=8)
        return jnp.sum(jnp.where(mask, out, 0.0) * cotangent)

    grads = jax.jit(jax.grad(total, argnums=(0, 1)))
    dirty = jnp.where(mask[:, None], hidden, junk)
    for a, b in zip(grads(hidden, head), grads(dirty, head), strict=True):
        assert np.array_equal(a, b)
    step = jnp.array([-1.0, -2.0, junk])
    assert stepjax.step_log_prob(step, jnp.array([True, True, False])) == -3


def test_gradients():
    hidden, head, tokens, cotangent = data(2)
    head = head.at[:, :16].multiply(1e3)  # probabilities that are exactly 0 and 1
    chunked = program(stepjax.chunked_token_log_probs, chunk_size=8)
    _, grads = chunked(hidden, head, tokens, cotangent)
    assert all(np.all(np.isfinite(g)) for g in grads)
    _, grads = chunked(hidden, head, tokens, jnp.zeros(N))
    assert not any(np.any(g) for g in grads)


def test_degenerate_inputs():
    hidden, head, tokens, _ = data(3)
    fn = functools.partial(stepjax.chunked_token_log_probs, chunk_size=8)
    assert fn(hidden[:0], head, tokens[:0]).shape == (0,)
    close(fn(hidden * 0, head, tokens), np.full(N, -np.log(V)), 1e-6)
    assert fn(hidden, head[:, :1], tokens * 0).tolist() == [0.0] * N


def test_rejects_bad_shapes():
    hidden, head, tokens, _ = data(0)
    with pytest.raises(ValueError, match="head must have shape"):
        stepjax.chunked_token_log_probs(hidden, head.T, tokens)
    with pytest.raises(ValueError, match="chunk_size must be >= 1"):
        stepjax.chunked_token_log_probs(hidden, head, tokens, chunk_size=0)
    with pytest.raises(TypeError, match="tokens must be an integer"):
        stepjax.chunked_token_log_probs(hidden, head, hidden[:, 0])
    with pytest.raises(ValueError, match="tokens must have the shape of logits"):
        stepjax.token_log_probs(hidden @ head, tokens[:2])


def test_bfloat16_accumulates_in_float32():
    hidden, head, tokens, cotangent = data(4)
    half = (hidden.astype(jnp.bfloat16), head.astype(jnp.bfloat16))
    chunked = program(stepjax.chunked_token_log_probs, chunk_size=8)
    (_, got), grads = chunked(*half, tokens, cotangent)
    assert got.dtype == jnp.float32
    assert [g.dtype for g in grads] == [jnp.bfloat16] * 2
    full = [x.astype(jnp.float32) for x in half]
    (_, want), want_grads = program(naive)(*full, tokens, cotangent)
    close(got, want, 1e-5)
    for a, b in zip(grads, want_grads, strict=True):
        close(a.astype(jnp.float32), b, 0.03)


@quick
@given(st.permutations(range(V)), st.integers(0, 1000))
def test_order_of_the_vocabulary_does_not_matter(order, seed):
    hidden, head, tokens, _ = data(seed)
    order = np.array(order)
    fn = _compiled_chunks
    got = fn(hidden, head[:, order], jnp.asarray(np.argsort(order)[tokens], jnp.int32))
    close(got, fn(hidden, head, tokens), 5e-6)


_compiled_chunks = jax.jit(
    functools.partial(stepjax.chunked_token_log_probs, chunk_size=8)
)


def test_extra_memory_is_a_thirtieth_of_the_naive_form():
    """The compiled program's temporary bytes, at the vocabulary of a language model."""
    shapes = (
        jax.ShapeDtypeStruct((1024, 256), jnp.float32),
        jax.ShapeDtypeStruct((256, 151_936), jnp.float32),
        jax.ShapeDtypeStruct((1024,), jnp.int32),
        jax.ShapeDtypeStruct((1024,), jnp.float32),
    )

    def temporary(fn):
        analysis = program(fn).lower(*shapes).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert temporary(stepjax.chunked_token_log_probs) * 30 < temporary(naive)
