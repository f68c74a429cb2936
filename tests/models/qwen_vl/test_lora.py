"""LoRA: what it adds, what it leaves alone, and what becomes of it on export."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.lora import TARGETS, LoRA
from stepjax.models.qwen_vl.model import make_qwen_vl
from stepjax.models.qwen_vl.tensors import axis_sizes, entries, param_shape

pytestmark = pytest.mark.slow  # compilers take longer than the tests

CONFIG = PRESETS["tiny-qwen2.5-vl"]
MODEL = make_qwen_vl(CONFIG, dtype=jnp.float32, attention="plain")
TOKENS = jnp.asarray([[5, 9, 300, 7, 8, 1]], jnp.int32)


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


def _random(lora: LoRA, seed: int = 1):
    tree = jax.eval_shape(lora.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        return jnp.asarray(
            np.float32(0.1) * rng.standard_normal(leaf.shape, np.float32)
        )

    return jax.tree.map(draw, tree)


@jax.jit
def _logits(params):
    x = MODEL.embed(params, TOKENS)
    positions = jnp.broadcast_to(jnp.arange(6), (1, 3, 6))
    hidden, _ = MODEL.decode(params, x, positions, jnp.zeros_like(TOKENS))
    return hidden @ MODEL.unembed(params)


def test_a_fresh_tree_changes_nothing(base):
    lora = LoRA(config=CONFIG, rank=4, vision=True)
    merged = lora.merge(base, lora.init(jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, merged, base)


@pytest.mark.parametrize("name", TARGETS)
def test_merged_equals_applied_beside_the_kernel(base, name):
    """x @ merged == x @ kernel + alpha / rank * (x @ a) @ b, for every layer."""
    lora = LoRA(config=CONFIG, rank=3, alpha=7.0, targets=(name,))
    tree = _random(lora)
    kernel = base["decoder"]["layers"][name]["kernel"]
    merged = lora.merge(base, tree)["decoder"]["layers"][name]["kernel"]
    pair = tree["decoder"]["layers"][name]["kernel"]
    for layer in range(CONFIG.text.num_layers):
        a, b = pair["a"][layer], pair["b"][layer]
        x = jax.random.normal(jax.random.key(layer), (5, a.shape[0]))
        beside = x @ kernel[layer].reshape(a.shape[0], -1) + 7.0 / 3 * (x @ a) @ b
        found = x @ merged[layer].reshape(a.shape[0], -1)
        np.testing.assert_allclose(found, beside, atol=1e-5)


def test_only_the_chosen_kernels_change(base):
    lora = LoRA(config=CONFIG, rank=2, targets=("query", "down"), vision=True)
    merged = lora.merge(base, _random(lora))
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


def test_training_moves_only_the_small_tree(base):
    lora = LoRA(config=CONFIG, rank=4)
    tree = lora.init(jax.random.key(1))
    optimizer = optax.adam(1e-2)
    state = optimizer.init(tree)
    held = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
    assert (
        held
        == 2 * lora.num_params()
        == 2 * sum(leaf.size for leaf in jax.tree.leaves(tree))
    )

    @jax.jit
    def step(tree, state):
        def loss(tree):
            logits = _logits(lora.merge(base, tree))
            log_probs = jax.nn.log_softmax(logits[:, :-1])
            return -jnp.mean(
                jnp.take_along_axis(log_probs, TOKENS[:, 1:, None], axis=-1)
            )

        value, gradients = jax.value_and_grad(loss)(tree)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(tree, updates), state, value

    values = []
    for _ in range(25):
        tree, state, value = step(tree, state)
        values.append(float(value))
    assert values[-1] < 0.7 * values[0]


def test_gradients_are_those_of_the_product(base):
    """Through `merge` and by the chain rule from the merged kernel's gradient."""
    lora = LoRA(config=CONFIG, rank=2, targets=("gate",))
    tree = _random(lora)

    def loss(params):
        return jnp.sum(_logits(params) ** 2)

    found = jax.grad(lambda tree: loss(lora.merge(base, tree)))(tree)
    outer = jax.grad(loss)(lora.merge(base, tree))
    whole = outer["decoder"]["layers"]["gate"]["kernel"]
    pair = tree["decoder"]["layers"]["gate"]["kernel"]
    grads = found["decoder"]["layers"]["gate"]["kernel"]
    to_a = lora.scale * jnp.einsum("lio,lro->lir", whole, pair["b"])
    to_b = lora.scale * jnp.einsum("lir,lio->lro", pair["a"], whole)
    scale = float(jnp.abs(to_a).max())
    np.testing.assert_allclose(grads["a"], to_a, atol=1e-5 * scale)
    np.testing.assert_allclose(grads["b"], to_b, atol=1e-5 * scale)


def test_axes_have_names_for_every_leaf():
    lora = LoRA(config=CONFIG, rank=2, vision=True)
    tree = jax.eval_shape(lora.init, jax.random.key(0))
    axes = lora.logical_axes()
    known = {
        name
        for names in jax.tree.leaves(
            MODEL.logical_axes(), is_leaf=lambda leaf: isinstance(leaf, tuple)
        )
        for name in names
    }

    def check(leaf, names):
        assert len(names) == leaf.ndim and names[0] == "layers"
        assert {name for name in names if name is not None} <= known

    jax.tree.map(check, tree, axes)


def test_types_of_the_base_are_kept(base):
    lora = LoRA(config=CONFIG, rank=2, targets=("up",))
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), base)
    merged = lora.merge(narrow, _random(lora))
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}


def test_a_merged_export_is_the_adapted_model(base, tmp_path):
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    from stepjax.models.qwen_vl.export import save_params
    from stepjax.models.qwen_vl.weights import load_params

    lora = LoRA(config=CONFIG, rank=4, vision=True)
    merged = lora.merge(base, _random(lora))
    save_params(tmp_path / "merged", merged, CONFIG, dtype="float32")
    again = load_params(tmp_path / "merged")
    jax.tree.map(np.testing.assert_array_equal, again, merged)
    assert float(jnp.abs(_logits(again) - _logits(base)).max()) > 1e-3


def test_transformers_reads_a_merged_export(base, tmp_path):
    """A picture and text through the adapted tower and decoder: the same logits."""
    torch = pytest.importorskip("torch", reason="compares with transformers on torch")
    transformers = pytest.importorskip(
        "transformers", reason="compares with transformers"
    )
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    from stepjax.models.qwen_vl.export import save_params
    from stepjax.models.qwen_vl.tables import rope_positions

    lora = LoRA(config=CONFIG, rank=4, vision=True)
    merged = lora.merge(base, _random(lora))
    save_params(tmp_path / "merged", merged, CONFIG, dtype="float32")
    theirs, report = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind]

    grid, count = (4, 6), 6  # patches down and across, and the tokens they become
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
        LoRA(config=CONFIG, **options)


def test_trees_of_different_models_are_refused(base):
    lora = LoRA(config=CONFIG, rank=2, targets=("query",))
    tree = _random(lora)
    with pytest.raises(ValueError, match="the tree of the model has no 'deco'"):
        lora.merge(base, {"deco": tree["decoder"]})
    pair = tree["decoder"]["layers"]["query"]["kernel"]
    short = {"a": pair["a"][:, :-1], "b": pair["b"]}
    wrong = {"decoder": {"layers": {"query": {"kernel": short}}}}
    with pytest.raises(ValueError, match="do not fit the kernel .* of .*query/kernel"):
        lora.merge(base, wrong)
    wrong = {"decoder": {"layers": {"query": {"kernel": {"a": pair["a"]}}}}}
    with pytest.raises(ValueError, match="must hold 'a' and 'b'"):
        lora.merge(base, wrong)
