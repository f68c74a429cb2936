"""Tables that follow from the sizes of images: slots of patches, rotary positions.

All are numpy and made on the host, so inside `jax.jit` they are constants. A grid is
the size of an image in patches, (rows, columns). Patches come block after block: the
`merge_size ** 2` patches of a visual token stand together, row by row within the block,
and blocks row by row within the image.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from stepjax.models.qwen_vl.dimensions import QwenVLConfig, VisionConfig

__all__ = [
    "VisionLayout",
    "check_grid",
    "num_visual",
    "rope_positions",
    "vision_layout",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionLayout:
    """Where the patches of an image stand in the vision tower.

    With windows, patches are sorted by window, and every window has the same number of
    slots, so that attention within windows is a reshape; windows that the image fills
    in part have padding slots.

    Attributes:
      patch: [L] int32, which patch stands in a slot; 0 in padding slots.
      real: [L] bool, whether a patch stands there.
      positions: [2, L] int32, its row and column.
      window: Slots in a window; L without windows.
      token: [N] int32, per visual token its place among the L / merge_size ** 2 blocks
        of slots.
    """

    patch: np.ndarray
    real: np.ndarray
    positions: np.ndarray
    window: int
    token: np.ndarray


def check_grid(where: str, grid: tuple[int, int], merge_size: int) -> None:
    """An error if a grid is empty or its sides are not multiples of `merge_size`."""
    if len(grid) != 2 or min(grid) < 1 or any(side % merge_size for side in grid):
        raise ValueError(
            f"{where}: a grid must be (rows, columns) of patches, each a positive "
            f"multiple of merge_size = {merge_size}, got {tuple(grid)}."
        )


def num_visual(grid: tuple[int, int], config: VisionConfig) -> int:
    """Number of visual tokens of an image.

    Args:
      grid: Rows and columns of patches.
      config: The vision tower.

    Returns:
      Patches / merge_size ** 2.
    """
    check_grid("num_visual", grid, config.merge_size)
    return grid[0] * grid[1] // config.merge_size**2


@functools.lru_cache(maxsize=256)
def vision_layout(grid: tuple[int, int], config: VisionConfig) -> VisionLayout:
    """The slots of an image's patches.

    Args:
      grid: Rows and columns of patches.
      config: The vision tower.

    Returns:
      The layout. For an image of 4 x 4 tokens in windows of 3 x 3 tokens there are 4
      windows of 9 tokens, 20 tokens of which are padding.
    """
    merge = config.merge_size
    check_grid("vision_layout", grid, merge)
    rows, columns = grid[0] // merge, grid[1] // merge
    tokens = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    if config.window_size:
        side = config.window_size // config.token_size
        tokens = np.pad(
            tokens, ((0, -rows % side), (0, -columns % side)), constant_values=-1
        )
        down, across = tokens.shape[0] // side, tokens.shape[1] // side
        tokens = tokens.reshape(down, side, across, side).transpose(0, 2, 1, 3)
        window = side**2 * merge**2
    else:
        window = rows * columns * merge**2
    tokens = tokens.reshape(-1)
    real = tokens >= 0
    place = np.zeros(rows * columns, np.int32)
    place[tokens[real]] = np.flatnonzero(real)
    token = np.where(real, tokens, 0)
    corner = np.stack([token // columns, token % columns])[:, :, None] * merge
    within = np.stack(np.divmod(np.arange(merge**2), merge))[:, None, :]
    patch = token[:, None] * merge**2 + np.arange(merge**2)
    real = np.repeat(real, merge**2)
    return VisionLayout(
        patch=np.where(real, patch.reshape(-1), 0).astype(np.int32),
        real=real,
        positions=(corner + within).reshape(2, -1).astype(np.int32),
        window=window,
        token=place,
    )


def _image_positions(grid: tuple[int, int], merge: int) -> np.ndarray:
    rows, columns = grid[0] // merge, grid[1] // merge
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([np.zeros_like(row), row, column])


def rope_positions(
    tokens: np.ndarray, grids: Sequence[tuple[int, int]], config: QwenVLConfig
) -> tuple[np.ndarray, int]:
    """Rotary positions of a prompt along time, row and column.

    Text moves all three on by one a token. A visual token has the time of its image,
    and its row and column within it; the text that follows goes on after the largest.

    Args:
      tokens: [T] integers without padding; an image is one image token per visual
        token, and images are told apart by `grids`.
      grids: Per image, in order, rows and columns of patches.
      config: The model.

    Returns:
      Positions [3, T] int32, and the position of the token that follows the prompt.

    Raises:
      ValueError: If the image tokens are not those of the grids.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1:
        raise ValueError(
            f"rope_positions: tokens must have shape [T], got {tokens.shape}."
        )
    sizes = [num_visual((g[0], g[1]), config.vision) for g in grids]
    visual = tokens == config.image_token_id
    if visual.sum() != sum(sizes):
        raise ValueError(
            f"rope_positions: tokens hold {int(visual.sum())} image tokens, but grids "
            f"{[tuple(g) for g in grids]} need {sum(sizes)}: put one image token per "
            "visual token."
        )
    positions = np.zeros((3, len(tokens)), np.int32)
    slot, following = 0, 0
    for grid, size in zip(grids, sizes, strict=True):
        first = slot + int(np.argmax(visual[slot:]))
        positions[:, slot:first] = following + np.arange(first - slot)
        following += first - slot
        slot = first + size
        if not visual[first:slot].all():
            raise ValueError(
                f"rope_positions: the image tokens from {first} on are interrupted, "
                f"but grid {tuple(grid)} needs {size} in a row."
            )
        image = _image_positions((grid[0], grid[1]), config.vision.merge_size)
        positions[:, first:slot] = following + image
        following += max(grid) // config.vision.merge_size
    rest = len(tokens) - slot
    positions[:, slot:] = following + np.arange(rest)
    return positions, following + rest
