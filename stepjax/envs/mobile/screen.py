"""The screen of a phone, and the coordinates that go with it."""

import base64
import dataclasses
import io

import numpy as np

from stepjax.envs.miniwob.cdp import BrowserError

__all__ = ["PhoneScreen", "read_picture"]

_LEAST = (240, 320)  # CSS pixels that the pages can be read on
_MOST_PIXELS = 16_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhoneScreen:
    """A screen in physical pixels, and how many of them make one CSS pixel.

    Attributes:
      width: Physical pixels.
      height: Physical pixels.
      scale: Physical pixels in a CSS pixel, such as 3 on a phone of 1080 x 2400.

    Example:
      >>> PhoneScreen(width=1080, height=2400, scale=3.0).css_size
      (360, 800)
    """

    width: int = 1080
    height: int = 2400
    scale: float = 3.0

    def __post_init__(self):
        """Check the fields."""
        if not 0.5 <= self.scale <= 8.0:
            raise ValueError(f"scale must be in [0.5, 8], got {self.scale}.")
        if self.width * self.height > _MOST_PIXELS:
            raise ValueError(
                f"width x height must be at most {_MOST_PIXELS} pixels, got "
                f"{self.width} x {self.height}."
            )
        if any(has < least for has, least in zip(self.css_size, _LEAST, strict=True)):
            raise ValueError(
                f"width and height must be at least {_LEAST[0]} x {_LEAST[1]} CSS "
                f"pixels, got {self.width} x {self.height} at scale {self.scale:g}."
            )

    @property
    def css_size(self) -> tuple[int, int]:
        """Width and height in CSS pixels, rounded."""
        return round(self.width / self.scale), round(self.height / self.scale)

    def css_place(self, x: float, y: float) -> tuple[float, float]:
        """Shares of the screen as CSS pixels inside it, where touches go."""
        width, height = self.css_size
        return min(max(x, 0.0), 1.0) * (width - 1), min(max(y, 0.0), 1.0) * (height - 1)


def read_picture(data: str, width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8 of a screenshot as the DevTools protocol gives it.

    Args:
      data: A picture file in base64.
      width: That it must have, in pixels.
      height: Likewise.

    Raises:
      ImportError: If Pillow is not installed.
      BrowserError: If it has another size.
    """
    from PIL import Image  # pyright: ignore[reportMissingImports] # optional

    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    if pixels.shape[:2] != (height, width):
        raise BrowserError(
            f"the phone's screen is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
            f"must be {width} x {height}."
        )
    return pixels
