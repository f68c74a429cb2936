"""Settings of the policy. Nothing here imports jax."""

import dataclasses
import re
from pathlib import Path

from experiments.setting_checks import at_least, between, multiple_of, one_of, positive

__all__ = ["POLICY_NAMES", "PolicyConfig"]

POLICY_NAMES = ("small", "qwen-vl")
"""Policies that `experiments.backends` can make."""

_COORDINATES = ("auto", "grid", "pixels")
_DTYPES = ("float32", "bfloat16")
_SERVERS = ("auto", "vllm", "sglang")
_REMATS = ("none", "full", "dots")
_LORA_TARGETS = ("query", "key", "value", "out", "gate", "up", "down")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The policy: a small one of our own, or a Qwen-VL model such as UI-TARS."""

    name: str = "small"
    """Policy: small (it points at widgets, or on desktops at pixels) or qwen-vl (a
    Qwen2-VL or Qwen2.5-VL model that sees screenshots). `--policy qwen-vl` is short for
    `--policy.name qwen-vl`."""

    width: int = 48
    """Size of every embedding (small only)."""

    layers: int = 2
    """Attention layers (small only)."""

    heads: int = 4
    """Attention heads of a layer (small only)."""

    view_width: int = 160
    """Width of the screenshot as the policy sees it, in pixels; a multiple of 32
    (small, with desktop and vm)."""

    view_height: int = 100
    """Height of the screenshot as the policy sees it; a multiple of 20."""

    checkpoint: Path | None = None
    """Hugging Face folder of the model to start from (qwen-vl only, where it is
    needed)."""

    server: str | None = None
    """Address of a vLLM or SGLang server that samples, such as http://host:8000
    (qwen-vl only). None: the trainer samples itself."""

    server_kind: str = "auto"
    """Which server it is: auto, vllm or sglang."""

    server_model: str | None = None
    """Name of the model there. None: the first it offers."""

    server_folder: Path | None = None
    """Folder that weights are handed over in; the server must see it under the same
    path. None: beside the checkpoint."""

    max_importance: float = 2.0
    """Largest factor by which a token's loss is corrected for a server that computed
    another probability."""

    max_new_tokens: int = 128
    """Most tokens of a response, its end included (qwen-vl only)."""

    prompt_tokens: int | None = None
    """Tokens of a prompt after padding (qwen-vl only). None: room for a task of 512."""

    past_responses: int = 3
    """Earlier responses in a prompt (qwen-vl only); the paper's 3."""

    past_screenshots: int = 0
    """Earlier screenshots in a prompt (qwen-vl only); the paper's 0."""

    max_pixels: int | None = None
    """Most pixels of a screenshot as the model sees it (qwen-vl only). None: what the
    checkpoint says."""

    coordinates: str = "auto"
    """What coordinates in actions count (qwen-vl only): grid (thousandths of the
    screen, UI-TARS 1.0), pixels (of the resized screenshot, 1.5) or auto, by the
    architecture."""

    wording: Path | None = None
    """Text file with the opening of the prompt and {instruction} in it (qwen-vl only).
    None: the built-in one. A released model does best with its own."""

    top_p: float = 1.0
    """Share of the probability that is sampled from (qwen-vl only). The objective is
    about the whole distribution, so anything below 1 is an approximation."""

    stop: tuple[str, ...] = ()
    """Texts that end a response, beside the model's own end (qwen-vl only)."""

    match_pixels: float = 140.0
    """Distance on the screen up to which two clicks of a step-level group are the same
    action (qwen-vl only); GUI-R1's 140."""

    slots: int = 16
    """Responses sampled at the same time (qwen-vl only)."""

    rows_per_pass: int = 8
    """Rows of one forward and backward pass over all devices, at most, and at least one
    a device (qwen-vl only): the fewer, the less memory."""

    freeze: tuple[str, ...] = ()
    """Regular expressions, searched in paths of parameters such as
    vision/blocks/up/kernel: what is found does not learn and has no optimizer state. A
    warm start moves all."""

    lora_rank: int | None = None
    """Rank of LoRA adapters, which alone learn then; all else rests, in the type of
    activations (qwen-vl only). None: no adapters, all parameters learn."""

    lora_alpha: float = 32.0
    """Adapters' products are multiplied by this over the rank."""

    lora_targets: tuple[str, ...] = _LORA_TARGETS
    """Kernels of a layer that are adapted."""

    lora_vision: bool = False
    """Whether the vision tower's blocks are adapted, too."""

    dtype: str = "bfloat16"
    """Type of activations (qwen-vl only): bfloat16 or float32."""

    remat: str = "full"
    """What the backward pass finds of each layer (qwen-vl only): full (nothing, it is
    computed again), dots or none (everything)."""

    def __post_init__(self):
        """Check the fields."""
        one_of("policy.name", self.name, POLICY_NAMES)
        one_of("policy.server_kind", self.server_kind, _SERVERS)
        one_of("policy.coordinates", self.coordinates, _COORDINATES)
        one_of("policy.dtype", self.dtype, _DTYPES)
        one_of("policy.remat", self.remat, _REMATS)
        for name in (
            "width",
            "layers",
            "heads",
            "slots",
            "max_pixels",
            "rows_per_pass",
            "lora_rank",
        ):
            value = getattr(self, name)
            if value is not None:
                at_least("policy." + name, value, 1)
        at_least("policy.max_new_tokens", self.max_new_tokens, 2)
        for name in ("past_responses", "past_screenshots"):
            at_least("policy." + name, getattr(self, name), 0)
        multiple_of("policy.view_width", self.view_width, 32)
        multiple_of("policy.view_height", self.view_height, 20)
        for pattern in self.freeze:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"policy.freeze: {pattern!r} is no regular expression ({error})."
                ) from error
        positive("policy.top_p", self.top_p)
        between("policy.top_p", self.top_p, 0.0, 1.0)
        positive("policy.match_pixels", self.match_pixels)
        self._check_adapters()
        positive("policy.max_importance", self.max_importance)
        self._check_model()

    def _check_adapters(self) -> None:
        positive("policy.lora_alpha", self.lora_alpha)
        for target in self.lora_targets:
            one_of("policy.lora_targets", target, _LORA_TARGETS)
        for field in dataclasses.fields(self):
            asked = getattr(self, field.name) != field.default
            if field.name.startswith("lora_") and asked and self.lora_rank is None:
                raise ValueError(
                    f"policy.{field.name} says how adapters are made, but there are "
                    "none; add --policy.lora-rank 16."
                )

    def _check_model(self) -> None:
        named = self.name == "qwen-vl"
        if named and self.checkpoint is None:
            raise ValueError(
                "policy.checkpoint is needed with the policy qwen-vl: the Hugging Face "
                "folder of a Qwen2-VL or Qwen2.5-VL model, such as UI-TARS."
            )
        for name in ("checkpoint", "server", "lora_rank"):
            if not named and getattr(self, name) is not None:
                raise ValueError(
                    f"policy.{name} {getattr(self, name)} is for the policy qwen-vl; "
                    "add --policy qwen-vl."
                )
        if self.server is not None and not self.server.startswith(
            ("http://", "https://")
        ):
            raise ValueError(
                "policy.server must be an address such as http://host:8000, got "
                f"{self.server!r}."
            )
