"""Configurations of Qwen2-VL and Qwen2.5-VL: config.json in and out, and presets.

The dataclasses are those of `dimensions`, here again so that one import gives all.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stepjax.models.qwen_vl.dimensions import ARCHITECTURES as ARCHITECTURES
from stepjax.models.qwen_vl.dimensions import QwenVLConfig as QwenVLConfig
from stepjax.models.qwen_vl.dimensions import TextConfig as TextConfig
from stepjax.models.qwen_vl.dimensions import VisionConfig as VisionConfig

__all__ = [
    "PRESETS",
    "config_from_hf",
    "config_to_hf",
]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _size(values: Mapping[str, Any], *names: str, default: int | None = None) -> Any:
    """The whole number under the first of `names` that has one; the last of a list."""
    for name in names:
        value = values.get(name)
        if value is not None:
            several = isinstance(value, (list, tuple)) and value
            return _whole(value[-1] if several else value, name)
    if default is None:
        raise ValueError(f"config_from_hf: config.json lacks {names[0]!r}.")
    return default


def _whole(value: Any, name: str) -> int:
    _require(
        isinstance(value, int) and not isinstance(value, bool),
        f"config_from_hf: {name} must be a whole number, got {value!r}.",
    )
    return value


def _wholes(
    values: Mapping[str, Any], name: str, default: tuple[int, ...]
) -> tuple[int, ...]:
    given = values.get(name)
    return tuple(_whole(one, name) for one in (default if given is None else given))


def _vision_from_hf(values: Mapping[str, Any], architecture: str) -> VisionConfig:
    windows = architecture == "qwen2_5_vl"
    activation = "silu" if windows else "quick_gelu"
    given = values.get("hidden_act", activation)
    _require(
        given == activation,
        f"config_from_hf: vision_config.hidden_act must be {activation!r} for "
        f"{architecture}, got {given!r}.",
    )
    # What equals the defaults of transformers' classes, which are these, is often left
    # out. Not the width of Qwen2.5-VL's tower: no released model has its default.
    width = (
        _size(values, "hidden_size")
        if windows
        else _size(values, "embed_dim", default=1280)
    )
    shared = {
        "depth": _size(values, "depth", "num_hidden_layers", default=32),
        "hidden_size": width,
        "num_heads": _size(values, "num_heads", "num_attention_heads", default=16),
        "patch_size": _size(values, "patch_size", default=14),
        "merge_size": _size(values, "spatial_merge_size", default=2),
        "temporal_patch_size": _size(values, "temporal_patch_size", default=2),
        "in_channels": _size(values, "in_channels", "in_chans", default=3),
    }
    if windows:
        return VisionConfig(
            intermediate_size=_size(values, "intermediate_size", default=3420),
            window_size=_size(values, "window_size", default=112),
            full_attention_layers=_wholes(
                values, "fullatt_block_indexes", (7, 15, 23, 31)
            ),
            **shared,
        )
    mlp = int(width * values.get("mlp_ratio", 4))
    return VisionConfig(intermediate_size=mlp, **shared)


def _text_from_hf(values: Mapping[str, Any], tied: bool) -> TextConfig:
    _require(
        not values.get("use_sliding_window", False),
        "config_from_hf: use_sliding_window must be false, got true: sliding windows "
        "in the decoder are not supported.",
    )
    _require(
        values.get("hidden_act", "silu") == "silu",
        f"config_from_hf: hidden_act must be 'silu', got {values.get('hidden_act')!r}.",
    )
    rope = {
        **(values.get("rope_scaling") or {}),
        **(values.get("rope_parameters") or {}),
    }
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require(
        kind in ("default", "mrope"),
        f"config_from_hf: rope type must be 'mrope' or 'default', got {kind!r}.",
    )
    _require("mrope_section" in rope, "config_from_hf: rope lacks 'mrope_section'.")
    sections: Any = _wholes(rope, "mrope_section", ())
    heads = _size(values, "num_attention_heads")
    return TextConfig(
        vocab_size=_size(values, "vocab_size"),
        hidden_size=_size(values, "hidden_size"),
        intermediate_size=_size(values, "intermediate_size"),
        num_layers=_size(values, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=_size(values, "num_key_value_heads", default=heads),
        rope_theta=float(rope.get("rope_theta", values.get("rope_theta", 1e6))),
        mrope_section=sections,
        rms_norm_eps=values.get("rms_norm_eps", 1e-5),
        tie_word_embeddings=tied,
        max_position_embeddings=_size(values, "max_position_embeddings", default=32768),
    )


def _tied(values: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding table; false where nothing is said."""
    name = "tie_word_embeddings"
    places = (values, values.get("text_config") or {})
    said = [place[name] for place in places if place.get(name) is not None]
    for one in said:
        _require(
            isinstance(one, bool),
            f"config_from_hf: {name} must be true or false, got {one!r}.",
        )
    _require(
        len(set(said)) < 2,
        f"config_from_hf: {name} must be the same at the top and in text_config, got "
        f"{said}; set both to what the model was trained with.",
    )
    return any(said)


def config_from_hf(values: Mapping[str, Any]) -> QwenVLConfig:
    """A configuration from the contents of a Hugging Face config.json.

    Both layouts are read: the decoder's values at the top level, as in the published
    folders, or under "text_config", as newer programs write them.

    Args:
      values: The parsed file.

    Returns:
      The configuration.

    Raises:
      ValueError: If the file is of another architecture, lacks a value, or asks for
        something that is not supported.
    """
    architecture = values.get("model_type")
    _require(
        architecture in ARCHITECTURES,
        f"config_from_hf: model_type must be one of {list(ARCHITECTURES)}, got "
        f"{architecture!r}: give the folder of a Qwen2-VL or Qwen2.5-VL model (UI-TARS "
        "is one).",
    )
    _require(
        isinstance(values.get("vision_config"), Mapping),
        "config_from_hf: config.json lacks 'vision_config'.",
    )
    text = {**values, **(values.get("text_config") or {})}
    tokens = {}
    for field in dataclasses.fields(QwenVLConfig):
        if field.name.endswith("_token_id"):
            given = values.get(field.name, text.get(field.name))
            if given is not None:
                first = given[0] if isinstance(given, list) else given
                tokens[field.name] = _whole(first, field.name)
    return QwenVLConfig(
        architecture=str(architecture),
        vision=_vision_from_hf(values["vision_config"], str(architecture)),
        text=_text_from_hf(text, _tied(values)),
        **tokens,
    )


def _vision_to_hf(config: QwenVLConfig) -> dict[str, Any]:
    vision = config.vision
    values = {
        "model_type": config.architecture,
        "depth": vision.depth,
        "num_heads": vision.num_heads,
        "in_channels": vision.in_channels,
        "in_chans": vision.in_channels,
        "patch_size": vision.patch_size,
        "spatial_patch_size": vision.patch_size,
        "spatial_merge_size": vision.merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
    }
    if config.architecture == "qwen2_5_vl":
        return values | {
            "hidden_act": "silu",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "out_hidden_size": config.text.hidden_size,
            "window_size": vision.window_size,
            "fullatt_block_indexes": list(vision.full_attention_layers),
            "tokens_per_second": 2,
        }
    ratio = vision.intermediate_size / vision.hidden_size
    return values | {
        "hidden_act": "quick_gelu",
        "embed_dim": vision.hidden_size,
        "hidden_size": config.text.hidden_size,
        "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
    }


def config_to_hf(config: QwenVLConfig) -> dict[str, Any]:
    """The contents of a config.json, in the layout of the published folders.

    Args:
      config: Any configuration.

    Returns:
      A dict for `json.dump`; `config_from_hf` gives `config` back.
    """
    text = config.text
    tokens = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name.endswith("_token_id")
    }
    return {
        "architectures": [ARCHITECTURES[config.architecture]],
        "model_type": config.architecture,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": text.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": text.intermediate_size,
        "max_position_embeddings": text.max_position_embeddings,
        "max_window_layers": text.num_layers,
        "num_attention_heads": text.num_heads,
        "num_hidden_layers": text.num_layers,
        "num_key_value_heads": text.num_kv_heads,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": text.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(text.mrope_section)},
        "sliding_window": 32768,
        "tie_word_embeddings": text.tie_word_embeddings,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": text.vocab_size,
        "vision_config": _vision_to_hf(config),
        **tokens,
    }


def _preset(architecture: str, *text: int, tied: bool = False) -> QwenVLConfig:
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_layers")
    sizes = dict(zip((*names, "num_heads", "num_kv_heads"), text, strict=True))
    windows = {
        "intermediate_size": 3420,
        "window_size": 112,
        "full_attention_layers": (7, 15, 23, 31),
    }
    return QwenVLConfig(
        architecture=architecture,
        vision=VisionConfig(**windows if architecture == "qwen2_5_vl" else {}),
        text=TextConfig(
            **sizes,
            tie_word_embeddings=tied,
            max_position_embeddings=128000 if architecture == "qwen2_5_vl" else 32768,
        ),
    )


def _tiny(architecture: str) -> QwenVLConfig:
    windows = {"window_size": 56, "full_attention_layers": (1, 3)}
    return QwenVLConfig(
        architecture=architecture,
        vision=VisionConfig(
            depth=4 if architecture == "qwen2_5_vl" else 2,
            hidden_size=32,
            intermediate_size=64,
            num_heads=2,
            **windows if architecture == "qwen2_5_vl" else {},
        ),
        text=TextConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            mrope_section=(2, 3, 3),
            tie_word_embeddings=architecture == "qwen2_vl",
        ),
        image_token_id=505,
        video_token_id=506,
        vision_start_token_id=502,
        vision_end_token_id=503,
        bos_token_id=499,
        eos_token_id=501,
    )


PRESETS: dict[str, QwenVLConfig] = {
    "qwen2-vl-2b": _preset("qwen2_vl", 151936, 1536, 8960, 28, 12, 2, tied=True),
    "qwen2-vl-7b": _preset("qwen2_vl", 152064, 3584, 18944, 28, 28, 4),
    "qwen2.5-vl-3b": _preset("qwen2_5_vl", 151936, 2048, 11008, 36, 16, 2, tied=True),
    "qwen2.5-vl-7b": _preset("qwen2_5_vl", 152064, 3584, 18944, 28, 28, 4),
    "tiny-qwen2-vl": _tiny("qwen2_vl"),
    "tiny-qwen2.5-vl": _tiny("qwen2_5_vl"),
}
"""Published sizes, which the UI-TARS models share, and tiny ones for tests."""
