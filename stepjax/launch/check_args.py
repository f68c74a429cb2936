"""The command line of the compile check, and what it means for shapes."""

import argparse
import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from stepjax.batching import rows_of_a_pass
from stepjax.launch.roofline import Round
from stepjax.launch.work import Workload
from stepjax.models.qwen_vl.config import PRESETS, config_from_hf
from stepjax.models.qwen_vl.dimensions import QwenVLConfig
from stepjax.models.qwen_vl.images import smart_resize

__all__ = ["batch_shape", "check_values", "config_of", "parse_args", "workload_of"]

_LEAST = {
    "max_pixels": 1,
    "images": 1,
    "prompt_tokens": 1,
    "response_tokens": 2,
    "group": 2,
    "rows_per_update": 1,
    "rows_per_pass": 1,
    "slots": 1,
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The settings of a compile check, from the words of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stepjax.launch.compile_check",
        description="Compiles a run's steps for a TPU slice and says if they fit.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="qwen2.5-vl-7b", help="a preset, or a folder's config.json")
    add("--topology", default="v5e:8x8", help="chip and shape of a slice")
    add("--mesh.data", dest="data", type=int, default=1, help="-1: what is left")
    add("--mesh.fsdp", dest="fsdp", type=int, default=-1, help="-1: what is left")
    add("--mesh.tensor", dest="tensor", type=int, default=4)
    add("--only", choices=("train", "act"), help="one of the programs")
    add("--screen", default="1920x1080", help="width x height of a screenshot")
    add("--max-pixels", type=int, default=2_116_800, help="of a resized screenshot")
    add("--images", type=int, default=1, help="screenshots in a prompt")
    add("--prompt-tokens", type=int, help="T; default: the screenshots and 512")
    add("--response-tokens", type=int, default=128, help="A")
    add(
        "--group",
        type=int,
        default=8,
        help="responses that share a prompt, G; --algo.step-group-size of a run",
    )
    add("--rows-per-update", type=int, default=256, help="responses of an update")
    add(
        "--rows-per-pass",
        type=int,
        default=8,
        help="prompts of a pass at most, and at least one per row shard; "
        "--policy.rows-per-pass of a run",
    )
    add(
        "--only-groups",
        action="store_true",
        help="leave out rows with prompts of their own: half the compiler's time",
    )
    add(
        "--slots",
        type=int,
        default=16,
        help="responses of a process under way; --policy.slots of a run",
    )
    add("--remat", choices=("none", "full", "dots"), default="full")
    add("--attention", choices=("plain", "tpu_flash"), default="tpu_flash")
    add("--moments", choices=("float32", "bfloat16"), default="float32")
    add("--freeze", nargs="*", default=[], help="patterns of parameters at rest")
    add("--no-sequence", action="store_true", help="do not split lengths over tensor")
    for field in dataclasses.fields(Round):
        flag = "--round." + field.name.replace("_", "-")
        add(flag, dest=f"round_{field.name}", type=float, default=field.default)
    add(
        "--effort",
        choices=("full", "quick"),
        default="full",
        help="quick: a third of the compiler's time, up to a tenth more temporaries",
    )
    add("--json", help="file to write the figures to")
    return parser.parse_args(argv)


def check_values(args: argparse.Namespace) -> None:
    """Nothing, if numbers are in range and the figures can be written.

    Args:
      args: From `parse_args`.

    Raises:
      ValueError: If not, in one line.
    """
    for name, least in _LEAST.items():
        value = getattr(args, name)
        if value is not None and value < least:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} must be at least {least}, got {value}.")
    for field in dataclasses.fields(Round):
        value = getattr(args, f"round_{field.name}")
        if not 0 < value < math.inf:
            flag = "--round." + field.name.replace("_", "-")
            raise ValueError(f"{flag} must be a number above 0, got {value}.")
    if args.json is None:
        return
    path = Path(args.json)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(
            f"--json {args.json} cannot be written; name a file in a folder that is "
            "there and yours."
        )


def batch_shape(rows: int, rows_per_pass: int, shards: int) -> tuple[int, int, int]:
    """Sizes of the batches of a run with a Qwen-VL model, as it packs them by default.

    Args:
      rows: Rows of an update.
      rows_per_pass: Rows of a pass at most.
      shards: Devices that split the rows of a batch.

    Returns:
      Prompts of a pass, and what single rows and groups are padded to.

    Raises:
      ValueError: See `stepjax.batching.rows_of_a_pass`.
    """
    micro = rows_of_a_pass(rows, rows_per_pass, shards)
    half = -(-rows // 2)  # of two rows each, there are no more groups
    return micro, rows, -(-half // micro) * micro


def workload_of(args: argparse.Namespace, config: QwenVLConfig) -> Workload:
    """The shapes of a step.

    Args:
      args: From `parse_args`.
      config: The model.

    Returns:
      The shapes.

    Raises:
      ValueError: If the screenshots do not fit the prompt.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", args.screen)
    if not match:
        raise ValueError(f"--screen must be WIDTHxHEIGHT, got {args.screen!r}.")
    side = config.vision.token_size
    height, width = smart_resize(
        int(match[2]), int(match[1]), factor=side, max_pixels=args.max_pixels
    )
    seen = args.images * (height // side) * (width // side)
    prompt = args.prompt_tokens or -(-(seen + 512) // 128) * 128
    if prompt <= seen:
        raise ValueError(
            f"--prompt-tokens {prompt} is too few: {args.images} screenshots of "
            f"{width} x {height} are {seen} visual tokens; leave it out."
        )
    return Workload(
        height=height,
        width=width,
        images=args.images,
        prompt=prompt,
        response=args.response_tokens,
    )


def config_of(model: str) -> QwenVLConfig:
    """The dimensions of a preset, or of a folder with a config.json.

    Args:
      model: Name or path.

    Returns:
      The configuration.

    Raises:
      ValueError: If there is neither, or it is of another architecture.
    """
    if model in PRESETS:
        return PRESETS[model]
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"--model must be one of {', '.join(PRESETS)} or a folder with a "
            f"config.json, got {model!r}."
        )
    return config_from_hf(json.loads(path.read_text(encoding="utf-8")))
