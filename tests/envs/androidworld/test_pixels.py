"""Screenshots as text: equal to json's reading, bounded, and hard to fool."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from stepjax.envs.androidworld.errors import BrokenAnswerError
from stepjax.envs.androidworld.pixels import MAX_SIDE, PixelReader


def read(text: bytes, step: int = 1 << 20) -> np.ndarray:
    reader = PixelReader()
    for start in range(0, len(text), step):
        reader.feed(text[start : start + step])
    return reader.finish()


def write(image: np.ndarray, **given: Any) -> bytes:
    options: dict[str, Any] = {"separators": (",", ":")} | given
    return json.dumps({"pixels": image.tolist()}, **options).encode()


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10**6])
@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (4, 5), (1, 9), (9, 1)])
def test_equal_to_json(step, shape):
    image = np.random.default_rng(step).integers(0, 256, (*shape, 3)).astype(np.uint8)
    for options in ({}, {"separators": (", ", ": ")}, {"indent": 1}):
        np.testing.assert_array_equal(read(write(image, **options), step), image)


def test_every_level():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(read(write(image)), image)


def test_memory_is_bounded():
    image = np.full((600, 700, 3), 255, np.uint8)
    text = write(image)
    tracemalloc.start()
    try:
        read(text, 1 << 16)
        assert tracemalloc.get_traced_memory()[1] < 3 * image.nbytes < len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b'{"pixels":[', b'{"pixels":[]}', b'{"pixels":[[]]}',
        b'{"pixels":[[[]]]}', b'{"pixels":[[[1,2]]]}', b'{"pixels":[[[1,2,3,4]]]}',
        b'{"pixels":[[[1,2,3]]]', b'{"pixels":[[[1,2,3]]]}}',
        b'{"pixels":[[[1,2,3]],]}', b'{"pixels":[[[1,2,3]],[[1,2,3],[1,2,3]]]}',
        b'{"pixels":[[[1,2,256]]]}', b'{"pixels":[[[1,2,-3]]]}',
        b'{"pixels":[[[1,2,3.5]]]}', b'{"pixels":[[[1,,3]]]}', b'{"pixels":null}',
        b'{"pixels":[[[1,2,1e2]]]}', b'{"pixels":[[[1,2,NaN]]]}', b'{"detail":"x"}',
        b'{"pixels":[[[01,2,3]]]}', b'{"pixels":[[[1,2,3][1,2,3]]]}',
        b'{"pixels":[[[1,2,3]5]]}', b'{"pixels":[[[1,2,9999]]]}',
        b'{"pixels":[[1,2,3]]}', b'{"pixels":[[[1,2,3]] [[1,2,3]]]}',
        b'{"pixels":[7[[1,2,3]]]}', b"\x00" * 100, b'{"pixels":[[7,[1,2,3]]]}',
        b'{"pixels":[[[1,2,3]7]]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 1000])
def test_garbage_is_refused(text, step):
    with pytest.raises(BrokenAnswerError, match="the screenshot is garbled"):
        read(text, step)


def test_endless_answers_are_cut():
    reader = PixelReader()
    reader.feed(b'{"pixels":[[')
    with pytest.raises(BrokenAnswerError, match="has no end"):
        for _ in range(MAX_SIDE):
            reader.feed(b"[255,255,255]," * 100)
    reader = PixelReader()
    reader.feed(b'{"pixels":[')
    with pytest.raises(BrokenAnswerError, match="more than"):
        for _ in range(MAX_SIDE + 1):
            reader.feed(b"[[1,2,3]],")
    reader = PixelReader()
    with pytest.raises(BrokenAnswerError, match="white space"):
        for _ in range(100):
            reader.feed(b" " * (1 << 20))


def test_fuzzed_text_is_read_as_json_reads_it_or_refused():
    random = np.random.default_rng(0)
    signs = np.frombuffer(b'0123456789[]{},." -e', np.uint8)
    for _ in range(400):
        shape = (*random.integers(1, 4, size=2), 3)
        text = bytearray(write(random.integers(0, 256, shape).astype(np.uint8)))
        for _ in range(random.integers(1, 4)):
            place = random.integers(len(text))
            match random.integers(3):
                case 0:
                    text[place] = random.choice(signs)
                case 1:
                    del text[place : place + random.integers(1, 4)]
                case _:
                    text.insert(place, random.choice(signs))
        try:
            got = read(bytes(text), int(random.integers(1, 40)))
        except BrokenAnswerError:
            continue
        # "1 2" is the one text that white space joins and json does not read.
        known = json.loads(bytes(text).translate(None, b" "))["pixels"]
        np.testing.assert_array_equal(got, np.array(known))
