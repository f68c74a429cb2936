"""The backward pass of plain attention against autodiff of the formula as it reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.models.qwen_vl.plain_attention import plain_attend


def as_it_reads(query, key, value, seen):
    key, value = (jnp.repeat(x, query.shape[2] // x.shape[2], 2) for x in (key, value))
    scores = jnp.einsum("sthe,sche->shtc", query, key) * query.shape[-1] ** -0.5
    shares = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30), axis=-1)
    return jnp.einsum("shtc,sche->sthe", shares, value)


def inputs(queries, keys, heads, kv_heads, dtype=jnp.float32):
    rng = np.random.default_rng(1)
    shapes = [(queries, heads), (keys, kv_heads), (keys, kv_heads), (queries, heads)]
    *parts, weight = (
        jnp.asarray(rng.normal(size=(2, *shape, 8)), dtype) for shape in shapes
    )
    seen = rng.random((2, queries, keys)) < 0.6
    seen[1, 0] = False  # a query that sees nothing
    seen[0, 0] = np.arange(keys) == 0  # one that sees one key
    return parts, weight, jnp.asarray(seen)


@functools.partial(jax.jit, static_argnums=0)
def gradients(attend, parts, weight, seen):
    out, back = jax.vjp(lambda *parts: attend(*parts, seen), *parts)
    return out, *back(weight)


@pytest.mark.parametrize(
    ("queries", "keys", "kv_heads"),
    [(5, 7, 1), (5, 7, 2), (5, 7, 4), (1, 3, 2), (6, 1, 2)],
)
def test_equal_to_autodiff(queries, keys, kv_heads):
    case = inputs(queries, keys, 4, kv_heads)
    ours, theirs = gradients(plain_attend, *case), gradients(as_it_reads, *case)
    for mine, its in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=2e-6)


def test_half_the_bits_stay_near():
    parts, weight, seen = inputs(6, 9, 4, 2, jnp.bfloat16)
    ours = gradients(plain_attend, parts, weight, seen)
    wide = [part.astype(jnp.float32) for part in parts]
    theirs = gradients(as_it_reads, wide, weight.astype(jnp.float32), seen)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            mine.astype(jnp.float32), its, rtol=0, atol=0.02 * float(jnp.max(abs(its)))
        )


def test_scores_of_any_size_give_finite_gradients():
    parts, weight, seen = inputs(5, 7, 4, 2)
    large = [parts[0] * 1e4, parts[1] * 1e4, parts[2]]
    for array in gradients(plain_attend, large, weight, seen):
        assert np.isfinite(array).all()


def test_what_nobody_sees_has_no_gradient():
    parts, weight, seen = inputs(5, 7, 4, 2)
    seen = seen.at[:, :, 3].set(False).at[1, 0].set(True).at[1, 0, 3].set(False)
    _, _, d_key, d_value = gradients(plain_attend, parts, weight, seen)
    assert not d_key[:, 3].any() and not d_value[:, 3].any()


def test_nothing_as_large_as_the_scores_is_kept():
    parts, _, seen = inputs(96, 96, 4, 2)
    _, back = jax.vjp(lambda *parts: plain_attend(*parts, seen), *parts)
    kept = [leaf for leaf in jax.tree.leaves(back) if leaf.dtype != bool]
    assert len(kept) >= 6
    assert max(leaf.size for leaf in kept) < 2 * 4 * 96 * 96 / 4


def test_mapped_alike():
    parts, weight, seen = inputs(5, 7, 4, 2)
    rows = jax.tree.map(lambda x: x[:, None], ((*parts,), weight, seen))
    mapped = jax.vmap(lambda case: gradients(plain_attend, *case))(rows)
    whole = gradients(plain_attend, parts, weight, seen)
    for mine, its in zip(mapped, whole, strict=True):
        np.testing.assert_allclose(mine[:, 0], its, rtol=0, atol=2e-6)
