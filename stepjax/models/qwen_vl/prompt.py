"""What a vision-language policy sees at a step, as arrays of fixed shapes.

Prompts are padded on the left, so that a response follows its prompt directly. A batch
whose prompts are all short is cut down to a smaller bucket by dropping columns on the
left.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

__all__ = [
    "VLPrompt",
    "bucket_for",
    "cut_prompt",
    "make_prompt",
    "prompt_lengths",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class VLPrompt:
    """A conversation up to a response, with its pictures; leading axes as elsewhere.

    Letters: T tokens of the prompt (padded), I pictures (padded), H x W their pixels,
    N tokens of a picture.

    Attributes:
      tokens: [T] int32.
      positions: [3, T] int32. Rotary position of each token: time, row, column.
      segments: [T] int32. 0 for real tokens, -1 for padding, which comes first.
      next_position: [] int32. Rotary position of the first token of a response.
      images: [I, H, W, 3] uint8. Resized already; black where there are fewer.
      image_index: [T] int32. Which of the I * N visual tokens stands there; -1 for
        text.
    """

    tokens: jax.Array  # [T] int32
    positions: jax.Array  # [3, T] int32
    segments: jax.Array  # [T] int32
    next_position: jax.Array  # [] int32
    images: jax.Array  # [I, H, W, 3] uint8
    image_index: jax.Array  # [T] int32


def bucket_for(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length` tokens.

    Args:
      length: Tokens of a prompt.
      buckets: Lengths that programs are compiled for, in any order.

    Returns:
      One of `buckets`.

    Raises:
      ValueError: If the largest is too small.

    Example:
      >>> bucket_for(700, (512, 1024, 4096))
      1024
    """
    fitting = [size for size in buckets if size >= length]
    if not fitting:
        largest = max(buckets, default=0)
        raise ValueError(
            f"bucket_for: the prompt has {length} tokens, the largest bucket holds "
            f"{largest}; allow longer prompts, smaller screenshots or less history."
        )
    return min(fitting)


def make_prompt(
    *,
    tokens: Sequence[int] | np.ndarray,
    positions: np.ndarray,
    next_position: int,
    image_index: np.ndarray,
    images: np.ndarray,
    length: int,
    pad_id: int,
) -> VLPrompt:
    """A prompt padded on the left.

    Args:
      tokens: [n] int.
      positions: [3, n] int.
      next_position: Rotary position after the prompt.
      image_index: [n] int. -1 for text.
      images: [I, H, W, 3] uint8.
      length: T, tokens after padding.
      pad_id: Token that stands in the padding.

    Returns:
      The prompt, its leaves numpy arrays without a leading axis.

    Raises:
      ValueError: If the prompt is longer than `length`.
    """
    count = len(tokens)
    missing = bucket_for(count, (length,)) - count
    leaves: dict[str, np.ndarray] = {
        "tokens": np.pad(
            np.asarray(tokens, np.int32), (missing, 0), constant_values=pad_id
        ),
        "positions": np.pad(np.asarray(positions, np.int32), ((0, 0), (missing, 0))),
        "segments": np.repeat(np.array([-1, 0], np.int32), [missing, count]),
        "next_position": np.asarray(next_position, np.int32),
        "images": np.asarray(images, np.uint8),
        "image_index": np.pad(
            np.asarray(image_index, np.int32), (missing, 0), constant_values=-1
        ),
    }
    return VLPrompt(**leaves)  # pyright: ignore[reportArgumentType]


def prompt_lengths(prompt: VLPrompt) -> np.ndarray:
    """Real tokens of each prompt: [...] int, for leading axes [...]."""
    return np.sum(np.asarray(prompt.segments) >= 0, axis=-1)


def cut_prompt(prompt: VLPrompt, length: int) -> VLPrompt:
    """Prompts without the padding that exceeds `length` tokens.

    Args:
      prompt: With any leading axes, on the host or traced.
      length: Tokens kept, counted from the end; at least the longest prompt's
        `prompt_lengths`, or real tokens are lost.

    Returns:
      The prompt with T = `length`; unchanged if it is no longer than that.

    Example:
      >>> import numpy as np
      >>> short = make_prompt(
      ...     tokens=[7, 8], positions=np.zeros((3, 2)), next_position=2,
      ...     image_index=[-1, -1], images=np.zeros((1, 28, 28, 3)), length=6, pad_id=0)
      >>> cut_prompt(short, 3).tokens
      array([0, 7, 8], dtype=int32)
    """
    start = prompt.tokens.shape[-1] - length
    if start <= 0:
        return prompt
    return dataclasses.replace(
        prompt,
        tokens=prompt.tokens[..., start:],
        positions=prompt.positions[..., start:],
        segments=prompt.segments[..., start:],
        image_index=prompt.image_index[..., start:],
    )
