"""The backward pass of plain attention against autodiff of the formula as it reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.models.qwen_vl.plain_attention import plain_attend, visible


def as_it_reads(query, key, value, seen):
    key, value = (jnp.repeat(x, query.shape[2] // x.shape[2], 2) for x in (key, value))
    scores = jnp.einsum("sthe,sche->shtc", query, key) * query.shape[-1] ** -0.5
    shares = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30), axis=-1)
    return jnp.einsum("shtc,sche->sthe", shares, value)


def inputs(queries, keys, heads, kv_heads, dtype=jnp.float32):
    """Arrays, a weight of each output, and segments and slots."""
    rng = np.random.default_rng(1)
    shapes = [(queries, heads), (keys, kv_heads), (keys, kv_heads), (queries, heads)]
    *parts, weight = (
        jnp.asarray(rng.normal(size=(2, *shape, 8)), dtype) for shape in shapes
    )
    own, others = rng.integers(1, 3, (2, queries)), rng.integers(-1, 3, (2, keys))
    others[0, 0] = 0  # seen by all of its row
    if keys > 1:
        others[1, 0] = -1
    slots = rng.integers(0, keys, (2, queries))
    slots[:, 0] = 0  # one query that sees one key, and one that sees nothing
    return parts, weight, [jnp.asarray(x, jnp.int32) for x in (own, others, slots)]


@functools.partial(jax.jit, static_argnums=0)
def gradients(attend, parts, weight, places):
    out, back = jax.vjp(lambda *parts: attend(*parts, *places), *parts)
    return out, *back(weight)


def twin(query, key, value, *places):
    return as_it_reads(query, key, value, visible(*places))


def nearly(ours, theirs, share):
    for mine, its in zip(ours, theirs, strict=True):
        mine, its = np.asarray(mine, np.float32), np.asarray(its, np.float32)
        largest = max(np.abs(its).max(), 1.0)
        np.testing.assert_allclose(mine, its, rtol=0, atol=share * largest)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("queries", "keys", "kv_heads"),
    [(5, 7, 1), (5, 7, 2), (5, 7, 4), (1, 3, 2), (6, 1, 2)],
)
def test_equal_to_autodiff(queries, keys, kv_heads, ordered):
    parts, weight, places = inputs(queries, keys, 4, kv_heads)
    case = parts, weight, places[: 2 + ordered]
    seen = visible(*case[2]).sum(axis=2)
    assert keys == 1 or not ordered or {0, 1} <= set(seen[:, 0].tolist())
    ours, theirs = gradients(plain_attend, *case), gradients(twin, *case)
    nearly(ours, theirs, 2e-6)


def test_half_the_bits_stay_near():
    """Sharp scores and values far from 0: what is subtracted must be exact."""
    parts, weight, places = inputs(6, 9, 4, 2, jnp.bfloat16)
    parts = [parts[0] * 3, parts[1], parts[2] + 3]
    ours = gradients(plain_attend, parts, weight, places)
    assert all(array.dtype == jnp.bfloat16 for array in ours)
    wide = [part.astype(jnp.float32) for part in parts]
    theirs = gradients(twin, wide, weight.astype(jnp.float32), places)
    nearly(ours, theirs, 0.02)  # autodiff in bfloat16 is 0.035 away


def test_scores_of_any_size_give_finite_gradients():
    parts, weight, places = inputs(5, 7, 4, 2)
    large = [parts[0] * 1e4, parts[1] * 1e4, parts[2]]
    for array in gradients(plain_attend, large, weight, places):
        assert np.isfinite(array).all()


def test_what_nobody_sees_has_no_gradient():
    parts, weight, (own, others, _) = inputs(5, 7, 4, 2)
    others = others.at[:, 3].set(-1).at[:, 0].set(0)
    case = parts, weight, [own, others]
    _, _, d_key, d_value = gradients(plain_attend, *case)
    assert not d_key[:, 3].any() and not d_value[:, 3].any()
    assert d_key[:, 0].any() and d_value[:, 0].any()


def test_nothing_as_large_as_the_scores_is_kept():
    """Not even which keys are seen."""
    parts, _, places = inputs(96, 96, 4, 2)
    _, back = jax.vjp(lambda *parts: plain_attend(*parts, *places), *parts)
    kept = jax.tree.leaves(back)
    assert len(kept) >= 6
    assert max(leaf.size for leaf in kept) < 2 * 96 * 96


def test_the_compiler_is_kept_from_keeping_scores():
    """Where it sees both passes, it could take those of the first for the second.

    CPUs do not care; the program that all of them are given is looked at.
    """
    parts, _, places = inputs(5, 7, 4, 2)

    def total(*parts):
        return jnp.sum(plain_attend(*parts, *places) ** 2)

    text = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*parts).as_text()
    before, _, after = text.partition("optimization_barrier")
    assert before.count("dot_general") == 2 and after.count("dot_general") == 6


def test_mapped_alike():
    parts, weight, places = inputs(5, 7, 4, 2)
    rows = jax.tree.map(lambda x: x[:, None], ((*parts,), weight, places))
    mapped = jax.vmap(lambda case: gradients(plain_attend, *case))(rows)
    whole = gradients(plain_attend, parts, weight, places)
    nearly([array[:, 0] for array in mapped], whole, 2e-6)
