"""Dimensions of Qwen2-VL and Qwen2.5-VL models.

Both have a vision tower over square patches, a merger that makes one token of
`merge_size ** 2` patches, and a Qwen2 decoder whose rotary positions have three axes.
They differ in the tower: Qwen2.5-VL attends within windows in most blocks, and has
RMSNorm and a gated feed-forward part.
"""

import dataclasses
from typing import Any

__all__ = ["ARCHITECTURES", "QwenVLConfig", "TextConfig", "VisionConfig"]

ARCHITECTURES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
"""Architectures by the `model_type` of config.json, with their class there."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _check_positive(config: Any) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        wrong = isinstance(value, int) and not isinstance(value, bool) and value < 1
        if (
            wrong
            and not field.name.endswith("_token_id")
            and field.name != "window_size"
        ):
            name = type(config).__name__
            raise ValueError(f"{name}: {field.name} must be >= 1, got {value}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Dimensions of the vision tower.

    Attributes:
      depth: Number of blocks.
      hidden_size: Width of a block.
      intermediate_size: Width of a block's feed-forward part.
      num_heads: Attention heads.
      patch_size: Pixels along the side of a patch.
      merge_size: Patches along the side of a visual token.
      temporal_patch_size: Frames in a patch; an image is that many equal frames.
      in_channels: Colors.
      window_size: Pixels along the side of an attention window; 0 means no windows.
      full_attention_layers: Blocks that attend over the whole image although there
        are windows; empty without windows, where all do.
    """

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_heads: int = 16
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    in_channels: int = 3
    window_size: int = 0
    full_attention_layers: tuple[int, ...] = ()

    def __post_init__(self):
        _check_positive(self)
        _require(
            self.hidden_size % (4 * self.num_heads) == 0,
            "VisionConfig: hidden_size must be a multiple of 4 * num_heads = "
            f"{4 * self.num_heads}, so that heads can be rotated along two axes, got "
            f"{self.hidden_size}.",
        )
        _require(
            self.window_size >= 0 and self.window_size % self.token_size == 0,
            "VisionConfig: window_size must be a multiple of patch_size * merge_size "
            f"= {self.token_size} or 0, got {self.window_size}.",
        )
        wrong = [x for x in self.full_attention_layers if not 0 <= x < self.depth]
        _require(
            not wrong,
            f"VisionConfig: full_attention_layers must be in 0..{self.depth - 1}, got "
            f"{wrong}.",
        )

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_heads

    @property
    def token_size(self) -> int:
        """Pixels along the side of a visual token."""
        return self.patch_size * self.merge_size

    @property
    def patch_dim(self) -> int:
        """Numbers in a patch: colors, frames, rows, columns."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Dimensions of the decoder.

    Attributes:
      vocab_size: Rows of the embedding table.
      hidden_size: Width of a layer.
      intermediate_size: Width of a layer's feed-forward part.
      num_layers: Number of layers.
      num_heads: Query heads.
      num_kv_heads: Key and value heads; divides `num_heads`.
      rope_theta: Base of the rotary frequencies.
      mrope_section: Numbers of rotary frequencies that turn with time, row and column;
        sum to half a head.
      rms_norm_eps: Added to the mean square in norms.
      tie_word_embeddings: Whether the head is the transposed embedding table.
      max_position_embeddings: Longest sequence that the weights were trained for.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    rope_theta: float = 1e6
    mrope_section: tuple[int, int, int] = (16, 24, 24)
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32768

    def __post_init__(self):
        _check_positive(self)
        _require(
            self.hidden_size % self.num_heads == 0,
            f"TextConfig: hidden_size must be a multiple of num_heads = "
            f"{self.num_heads}, got {self.hidden_size}.",
        )
        _require(
            self.num_heads % self.num_kv_heads == 0,
            f"TextConfig: num_heads must be a multiple of num_kv_heads = "
            f"{self.num_kv_heads}, got {self.num_heads}.",
        )
        _require(
            len(self.mrope_section) == 3
            and 2 * sum(self.mrope_section) == self.head_dim,
            f"TextConfig: mrope_section must be 3 numbers that sum to half a head = "
            f"{self.head_dim / 2:g}, got {list(self.mrope_section)}.",
        )

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class QwenVLConfig:
    """Dimensions and special tokens of a model.

    Attributes:
      architecture: "qwen2_vl" or "qwen2_5_vl".
      vision: The vision tower.
      text: The decoder.
      image_token_id: Stands in a prompt once for every visual token.
      video_token_id: The same for videos, which are not read here.
      vision_start_token_id: Before the first visual token of an image.
      vision_end_token_id: After the last.
      bos_token_id: As in config.json.
      eos_token_id: Ends a turn.
    """

    architecture: str
    vision: VisionConfig
    text: TextConfig
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    bos_token_id: int = 151643
    eos_token_id: int = 151645

    def __post_init__(self):
        known = " or ".join(f'"{name}"' for name in ARCHITECTURES)
        _require(
            self.architecture in ARCHITECTURES,
            f"QwenVLConfig: architecture must be {known}, got {self.architecture!r}.",
        )
        _require(
            (self.architecture == "qwen2_5_vl") == (self.vision.window_size > 0),
            "QwenVLConfig: vision.window_size must be > 0 for qwen2_5_vl and 0 for "
            f"qwen2_vl, got {self.vision.window_size} for {self.architecture}.",
        )
        for field in dataclasses.fields(self):
            if not field.name.endswith("_token_id"):
                continue
            token, size = getattr(self, field.name), self.text.vocab_size
            _require(
                0 <= token < size,
                f"QwenVLConfig: {field.name} must be in 0..{size - 1} (vocab_size = "
                f"{size}), got {token}.",
            )
