"""Between the host's objects and the screenshot policy's arrays, both ways.

Encoding turns a screenshot, an instruction and the actions before into a
`ScreenshotPrompt`; decoding turns four tokens into an `Action`. Both are pure and touch
no device.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.screen_actions import (
    AIMED_KINDS,
    COARSE_COLUMNS,
    COARSE_ROWS,
    FINE_COLUMNS,
    FINE_ROWS,
    SCREEN_KEYS,
    SCREEN_KINDS,
)
from stepjax.envs.words import word_id
from stepjax.rollout.encode import PastAction, encode_words, remember
from stepjax.types import ScreenshotPrompt

__all__ = ["ScreenCodec", "shrink"]

_COLUMNS, _ROWS = COARSE_COLUMNS * FINE_COLUMNS, COARSE_ROWS * FINE_ROWS
_KEY_INDEX = {keys: index for index, keys in enumerate(SCREEN_KEYS)}
_KIND_INDEX = {kind: index for index, kind in enumerate(SCREEN_KINDS)}
_MOST_TYPED = 256  # characters of what was typed that count for the history


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScreenCodec:
    """The screenshot policy's encoding with its sizes fixed.

    Attributes:
      width: Of the picture the policy sees, in pixels; a multiple of 32.
      height: Likewise; a multiple of 20.
      num_words: I.
      num_history: H.

    Raises:
      ValueError: If a size does not fit.
    """

    width: int = 160
    height: int = 100
    num_words: int = 32
    num_history: int = 4
    num_tokens: int = dataclasses.field(default=4, init=False)

    def __post_init__(self):
        """Check the sizes."""
        for name, parts in (("width", COARSE_COLUMNS), ("height", COARSE_ROWS)):
            value = getattr(self, name)
            if value < 1 or value % (2 * parts):
                raise ValueError(
                    f"ScreenCodec: {name} must be a multiple of {2 * parts}, "
                    f"got {value}."
                )
        for name in ("num_words", "num_history"):
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"ScreenCodec: {name} must be >= 1, got {value}.")

    def encode(
        self, observation: Observation, history: Sequence[PastAction]
    ) -> tuple[ScreenshotPrompt, tuple[str, ...]]:
        """The prompt, and the instruction's words as written, for `decode`."""
        raw, words, clause = encode_words(observation.instruction, self.num_words)
        kinds = np.full(self.num_history, -1, np.int32)
        places = np.full((self.num_history, 2), -1.0, np.float32)
        typed = np.zeros(self.num_history, np.int32)
        for row, past in enumerate(reversed(history[-self.num_history :])):
            kinds[row] = past.kind
            if past.x is not None and past.y is not None:
                places[row] = np.clip((past.x, past.y), 0.0, 1.0)
            typed[row] = word_id(past.text[:_MOST_TYPED])
        image = observation.screenshot
        picture = np.zeros((self.height, self.width, 3), np.uint8)
        if image is not None:
            picture = shrink(image, height=self.height, width=self.width)
        leaves: dict[str, Any] = {
            "screenshot": picture,
            "words": words,
            "clause": clause,
            "history_kind": kinds,
            "history_place": places,
            "history_word": typed,
        }
        return ScreenshotPrompt(**leaves), raw[: self.num_words]

    def decode(
        self, tokens: np.ndarray, observation: Observation, context: Sequence[str]
    ) -> Action:
        """The action that tokens [4] stand for; INVALID, with a reason, if none."""
        del observation
        array = np.asarray(tokens)
        if array.shape != (4,) or not np.issubdtype(array.dtype, np.integer):
            return _invalid("expected four whole numbers")
        kind, coarse, fine, word = (int(token) for token in array)
        if not 0 <= kind < len(SCREEN_KINDS):
            return _invalid(f"there is no action kind {kind}")
        meant = SCREEN_KINDS[kind]
        if meant in AIMED_KINDS:
            return _aimed(meant, coarse, fine)
        if meant == ActionKind.TYPE:
            if not 0 <= word < len(context):
                return _invalid(f"there is no word {word} of {len(context)}")
            return Action(kind=meant, text=context[word])
        if meant == ActionKind.PRESS:
            key = word - self.num_words
            if not 0 <= key < len(SCREEN_KEYS):
                return _invalid(f"there is no key {key} of {len(SCREEN_KEYS)}")
            return Action(kind=meant, keys=SCREEN_KEYS[key])
        return Action(kind=meant)

    def encode_action(
        self, action: Action, observation: Observation, context: Sequence[str]
    ) -> np.ndarray | None:
        """The tokens that `decode` turns into `action`, or into the nearest there is.

        Args:
          action: Any. A widget counts as its middle, a scroll without a place as one
            in the middle of the screen; how far it scrolls, or how long it waits, is
            left to the backend.
          observation: What it was meant for.
          context: The instruction's words as `encode` returned them.

        Returns:
          [4] int32, or None if the policy has no such action: a drag, keys or a text
          that it has no token for.
        """
        kind = _KIND_INDEX.get(action.kind)
        if kind is None:
            return None
        tokens = np.array([kind, 0, 0, 0], np.int32)
        if action.kind in AIMED_KINDS:
            place = _place_of(action, observation)
            if place is None or action.keys:
                return None
            tokens[1:3] = _cells(*place)
        elif action.kind == ActionKind.TYPE:
            if action.text not in context or _place_of(action, observation):
                return None
            tokens[3] = list(context).index(action.text)
        elif action.kind == ActionKind.PRESS:
            key = _KEY_INDEX.get(action.keys)
            if key is None:
                return None
            tokens[3] = self.num_words + key
        return tokens

    def tokens_meant(self, tokens: np.ndarray) -> np.ndarray:
        """[4] bool: which of the tokens [4] their action consists of."""
        kind = SCREEN_KINDS[int(tokens[0])]
        aims = kind in AIMED_KINDS
        names = kind in (ActionKind.TYPE, ActionKind.PRESS)
        return np.array([True, aims, aims, names])

    def remember(
        self,
        history: Sequence[PastAction],
        tokens: np.ndarray,
        action: Action,
        observation: Observation,
        context: Any,
    ) -> list[PastAction]:
        """The actions so far and one more; only the latest are shown."""
        del tokens, context
        latest = [*history, remember(action, observation)]
        return latest[-self.num_history :] if self.num_history else []

    def empty_prompt(self) -> ScreenshotPrompt:
        """A prompt of a black screen without words: shapes and padding."""
        return self.encode(Observation(instruction=""), ())[0]


def shrink(image: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """A picture scaled by averaging what falls into each pixel; larger, by repeating.

    Args:
      image: [rows, columns, 3] uint8.
      height: Rows wanted.
      width: Columns wanted.

    Returns:
      [height, width, 3] uint8.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    top, left = (
        np.arange(count) * size // count
        for count, size in ((height, rows), (width, columns))
    )
    if rows < height or columns < width:
        return image[top][:, left]
    # Whole blocks, as nearly always: several times faster than ragged ones.
    if not rows % height and not columns % width:
        strips = image.reshape(height, rows // height, columns * 3)
        summed = strips.sum(axis=1, dtype=np.uint32)
        blocks = summed.reshape(height, width, columns // width, 3)
        return (blocks.sum(axis=2) // (rows // height * (columns // width))).astype(
            np.uint8
        )
    summed = np.add.reduceat(image, top, axis=0, dtype=np.uint32)
    summed = np.add.reduceat(summed, left, axis=1)
    tall, wide = np.diff(top, append=rows), np.diff(left, append=columns)
    return (summed // (tall[:, None] * wide)[..., None]).astype(np.uint8)


def _place_of(action: Action, observation: Observation) -> tuple[float, float] | None:
    if action.x is not None and action.y is not None:
        return action.x, action.y
    widgets = observation.widgets or ()
    if action.widget is not None and 0 <= action.widget < len(widgets):
        left, top, right, bottom = widgets[action.widget].box
        return (left + right) / 2, (top + bottom) / 2
    scrolls = action.kind in (ActionKind.SCROLL_DOWN, ActionKind.SCROLL_UP)
    return (0.5, 0.5) if scrolls else None


def _cells(x: float, y: float) -> tuple[int, int]:
    """Coarse and fine cell of a place in shares of the screen."""
    column = min(max(int(x * _COLUMNS), 0), _COLUMNS - 1)
    row = min(max(int(y * _ROWS), 0), _ROWS - 1)
    coarse = row // FINE_ROWS * COARSE_COLUMNS + column // FINE_COLUMNS
    return coarse, row % FINE_ROWS * FINE_COLUMNS + column % FINE_COLUMNS


def _aimed(kind: ActionKind, coarse: int, fine: int) -> Action:
    """An action in the middle of its fine cell."""
    if not 0 <= coarse < COARSE_COLUMNS * COARSE_ROWS:
        return _invalid(f"there is no coarse cell {coarse}")
    if not 0 <= fine < FINE_COLUMNS * FINE_ROWS:
        return _invalid(f"there is no fine cell {fine}")
    column = coarse % COARSE_COLUMNS * FINE_COLUMNS + fine % FINE_COLUMNS
    row = coarse // COARSE_COLUMNS * FINE_ROWS + fine // FINE_COLUMNS
    return Action(kind=kind, x=(column + 0.5) / _COLUMNS, y=(row + 0.5) / _ROWS)


def _invalid(reason: str) -> Action:
    return Action(kind=ActionKind.INVALID, text=reason)
