"""A screenshot as AndroidWorld's server sends it: a JSON list of rows of [r, g, b].

A phone's screen of 1080 x 2400 is 28 MB of such text. It is read as it comes, a row at
a time, so that only the pixels themselves are ever held; `json.loads` would need more
than thirty times as much for its lists.
"""

import functools

import numpy as np

from stepjax.envs.androidworld.errors import BrokenAnswerError

__all__ = ["MAX_SIDE", "PixelReader"]

MAX_SIDE = 16384
"""Most pixels along a side that are believed."""

MAX_PIXELS = 1 << 26
"""Most pixels of a screen that are believed."""

_START = b'{"pixels":['
_SPACE = b" \t\r\n"
_LONGEST = len("[255,255,255],")  # text of one pixel
_MOST_SPACE = 64 << 20


class PixelReader:
    """Reads one screenshot; bytes go in, an array comes out.

    Raises:
      BrokenAnswerError: From `feed` and `finish`, if it is no screenshot.

    Example:
      >>> reader = PixelReader()
      >>> reader.feed(b'{"pixels":[[[1,2,3],[4,')
      >>> reader.feed(b'5,6]]]}')
      >>> reader.finish().tolist()
      [[[1, 2, 3], [4, 5, 6]]]
    """

    def __init__(self):
        self._held = bytearray()
        self._rows: list[np.ndarray] = []  # [W, 3] uint8
        self._state = "start"
        self._searched = 0
        self._space = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Args:
          chunk: Any part of the text.
        """
        text = chunk.translate(None, _SPACE)
        self._space += len(chunk) - len(text)
        if self._space > _MOST_SPACE:
            raise _broken("it is mostly white space")
        self._held += text
        if self._state == "start" and len(self._held) >= len(_START):
            if not self._held.startswith(_START):
                raise _broken(f"it begins with {bytes(self._held[:40])!r}")
            del self._held[: len(_START)]
            self._state = "row"
        if self._state == "row":
            self._take_rows()
        if self._state == "end" and len(self._held) > 1:
            raise _broken("something follows the pixels")

    def finish(self) -> np.ndarray:
        """The screenshot [H, W, 3] uint8, once all bytes are in."""
        if self._state != "end" or self._held != b"}":
            raise _broken(f"it is cut short after {len(self._rows)} rows")
        rows, self._rows = self._rows, []
        return np.stack(rows)

    def _take_rows(self) -> None:
        """Turn every whole row into pixels; keep what follows the last."""
        at = 0
        while True:
            end = self._held.find(b"]]", max(at, self._searched))
            if end < 0 or end + 2 >= len(self._held):
                break  # what follows a row tells whether it was the last
            self._add(bytes(self._held[at : end + 2]))
            after = self._held[end + 2 : end + 3]
            at = self._searched = end + 3
            if after == b"]":
                self._state = "end"
                break
            if after != b",":
                raise _broken(f"{bytes(after)!r} follows row {len(self._rows)}")
        del self._held[:at]
        self._searched = max(0, len(self._held) - 2)
        if self._state == "row" and len(self._held) > MAX_SIDE * _LONGEST:
            raise _broken(f"row {len(self._rows) + 1} has no end")

    def _add(self, text: bytes) -> None:
        row = _read_row(text, len(self._rows) + 1)
        if self._rows and len(row) != len(self._rows[0]):
            raise _broken(
                f"row {len(self._rows) + 1} has {len(row)} pixels, the first has "
                f"{len(self._rows[0])}"
            )
        self._rows.append(row)
        count = len(self._rows)
        if count > MAX_SIDE or count * len(row) > MAX_PIXELS:
            raise _broken(f"more than {count - 1} rows of {len(row)} pixels")


def _read_row(text: bytes, number: int) -> np.ndarray:
    """Pixels [W, 3] uint8 of `[[r,g,b],...,[r,g,b]]`, all of it checked."""
    signs = np.frombuffer(text, np.uint8)
    digits = signs - np.uint8(ord("0"))  # others wrap to at least 10
    places = np.flatnonzero(digits > 9)
    width, rest = divmod(len(places) - 1, 5)
    if rest or not 1 <= width <= MAX_SIDE or places[0]:
        raise _broken(f"row {number} is no list of pixels")
    skeleton, numbers = _pattern(width)
    lengths = np.diff(places) - 1
    sizes = lengths[numbers]  # [3 * W] digits of each number
    if (
        not np.array_equal(signs[places], skeleton)
        or lengths.sum() != sizes.sum()
        or sizes.min() < 1
        or sizes.max() > 3
    ):
        raise _broken(f"row {number} is no list of pixels")
    ends = places[1:][numbers]
    values = digits[ends - 1].astype(np.int16)
    for digit, weight in ((2, 10), (3, 100)):
        values += np.where(sizes >= digit, digits[ends - digit], 0) * np.int16(weight)
    if values.max() > 255 or (digits[ends - sizes][sizes > 1] == 0).any():
        raise _broken(f"row {number} holds a number that is no level from 0 to 255")
    return values.astype(np.uint8).reshape(width, 3)


@functools.lru_cache(maxsize=8)
def _pattern(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs of a row that are no digits, and after which of them a number stands."""
    row = b"[" + b",".join([b"[,,]"] * width) + b"]"
    before = np.zeros((width, 5), bool)
    before[:, 1:4] = True  # the sign itself is "[", "," or ","
    return np.frombuffer(row, np.uint8), before.reshape(-1)


def _broken(what: str) -> BrokenAnswerError:
    return BrokenAnswerError(f"the screenshot is garbled: {what}")
