"""Names for what a screen shows, the same for pictures that differ by next to nothing.

A hash of the pixels would call a screen new whenever a caret blinks. A screenshot is
therefore averaged to 64 x 40 gray cells (20 x 20 pixels of a screen of 1280 x 800), and
two are the same state if no cell differs by more than 12 of 255: room for a caret of
one pixel by 18, not for a letter or the tick of a check box. The state keeps the hash
of the picture it was first seen in. A blinking caret two pixels wide or a clock in a
panel still makes new states; golden homes should have neither.
"""

import collections
import threading
import zlib

import numpy as np

__all__ = ["ScreenStates", "same_screen", "small_screen"]

_ROWS, _COLUMNS = 40, 64
_TOLERANCE = 12
_MAX_STATES = 256  # of a task; then the oldest is forgotten
_MAX_TASKS = 256


def small_screen(image: np.ndarray) -> np.ndarray:
    """Gray means of a picture [H, W, 3] in at most [40, 64] cells, uint8."""
    height, width = image.shape[:2]
    rows = np.arange(min(_ROWS, height)) * height // min(_ROWS, height)
    columns = np.arange(min(_COLUMNS, width)) * width // min(_COLUMNS, width)
    gray = image.sum(axis=2, dtype=np.uint32)
    sums = np.add.reduceat(np.add.reduceat(gray, rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return (sums / (3 * sizes)).round().astype(np.uint8)


def same_screen(one: np.ndarray, other: np.ndarray) -> bool:
    """True if two small screens are the same up to next to nothing."""
    if one.shape != other.shape:
        return False
    return int(np.abs(one.astype(np.int16) - other).max()) <= _TOLERANCE


class ScreenStates:
    """Hashes of the states seen so far, by task; shared by environments and threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._seen: collections.OrderedDict[str, dict[int, np.ndarray]] = (
            collections.OrderedDict()
        )

    def hash_of(self, task: str, image: np.ndarray) -> int:
        """Hash in [1, 2**32) of the state that a picture of a task shows."""
        small = small_screen(image)
        with self._lock:
            states = self._seen.setdefault(task, {})
            self._seen.move_to_end(task)
            while len(self._seen) > _MAX_TASKS:
                self._seen.popitem(last=False)
            for name, known in states.items():
                if same_screen(small, known):
                    return name
            name = zlib.crc32(small.tobytes()) or 1  # 0 stands for unknown
            states[name] = small
            if len(states) > _MAX_STATES:
                del states[next(iter(states))]
            return name
