"""Pictures of colored squares, one of which the instruction names."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from stepjax.envs.screen_actions import COARSE_COLUMNS, COARSE_ROWS
from stepjax.envs.words import word_id
from stepjax.types import ScreenshotPrompt

WIDTH, HEIGHT, SIDE, WORDS, PAST = 160, 100, 10, 8, 3
COLORS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (40, 60, 220),
    "yellow": (230, 220, 40),
}


class Pictures(NamedTuple):
    """Prompts, the tokens of a click on each square named, and where it lies."""

    prompt: ScreenshotPrompt
    tokens: jnp.ndarray
    corner: np.ndarray


def fine_position(tokens: np.ndarray) -> np.ndarray:
    """[S, 2] x and y in pixels of the picture that clicks lead to."""
    coarse, fine = tokens[:, 1], tokens[:, 2]
    column = coarse % COARSE_COLUMNS * 8 + fine % 8
    row = coarse // COARSE_COLUMNS * 8 + fine // 8
    grid = np.array([COARSE_COLUMNS * 8, COARSE_ROWS * 8])
    return (np.stack([column, row], axis=-1) + 0.5) / grid * (WIDTH, HEIGHT)


def paint(count: int, seed: int) -> Pictures:
    """Three squares on gray, anywhere, the first of them asked for."""
    rng = np.random.default_rng(seed)
    image = np.full((count, HEIGHT, WIDTH, 3), 235, np.uint8)
    words = np.zeros((count, WORDS), np.int32)
    tokens = np.zeros((count, 4), np.int32)
    corner = np.zeros((count, 2), np.int32)
    names = list(COLORS)
    for row in range(count):
        shown = rng.permutation(len(names))[:3]
        for place, color in reversed(list(enumerate(shown))):  # the one meant on top
            x, y = rng.integers(0, (WIDTH - SIDE, HEIGHT - SIDE))
            image[row, y : y + SIDE, x : x + SIDE] = COLORS[names[color]]
            if place == 0:
                corner[row] = x, y
        text = ("click", "the", names[shown[0]], "square")
        words[row, :4] = [word_id(word) for word in text]
        aim = corner[row] + SIDE / 2 + rng.uniform(-2, 2, 2)
        column, line = (aim / (WIDTH, HEIGHT) * (128, 80)).astype(int)
        tokens[row, 1] = line // 8 * COARSE_COLUMNS + column // 8
        tokens[row, 2] = line % 8 * 8 + column % 8
    prompt = ScreenshotPrompt(
        screenshot=jnp.asarray(image),
        words=jnp.asarray(words),
        clause=jnp.zeros_like(jnp.asarray(words)),
        history_kind=jnp.full((count, PAST), -1, jnp.int32),
        history_place=jnp.full((count, PAST, 2), -1.0, jnp.float32),
        history_word=jnp.zeros((count, PAST), jnp.int32),
    )
    return Pictures(prompt, jnp.asarray(tokens), corner)
