"""config.json in and out, presets, and what is refused."""

import dataclasses
import json
import math

import jax
import pytest

from stepjax.models.qwen_vl.config import (
    PRESETS,
    TextConfig,
    VisionConfig,
    config_from_hf,
    config_to_hf,
)
from stepjax.models.qwen_vl.model import make_qwen_vl

TINY = PRESETS["tiny-qwen2.5-vl"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    text = json.dumps(config_to_hf(PRESETS[name]))
    assert config_from_hf(json.loads(text)) == PRESETS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_transformers_reads_and_writes_the_same(name):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = PRESETS[name]
    kinds = {"qwen2_vl": "Qwen2VLConfig", "qwen2_5_vl": "Qwen2_5_VLConfig"}
    kind = getattr(transformers, kinds[config.architecture])
    theirs = kind.from_dict(config_to_hf(config))
    assert config_from_hf(json.loads(theirs.to_json_string())) == config
    # Their file keeps the decoder's values under text_config, the hub's does not.
    assert "text_config" in theirs.to_dict()


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("qwen2-vl-2b", 2.209),
        ("qwen2-vl-7b", 8.291),
        ("qwen2.5-vl-3b", 3.755),
        ("qwen2.5-vl-7b", 8.292),
    ],
)
def test_published_sizes(name, billions):
    model = make_qwen_vl(PRESETS[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count / 1e9 == pytest.approx(billions, abs=6e-4)


@pytest.mark.parametrize("name", ["tiny-qwen2-vl", "tiny-qwen2.5-vl"])
def test_every_axis_of_every_parameter_has_a_name(name):
    model = make_qwen_vl(PRESETS[name])
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    names = model.logical_axes()
    known = {"vocab", "embed", "heads", "kv_heads", "head_dim", "mlp", "layers"}
    known |= {"vision_embed", "vision_mlp", "vision_heads", "patch"}

    def check(shape, axes):
        assert len(axes) == len(shape.shape) and set(axes) <= known

    jax.tree.map(check, shapes, names)
    assert ("head" in shapes) != PRESETS[name].text.tie_word_embeddings


def changed(**values):
    return config_to_hf(TINY) | values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "model_type must be one of"),
        (changed(model_type="llama"), "got 'llama'"),
        (changed(vision_config=None), "lacks 'vision_config'"),
        (changed(use_sliding_window=True), "use_sliding_window must be false"),
        (changed(rope_scaling=None), "lacks 'mrope_section'"),
        (changed(rope_scaling={"type": "yarn"}), "rope type must be"),
        (changed(hidden_size=None), "lacks 'hidden_size'"),
        (changed(num_key_value_heads=3), "num_heads must be a multiple of num_kv"),
        (changed(hidden_size=62), "hidden_size must be a multiple of num_heads"),
        (changed(vocab_size=100), "must be in 0..99"),
        (changed(hidden_act="gelu"), "hidden_act must be 'silu'"),
    ],
)
def test_refused_files(values, message):
    with pytest.raises(ValueError, match=message) as error:
        config_from_hf(values)
    assert "\n" not in str(error.value)


def test_refused_dimensions():
    with pytest.raises(ValueError, match="depth must be >= 1"):
        VisionConfig(depth=0)
    with pytest.raises(ValueError, match="window_size must be a multiple"):
        VisionConfig(window_size=100)
    with pytest.raises(ValueError, match="full_attention_layers must be in"):
        VisionConfig(window_size=112, full_attention_layers=(32,))
    with pytest.raises(ValueError, match="multiple of 4 \\* num_heads"):
        VisionConfig(hidden_size=100)
    with pytest.raises(ValueError, match="sum to half a head"):
        dataclasses.replace(TINY.text, mrope_section=(2, 3, 4))
    with pytest.raises(ValueError, match="architecture must be"):
        dataclasses.replace(TINY, architecture="qwen3_vl")
    with pytest.raises(ValueError, match="window_size must be > 0"):
        dataclasses.replace(TINY, architecture="qwen2_vl")
    assert isinstance(TINY.text, TextConfig)


def test_refused_options():
    with pytest.raises(ValueError, match="remat must be one of"):
        make_qwen_vl(TINY, remat="some")
    with pytest.raises(ValueError, match="attention must be one of"):
        make_qwen_vl(TINY, attention="flash")
    with pytest.raises(ValueError, match="needs dtype bfloat16"):
        make_qwen_vl(TINY, attention="cudnn", dtype="float32")
