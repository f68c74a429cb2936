"""What comes back from a desktop: a picture, widgets, or an error of one line.

An answer of `/act` is four bytes with the length of a JSON object (most significant
first), the object, and the picture's bytes; the object's keys are width, height, and,
if asked for, image (format, width, height), widgets and complete.
"""

import dataclasses
import json
import struct
from typing import Any

import numpy as np

from stepjax.envs.base import Widget
from stepjax.envs.desktop.widgets import read_widgets

__all__ = ["DesktopError", "View", "decode", "read_view", "split_answer"]

_MAX_MESSAGE = 300
_START = struct.Struct(">I")


class DesktopError(RuntimeError):
    """A call to a desktop that failed; the message is one line.

    Attributes:
      status: The server's HTTP status, or None if there was no proper answer.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(" ".join(message.split())[:_MAX_MESSAGE])
        self.status = status


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """What a desktop shows.

    Attributes:
      image: [H, W, 3] uint8, of the size asked for, else of the screen's.
      widgets: What can be seen and acted on, in reading order; None if not asked for.
      complete: False if time or number cut the widgets short.
      width: Pixels of the screen from left to right.
      height: Pixels of the screen from top to bottom.
    """

    image: np.ndarray
    widgets: tuple[Widget, ...] | None
    complete: bool = True
    width: int
    height: int


def decode(path: str, body: bytes) -> Any:
    """JSON in an answer.

    Args:
      path: Route that gave it.
      body: The answer.

    Raises:
      DesktopError: If it is no JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise DesktopError(f"{path}: the answer is no JSON") from None


def split_answer(body: bytes) -> tuple[dict[str, Any], bytes]:
    """Head and picture of an answer of `/act`.

    Args:
      body: The answer.

    Raises:
      DesktopError: If it is garbled.
    """
    if len(body) >= _START.size:
        (length,) = _START.unpack_from(body)
        end = _START.size + length
        if end <= len(body):
            head = decode("/act", body[_START.size : end])
            if isinstance(head, dict):
                return head, body[end:]
    raise DesktopError("/act: the answer is cut short or garbled")


def read_view(body: bytes, widgets: bool) -> View:
    """What an answer of `/act` shows.

    Args:
      body: The answer.
      widgets: Whether they were asked for.

    Raises:
      DesktopError: If it is garbled.
    """
    head, picture = split_answer(body)
    image = head.get("image")
    sizes = [head.get("width"), head.get("height")]
    if not isinstance(image, dict):
        raise DesktopError("/act: the answer holds no picture")
    sizes += [image.get("width"), image.get("height")]
    if not all(type(size) is int and 0 < size <= 1 << 15 for size in sizes):
        raise DesktopError(f"/act: the answer's sizes are unsound: {sizes}")
    width, height, image_width, image_height = (int(size) for size in sizes if size)
    if image.get("format") != "raw" or len(picture) != 3 * image_width * image_height:
        raise DesktopError("/act: the picture has not the size the answer says")
    found = None
    if widgets:
        try:
            found = read_widgets(head["widgets"], width=width, height=height)
        except (KeyError, TypeError, ValueError) as error:
            raise DesktopError(f"/act: the widgets are unsound: {error!r}") from None
    pixels = np.frombuffer(picture, np.uint8)
    return View(
        image=pixels.reshape(image_height, image_width, 3),
        widgets=found,
        complete=head.get("complete", True) is True,
        width=width,
        height=height,
    )
