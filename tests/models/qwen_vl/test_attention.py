"""The rule of segments, and every way to compute it."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.models.qwen_vl import attention
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.flash import flash_attend
from stepjax.models.qwen_vl.generate import prefill
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.prompt import VLPrompt


@pytest.fixture
def quick_compiles():
    """Programs that run once: compiling them well costs more than it saves."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


QUICK = pytest.mark.usefixtures("quick_compiles")


def arrays(rows, length, heads, kv_heads, width, keys=None, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    sizes = [(length, heads), (keys or length, kv_heads), (keys or length, kv_heads)]
    return [jnp.asarray(rng.normal(size=(rows, *size, width)), dtype) for size in sizes]


def by_hand(query, key, value, query_segments, key_segments, offset):
    """Attention in loops over rows, heads and queries."""
    query, key, value = (np.asarray(part, np.float64) for part in (query, key, value))
    out = np.zeros(query.shape)
    per = query.shape[2] // key.shape[2]
    for s, t, h in itertools.product(*map(range, query.shape[:3])):
        seen = []
        for c in range(key.shape[1]):
            segment = key_segments[s, c]
            late = offset is not None and c > offset + t
            if segment < 0 or late or segment not in (0, query_segments[s, t]):
                continue
            seen.append(c)
        if not seen:
            out[s, t, h] = np.nan
            continue
        scores = key[s, seen, h // per] @ query[s, t, h] / query.shape[3] ** 0.5
        shares = np.exp(scores - scores.max())
        out[s, t, h] = shares @ value[s, seen, h // per] / shares.sum()
    return out


def check(ours, theirs, tolerance=1e-5):
    known = ~np.isnan(theirs)
    ours = np.asarray(ours, np.float32)
    assert np.isfinite(ours).all() and known.any()
    np.testing.assert_allclose(ours[known], theirs[known], rtol=0, atol=tolerance)


def run(*parts, query_segments, key_segments, **options):
    """`attend` in one compiled program."""
    attend = functools.partial(attention.attend, **options)

    @jax.jit
    def compiled(parts, query_segments, key_segments):
        return attend(*parts, query_segments=query_segments, key_segments=key_segments)

    return compiled(parts, query_segments, key_segments)


SEGMENTS = np.array(
    [
        [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2],
        [-1, -1, 0, 0, 0, 1, 1, -1, 2, -1, -1],
    ]
)
LAYOUT = (5, 3)


@QUICK
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_rule(kv_heads):
    parts = arrays(2, 11, 4, kv_heads, 8)
    segments = {"query_segments": SEGMENTS, "key_segments": SEGMENTS}
    theirs = by_hand(*parts, SEGMENTS, SEGMENTS, 0)
    check(run(*parts, **segments, offset=0), theirs)
    check(run(*parts, **segments, offset=jnp.int32(0)), theirs)
    check(run(*parts, **segments, offset=0, layout=LAYOUT), theirs)
    # Without an order, prompts see both ways.
    theirs = by_hand(*parts, SEGMENTS, SEGMENTS, None)
    check(run(*parts, **segments), theirs)


@QUICK
def test_queries_that_start_later():
    parts = arrays(2, 3, 4, 2, 8, keys=11)
    theirs = by_hand(*parts, SEGMENTS[:, 5:8], SEGMENTS, 5)
    segments = {
        "query_segments": jnp.asarray(SEGMENTS[:, 5:8]),
        "key_segments": jnp.asarray(SEGMENTS),
    }
    for offset in (5, jnp.int32(5), jnp.array([5, 5])):
        check(run(*parts, **segments, offset=offset), theirs)


@pytest.mark.slow
@QUICK
def test_chunks_change_nothing(monkeypatch):
    parts = arrays(2, 11, 4, 2, 8)
    theirs = by_hand(*parts, SEGMENTS, SEGMENTS, 0)
    monkeypatch.setattr(attention, "_WHOLE", 4)
    monkeypatch.setattr(attention, "chunk_of", lambda length: 4)
    segments = jnp.asarray(SEGMENTS)

    def total(*parts, **options):
        out = attention.attend(
            *parts, query_segments=segments, key_segments=segments, **options
        )
        real = (segments >= 0)[:, :, None, None]
        return jnp.sum(jnp.where(real, out, 0.0) ** 2), out

    def grad(*parts, **options):
        some = functools.partial(total, **options)
        return jax.jit(jax.grad(some, argnums=(0, 1, 2), has_aux=True))(*parts)

    first, out = grad(*parts, offset=0)
    check(out, theirs)
    for options in ({"offset": jnp.int32(0)}, {"offset": 0, "layout": LAYOUT}):
        other, out = grad(*parts, **options)
        check(out, theirs)
        for mine, its in zip(first, other, strict=True):
            np.testing.assert_allclose(its, mine, rtol=0, atol=1e-5)


def test_chunks_are_few_and_whole():
    assert attention.chunk_of(1024) == 1024
    for length in (1025, 4096, 11520, 100_000):
        chunk = attention.chunk_of(length)
        assert 512 <= chunk < length and -(-length // chunk) <= 16


@QUICK
@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "ordered"), [((160, 0), True), ((160, 0), False), ((100, 20), True)]
)
def test_the_tpu_kernel_step_by_step(layout, ordered):
    parts = arrays(2, 160, 4, 2, 16)
    segments = np.zeros((2, 160), np.int32)
    segments[1, :17] = -1
    prompt, response = layout
    if response:
        segments[:, prompt:] = 1 + (np.arange(160 - prompt) // response)[None]
    flash = functools.partial(
        flash_attend,
        segments=jnp.asarray(segments),
        layout=layout,
        ordered=ordered,
        interpret=True,
    )
    plain = functools.partial(
        attention.attend,
        query_segments=jnp.asarray(segments),
        key_segments=jnp.asarray(segments),
        offset=0 if ordered else None,
    )
    real = segments >= 0
    ours, theirs = jax.jit(flash)(*parts), jax.jit(plain)(*parts)
    np.testing.assert_allclose(ours[real], theirs[real], rtol=0, atol=1e-5)

    def total(attend, *parts):
        weight = jnp.where(real, jnp.arange(160)[None] / 160, 0.0)[..., None, None]
        return jnp.sum(attend(*parts) * weight)

    for mine, its in zip(
        *(
            jax.jit(jax.grad(functools.partial(total, attend), argnums=(0, 1, 2)))(
                *parts
            )
            for attend in (flash, plain)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-4)


def test_prefill_takes_the_tpu_kernel(monkeypatch):
    """Traced only: what the kernel computes for such a layout is compared above."""
    layouts = []

    def recorded(query, *_, layout, **__):
        layouts.append(layout)
        return query

    monkeypatch.setattr(attention, "flash_attend", recorded)
    model = make_qwen_vl(PRESETS["tiny-qwen2.5-vl"], attention="tpu_flash")
    one = {"tokens": (300,), "positions": (3, 300), "segments": (300,)}
    one |= {"next_position": (), "image_index": (300,)}
    fields = {name: jnp.zeros((2, *shape), jnp.int32) for name, shape in one.items()}
    prompt = VLPrompt(images=jnp.zeros((2, 0, 28, 28, 3), jnp.uint8), **fields)
    for capacity in (300, 310):
        fill = functools.partial(prefill, model, capacity=capacity)
        params = jax.eval_shape(model.init, jax.random.key(0))
        hidden, cache = jax.eval_shape(fill, params, prompt)
        assert hidden.shape[0] == 2 and cache.segments.shape == (2, capacity)
    assert layouts == [(300, 0)] * 2  # layers are a loop, traced once


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(640, 0), (512, 64)])
def test_the_tpu_kernel_compiles_for_a_described_tpu(layout, monkeypatch):
    pytest.importorskip("libtpu", reason="describing TPUs needs libtpu")
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    topology = topologies.get_topology_desc("v5e:2x2", "tpu")
    mesh = Mesh(
        np.array(topology.devices).reshape(2, 2),
        ("fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 2,
    )

    def total(query, key, value, segments):
        out = attention.attend(
            query,
            key,
            value,
            query_segments=segments,
            key_segments=segments,
            offset=0,
            layout=layout,
            kind="tpu_flash",
            mesh=mesh,
        )
        return jnp.sum(out.astype(jnp.float32))

    whole = NamedSharding(mesh, P("fsdp", None, "tensor"))
    shapes = [
        jax.ShapeDtypeStruct((2, 640, heads, 128), jnp.bfloat16, sharding=whole)
        for heads in (4, 2, 2)
    ]
    segments = jax.ShapeDtypeStruct(
        (2, 640), jnp.int32, sharding=NamedSharding(mesh, P("fsdp"))
    )
    lowered = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*shapes, segments)
    assert "tpu_custom_call" in lowered.compile().as_text()


@pytest.mark.accelerator
@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs a GPU")
def test_cudnn_equals_plain():
    parts = arrays(2, 128, 4, 2, 64, dtype=jnp.bfloat16)
    segments = np.zeros((2, 128), np.int32)
    segments[1, :17] = -1
    run = functools.partial(
        attention.attend,
        query_segments=jnp.asarray(segments),
        key_segments=jnp.asarray(segments),
        offset=0,
    )
    real = segments >= 0
    ours, theirs = run(*parts, kind="cudnn"), run(*parts, kind="plain")
    ours, theirs = (np.asarray(out, np.float32)[real] for out in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.03)


def test_the_fastest_way_for_the_device(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert attention.resolve("auto", jnp.bfloat16) == "cudnn"
    assert attention.resolve("auto", jnp.float32) == "plain"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert attention.resolve("auto", jnp.float32) == "tpu_flash"
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert attention.resolve("auto", jnp.float32) == "plain"
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert attention.resolve("auto", jnp.bfloat16) == "plain"
