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


# Decoder and vision tower as folders of 7B models spell them: those of Qwen, and what
# versions of transformers make of them when they save them again.
DECODER = {
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
TOKENS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
TOWER = {
    "depth": 32,
    "embed_dim": 1280,
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_chans": 3,
    "hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
}
WINDOWS = {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
}


def saved(kind, vision, **more):
    return {"model_type": kind, **DECODER, **TOKENS, "vision_config": vision, **more}


def saved_by_transformers_5():
    rope = {"mrope_section": [16, 24, 24], "rope_theta": 1000000.0}
    text = {
        **DECODER,
        "dtype": "bfloat16",
        "layer_types": ["full_attention"] * 28,
        "max_position_embeddings": 128000,
        "model_type": "qwen2_5_vl_text",
        "pad_token_id": None,
        "rope_parameters": {**rope, "rope_type": "default", "type": "mrope"},
        "sliding_window": None,
    }
    for name in ("rope_scaling", "rope_theta", "tie_word_embeddings", "torch_dtype"):
        del text[name]
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "text_config": text,
        "vision_config": {**WINDOWS, "model_type": "qwen2_5_vl_vision"},
        "tie_word_embeddings": False,
        **TOKENS,
    }


FOLDERS = {
    "Qwen2-VL-7B-Instruct": (saved("qwen2_vl", TOWER), "qwen2-vl-7b"),
    "saved again by transformers 4": (
        saved(
            "qwen2_vl",
            {"in_chans": 3, "model_type": "qwen2_vl", "spatial_patch_size": 14},
            rope_scaling={
                "mrope_section": [16, 24, 24],
                "rope_type": "default",
                "type": "default",
            },
        ),
        "qwen2-vl-7b",
    ),
    "UI-TARS-7B-DPO": (
        saved(
            "qwen2_vl",
            {
                "hidden_size": 3584,
                "in_chans": 3,
                "model_type": "qwen2_vl",
                "spatial_patch_size": 14,
            },
        ),
        "qwen2-vl-7b",
    ),
    "Qwen2.5-VL-7B-Instruct": (
        saved("qwen2_5_vl", WINDOWS, max_position_embeddings=128000),
        "qwen2.5-vl-7b",
    ),
    "a fine-tuned Qwen2.5-VL": (
        saved(
            "qwen2_5_vl",
            {
                "hidden_size": 1280,
                "in_chans": 3,
                "model_type": "qwen2_5_vl",
                "spatial_patch_size": 14,
                "tokens_per_second": 2,
                "torch_dtype": "bfloat16",
            },
            max_position_embeddings=128000,
        ),
        "qwen2.5-vl-7b",
    ),
    "saved by transformers 5": (saved_by_transformers_5(), "qwen2.5-vl-7b"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_7b_models_are_read_however_they_were_saved(name):
    values, preset = FOLDERS[name]
    assert config_from_hf(values) == PRESETS[preset]


@pytest.mark.parametrize("kind", ["Qwen2VL", "Qwen2_5_VL"])
def test_what_is_left_out_is_what_transformers_takes(kind):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = getattr(transformers, f"{kind}Config")
    values = saved(config.model_type, {"hidden_size": 1280})
    del values["rms_norm_eps"]
    theirs = config.from_dict(values)
    assert config_from_hf(theirs.to_dict()) == config_from_hf(values)


@pytest.mark.parametrize("said", [True, False])
def test_a_tied_head_may_be_said_in_either_place(said):
    for top, nested in ((said, None), (None, said), (said, said)):
        values = changed(tie_word_embeddings=top)
        values["text_config"] = {"tie_word_embeddings": nested}
        assert config_from_hf(values).text.tie_word_embeddings == said


@pytest.mark.parametrize("name", ["vocab_size", "num_hidden_layers", "hidden_size"])
def test_a_missing_size_of_the_decoder_is_named(name):
    values = saved("qwen2_vl", TOWER)
    del values[name]
    with pytest.raises(ValueError, match=f"lacks '{name}'"):
        config_from_hf(values)


def test_a_missing_width_of_a_tower_with_windows_is_named():
    with pytest.raises(ValueError, match="lacks 'hidden_size'"):
        config_from_hf(saved("qwen2_5_vl", {"in_chans": 3}))


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
        (changed(tie_word_embeddings="no"), "must be true or false, got 'no'"),
        (
            changed(text_config={"tie_word_embeddings": True}),
            r"tie_word_embeddings must be the same .*got \[False, True\]",
        ),
        (changed(num_hidden_layers=2.0), "num_hidden_layers must be .* got 2.0"),
        (changed(vocab_size=True), "vocab_size must be a whole number, got True"),
        (changed(image_token_id=5.5), "image_token_id must be a whole number, got 5.5"),
        (changed(num_key_value_heads="2"), "num_key_value_heads must be .* got '2'"),
        (
            changed(rope_scaling={"mrope_section": [2.0, 3, 3]}),
            "mrope_section must be a whole number, got 2.0",
        ),
        (
            changed(vision_config={"hidden_size": 32, "patch_size": []}),
            "patch_size must be a whole number, got ",
        ),
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
