"""The picture on the screen, out of the memory that the X server draws into."""

import io
import mmap
import struct
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = ["FORMATS", "Screen"]

FORMATS = ("jpeg", "png", "raw")
"""How a picture can be sent; raw is three bytes a pixel, row by row."""

_HEADER = 25  # 4-byte numbers at the start of an X window dump


class Screen:
    """The X server's frame buffer, which holds the pointer's picture too.

    Reading it takes no request to the X server but one to hold still meanwhile.

    Args:
      framebuffer: File that `Xvfb -fbdir` keeps.
      display: An `Xlib.display.Display`, used only under the caller's lock.
    """

    def __init__(self, framebuffer: Path, display: Any):
        self._display = display
        with framebuffer.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        # Out of reach of a stray `rm -r`: a file cut short would end us by SIGBUS.
        framebuffer.unlink()
        numbers = struct.unpack(f">{_HEADER}I", self._memory[: 4 * _HEADER])
        self.width, self.height = numbers[4], numbers[5]
        bits, self._stride, colors = numbers[11], numbers[12], numbers[19]
        if bits != 32:
            raise ValueError(f"the screen must have 32 bits a pixel, got {bits}")
        self._start = numbers[0] + 12 * colors

    def grab(self) -> Image.Image:
        """The picture now, RGB."""
        size = self._stride * self.height
        self._display.grab_server()
        self._display.sync()
        data = self._memory[self._start : self._start + size]
        self._display.ungrab_server()
        self._display.flush()
        return Image.frombuffer(
            "RGB", (self.width, self.height), data, "raw", "BGRX", self._stride, 1
        )

    def encode(self, image: Image.Image, kind: str, *, quality: int = 90) -> bytes:
        """A picture as bytes.

        Args:
          image: RGB.
          kind: One of `FORMATS`.
          quality: Of JPEG, 1 to 95.
        """
        if kind == "raw":
            return image.tobytes()
        buffer = io.BytesIO()
        if kind == "jpeg":
            image.save(buffer, "JPEG", quality=quality)
        else:
            image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
