"""Folders that do not hold what they should: one clear line, and nothing lost."""

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
from stepjax.models.qwen_vl.export import save_params  # noqa: E402
from stepjax.models.qwen_vl.tensor_files import INDEX_NAME  # noqa: E402
from stepjax.models.qwen_vl.weights import load_params, read_config  # noqa: E402
from tests.models.qwen_vl.tiny import make_tiny_checkpoint  # noqa: E402


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
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
    return load_file(folder / "model.safetensors")


def _edit(source, target, change):
    """A copy of a folder with its tensors changed."""
    shutil.copytree(source, target)
    tensors = _stored(source)
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    return target


BAD_TENSORS = {
    "missing": (
        lambda t: [t.pop(name) for name in sorted(t)[:5]],
        r"lacks tensors of qwen2\w+: \S+, \S+, \S+ and 2 more\.",
    ),
    "extra": (
        lambda t: t.update({"model.layers.2.mlp.up_proj.weight": np.zeros(3)}),
        r"tensors that qwen2.* does not have: model.layers.2.mlp.up_proj.weight\.",
    ),
    "misshapen": (
        lambda t: t.update({"model.norm.weight": np.zeros(65, np.float32)}),
        r"model.norm.weight is \[65\], must be \[64\]",
    ),
    "quantized": (
        lambda t: t.update({"model.norm.weight": np.zeros(64, np.int8)}),
        r"quantized tensors.*: model.norm.weight is I8",
    ),
    "twice": (
        lambda t: t.update({"model.language_model.norm.weight": np.zeros(64)}),
        r"another file or spelling",
    ),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_tensors_that_do_not_fit_are_named(folder, tmp_path, kind):
    change, message = BAD_TENSORS[kind]
    bad = _edit(folder, tmp_path / "bad", change)
    with pytest.raises(ValueError, match=message) as caught:
        load_params(bad)
    assert "\n" not in str(caught.value)


def test_buffers_and_a_tied_head_in_the_file_do_no_harm(folder, params, tmp_path):
    def change(tensors):
        name = "model.layers.0.self_attn.rotary_emb.inv_freq"
        tensors[name] = np.zeros(8, np.float32)
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])

    _same(load_params(_edit(folder, tmp_path / "more", change)), params)


def test_a_head_of_its_own_is_not_dropped_where_it_should_be_tied(tmp_path):
    def trained(tensors):
        head = tensors["model.embed_tokens.weight"].copy()
        tensors["lm_head.weight"] = head + np.float32(1e-3)

    def shorter(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"][:-1].copy()

    make_tiny_checkpoint(tmp_path / "good", "qwen2_vl")  # says that it is tied
    for number, change in enumerate((trained, shorter)):
        bad = _edit(tmp_path / "good", tmp_path / f"bad{number}", change)
        with pytest.raises(ValueError, match="lm_head.weight, which differs") as caught:
            load_params(bad)
        assert "\n" not in str(caught.value)


def _break(path, what):
    """Damage a folder the way disks, downloads and mistakes do."""
    weights, config = path / "model.safetensors", path / "config.json"
    if what == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif what == "empty":
        weights.write_bytes(b"")
    elif what == "noise":
        weights.write_bytes(os.urandom(1000))
    elif what == "pickle":
        weights.rename(path / "pytorch_model.bin")
    elif what == "none":
        weights.unlink()
    elif what == "index":
        (path / INDEX_NAME).write_text('{"weight_map": {"a": "missing.safetensors"}}')
    elif what == "escape":
        shutil.copy(weights, path.parent / "x.safetensors")
        (path / INDEX_NAME).write_text('{"weight_map": {"a": "../x.safetensors"}}')
    elif what == "map":
        (path / INDEX_NAME).write_text('{"weight_map": []}')
    elif what == "config":
        config.unlink()
    elif what == "json":
        config.write_text("{")
    elif what == "list":
        config.write_text("[]")
    else:
        values = json.loads(config.read_text())
        values["model_type"] = "llama"
        config.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut", "model.safetensors cannot be read"),
        ("empty", "model.safetensors cannot be read"),
        ("noise", "model.safetensors cannot be read"),
        ("pickle", "pickles and not read; save them"),
        ("none", "has no model.safetensors"),
        ("index", "names missing.safetensors, which is not in"),
        ("escape", "names ../x.safetensors, which is not in"),
        ("map", "has no weight_map"),
        ("config", "has no config.json"),
        ("json", "config.json cannot be read"),
        ("list", "must hold an object, got list"),
        ("llama", "model_type must be one of .* got 'llama'"),
    ],
)
def test_broken_folders_are_one_line(folder, tmp_path, what, message):
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    _break(bad, what)
    with pytest.raises(ValueError, match=message) as caught:
        load_params(bad)
    assert "\n" not in str(caught.value)


def test_config_values_of_any_kind_are_one_line(folder, tmp_path):
    """Every value of config.json replaced by things that do not belong there."""
    values = json.loads((folder / "config.json").read_text())
    for name in values:
        for wrong in (None, -1, 0, "x", [], {}, 1e30, True):
            (tmp_path / "config.json").write_text(json.dumps({**values, name: wrong}))
            try:
                read_config(tmp_path)
            except ValueError as error:
                assert "\n" not in str(error)


def test_saving_harms_nothing_that_is_there(folder, params, tmp_path):
    config = read_config(folder)
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="is there already"):
        save_params(target, params, config)
    assert (target / "mine.txt").read_text() == "keep"
    save_params(target, params, config, overwrite=True)
    assert not (target / "mine.txt").exists()
    broken = {**params, "embed": {"embedding": jnp.zeros((3, 4))}}
    with pytest.raises(ValueError, match=r"embed/embedding must have .*got \(3, 4\)"):
        save_params(target, broken, config, overwrite=True)
    _same(load_params(target, dtype="bfloat16"), load_params(target, dtype="bfloat16"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_bad_arguments_of_saving_are_named(folder, params, tmp_path):
    config = read_config(folder)
    with pytest.raises(ValueError, match="dtype must be one of .* got 'int8'"):
        save_params(tmp_path / "a", params, config, dtype="int8")
    with pytest.raises(ValueError, match="max_file_bytes must be >= 1, got 0"):
        save_params(tmp_path / "a", params, config, max_file_bytes=0)
    with pytest.raises(ValueError, match="decoder/norm/scale"):
        fewer = {**params, "decoder": {"layers": params["decoder"]["layers"]}}
        save_params(tmp_path / "a", fewer, config)
    other = PRESETS[
        "tiny-qwen2-vl" if config.architecture == "qwen2_5_vl" else "tiny-qwen2.5-vl"
    ]
    with pytest.raises(ValueError, match="params are not those of this"):
        save_params(tmp_path / "a", params, other)
    assert not list(tmp_path.iterdir())
