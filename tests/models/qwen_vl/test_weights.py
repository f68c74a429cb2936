"""Hugging Face folders in and out: the same numbers, and only those that are needed."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("safetensors", reason="needs the extra vlm")
pytest.importorskip("tokenizers", reason="needs the extra vlm")

from safetensors.numpy import load_file, save_file  # noqa: E402

from stepjax.models.qwen_vl.config import PRESETS  # noqa: E402
from stepjax.models.qwen_vl.export import COPIED_FILES, save_params  # noqa: E402
from stepjax.models.qwen_vl.model import make_qwen_vl  # noqa: E402
from stepjax.models.qwen_vl.tensor_files import INDEX_NAME, Checkpoint  # noqa: E402
from stepjax.models.qwen_vl.tensors import entries, stored_shapes  # noqa: E402
from stepjax.models.qwen_vl.weights import load_params, read_config  # noqa: E402
from tests.models.qwen_vl.tiny import make_tiny_checkpoint  # noqa: E402

ARCHITECTURES = ["qwen2_vl", "qwen2_5_vl"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    make_tiny_checkpoint(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def params(folder):
    return load_params(folder)


def _same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def _stored(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {name: value for path in files for name, value in load_file(path).items()}


def test_the_tree_is_that_of_the_model(folder, params):
    model = make_qwen_vl(read_config(folder))
    expected = jax.eval_shape(model.init, jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), expected)


def test_every_number_of_the_file_is_in_the_tree_once(folder, params):
    stored = np.concatenate([value.ravel() for value in _stored(folder).values()])
    ours = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    np.testing.assert_array_equal(np.sort(stored), np.sort(ours))


def test_matrices_are_transposed_and_heads_apart(folder, params):
    tensors = _stored(folder)
    config = read_config(folder)
    query = tensors["model.layers.1.self_attn.q_proj.weight"]
    heads = (config.text.num_heads, config.text.head_dim)
    layer = params["decoder"]["layers"]
    np.testing.assert_array_equal(
        layer["query"]["kernel"][1], query.T.reshape(-1, *heads)
    )
    out = tensors["model.layers.0.self_attn.o_proj.weight"]
    np.testing.assert_array_equal(
        layer["out"]["kernel"][0], out.T.reshape(*heads, config.text.hidden_size)
    )
    width = config.vision.hidden_size
    key = tensors["visual.blocks.1.attn.qkv.weight"][width : 2 * width]
    shape = (width, config.vision.num_heads, config.vision.head_dim)
    np.testing.assert_array_equal(
        params["vision"]["blocks"]["key"]["kernel"][1], key.T.reshape(shape)
    )
    patch = tensors["visual.patch_embed.proj.weight"].reshape(width, -1)
    np.testing.assert_array_equal(params["vision"]["patch_embed"]["kernel"], patch.T)


@pytest.mark.parametrize("max_file_bytes", [10**9, 100_000])
def test_saving_undoes_loading(folder, params, tmp_path, max_file_bytes):
    target = tmp_path / "out"
    save_params(
        target,
        params,
        read_config(folder),
        source=folder,
        dtype="float32",
        max_file_bytes=max_file_bytes,
    )
    _same(load_params(target), params)
    assert read_config(target) == read_config(folder)
    before, after = _stored(folder), _stored(target)
    assert set(before) == set(after)
    _same(before, after)
    for name in COPIED_FILES:
        assert (folder / name).is_file() == (target / name).is_file()
    assert (target / INDEX_NAME).is_file() == (max_file_bytes == 100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_others_may_read_what_the_user_lets_them(folder, params, tmp_path):
    """A server runs as another user; safetensors alone makes files private."""
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            save_params(tmp_path / str(mask), params, read_config(folder))
        finally:
            os.umask(before)
        path = tmp_path / str(mask) / "model.safetensors"
        assert path.stat().st_mode & 0o777 == mode


def test_half_precision_is_rounded_once(folder, params, tmp_path):
    config = read_config(folder)
    for dtype in ("bfloat16", "float16"):
        save_params(tmp_path / dtype, params, config, dtype=dtype)
        values = json.loads((tmp_path / dtype / "config.json").read_text())
        assert values["torch_dtype"] == dtype
        again = load_params(tmp_path / dtype)
        # In numpy: a compiled conversion may take tiny numbers for 0.
        for found, leaf in zip(
            jax.tree.leaves(again), jax.tree.leaves(params), strict=True
        ):
            rounded = np.asarray(leaf).astype(jnp.dtype(dtype)).astype(np.float32)
            np.testing.assert_array_equal(found, rounded)
        kept = load_params(tmp_path / dtype, dtype=dtype)
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(kept)} == {dtype}


def test_newer_names_are_read_too(folder, params, tmp_path):
    tensors = {
        name.replace("model.", "model.language_model.", 1)
        if name.startswith("model.")
        else name.replace("visual.", "model.visual.", 1): value
        for name, value in _stored(folder).items()
    }
    shutil.copytree(folder, tmp_path / "newer")
    save_file(tensors, tmp_path / "newer" / "model.safetensors")
    _same(load_params(tmp_path / "newer"), params)


def _shardings(model, mesh):
    rules = {"embed": "fsdp", "heads": "tensor", "kv_heads": "tensor", "mlp": "tensor"}
    rules |= {"vocab": "tensor", "vision_embed": "fsdp", "vision_heads": "tensor"}
    rules |= {"vision_mlp": "tensor"}

    def place(names):
        used, spec = set(), []
        for name in names:
            axis = rules.get(name)
            spec.append(axis if axis not in used else None)
            used.add(axis)
        return jax.NamedSharding(mesh, jax.P(*spec))

    return jax.tree.map(
        place, model.logical_axes(), is_leaf=lambda leaf: isinstance(leaf, tuple)
    )


def test_every_device_gets_its_slice_and_nothing_is_read_twice(folder, params):
    mesh = jax.make_mesh(
        (2, 2, 2),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )
    checkpoint = Checkpoint(folder, read_config(folder))
    shardings = _shardings(make_qwen_vl(checkpoint.config), mesh)
    sharded = load_params(checkpoint, shardings=shardings)
    _same(sharded, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, sharded) == shardings
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    # Only the biases and the patches, split along a folded axis, are read whole.
    assert total <= checkpoint.bytes_read <= 1.02 * total


@pytest.mark.parametrize(
    ("path", "spec", "share"),
    [
        (("embed", "embedding"), ("x", None), 8),
        (("decoder", "layers", "query", "kernel"), (None, "x", None, None), 8),
        (("decoder", "layers", "out", "kernel"), (None, None, "x", None), 8),
        (("decoder", "layers", "down", "kernel"), (None, "x", None), 8),
        (("decoder", "layers", "query", "kernel"), (None, None, None, "x"), 8),
        (("vision", "blocks", "value", "kernel"), (None, "x", None, None), 8),
        (("vision", "blocks", "value", "kernel"), (None, None, None, "x"), 8),
    ],
)
def test_one_device_reads_only_its_share(folder, params, path, spec, share):
    """What a host with one of eight devices reads, counted in bytes."""
    checkpoint = Checkpoint(folder, read_config(folder))
    (entry,) = [one for one in entries(checkpoint.config) if one.path == path]
    leaf = params
    for key in path:
        leaf = leaf[key]
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P(*spec))
    index = sharding.devices_indices_map(leaf.shape)[mesh.devices[3]]
    rows = index if not entry.stacked else index[1:]
    layers = range(len(entry.names))
    found = [checkpoint.read(entry, layer, rows) for layer in layers]
    expected = np.asarray(leaf)[index]
    np.testing.assert_array_equal(
        np.stack(found) if entry.stacked else found[0], expected
    )
    assert checkpoint.bytes_read == expected.nbytes == leaf.nbytes // share


def test_random_slices_are_those_of_the_whole(folder, params):
    checkpoint = Checkpoint(folder, read_config(folder))
    rng = np.random.default_rng(0)
    for entry in entries(checkpoint.config):
        leaf = params
        for key in entry.path:
            leaf = leaf[key]
        whole = np.asarray(leaf)[1] if entry.stacked else np.asarray(leaf)
        for _ in range(4):
            edges = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in whole.shape]
            index = tuple(slice(int(a), int(b)) for a, b in edges)
            found = checkpoint.read(entry, 1 if entry.stacked else 0, index)
            np.testing.assert_array_equal(found, whole[index])


def test_shapes_of_the_published_models():
    """Against numbers on their model cards: parameters in billions."""
    sizes = {
        "qwen2-vl-2b": 2.2,
        "qwen2-vl-7b": 8.3,
        "qwen2.5-vl-3b": 3.8,
        "qwen2.5-vl-7b": 8.3,
    }
    for name, billions in sizes.items():
        shapes = stored_shapes(PRESETS[name]).values()
        total = sum(int(np.prod(shape)) for shape in shapes)
        assert abs(total / 1e9 - billions) < 0.06, (name, total)


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="compares with transformers on torch")
    return pytest.importorskip("transformers", reason="compares with transformers")


def _logits(model, params, tokens):
    x = model.embed(params, tokens)
    length = tokens.shape[1]
    positions = jnp.broadcast_to(jnp.arange(length), (tokens.shape[0], 3, length))
    hidden, _ = model.decode(params, x, positions, jnp.zeros(tokens.shape, jnp.int32))
    return hidden @ model.unembed(params)


def test_transformers_loads_what_we_save(folder, params, tmp_path, transformers):
    import torch

    config = read_config(folder)
    target = tmp_path / "ours"
    save_params(
        target, params, config, source=folder, dtype="float32", max_file_bytes=10**5
    )
    theirs, report = transformers.AutoModelForImageTextToText.from_pretrained(
        target, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys"))
    assert not report["mismatched_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    tokens = np.asarray([tokenizer("Action: click(start_box='(5,7)')")["input_ids"]])
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens)).logits.numpy()
    model = make_qwen_vl(config, dtype=jnp.float32, attention="plain")
    found = _logits(model, params, jnp.asarray(tokens, jnp.int32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_we_load_what_transformers_saves(folder, params, tmp_path, transformers):
    import torch

    theirs = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32
    )
    theirs.save_pretrained(tmp_path / "hub", max_shard_size="200KB")
    assert read_config(tmp_path / "hub") == read_config(folder)
    _same(load_params(tmp_path / "hub"), params)
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    (tmp_path / "state").mkdir()
    shutil.copy(tmp_path / "hub" / "config.json", tmp_path / "state")
    save_file(state, tmp_path / "state" / "model.safetensors")
    _same(load_params(tmp_path / "state"), params)


def test_a_plain_start_mostly_ignores_brightness(tmp_path):
    make_tiny_checkpoint(tmp_path, "qwen2_vl", plain=True)
    stored = _stored(tmp_path)
    filters = stored["visual.patch_embed.proj.weight"]
    filters = filters.reshape(len(filters), -1)
    to_one_color = np.abs(filters.sum(axis=1))
    blind = len(filters) * 3 // 4
    assert np.all(to_one_color[:blind] < 1e-3) and np.all(to_one_color[blind:] > 1e-3)
    assert np.all(stored["visual.blocks.0.norm1.weight"] == 1.0)
    assert np.all(stored["visual.blocks.0.norm1.bias"] == 0.0)
