"""Folders of small random models, as the tests of other parts need them."""

from pathlib import Path

from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.tiny import write_tiny_checkpoint


def make_tiny_checkpoint(
    folder: str | Path, architecture: str, *, seed: int = 0, plain: bool = False
) -> QwenVLConfig:
    """A Hugging Face folder, tokenizer included; architecture as in config.json."""
    return write_tiny_checkpoint(folder, architecture, seed=seed, plain=plain)
