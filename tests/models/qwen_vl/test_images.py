"""Pictures are sized, resized and cut into patches as by the models' own processor."""

import json

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs the extra vlm")

from stepjax.models.qwen_vl.images import (  # noqa: E402
    MAX_IMAGE_PIXELS,
    ImageSettings,
    read_image_settings,
    resize_image,
    smart_resize,
    to_patches,
)


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Windows, text-like stripes and noise: what screenshots are made of."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 240, np.uint8)
    for _ in range(12):
        top, left = rng.integers(height), rng.integers(width)
        image[top : top + height // 3, left : left + width // 3] = rng.integers(256)
    image[::7, width // 4 : width // 2] = 0
    image[height // 2 :, : width // 4] = rng.integers(
        256, size=image[height // 2 :, : width // 4].shape
    )
    return image


@pytest.fixture(scope="module")
def processor():
    pytest.importorskip("transformers", reason="compares with transformers")
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl

    return image_processing_pil_qwen2_vl


def test_sizes_equal_those_of_transformers(processor):
    rng = np.random.default_rng(0)
    for _ in range(3000):
        height, width = (int(2 ** rng.uniform(0, 12)) for _ in range(2))
        low = int(2 ** rng.uniform(0, 16))
        high = low + int(2 ** rng.uniform(0, 22))
        given = {"factor": 28, "min_pixels": low, "max_pixels": high}
        try:
            expected = processor.smart_resize(height, width, **given)
        except ValueError:
            with pytest.raises(ValueError, match="too narrow"):
                smart_resize(height, width, **given)
            continue
        assert smart_resize(height, width, **given) == expected, (height, width, given)


@pytest.mark.parametrize(
    ("height", "width"),
    [(1080, 1920), (720, 1280), (768, 1366), (400, 640), (84, 84), (33, 150), (14, 14)],
)
def test_patches_equal_those_of_transformers(processor, height, width):
    theirs = processor.Qwen2VLImageProcessorPil(
        min_pixels=56 * 56, max_pixels=400 * 28 * 28
    )
    image = _picture(height, width)
    expected = theirs(images=[image], return_tensors="np")
    settings = ImageSettings(max_pixels=400 * 28 * 28)
    tall, wide = settings.size_of(height, width)
    found, grid = to_patches(resize_image(image, height=tall, width=wide), settings)
    assert [1, *grid] == expected["image_grid_thw"][0].tolist()
    assert settings.tokens_of(tall, wide) * 4 == len(found)
    np.testing.assert_allclose(found, expected["pixel_values"], atol=1e-6)


def test_a_real_screen_of_the_simulator_has_the_models_size():
    assert smart_resize(1080, 1920, max_pixels=2700 * 28 * 28) == (1092, 1932)
    assert ImageSettings().size_of(400, 640) == (392, 644)


def test_pictures_of_the_right_size_are_not_copied():
    image = _picture(56, 84)
    assert resize_image(image, height=56, width=84) is image


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 10, 3), "has no pixels"),
        ((10, 0, 3), "has no pixels"),
        ((10_000, 10_000, 3), "100,000,000 pixels, at most 50,000,000"),
        ((1, 300, 3), "too narrow"),
        ((10, 10), r"must have shape \[rows, columns, 3\], got \(10, 10\)"),
        ((10, 10, 4), "drop an alpha channel"),
        ((2, 10, 10, 3), r"got \(2, 10, 10, 3\)"),
    ],
)
def test_bad_pictures_are_named(shape, message):
    image = np.broadcast_to(np.uint8(0), shape)
    with pytest.raises(ValueError, match=message) as caught:
        resize_image(image, height=28, width=28)
    assert "\n" not in str(caught.value)


def test_other_bad_input_is_named():
    with pytest.raises(TypeError, match="must be uint8, got float64"):
        resize_image(np.zeros((9, 9, 3)), height=28, width=28)
    with pytest.raises(ValueError, match="height must be a whole number >= 1, got 0"):
        resize_image(np.zeros((9, 9, 3), np.uint8), height=0, width=28)
    with pytest.raises(ValueError, match="width must be a multiple of 28, got 30"):
        to_patches(np.zeros((28, 30, 3), np.uint8), ImageSettings())
    with pytest.raises(ValueError, match="no pixels"):
        smart_resize(0, 5)
    with pytest.raises(ValueError, match="at most"):
        smart_resize(MAX_IMAGE_PIXELS, 2)


def test_settings_come_from_the_folder(tmp_path):
    assert read_image_settings(tmp_path) == ImageSettings()
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"min_pixels": 784, "max_pixels": 9999}))
    assert read_image_settings(tmp_path).max_pixels == 9999
    size = {"shortest_edge": 784, "longest_edge": 12_845_056}
    path.write_text(json.dumps({"size": size, "image_mean": [0, 0.5, 1]}))
    found = read_image_settings(tmp_path)
    assert (found.min_pixels, found.max_pixels) == (784, 12_845_056)
    assert found.mean == (0.0, 0.5, 1.0)
    path.write_text(json.dumps({"size": {"min_pixels": 785, "max_pixels": 9998}}))
    found = read_image_settings(tmp_path)
    assert (found.min_pixels, found.max_pixels) == (785, 9998)


def test_settings_nested_in_the_processors_file_count_most(tmp_path):
    """As transformers 5 writes and reads them."""
    path = tmp_path / "processor_config.json"
    size = {"shortest_edge": 784, "longest_edge": 100_352}
    nested = {"image_processor_type": "Qwen2VLImageProcessor", "size": size}
    path.write_text(json.dumps({"image_processor": nested, "processor_class": "Qwen"}))
    (tmp_path / "preprocessor_config.json").write_text('{"max_pixels": 9999}')
    found = read_image_settings(tmp_path)
    assert (found.min_pixels, found.max_pixels) == (784, 100_352)
    path.write_text('{"processor_class": "Qwen2VLProcessor"}')
    assert read_image_settings(tmp_path).max_pixels == 9999
    for broken in ("{", "[]", '{"image_processor": 5}'):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"/processor_config\.json") as caught:
            read_image_settings(tmp_path)
        assert "\n" not in str(caught.value)


def test_what_transformers_saves_is_read(processor, tmp_path):
    theirs = processor.Qwen2VLImageProcessorPil(
        min_pixels=56 * 56, max_pixels=400 * 28 * 28
    )
    wanted = ImageSettings(min_pixels=56 * 56, max_pixels=400 * 28 * 28)
    theirs.save_pretrained(tmp_path)
    assert read_image_settings(tmp_path) == wanted
    saved = tmp_path / "preprocessor_config.json"
    nested = {"image_processor": json.loads(saved.read_text())}
    saved.unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert read_image_settings(tmp_path) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '"x"',
        '{"patch_size": 0}',
        '{"patch_size": 14.5}',
        '{"merge_size": "two"}',
        '{"max_pixels": 10, "min_pixels": 100}',
        '{"image_std": [0, 1, 1]}',
        '{"image_std": [1, 1]}',
        '{"image_mean": "abc"}',
        '{"image_mean": [null, 1, 2]}',
        '{"image_mean": 5}',
        '{"min_pixels": true}',
    ],
)
def test_broken_settings_are_one_line(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ValueError, match="preprocessor_config.json") as caught:
        read_image_settings(tmp_path)
    assert "\n" not in str(caught.value)
