"""Pictures as Qwen-VL models take them: sizes, resizing, patches.

A picture is resized to sides that are whole numbers of merged patches, within bounds on
its pixels. The sizes, the pixels and the patches equal those that the models' own image
processor makes. Needs Pillow, of the extra `vlm`, for pictures that change size.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "MAX_IMAGE_PIXELS",
    "ImageSettings",
    "read_image_settings",
    "resize_image",
    "smart_resize",
    "to_patches",
]

MAX_IMAGE_PIXELS = 50_000_000
"""Largest picture taken; an 8K screen has 33 million pixels."""

_MAX_ASPECT = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How pictures are prepared; the defaults are those of the published models.

    Attributes:
      min_pixels: Fewest pixels after resizing.
      max_pixels: Most pixels after resizing.
      patch_size: Side of a patch, in pixels.
      merge_size: Patches, along each side, that become one token.
      temporal_patch_size: Times a still picture is repeated in a patch.
      mean: Subtracted from the channels, as shares of full brightness.
      std: Then divided by.

    Raises:
      ValueError: If a number is out of range.
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self):
        """Check the numbers."""
        for name in ("patch_size", "merge_size", "temporal_patch_size", "min_pixels"):
            _check_whole("ImageSettings", name, getattr(self, name), 1)
        _check_whole("ImageSettings", "max_pixels", self.max_pixels, self.min_pixels)
        for name in ("mean", "std"):
            value = getattr(self, name)
            good = len(value) == 3 and all(math.isfinite(one) for one in value)
            if not good or (name == "std" and min(value) <= 0):
                raise ValueError(
                    f"ImageSettings: {name} must be three finite numbers"
                    f"{' > 0' if name == 'std' else ''}, got {value}."
                )

    @property
    def factor(self) -> int:
        """Pixels along the side of one token."""
        return self.patch_size * self.merge_size

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a picture of these sides is resized to."""
        return smart_resize(
            height,
            width,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )

    def tokens_of(self, height: int, width: int) -> int:
        """Tokens of a picture that already has sides which fit."""
        return (height // self.factor) * (width // self.factor)


def _check_whole(where: str, name: str, value: Any, least: int) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"{where}: {name} must be a whole number >= {least}, got {value!r}."
        )


def smart_resize(
    height: int,
    width: int,
    *,
    factor: int = 28,
    min_pixels: int = 56 * 56,
    max_pixels: int = 28 * 28 * 1280,
) -> tuple[int, int]:
    """The nearest sides that are multiples of `factor` within bounds on the pixels.

    Args:
      height: Of the picture, in pixels.
      width: Likewise.
      factor: What both sides become multiples of.
      min_pixels: Fewest pixels wanted.
      max_pixels: Most pixels wanted.

    Returns:
      New height and width. Very narrow pictures may exceed `max_pixels`, because no
      side becomes shorter than `factor`.

    Raises:
      ValueError: If the picture is empty, too large, or too narrow.

    Example:
      >>> smart_resize(1080, 1920, max_pixels=2_700 * 28 * 28)
      (1092, 1932)
    """
    _check_sides("smart_resize", height, width)
    tall, wide = (round(side / factor) * factor for side in (height, width))
    if tall * wide > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        tall, wide = (
            max(factor, math.floor(side / scale / factor) * factor)
            for side in (height, width)
        )
    elif tall * wide < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        tall, wide = (
            math.ceil(side * scale / factor) * factor for side in (height, width)
        )
    return tall, wide


def _check_sides(where: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(
            f"{where}: a picture of {width} x {height} has no pixels; check what took "
            "the screenshot."
        )
    if height * width > MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{where}: a picture of {width} x {height} has {height * width:,} pixels, "
            f"at most {MAX_IMAGE_PIXELS:,} are taken; scale it down first."
        )
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise ValueError(
            f"{where}: a picture of {width} x {height} is too narrow, one side may be "
            f"at most {_MAX_ASPECT} times the other."
        )


def resize_image(image: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """A picture in another size, by bicubic interpolation.

    Args:
      image: [rows, columns, 3] uint8.
      height: Rows wanted.
      width: Columns wanted.

    Returns:
      [height, width, 3] uint8.

    Raises:
      TypeError: If the picture is not uint8.
      ValueError: If it has another number of channels, no pixels or too many.
      ImportError: If the size changes and Pillow is not installed.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(
            "resize_image: image must have shape [rows, columns, 3], got "
            f"{array.shape}; drop an alpha channel with image[..., :3]."
        )
    if array.dtype != np.uint8:
        raise TypeError(f"resize_image: image must be uint8, got {array.dtype}.")
    rows, columns = array.shape[:2]
    _check_sides("resize_image", rows, columns)
    _check_whole("resize_image", "height", height, 1)
    _check_whole("resize_image", "width", width, 1)
    if (rows, columns) == (height, width):
        return array
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "resize_image: pictures are resized with Pillow; install it with "
            "`pip install 'stepjax[vlm]'`."
        ) from error
    picture = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def to_patches(
    image: np.ndarray, settings: ImageSettings
) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture as normalized patches, in the order the vision tower reads them.

    The patches of one token stand together: row by row over tokens, then row by row
    inside each.

    Args:
      image: [H, W, 3] uint8, with sides that are multiples of `settings.factor`.
      settings: Sizes, mean and deviation.

    Returns:
      [P, C] float32 patches with C = 3 x temporal x patch x patch, channels outermost,
      and the grid (rows, columns) of patches, P = rows x columns.

    Raises:
      ValueError: If a side is not a multiple of `settings.factor`.
    """
    height, width = image.shape[:2]
    patch, merge = settings.patch_size, settings.merge_size
    for name, side in (("height", height), ("width", width)):
        if side < 1 or side % settings.factor:
            raise ValueError(
                f"to_patches: {name} must be a multiple of {settings.factor}, got "
                f"{side}; resize the picture to settings.size_of(height, width)."
            )
    scaled = image.astype(np.float32) * np.float32(1 / 255)
    mean, std = (np.asarray(x, np.float32) for x in (settings.mean, settings.std))
    scaled = (scaled - mean) / std
    rows, columns = height // patch, width // patch
    parts = scaled.reshape(
        rows // merge, merge, patch, columns // merge, merge, patch, 3
    )
    # token row, token column, patch row, patch column, channel, pixel row and column
    parts = parts.transpose(0, 3, 1, 4, 6, 2, 5)[..., None, :, :]
    repeated = np.repeat(parts, settings.temporal_patch_size, axis=5)
    return repeated.reshape(rows * columns, -1), (rows, columns)


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, got {type(found).__name__}.")
    return found


def read_image_settings(folder: str | Path) -> ImageSettings:
    """The settings a Hugging Face folder asks for.

    They stand under "image_processor" in `processor_config.json`, where transformers 5
    writes them, or in `preprocessor_config.json`; in both, the first counts, as there.

    Args:
      folder: Of a checkpoint. Where neither file has them the defaults hold.

    Returns:
      The settings.

    Raises:
      ValueError: If a file cannot be read or holds something else.
    """
    path = Path(folder) / "processor_config.json"
    found = _read_object(path).get("image_processor")
    if found is None:
        path = Path(folder) / "preprocessor_config.json"
        found = _read_object(path)
    if not isinstance(found, dict):
        raise ValueError(
            f"{path}: image_processor must be an object, got {type(found).__name__}."
        )
    size = found.get("size")
    size = size if isinstance(size, dict) else {}
    wanted: dict[str, Any] = {
        "mean": found.get("image_mean"),
        "std": found.get("image_std"),
    }
    for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        places = (found.get(name), size.get(edge), size.get(name))
        wanted[name] = next((one for one in places if one is not None), None)
    for name in ("patch_size", "merge_size", "temporal_patch_size"):
        wanted[name] = found.get(name)
    given = {name: value for name, value in wanted.items() if value is not None}
    try:
        for name in ("mean", "std"):
            if name in given:
                given[name] = tuple(float(one) for one in given[name])
        return ImageSettings(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
