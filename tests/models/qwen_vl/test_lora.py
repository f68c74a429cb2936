"""LoRA: what it adds, what it leaves alone, and what becomes of it on export."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepjax.models.qwen_vl.acting import cast_copy
from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.lora import (
    ALL_BUT_ADAPTERS,
    TARGETS,
    LoRA,
    merge_adapters,
    with_adapters,
)
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.sharding import param_sharding
from stepjax.models.qwen_vl.tensors import axis_sizes, entries, param_shape
from stepjax.training.freezing import merge_params, split_params, trainable_mask
from stepjax.training.sharding import make_mesh

pytestmark = pytest.mark.slow  # compilers take longer than the tests

CONFIG = PRESETS["tiny-qwen2.5-vl"]
MODEL = make_qwen_vl(CONFIG, dtype=jnp.float32, attention="plain")
TOKENS = jnp.asarray([[5, 9, 300, 7, 8, 1]], jnp.int32)
GRID = (4, 6)  # patches down and across


@pytest.fixture(scope="module")
def base():
    rng, sizes = np.random.default_rng(0), axis_sizes(CONFIG)
    tree = {}
    for entry in entries(CONFIG):
        node = tree
        for name in entry.path[:-1]:
            node = node.setdefault(name, {})
        drawn = rng.standard_normal(param_shape(entry, sizes), np.float32)
        center = np.float32(entry.path[-1] == "scale")
        node[entry.path[-1]] = jnp.asarray(center + np.float32(0.1) * drawn)
    return tree


def _adapted(lora, base=None, seed=1, **options):
    """A model with LoRA, and a tree whose adapters are random."""
    model = make_qwen_vl(
        CONFIG, dtype=jnp.float32, attention="plain", lora=lora, **options
    )
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if "lora" not in str(path[-1]):
            return leaf
        drawn = rng.standard_normal(leaf.shape, np.float32)
        return jnp.asarray(np.float32(0.1) * drawn)

    params = with_adapters(model, base, jax.random.key(0))
    return model, jax.tree_util.tree_map_with_path(draw, params)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params):
    x = model.embed(params, TOKENS)
    positions = jnp.broadcast_to(jnp.arange(6), (1, 3, 6))
    hidden, _ = model.decode(params, x, positions, jnp.zeros_like(TOKENS))
    return hidden @ model.unembed(params)


@functools.partial(jax.jit, static_argnums=0)
def _seen(model, params):
    shape = (GRID[0] * GRID[1], CONFIG.vision.patch_dim)
    patches = np.random.default_rng(2).standard_normal(shape, np.float32)
    return model.see_patches(params, patches, [GRID])


def _names(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves}


def test_fresh_adapters_change_nothing(base):
    lora = LoRA(rank=4, vision=True)
    model = make_qwen_vl(CONFIG, dtype=jnp.float32, attention="plain", lora=lora)
    params = with_adapters(model, base, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, merge_adapters(params, lora), base)
    np.testing.assert_array_equal(_logits(model, params), _logits(MODEL, base))
    np.testing.assert_array_equal(_seen(model, params), _seen(MODEL, base))
    a = params["decoder"]["layers"]["out"]["lora_a"]
    bound = CONFIG.text.hidden_size**-0.5
    assert 0.9 * bound < float(jnp.abs(a).max()) <= bound
    assert not np.array_equal(a[0], a[1])  # each layer draws its own


def test_the_tree_is_that_of_the_model(base):
    lora = LoRA(rank=4, targets=("up", "key"), vision=True)
    model, params = _adapted(lora, base)
    own = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), own
    )
    added = _names(params) - _names(base)
    stacks = ("decoder/layers", "vision/blocks")  # the merger's up is left alone
    assert added == {
        f"{stack}/{name}/lora_{one}"
        for stack in stacks
        for name in ("up", "key")
        for one in "ab"
    }


@pytest.mark.parametrize(
    ("names", "vision"),
    [
        *(((name,), False) for name in TARGETS),
        (("out",), True),
        (("gate", "down"), True),
        (TARGETS, True),
    ],
)
def test_merged_equals_beside_the_kernel(base, names, vision):
    lora = LoRA(rank=3, alpha=7.0, targets=names, vision=vision)
    model, params = _adapted(lora, base)
    merged = merge_adapters(params, lora)
    for compute, moved in ((_logits, True), (_seen, vision)):
        beside, inside = compute(model, params), compute(MODEL, merged)
        np.testing.assert_allclose(beside, inside, rtol=0, atol=2e-5)
        assert (np.abs(beside - compute(MODEL, base)).max() > 1e-3) == moved


def test_merged_by_hand(base):
    """x @ merged == x @ kernel + alpha / rank * (x @ a) @ b, for every layer."""
    lora = LoRA(rank=3, alpha=7.0)
    _, params = _adapted(lora, base)
    merged = merge_adapters(params, lora)
    for name in TARGETS:
        node = params["decoder"]["layers"][name]
        kernel, a, b = (
            np.asarray(node[k], np.float64) for k in ("kernel", "lora_a", "lora_b")
        )
        for layer in range(CONFIG.text.num_layers):
            flat = a[layer].reshape(-1, 3) @ b[layer].reshape(3, -1)
            whole = kernel[layer] + 7.0 / 3 * flat.reshape(kernel[layer].shape)
            found = merged["decoder"]["layers"][name]["kernel"][layer]
            np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)


def test_only_the_chosen_kernels_change(base):
    lora = LoRA(rank=2, targets=("query", "down"), vision=True)
    merged = merge_adapters(_adapted(lora, base)[1], lora)
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, one), other in zip(
            jax.tree_util.tree_leaves_with_path(base),
            jax.tree.leaves(merged),
            strict=True,
        )
        if not np.array_equal(one, other)
    }
    stacks = ("decoder/layers", "vision/blocks")
    assert changed == {f"{s}/{n}/kernel" for s in stacks for n in ("query", "down")}
    assert merged["embed"]["embedding"] is base["embed"]["embedding"]


def _loss(model, params):
    log_probs = jax.nn.log_softmax(_logits(model, params)[:, :-1])
    return -jnp.mean(jnp.take_along_axis(log_probs, TOKENS[:, 1:, None], axis=-1))


def test_training_moves_only_adapters(base):
    lora = LoRA(rank=4)
    model = make_qwen_vl(CONFIG, dtype=jnp.float32, attention="plain", lora=lora)
    params = with_adapters(model, base, jax.random.key(1))
    mask = trainable_mask(params, [ALL_BUT_ADAPTERS])
    trained, still = split_params(params, mask)
    assert {name.split("/")[-1] for name in _names(trained)} == {"lora_a", "lora_b"}
    optimizer = optax.adam(1e-2)
    state = optimizer.init(trained)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(trained))
    held = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert held == 2 * numbers < 0.2 * sum(leaf.size for leaf in jax.tree.leaves(base))

    @jax.jit
    def step(trained, state):
        def loss(trained):
            return _loss(model, merge_params(trained, still))

        value, gradients = jax.value_and_grad(loss)(trained)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(trained, updates), state, value

    values = []
    for _ in range(25):
        trained, state, value = step(trained, state)
        values.append(float(value))
    assert values[-1] < 0.7 * values[0]


def test_gradients_are_those_of_the_product(base):
    """Beside the kernel, and by the chain rule from the merged kernel's gradient."""
    lora = LoRA(rank=2, targets=("gate",))
    model, params = _adapted(lora, base)
    found = jax.grad(lambda p: _loss(model, p))(params)["decoder"]["layers"]["gate"]
    outer = jax.grad(lambda p: _loss(MODEL, p))(merge_adapters(params, lora))
    whole = outer["decoder"]["layers"]["gate"]["kernel"]
    node = params["decoder"]["layers"]["gate"]
    to_a = lora.scale * jnp.einsum("lio,lro->lir", whole, node["lora_b"])
    to_b = lora.scale * jnp.einsum("lir,lio->lro", node["lora_a"], whole)
    scale = float(jnp.abs(to_a).max())
    np.testing.assert_allclose(found["lora_a"], to_a, atol=1e-5 * scale)
    np.testing.assert_allclose(found["lora_b"], to_b, atol=1e-5 * scale)


def test_adapters_are_split_as_their_kernels():
    from jax.sharding import PartitionSpec as P

    lora = LoRA(rank=2, vision=True)
    model = make_qwen_vl(CONFIG, lora=lora)
    mesh = make_mesh(2, 2, 2)
    where = param_sharding(model, mesh)
    layers = where["decoder"]["layers"]
    assert layers["query"]["lora_a"].spec == P(None, "fsdp", None)
    assert layers["query"]["lora_b"].spec == P(None, None, "tensor", None)
    assert layers["out"]["lora_a"].spec == P(None, "tensor", None, None)
    assert layers["out"]["lora_b"].spec == P(None, None, "fsdp")
    base = jax.tree.map(
        jnp.zeros_like, jax.eval_shape(make_qwen_vl(CONFIG).init, jax.random.key(0))
    )
    placed = with_adapters(model, base, jax.random.key(0), shardings=where)
    a = placed["vision"]["blocks"]["down"]["lora_a"]
    assert a.sharding.spec == P(None, "tensor", None) and a.sharding.mesh == mesh


def test_types_of_the_base_are_kept(base):
    lora = LoRA(rank=2, targets=("up",))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base)
    model, params = _adapted(lora, narrow, param_dtype=jnp.bfloat16)
    up = params["decoder"]["layers"]["up"]
    assert up["lora_a"].dtype == up["lora_b"].dtype == jnp.float32
    merged = merge_adapters(params, lora)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}
    acting = make_qwen_vl(CONFIG, lora=lora)
    copy = cast_copy(acting, params)  # acting is in one type, as training computes
    assert {leaf.dtype for leaf in jax.tree.leaves(copy)} == {jnp.dtype("bfloat16")}
    assert copy["embed"]["embedding"] is narrow["embed"]["embedding"]  # not twice


def test_small_products_reach_a_wider_file(base, tmp_path):
    """bfloat16 would lose them: the kernels lie on its grid, far apart."""
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    from stepjax.models.qwen_vl.export import save_params
    from stepjax.models.qwen_vl.weights import load_params

    lora = LoRA(rank=2, alpha=2e-4, targets=("up",))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base)
    _, params = _adapted(lora, narrow, param_dtype=jnp.bfloat16)
    save_params(tmp_path / "wide", params, CONFIG, dtype="float32", lora=lora)
    whole = load_params(tmp_path / "wide")["decoder"]["layers"]["up"]["kernel"]
    node = params["decoder"]["layers"]["up"]
    product = lora.scale * jnp.einsum("lir,lro->lio", node["lora_a"], node["lora_b"])
    kernel = node["kernel"].astype(jnp.float32)
    assert 0 < float(jnp.abs(product).max()) < 1e-4
    np.testing.assert_allclose(whole - kernel, product, rtol=0, atol=2e-7)
    rounded = merge_adapters(params, lora)["decoder"]["layers"]["up"]["kernel"]
    assert float(jnp.mean(rounded == node["kernel"])) > 0.9


def test_trees_and_adapters_must_fit(base, tmp_path):
    from stepjax.models.qwen_vl.export import save_params

    lora = LoRA(rank=2, targets=("up",))
    _, params = _adapted(lora, base)
    with pytest.raises(ValueError, match="no adapters to merge"):
        merge_adapters(base, lora)
    with pytest.raises(ValueError, match=r"rank is 3, but .* decoder/layers/up/ are"):
        merge_adapters(params, LoRA(rank=3, targets=("up",)))
    with pytest.raises(ValueError, match="hold adapters: pass lora"):
        save_params(tmp_path / "x", params, CONFIG)
    with pytest.raises(ValueError, match="params hold no adapters"):
        save_params(tmp_path / "x", base, CONFIG, lora=lora)
    assert not (tmp_path / "x").exists()


def test_a_merged_export_is_the_adapted_model(base, tmp_path):
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    from stepjax.models.qwen_vl.export import save_params
    from stepjax.models.qwen_vl.weights import load_params

    lora = LoRA(rank=4, vision=True)
    params = _adapted(lora, base)[1]
    merged = merge_adapters(params, lora)
    save_params(tmp_path / "merged", merged, CONFIG, dtype="float32")
    again = load_params(tmp_path / "merged")
    jax.tree.map(np.testing.assert_array_equal, again, merged)
    save_params(tmp_path / "whole", params, CONFIG, dtype="float32", lora=lora)
    same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(same, load_params(tmp_path / "whole"), merged)
    assert float(jnp.abs(_logits(MODEL, again) - _logits(MODEL, base)).max()) > 1e-3


def test_transformers_reads_a_merged_export(base, tmp_path):
    """A picture and text through the adapted tower and decoder: the same logits."""
    torch = pytest.importorskip("torch", reason="compares with transformers on torch")
    transformers = pytest.importorskip(
        "transformers", reason="compares with transformers"
    )
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    from stepjax.models.qwen_vl.export import save_params
    from stepjax.models.qwen_vl.tables import rope_positions

    lora = LoRA(rank=4, vision=True)
    merged = merge_adapters(_adapted(lora, base)[1], lora)
    save_params(tmp_path / "merged", merged, CONFIG, dtype="float32")
    theirs, report = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind]

    grid, count = GRID, 6  # and the tokens that the patches become
    shape = (grid[0] * grid[1], CONFIG.vision.patch_dim)
    patches = np.random.default_rng(2).standard_normal(shape, np.float32)
    shown = [CONFIG.image_token_id] * count
    ends = (CONFIG.vision_start_token_id, CONFIG.vision_end_token_id)
    tokens = np.array([[5, 9, ends[0], *shown, ends[1], 300, 7, 8]], np.int32)
    visual = tokens == CONFIG.image_token_id
    given = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        expected = theirs.eval()(
            input_ids=given,
            pixel_values=torch.from_numpy(patches),
            image_grid_thw=torch.tensor([(1, *grid)]),
            mm_token_type_ids=torch.from_numpy(visual.astype(np.int32)),
        ).logits.numpy()

    @jax.jit
    def logits(params):
        seen = MODEL.see_patches(params, patches, [grid])[None]
        index = jnp.where(visual, jnp.cumsum(visual, axis=1) - 1, -1)
        x = MODEL.embed(params, tokens, seen, index)
        positions = rope_positions(tokens[0], [grid], CONFIG)[0][None]
        hidden, _ = MODEL.decode(params, x, positions, jnp.zeros_like(tokens))
        return hidden @ MODEL.unembed(params)

    np.testing.assert_allclose(logits(merged), expected, atol=1e-4)
    assert np.abs(logits(base) - expected).max() > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be >= 1, got 0"),
        ({"alpha": 0.0}, "alpha must be > 0"),
        ({"alpha": float("nan")}, "alpha must be > 0, got nan"),
        ({"targets": ()}, "targets must be names out of"),
        ({"targets": ("q_proj",)}, r"got \['q_proj'\]"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**options)
