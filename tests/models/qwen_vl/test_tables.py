"""Slots of patches and rotary positions, against transformers and by hand."""

import dataclasses

import numpy as np
import pytest

from stepjax.models.qwen_vl.config import PRESETS
from stepjax.models.qwen_vl.tables import num_visual, rope_positions, vision_layout

CONFIG = PRESETS["tiny-qwen2.5-vl"]
IMAGE = CONFIG.image_token_id


def test_without_windows_every_patch_keeps_its_slot():
    layout = vision_layout((4, 6), PRESETS["tiny-qwen2-vl"].vision)
    np.testing.assert_array_equal(layout.patch, np.arange(24))
    np.testing.assert_array_equal(layout.token, np.arange(6))
    assert layout.real.all() and layout.window == 24
    # The four patches of a token stand together.
    np.testing.assert_array_equal(layout.positions[0, :8], [0, 0, 1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(layout.positions[1, :8], [0, 1, 0, 1, 2, 3, 2, 3])


@pytest.mark.parametrize("grid", [(2, 2), (4, 4), (8, 12), (10, 14), (6, 34)])
@pytest.mark.parametrize("window_size", [28, 56, 112])
def test_windows_are_squares_of_the_image(grid, window_size):
    vision = dataclasses.replace(CONFIG.vision, window_size=window_size)
    layout = vision_layout(grid, vision)
    side = window_size // vision.patch_size
    assert layout.window == side**2 and len(layout.patch) % layout.window == 0
    assert sorted(layout.patch[layout.real]) == list(range(grid[0] * grid[1]))
    # Positions and windows follow from the patch alone.
    block, inside = np.divmod(layout.patch, 4)
    row, column = np.divmod(block, grid[1] // 2)
    place = np.stack([2 * row + inside // 2, 2 * column + inside % 2])
    real = layout.real
    np.testing.assert_array_equal(layout.positions[:, real], place[:, real])
    window = np.arange(len(layout.patch)) // layout.window
    square = place // side
    across = -(-grid[1] // side)
    np.testing.assert_array_equal((square[0] * across + square[1])[real], window[real])
    tokens = layout.patch.reshape(-1, 4)[layout.token] // 4
    np.testing.assert_array_equal(tokens, np.arange(len(tokens))[:, None] + [[0] * 4])


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(8, 12), (10, 14), (6, 34)])
def test_windows_of_transformers(grid):
    torch = pytest.importorskip("torch", reason="needs torch")
    utils = pytest.importorskip("transformers.vision_utils", reason="transformers >= 5")
    index, lengths = utils.get_vision_window_index(
        torch.tensor([(1, *grid)]), 2, CONFIG.vision.window_size, 14
    )
    layout = vision_layout(grid, CONFIG.vision)
    blocks = layout.patch[layout.real].reshape(-1, 4)[:, 0] // 4
    np.testing.assert_array_equal(blocks, index.numpy())
    filled = layout.real.reshape(-1, layout.window).sum(axis=1)
    np.testing.assert_array_equal(np.cumsum(filled), lengths.numpy()[1:])


def test_rope_positions_by_hand():
    tokens = np.array([1, 2, *[IMAGE] * 6, 3, 4])
    positions, following = rope_positions(tokens, [(4, 6)], CONFIG)
    assert positions.dtype == np.int32 and following == 7
    np.testing.assert_array_equal(positions[0], [0, 1, 2, 2, 2, 2, 2, 2, 5, 6])
    np.testing.assert_array_equal(positions[1], [0, 1, 2, 2, 2, 3, 3, 3, 5, 6])
    np.testing.assert_array_equal(positions[2], [0, 1, 2, 3, 4, 2, 3, 4, 5, 6])


def test_rope_positions_of_text_and_of_an_image_alone():
    positions, following = rope_positions(np.arange(5), [], CONFIG)
    np.testing.assert_array_equal(positions, np.tile(np.arange(5), (3, 1)))
    assert following == 5
    assert rope_positions(np.array([], int), [], CONFIG)[1] == 0
    positions, following = rope_positions(np.array([IMAGE] * 2), [(2, 4)], CONFIG)
    np.testing.assert_array_equal(positions, [[0, 0], [0, 0], [0, 1]])
    assert following == 2


def test_two_images_in_a_row_are_told_apart_by_their_grids():
    tokens = np.array([IMAGE] * 3)
    positions, following = rope_positions(tokens, [(2, 4), (2, 2)], CONFIG)
    np.testing.assert_array_equal(positions, [[0, 0, 2], [0, 0, 2], [0, 1, 2]])
    assert following == 3


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="hold 2 image tokens, but grids"):
        rope_positions(np.array([IMAGE] * 2), [(4, 4)], CONFIG)
    with pytest.raises(ValueError, match="hold 1 image tokens"):
        rope_positions(np.array([IMAGE]), [], CONFIG)
    broken = np.array([IMAGE, IMAGE, 1, IMAGE, IMAGE])
    with pytest.raises(ValueError, match="interrupted"):
        rope_positions(broken, [(4, 4)], CONFIG)
    with pytest.raises(ValueError, match="shape \\[T\\]"):
        rope_positions(np.zeros((2, 3), int), [], CONFIG)
    for grid in [(3, 4), (0, 2), (2, -2)]:
        with pytest.raises(ValueError, match="multiple of merge_size = 2"):
            num_visual(grid, CONFIG.vision)
        with pytest.raises(ValueError, match="multiple of merge_size = 2"):
            vision_layout(grid, CONFIG.vision)
