"""Screenshots and actions of the screenshot policy: there and back, no crash."""

import string

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Widget
from stepjax.envs.grammars.keys import KEYS
from stepjax.envs.screen_actions import AIMED_KINDS, SCREEN_KEYS, SCREEN_KINDS
from stepjax.envs.words import word_id
from stepjax.rollout.encode import PastAction, describe_action, remember
from stepjax.rollout.frames import frame_of
from stepjax.rollout.screen_codec import ScreenCodec, shrink

CODEC = ScreenCodec(width=64, height=40, num_words=8, num_history=2)
SEEN = Observation(
    instruction='Save "my notes.txt", then close it.',
    screenshot=np.full((80, 128, 3), 9, np.uint8),
    widgets=(Widget(role="button", label="OK", box=(0.5, 0.25, 0.75, 0.5)),),
)
WORDS = CODEC.encode(SEEN, ())[1]


def decode(*tokens):
    return CODEC.decode(np.array(tokens, np.int32), SEEN, WORDS)


def kind(name):
    return SCREEN_KINDS.index(ActionKind[name])


def test_prompt():
    prompt, words = CODEC.encode(SEEN, ())
    assert words == ("Save", "my notes.txt", "then", "close", "it")
    assert prompt.words.tolist() == [*map(word_id, words), 0, 0, 0]
    assert prompt.clause.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
    assert prompt.screenshot.shape == (40, 64, 3) and (prompt.screenshot == 9).all()
    assert prompt.history_kind.tolist() == [-1, -1]
    assert (prompt.history_place == -1).all() and not prompt.history_word.any()


def test_empty_prompt_has_the_same_shapes_and_is_padding():
    empty, (full, _) = CODEC.empty_prompt(), CODEC.encode(SEEN, ())
    for a, b in zip(jax.tree.leaves(empty), jax.tree.leaves(full), strict=True):
        assert isinstance(a, np.ndarray) and (a.shape, a.dtype) == (b.shape, b.dtype)
    assert not empty.words.any() and not empty.screenshot.any()


def test_history_remembers_places_words_and_keys_newest_first():
    actions = (
        Action(kind=ActionKind.CLICK, x=0.1, y=0.2),
        Action(kind=ActionKind.PRESS, keys=("ctrl", "s")),
        Action(kind=ActionKind.DOUBLE_CLICK, x=1.5, y=-3.0),
    )
    past = [remember(action, SEEN) for action in actions]
    assert past[0] == PastAction(int(ActionKind.CLICK), x=0.1, y=0.2)
    prompt, _ = CODEC.encode(SEEN, past)
    kinds = [int(ActionKind.DOUBLE_CLICK), int(ActionKind.PRESS)]
    assert prompt.history_kind.tolist() == kinds
    np.testing.assert_allclose(prompt.history_place, [[1, 0], [-1, -1]])
    assert prompt.history_word.tolist() == [0, word_id("ctrl+s")]


def test_actions_of_each_sort():
    assert decode(kind("TYPE"), 0, 0, 1) == Action(
        kind=ActionKind.TYPE, text="my notes.txt"
    )
    save = SCREEN_KEYS.index(("ctrl", "s"))
    assert decode(kind("PRESS"), 0, 0, 8 + save).keys == ("ctrl", "s")
    corner = decode(kind("CLICK"), 0, 0, 0)
    assert (corner.x, corner.y) == (0.5 / 128, 0.5 / 80)
    last = decode(kind("RIGHT_CLICK"), 159, 63, 0)
    assert (last.x, last.y) == (127.5 / 128, 79.5 / 80)
    assert decode(kind("DONE"), 3, 4, 5) == Action(kind=ActionKind.DONE)


@pytest.mark.parametrize(
    "tokens, reason",
    [
        ((99, 0, 0, 0), "kind 99"),
        ((-1, 0, 0, 0), "kind -1"),
        ((0, 160, 0, 0), "coarse cell 160"),
        ((0, 0, 64, 0), "fine cell 64"),
        ((kind("TYPE"), 0, 0, 5), "word 5 of 5"),
        ((kind("PRESS"), 0, 0, 7), "key -1"),
        ((kind("PRESS"), 0, 0, 8 + len(SCREEN_KEYS)), "key"),
        ((0, 0, 0), "four whole numbers"),
    ],
)
def test_tokens_that_point_nowhere_are_invalid(tokens, reason):
    action = decode(*tokens)
    assert action.kind == ActionKind.INVALID and reason in action.text


def test_the_tables_are_what_environments_understand():
    assert len(set(SCREEN_KEYS)) == len(SCREEN_KEYS)
    assert {key for keys in SCREEN_KEYS for key in keys} <= KEYS
    assert ("ctrl", "+") in SCREEN_KEYS and ("ctrl", "-") in SCREEN_KEYS
    assert len(set(SCREEN_KINDS)) == len(SCREEN_KINDS)
    assert set(SCREEN_KINDS) >= AIMED_KINDS


token_lists = st.tuples(
    st.integers(0, len(SCREEN_KINDS) - 1),
    st.integers(0, 159),
    st.integers(0, 63),
    st.integers(0, 8 + len(SCREEN_KEYS) - 1),
)


@given(token_lists)
def test_encoding_undoes_decoding(tokens):
    action = decode(*tokens)
    if action.kind == ActionKind.INVALID:
        return
    again = CODEC.encode_action(action, SEEN, WORDS)
    assert again is not None and again.dtype == np.int32
    assert decode(*again) == action
    meant = CODEC.tokens_meant(again)
    np.testing.assert_array_equal(again[meant], np.array(tokens)[meant])
    assert not again[~meant].any()


numbers = st.none() | st.floats(allow_nan=False, min_value=-2, max_value=2)
texts = st.sampled_from(WORDS) | st.text(max_size=20)


@settings(max_examples=300)
@given(
    st.builds(
        Action,
        kind=st.sampled_from(ActionKind),
        x=numbers,
        y=numbers,
        text=texts,
        keys=st.sampled_from(SCREEN_KEYS)
        | st.lists(st.sampled_from(string.ascii_letters), max_size=3).map(tuple),
        widget=st.none() | st.integers(-1, 3),
    )
)
def test_any_action_has_tokens_near_it_or_none(action):
    tokens = CODEC.encode_action(action, SEEN, WORDS)
    if tokens is None:
        return
    found = decode(*tokens)
    assert found.kind == action.kind
    if action.kind == ActionKind.TYPE:
        assert found.text == action.text
    if action.kind == ActionKind.PRESS:
        assert found.keys == action.keys
    if action.kind in AIMED_KINDS and action.x is not None and action.y is not None:
        assert abs(found.x - np.clip(action.x, 0, 1)) <= 0.5 / 128 + 1e-9
        assert abs(found.y - np.clip(action.y, 0, 1)) <= 0.5 / 80 + 1e-9


@settings(max_examples=200)
@given(
    st.lists(st.integers(-(2**40), 2**40), max_size=6),
    st.sampled_from([np.int32, np.int64, np.float64]),
)
def test_decoding_never_raises(tokens, dtype):
    array = np.array(tokens, np.int64).astype(dtype)
    assert isinstance(CODEC.decode(array, SEEN, WORDS), Action)


@pytest.mark.parametrize(
    "action",
    [
        Action(kind=ActionKind.DRAG, x=0.1, y=0.1, to_x=0.5, to_y=0.5),
        Action(kind=ActionKind.CLICK),
        Action(kind=ActionKind.CLICK, widget=7),
        Action(kind=ActionKind.CLICK, x=0.1, y=0.1, keys=("ctrl",)),
        Action(kind=ActionKind.TYPE, text="not there"),
        Action(kind=ActionKind.TYPE, text="it", x=0.5, y=0.5),
        Action(kind=ActionKind.PRESS, keys=("ctrl", "alt", "delete")),
    ],
)
def test_what_the_policy_cannot_say_has_no_tokens(action):
    assert CODEC.encode_action(action, SEEN, WORDS) is None


def test_widgets_and_scrolls_have_a_place():
    click = Action(kind=ActionKind.CLICK, widget=0)
    found = decode(*CODEC.encode_action(click, SEEN, WORDS))
    assert abs(found.x - 0.625) < 0.004 and abs(found.y - 0.375) < 0.0063
    scroll = Action(kind=ActionKind.SCROLL_DOWN)
    found = decode(*CODEC.encode_action(scroll, SEEN, WORDS))
    assert abs(found.x - 0.5) < 0.004 and found.kind == ActionKind.SCROLL_DOWN


@pytest.mark.parametrize("size", [(40, 64), (80, 128), (83, 131), (45, 64), (400, 65)])
def test_shrinking_averages(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    small = shrink(image, height=40, width=64)
    assert small.shape == (40, 64, 3) and small.dtype == np.uint8
    assert abs(small.mean() - image.mean()) < 3
    top, left = size[0] // 40, size[1] // 64
    corner = image[:top, :left].reshape(-1, 3).mean(axis=0)
    assert np.abs(small[0, 0] - corner).max() <= 1
    plain = np.full((*size, 3), 255, np.uint8)
    assert (shrink(plain, height=40, width=64) == 255).all()


def test_small_pictures_are_repeated():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    big = shrink(image, height=4, width=6)
    assert (big[:2, :3] == image[0, 0]).all() and (big[2:, 3:] == image[1, 1]).all()
    assert shrink(np.zeros((1, 500, 3), np.uint8), height=40, width=64).shape[0] == 40


@pytest.mark.parametrize(
    "sizes, text",
    [
        ({"width": 100}, "width must be a multiple of 32, got 100"),
        ({"height": 0}, "height must be a multiple of 20, got 0"),
        ({"num_words": 0}, "num_words must be >= 1, got 0"),
    ],
)
def test_rejects_impossible_sizes(sizes, text):
    with pytest.raises(ValueError, match=text):
        ScreenCodec(**sizes)


def test_frames_mark_the_place_of_an_action():
    click = Action(kind=ActionKind.CLICK, x=0.25, y=0.5)
    frame = frame_of(SEEN, click)
    left, top, right, bottom = frame.box
    assert (left + right) / 2 == pytest.approx(0.25) and right - left < 0.05
    assert (top + bottom) / 2 == pytest.approx(0.5) and frame.image is SEEN.screenshot
    assert frame.action == "click at (0.25, 0.50)"
    drag = Action(kind=ActionKind.DRAG, x=0.9, y=0.5, to_x=0.1, to_y=0.6)
    assert frame_of(SEEN, drag).box == pytest.approx((0.092, 0.492, 0.908, 0.608))
    press = Action(kind=ActionKind.PRESS, keys=("ctrl", "shift", "s"))
    assert frame_of(SEEN, press).box is None
    assert describe_action(press, SEEN) == "press ctrl+shift+s"
