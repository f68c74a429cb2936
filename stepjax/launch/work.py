"""How much a model has to compute and to read, from its dimensions.

The compiler counts a loop's body once, so its figures are of no use for stacks of
layers. Operations are those of the matrix products (a multiply-add is two); masked
scores count only where a query sees a key.
"""

import dataclasses

from stepjax.models.qwen_vl.dimensions import QwenVLConfig

__all__ = ["Workload", "cache_bytes", "forward_flops", "num_params", "train_flops"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A step's shapes.

    Attributes:
      height: Of the screenshot, after resizing, in pixels.
      width: Of the screenshot.
      images: Screenshots of a prompt.
      prompt: Tokens of a prompt, visual ones and padding included, T.
      response: Tokens of a response, A.
    """

    height: int
    width: int
    images: int
    prompt: int
    response: int


def num_params(config: QwenVLConfig) -> dict[str, int]:
    """Parameters of the parts "vision", "layers", "embed" and "head" (0 if tied)."""
    text, vision = config.text, config.vision
    table = text.vocab_size * text.hidden_size
    wide = vision.hidden_size * vision.merge_size**2
    merger = wide * wide + wide * text.hidden_size
    tower = vision.depth * _block_size(config) + vision.patch_dim * vision.hidden_size
    return {
        "vision": tower + merger,
        "layers": text.num_layers * _layer_size(config),
        "embed": table,
        "head": 0 if text.tie_word_embeddings else table,
    }


def forward_flops(
    config: QwenVLConfig, work: Workload, *, group: int, sampling: bool = False
) -> dict[str, float]:
    """Operations of one prompt with `group` responses, forward, by part.

    Args:
      config: The model.
      work: Shapes.
      group: Responses that share the prompt.
      sampling: Whether only the prompt's last state reaches the head, besides the
        responses' (as in a prefill with `group` 0).

    Returns:
      Operations of "vision", "layers", "attention" and "head".
    """
    text = config.text
    fed = max(work.response - 1, 0)
    tokens = work.prompt + group * fed
    seen = work.prompt * (work.prompt + 1) / 2
    seen += group * (fed * work.prompt + fed * (fed + 1) / 2)
    heads = text.num_heads * text.head_dim
    scored = group * work.response + (1 if sampling and not group else 0)
    return {
        "vision": work.images * _image_flops(config, work),
        "layers": 2.0 * tokens * text.num_layers * _layer_size(config),
        "attention": 4.0 * heads * text.num_layers * seen,
        "head": 2.0 * scored * text.hidden_size * text.vocab_size,
    }


def train_flops(
    config: QwenVLConfig, work: Workload, *, group: int, remat: bool, vision: bool
) -> tuple[float, float]:
    """Operations of forward and backward: of the model, and as the device runs them.

    The second figure has what is computed again: all layers with `remat`, and logits,
    which are recomputed in the backward pass and once more for the entropy.

    Args:
      config: The model.
      work: Shapes.
      group: Responses that share the prompt.
      remat: Whether layers are computed again in the backward pass.
      vision: Whether the vision tower learns.

    Returns:
      Both, per prompt with its responses.
    """
    parts = forward_flops(config, work, group=group)
    passes = dict.fromkeys(parts, 3.0) | {"vision": 3.0 if vision else 1.0}
    model = sum(passes[name] * value for name, value in parts.items())
    again = dict.fromkeys(parts, 1.0 if remat else 0.0) | {"head": 2.0}
    if not vision:
        again["vision"] = 0.0
    return model, model + sum(again[name] * value for name, value in parts.items())


def cache_bytes(config: QwenVLConfig, slots: int, itemsize: int = 2) -> int:
    """Bytes of the keys and values of `slots` entries."""
    text = config.text
    return 2 * text.num_layers * text.num_kv_heads * text.head_dim * slots * itemsize


def _layer_size(config: QwenVLConfig) -> int:
    text = config.text
    heads = (2 * text.num_heads + 2 * text.num_kv_heads) * text.head_dim
    return text.hidden_size * (heads + 3 * text.intermediate_size)


def _block_size(config: QwenVLConfig) -> int:
    vision = config.vision
    gates = 3 if config.architecture == "qwen2_5_vl" else 2
    return vision.hidden_size * (
        4 * vision.hidden_size + gates * vision.intermediate_size
    )


def _image_flops(config: QwenVLConfig, work: Workload) -> float:
    vision = config.vision
    patches = (work.height // vision.patch_size) * (work.width // vision.patch_size)
    linear = 2.0 * patches * num_params(config)["vision"]
    # The merger's matrices meet a token, not a patch.
    wide = vision.hidden_size * vision.merge_size**2
    merger = wide * (wide + config.text.hidden_size)
    linear -= 2.0 * merger * patches * (1 - 1 / vision.merge_size**2)
    full = len(vision.full_attention_layers) if vision.window_size else vision.depth
    window = (vision.window_size // vision.patch_size) ** 2
    seen = full * patches + (vision.depth - full) * min(window, patches)
    return linear + 4.0 * vision.hidden_size * patches * seen
