"""Judging pictures that an agent may have made to hurt."""

import io
import logging
from typing import Any

import numpy as np

__all__ = ["MAX_SIDE", "match_picture"]

MAX_SIDE = 4096
"""Largest width and height of a picture that is looked at, in pixels."""

_KINDS = ("PNG", "JPEG", "BMP", "GIF")
_LOG = logging.getLogger(__name__)


def match_picture(result: Any, rules: dict[str, Any]) -> float:
    """A picture of the `size` [width, height] whose pixels are as they should be.

    `color` is the red, green and blue that all of it has; `areas` a list of
    [left, top, right, bottom, [red, green, blue]] for the means of parts of it;
    `format` its kind, such as "PNG". Colors may be off by `tolerance`.
    """
    if not isinstance(result, bytes):
        return 0.0
    pixels = _read(result, rules)
    if pixels is None:
        return 0.0
    tolerance = rules.get("tolerance", 12)
    if "color" in rules:
        off = np.abs(pixels.astype(np.int16) - np.array(rules["color"], np.int16))
        if int(off.max()) > tolerance:
            return 0.0
    for left, top, right, bottom, color in rules.get("areas", ()):
        mean = pixels[top:bottom, left:right].reshape(-1, 3).mean(axis=0)
        if np.abs(mean - np.array(color)).max() > tolerance:
            return 0.0
    return 1.0


def _read(data: bytes, rules: dict[str, Any]) -> np.ndarray | None:
    """Pixels [height, width, 3] uint8 of a picture of the right size and kind."""
    from PIL import Image

    try:
        # The header alone is read here, so a small file with a huge picture costs
        # nothing.
        with Image.open(io.BytesIO(data), formats=_KINDS) as picture:
            width, height = picture.size
            if [width, height] != list(rules["size"]) or max(width, height) > MAX_SIDE:
                return None
            if "format" in rules and picture.format != rules["format"]:
                return None
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # a picture can be broken in many ways
        _LOG.info("not judged: %s: %.200s", type(error).__name__, error)
        return None
