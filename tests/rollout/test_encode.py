import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Widget
from stepjax.envs.words import role_id, word_id
from stepjax.rollout.encode import (
    PastAction,
    PointerCodec,
    decode_tokens,
    describe_action,
    encode_observation,
    remember,
)

FIELD = Widget(
    role="text_field", label="Name", value="Ann Lee", box=(0.0, 0.5, 0.5, 1.0), on=True
)
BUTTON = Widget(role="button", label="Big cat (new)", focused=True, disabled=True)
SCREEN = Observation(
    instruction='Type "Ann, Lee" into Name, then press OK.', widgets=(FIELD, BUTTON)
)


def ids(*words):
    return [word_id(word) for word in words]


def test_instruction_words_and_clauses():
    screen = encode_observation(SCREEN, num_words=10)
    raw = ("Type", "Ann, Lee", "into", "Name", "then", "press", "OK")
    assert screen.raw_words == raw  # no punctuation; quoted text as written
    assert screen.prompt.words.tolist() == [*ids(*raw), 0, 0, 0]
    assert screen.prompt.clause.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 0]


def test_symbols_are_words_and_punctuation_is_not():
    screen = encode_observation(Observation(instruction='( 3 + 4 ) ... ">" ?'))
    assert screen.raw_words == ("3", "+", "4", ">")


def test_widgets():
    prompt = encode_observation(SCREEN, num_widgets=3).prompt
    assert prompt.widget_words[0].tolist() == [*ids("Name"), 0, *ids("Ann", "Lee")]
    assert prompt.widget_words[1].tolist() == [*ids("Big", "cat", "new"), 0]
    assert prompt.widget_words[2].tolist() == [0] * 4
    assert prompt.widget_role.tolist() == [role_id("text_field"), role_id("button"), 0]
    assert prompt.widget_state.tolist() == [1, 6, 0]
    assert prompt.widget_box[0].tolist() == [0.0, 0.5, 0.5, 1.0]
    assert prompt.widget_mask.tolist() == [True, True, False]


def test_a_label_quoted_in_the_instruction_is_one_word():
    button = Widget(role="button", label="big cat")
    quoted = Observation(instruction='Press "Big cat"', widgets=(button,))
    plain = Observation(instruction="Press Big cat", widgets=(button,))
    first = encode_observation(quoted).prompt.widget_words[0]
    second = encode_observation(plain).prompt.widget_words[0]
    assert first.tolist() == [*ids("big cat"), 0, 0, 0]
    assert second.tolist() == [*ids("big", "cat"), 0, 0]


def test_history_is_newest_first():
    history = [PastAction(kind, f"label{kind}", "typed") for kind in range(5)]
    prompt = encode_observation(SCREEN, history, num_history=3).prompt
    assert prompt.history_kind.tolist() == [4, 3, 2]
    assert prompt.history_words[0].tolist() == [*ids("label4"), 0, *ids("typed"), 0]
    prompt = encode_observation(SCREEN, history[:1], num_history=3).prompt
    assert prompt.history_kind.tolist() == [0, -1, -1]
    assert (
        encode_observation(SCREEN, history, num_history=0).prompt.history_kind.size == 0
    )


def test_overflow_keeps_the_first_and_is_counted():
    widgets = tuple(Widget(role="text", label=f"w{index}") for index in range(9))
    words = " ".join(f"i{index}" for index in range(7))
    screen = encode_observation(
        Observation(instruction=words, widgets=widgets), num_widgets=4, num_words=5
    )
    assert (screen.dropped_widgets, screen.dropped_words) == (5, 2)
    assert screen.prompt.widget_mask.all()
    assert screen.prompt.widget_words[3, 0] == word_id("w3")
    assert screen.raw_words == ("i0", "i1", "i2", "i3", "i4")


def test_shapes_and_dtypes_never_change():
    codec = PointerCodec(num_widgets=5, num_words=6, words_per_widget=4, num_history=2)
    empty = codec.empty_prompt()
    full, _ = codec.encode(SCREEN, [PastAction(0, "a", "b")] * 4)
    for name in vars(empty):
        one, other = getattr(empty, name), getattr(full, name)
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
    assert not empty.widget_mask.any() and not empty.words.any()


def test_decoding():
    raw = encode_observation(SCREEN).raw_words
    click = decode_tokens(np.array([0, 0, 0]), SCREEN, raw)
    assert click == Action(kind=ActionKind.CLICK, x=0.25, y=0.75, widget=0)
    typed = decode_tokens(np.array([1, 1, 1]), SCREEN, raw)
    assert (typed.kind, typed.widget, typed.text) == (ActionKind.TYPE, 1, "Ann, Lee")
    for kind in range(2, 9):
        assert decode_tokens([kind, 7, 7], SCREEN, raw) == Action(kind=ActionKind(kind))


@pytest.mark.parametrize(
    "tokens",
    [
        [9, 0, 0],
        [-1, 0, 0],
        [0, 2, 0],
        [0, -1, 0],
        [1, 0, 99],
        [1, 0, -1],
        [0, 0],
        [[0, 0, 0]],
        [0.0, 0.0, 0.0],
        ["a", "b", "c"],
        None,
    ],
    ids=str,
)
def test_tokens_that_point_nowhere_are_invalid(tokens):
    action = decode_tokens(tokens, SCREEN, ("a", "b"))
    assert action.kind is ActionKind.INVALID and action.text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    st.one_of(st.none(), st.lists(st.sampled_from([FIELD, BUTTON])).map(tuple)),
    st.lists(st.text(max_size=5), max_size=5),
)
def test_any_tokens_give_an_action(tokens, widgets, words):
    screen = Observation(instruction="", widgets=widgets)
    action = decode_tokens(np.array(tokens), screen, words)
    assert isinstance(action, Action)
    assert isinstance(describe_action(action, screen), str)
    assert remember(action, screen).kind == action.kind


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=50))
def test_any_text_encodes(instruction, label, value):
    widget = Widget(role=label, label=label, value=value)
    screen = encode_observation(
        Observation(instruction=instruction, widgets=(widget,)),
        [PastAction(1, label, value)],
    )
    assert screen.prompt.words.shape == (32,)
    assert (screen.prompt.words > 0).sum() == len(screen.raw_words)


def test_remembering_and_describing():
    typed = Action(kind=ActionKind.TYPE, widget=0, text="Ann")
    assert remember(typed, SCREEN) == PastAction(ActionKind.TYPE, "Name", "Ann")
    assert describe_action(typed, SCREEN) == "type \"Ann\" into text field 'Name'"
    click = Action(kind=ActionKind.CLICK, x=0.5, y=0.25)
    assert describe_action(click, SCREEN) == "click at (0.50, 0.25)"
    menu = Widget(role="menu", label="", value="Spain")
    bare = Widget(role="other", label="")
    seen = Observation(instruction="", widgets=(menu, bare))
    choose, tap = (Action(kind=ActionKind.CLICK, widget=index) for index in (0, 1))
    assert describe_action(choose, seen) == "click menu 'Spain'"
    assert describe_action(tap, seen) == "click other"
    invalid = Action(kind=ActionKind.INVALID, text="no")
    assert remember(invalid, SCREEN) == PastAction(ActionKind.INVALID, "", "")
