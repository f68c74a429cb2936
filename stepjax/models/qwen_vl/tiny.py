"""A tokenizer of five hundred tokens and random weights, to try things out with.

The tokenizer's special tokens stand where the tiny presets of `config.PRESETS` expect
them, and its merges were learned from action texts, so that an action is a few dozen
tokens.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from stepjax.models.qwen_vl.config import PRESETS, config_to_hf
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.tensors import stored_shapes
from stepjax.models.qwen_vl.tokens import Tokenizer, load_tokenizer

__all__ = ["TINY_CHAT_TEMPLATE", "write_tiny_checkpoint", "write_tiny_tokenizer"]

TINY_CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
"""Messages between markers, as the published models read them."""

_NUM_LEARNED = 499
_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|box_start|>",
    "<|box_end|>",
)
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ACTIONS = """
Thought: The button that saves the file is on the right.
Action: click(start_box='(512,384)')
Action: left_double(start_box='(90,817)')
Action: right_single(start_box='(100,200)')
Action: drag(start_box='(1,2)', end_box='(999,998)')
Action: hotkey(key='ctrl s')
Action: hotkey(key='enter')
Action: type(content='Hello world')
Action: scroll(start_box='(500,500)', direction='down')
Action: scroll(direction='up')
Action: wait()
Action: finished()
Action: finished(content='done')
Action: call_user()
"""
_WORDS = """
You are a helpful assistant. user system assistant
You operate a computer. You see its screen and do one thing at a time. Write what to do
next. Output format. The actions are these. Task: open the settings, turn off the sound,
select the second item in the list and write the name into the field, then close it.
What is asked for, in the language of the question. Rename the folder to report and save
a copy of the document. Search for the page, sort the table, delete the last row.
"""


def write_tiny_tokenizer(folder: str | Path) -> Tokenizer:
    """A small byte-level tokenizer, written as the files of a Hugging Face folder.

    Args:
      folder: Where `tokenizer.json`, `tokenizer_config.json`,
        `generation_config.json`, `preprocessor_config.json` and `chat_template.jinja`
        are written; made if it is not there.

    Returns:
      The tokenizer, read back.

    Raises:
      ImportError: If `tokenizers` is not installed.
    """
    try:
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError(
            "write_tiny_tokenizer: tokenizers is not installed; install it with "
            "`pip install 'stepjax[vlm]'`."
        ) from error
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_NUM_LEARNED,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([_ACTIONS * 8, _WORDS], trainer)
    backend.add_special_tokens(
        [tokenizers.AddedToken(token, special=True) for token in _SPECIAL]
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    for name, content in _side_files(backend).items():
        text = json.dumps(content, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TINY_CHAT_TEMPLATE, encoding="utf-8")
    return load_tokenizer(folder)


def write_tiny_checkpoint(
    folder: str | Path,
    model: str | QwenVLConfig = "qwen2_vl",
    *,
    seed: int = 0,
    plain: bool = False,
) -> QwenVLConfig:
    """A Hugging Face folder of a small model with random weights.

    Args:
      folder: Where it is written; made if it is not there.
      model: "qwen2_vl", "qwen2_5_vl", or dimensions whose special tokens are those of
        the tiny presets.
      seed: Of the weights.
      plain: Whether norms are 1, biases 0 and most filters over pixels blind to
        brightness, as where a training starts; otherwise all is random, so that a
        mistake with any of them shows.

    Returns:
      The dimensions.

    Raises:
      ImportError: If safetensors or tokenizers is not installed.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError(
            "write_tiny_checkpoint: safetensors is not installed; install it with "
            "`pip install 'stepjax[vlm]'`."
        ) from error
    config = model if isinstance(model, QwenVLConfig) else _PRESET_OF[model]
    write_tiny_tokenizer(folder)
    rng = np.random.default_rng(seed)
    tensors = {
        name: _random(rng, name, shape, plain)
        for name, shape in stored_shapes(config).items()
    }
    save_file(tensors, Path(folder) / "model.safetensors", metadata={"format": "pt"})
    values = {**config_to_hf(config), "torch_dtype": "float32"}
    text = json.dumps(values, indent=2) + "\n"
    (Path(folder) / "config.json").write_text(text, encoding="utf-8")
    return config


_PRESET_OF = {
    "qwen2_vl": PRESETS["tiny-qwen2-vl"],
    "qwen2_5_vl": PRESETS["tiny-qwen2.5-vl"],
}
_PIXEL_FILTERS = "visual.patch_embed.proj.weight"
_PIXEL_GAIN = np.float32(4.0)  # text is a quarter of what the whole range would be


def _random(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], plain: bool
) -> np.ndarray:
    drawn = rng.standard_normal(shape, np.float32)
    if plain and name == _PIXEL_FILTERS:
        # Most of a screen is one bright color. Were all filters to answer to it, the
        # norms behind them would leave so little of the text that it is not learned.
        blind = drawn[: len(drawn) * 3 // 4]
        blind -= blind.mean(tuple(range(1, drawn.ndim)), keepdims=True)
        blind *= _PIXEL_GAIN
    if len(shape) > 1:
        return drawn / np.float32(math.sqrt(math.prod(shape[1:])))
    center = 0.0 if name.endswith("bias") else 1.0
    return np.float32(center) + drawn * np.float32(0.0 if plain else 0.1)


def _side_files(backend: Any) -> dict[str, dict]:
    """Contents of the JSON files beside `tokenizer.json`."""
    ids = {token: backend.token_to_id(token) for token in _SPECIAL}
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 32768,
            "clean_up_tokenization_spaces": False,
        },
        "generation_config.json": {
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
        },
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "min_pixels": 56 * 56,
            "max_pixels": 28 * 28 * 1280,
            "patch_size": 14,
            "merge_size": 2,
            "temporal_patch_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    }
