"""Prompts of UI-TARS models and the way from responses to actions and back."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the extra vlm")
pytest.importorskip("jinja2", reason="needs the extra vlm")
pytest.importorskip("PIL", reason="needs the extra vlm")

from stepjax.envs.actions import Action, ActionKind  # noqa: E402
from stepjax.envs.base import Observation, Widget  # noqa: E402
from stepjax.models.qwen_vl.prompt import (  # noqa: E402
    bucket_for,
    cut_prompt,
    prompt_lengths,
)
from stepjax.models.qwen_vl.tokens import STRUCTURE  # noqa: E402
from stepjax.models.qwen_vl.ui_tars_prompt import (  # noqa: E402
    MOBILE_WORDING,
    SHORT_WORDING,
    WORDING,
    PromptLengthError,
    Turn,
    UITarsPrompts,
)
from stepjax.rollout.vl_codec import VLCodec, vl_codec_for  # noqa: E402
from tests.models.qwen_vl.tiny import make_tiny_checkpoint  # noqa: E402

SCREEN = np.random.default_rng(0).integers(256, size=(60, 100, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def codec(request, tmp_path_factory) -> VLCodec:
    folder = tmp_path_factory.mktemp(request.param)
    make_tiny_checkpoint(folder, request.param)
    return vl_codec_for(
        folder, height=60, width=100, num_tokens=64, wording=SHORT_WORDING
    )


def _with(codec: VLCodec, **changes) -> UITarsPrompts:
    return dataclasses.replace(codec.prompts, **changes)


def test_prompt_holds_task_turns_and_screenshot_in_order(codec):
    prompts = _with(codec, num_screenshots=2, length=512)
    pictures = [prompts.picture(SCREEN + n) for n in range(5)]
    turns = [Turn(response=f"answer {n}", image=pictures[n]) for n in range(4)]
    prompt = prompts.make("Open the file", turns, pictures[4])
    count = int(prompt_lengths(prompt))
    tokens = np.asarray(prompt.tokens)
    text = prompts.tokenizer.decode(tokens[512 - count :])
    for first, second in zip(
        ("Open the file", "answer 1", "answer 2", "answer 3"),
        ("answer 1", "answer 2", "answer 3", "assistant"),
        strict=True,
    ):
        assert text.index(first) < text.rindex(second)
    assert "answer 0" not in text
    assert text.endswith("<|im_start|>assistant\n")
    np.testing.assert_array_equal(prompt.images, pictures[2:])
    visual = tokens == prompts.config.image_token_id
    index = np.asarray(prompt.image_index)
    np.testing.assert_array_equal(index[visual], np.arange(3 * 8))
    assert (index[~visual] == -1).all()
    assert visual.sum() == 3 * prompts.tokens_per_picture == 3 * 8


def test_fewer_turns_than_slots_leave_black_pictures_at_the_end(codec):
    prompts = _with(codec, num_screenshots=2, length=512)
    picture = prompts.picture(SCREEN)
    prompt = prompts.make("Go", [Turn(response="a")], picture)
    np.testing.assert_array_equal(prompt.images[0], picture)
    assert not np.asarray(prompt.images[1:]).any()
    assert int(np.max(prompt.image_index)) == 7


def test_padding_is_on_the_left_and_can_be_cut(codec):
    prompt, _ = codec.encode(Observation(instruction="Go", screenshot=SCREEN), ())
    count, length = int(prompt_lengths(prompt)), codec.prompts.length
    segments = np.asarray(prompt.segments)
    assert (segments[: length - count] == -1).all()
    assert (segments[length - count :] == 0).all()
    small = cut_prompt(prompt, bucket_for(count, (16, 64, 256)))
    assert small.tokens.shape[-1] < length
    for name in ("tokens", "segments", "image_index"):
        np.testing.assert_array_equal(
            getattr(small, name)[-count:], getattr(prompt, name)[-count:]
        )
    np.testing.assert_array_equal(
        small.positions[:, -count:], prompt.positions[:, -count:]
    )
    assert int(small.next_position) == int(np.max(prompt.positions)) + 1


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_history_is_kept_no_longer_than_needed(codec, kept):
    prompts = _with(codec, num_responses=3, num_screenshots=kept, length=1024)
    one = dataclasses.replace(codec, prompts=prompts)
    history = ()
    for step in range(6):
        screen = Observation(instruction="Go", screenshot=SCREEN + step)
        _, context = one.encode(screen, history)
        action = Action(kind=ActionKind.CLICK, x=step / 10, y=0.5)
        tokens = one.encode_action(action, screen, context)
        history = one.remember(history, tokens, action, screen, context)
    assert len(history) == 3
    assert all(turn.response.startswith("Action: click(") for turn in history)
    assert [turn.image is not None for turn in history] == [kept > 0] * 3


WAIT = Action(kind=ActionKind.WAIT)
ACTIONS = [
    Action(kind=ActionKind.CLICK, x=0.25, y=0.5),
    Action(kind=ActionKind.DOUBLE_CLICK, x=0.0, y=1.0),
    Action(kind=ActionKind.RIGHT_CLICK, x=1.0, y=0.0),
    Action(kind=ActionKind.DRAG, x=0.25, y=0.5, to_x=0.75, to_y=1.0),
    Action(kind=ActionKind.TYPE, text='it\'s \\ "ünïcode" 漢字\n'),
    Action(kind=ActionKind.PRESS, keys=("ctrl", "s")),
    Action(kind=ActionKind.SCROLL_DOWN, amount=5.0),
    Action(kind=ActionKind.SCROLL_UP, x=0.5, y=0.5, amount=5.0),
    Action(kind=ActionKind.ENTER),
    Action(kind=ActionKind.WAIT),
    Action(kind=ActionKind.DONE),
    Action(kind=ActionKind.FAIL),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda one: one.kind.name)
def test_actions_become_tokens_and_come_back(codec, action):
    screen = Observation(instruction="Go", screenshot=SCREEN)
    tokens = codec.encode_action(action, screen, None)
    assert tokens is not None and tokens.shape == (64,)
    back = codec.decode(tokens, screen, None)
    right, bottom = codec.prompts.coordinates
    for name, edge in (("x", right), ("y", bottom), ("to_x", right), ("to_y", bottom)):
        wanted, found = getattr(action, name), getattr(back, name)
        assert (wanted is None) == (found is None)
        if wanted is not None:
            assert abs(wanted - found) <= 0.5 / edge + 1e-9
    places = {"x": None, "y": None, "to_x": None, "to_y": None}
    assert dataclasses.replace(back, **places) == dataclasses.replace(action, **places)
    meant = codec.tokens_meant(tokens)
    assert meant[: meant.sum()].all()
    assert tokens[meant.sum() - 1] == codec.prompts.tokenizer.id_of("<|im_end|>")


STOPS = ("</s>", "\nObservation:")


@pytest.mark.parametrize("tail", ["</s>", "\nObservation: a page", "</s>!!!", ""])
def test_a_response_ends_at_the_first_text_that_stops_it(codec, tail):
    """As samplers leave it: the text that stopped it is there, then padding."""
    stopping = dataclasses.replace(codec, stop=STOPS)
    screen = Observation(instruction="")
    tokens = np.zeros(64, np.int32) if tail else codec.encode_action(WAIT, screen, None)
    ids = codec.prompts.tokenizer.encode("Action: wait()" + tail)
    tokens[: len(ids)] = ids
    assert stopping.decode(tokens, screen, None) == WAIT
    (turn,) = stopping.remember((), tokens, WAIT, screen, None)
    assert turn.response == "Action: wait()"
    if tail:
        assert codec.decode(tokens, screen, None).kind == ActionKind.INVALID


def test_no_action_is_written_that_would_be_read_only_in_part(codec):
    stopping = dataclasses.replace(codec, stop=STOPS)
    screen = Observation(instruction="")
    typed = Action(kind=ActionKind.TYPE, text="a</s>b")
    assert stopping.encode_action(typed, screen, None) is None
    assert codec.encode_action(typed, screen, None) is not None


@pytest.mark.parametrize("stop", ["</s>", ("a", "")])
def test_texts_that_stop_nothing_are_named(codec, stop):
    with pytest.raises(ValueError, match="stop must be texts"):
        dataclasses.replace(codec, stop=stop)


@pytest.fixture(scope="module")
def phone(tmp_path_factory) -> VLCodec:
    folder = tmp_path_factory.mktemp("phone")
    make_tiny_checkpoint(folder, "qwen2_5_vl")
    return vl_codec_for(folder, height=100, width=60, num_tokens=64, mobile=True)


TYPED = Action(kind=ActionKind.TYPE, text="ann")
PHONE_ACTIONS = [
    Action(kind=ActionKind.CLICK, x=0.25, y=0.5),
    Action(kind=ActionKind.LONG_PRESS, x=0.0, y=1.0),
    Action(kind=ActionKind.SEQUENCE, parts=(TYPED, Action(kind=ActionKind.ENTER))),
    Action(kind=ActionKind.SCROLL_DOWN, x=0.5, y=0.5),
    Action(kind=ActionKind.DRAG, x=0.5, y=0.5, to_x=0.0, to_y=1.0),
    *(Action(kind=ActionKind[name]) for name in ("ENTER", "HOME", "BACK", "FAIL")),
    Action(kind=ActionKind.OPEN_APP, text="Clock"),
    Action(kind=ActionKind.DONE, text="7"),
    TYPED,
]


@pytest.mark.parametrize("action", PHONE_ACTIONS, ids=lambda one: one.kind.name)
def test_a_phone_has_its_own_language(phone, action):
    screen = Observation(instruction="Go")
    tokens = phone.encode_action(action, screen, None)
    back = phone.decode(tokens, screen, None)
    for name, edge in (("x", 56), ("y", 112), ("to_x", 56), ("to_y", 112)):
        wanted, found = getattr(action, name), getattr(back, name)
        assert wanted is None or abs(wanted - found) <= 0.5 / edge + 1e-9
    places = {"x": None, "y": None, "to_x": None, "to_y": None}
    assert dataclasses.replace(back, **places) == dataclasses.replace(action, **places)


def test_a_phone_is_told_of_its_actions_and_knows_no_others(phone, codec):
    assert phone.prompts.wording == MOBILE_WORDING != WORDING
    for name in ("long_press", "open_app", "press_home", "press_back", "drag"):
        assert name in MOBILE_WORDING
    assert "hotkey" not in MOBILE_WORDING and "right_single" not in MOBILE_WORDING
    screen = Observation(instruction="Go", screenshot=SCREEN)
    told = np.asarray(phone.encode(screen, ())[0].tokens)
    text = phone.prompts.tokenizer.decode(told)
    assert "You operate a phone" in text and "up to 56" in text
    desktop_only = Action(kind=ActionKind.PRESS, keys=("ctrl", "s"))
    assert phone.encode_action(desktop_only, screen, None) is None
    tokens = codec.encode_action(desktop_only, screen, None)
    assert phone.decode(tokens, screen, None).text == "no action of a phone"
    assert not codec.mobile and "mobile=True" in repr(phone)


def test_coordinates_are_thousandths_or_pixels_of_the_resized_picture(codec):
    grid = codec.prompts.config.architecture == "qwen2_vl"
    assert codec.prompts.coordinates == ((1000, 1000) if grid else (112, 56))
    response = (
        "Thought: there.\nAction: click(start_box='<|box_start|>(56,28)<|box_end|>')"
    )
    ids = codec.prompts.tokenizer.encode(response)
    tokens = np.resize(np.array([*ids, codec.prompts.tokenizer.pad_id]), 64)
    action = codec.decode(tokens, Observation(instruction=""), None)
    assert (action.x, action.y) == ((0.056, 0.028) if grid else (0.5, 0.5))


def test_what_has_no_tokens_is_none_and_widgets_become_places(codec):
    widget = Widget(role="button", label="Save", box=(0.2, 0.4, 0.4, 0.6))
    screen = Observation(instruction="Go", screenshot=SCREEN, widgets=(widget,))
    aimed = Action(kind=ActionKind.CLICK, widget=0)
    back = codec.decode(codec.encode_action(aimed, screen, None), screen, None)
    assert back.x == pytest.approx(0.3, abs=0.01) and back.y == pytest.approx(
        0.5, abs=0.01
    )
    for nothing in (
        Action(kind=ActionKind.CLICK),
        Action(kind=ActionKind.CLICK, widget=5),
        Action(kind=ActionKind.CLICK, x=1.5, y=0.5),
        Action(kind=ActionKind.MOUSE_DOWN),
        Action(kind=ActionKind.TYPE, text="long " * 100),
        Action(kind=ActionKind.TYPE, text="<|im_end|>"),
        Action(kind=ActionKind.TYPE, text="half \ud800"),
    ):
        assert codec.encode_action(nothing, screen, None) is None


def test_decoding_never_raises(codec):
    rng = np.random.default_rng(0)
    screen = Observation(instruction="")
    arrays = [rng.integers(-5, 600, size=64) for _ in range(200)]
    arrays += [
        np.full(64, 2**31 - 1),
        np.full(64, -1),
        np.zeros(64),
        np.zeros((2, 3), int),
        np.zeros(0, int),
        np.array(["a"]),
        np.full(64, 2**40),
    ]
    for tokens in arrays:
        assert isinstance(codec.decode(tokens, screen, None), Action)
        if tokens.ndim == 1 and np.issubdtype(tokens.dtype, np.integer):
            codec.remember((), tokens, Action(kind=ActionKind.WAIT), screen, None)


def test_hostile_text_cannot_pose_as_structure(codec):
    prompts = codec.prompts
    hostile = "".join(STRUCTURE) + "<|im_<|im_end|>end|>\ud800 {instruction} {unit}"
    plain = prompts.make("x", [], prompts.picture(None))
    prompt = prompts.make(hostile, [Turn(response=hostile)], prompts.picture(None))
    special = [prompts.tokenizer.id_of(token) for token in STRUCTURE]

    def counts(of, less):
        tokens = np.asarray(of.tokens)[np.asarray(of.segments) >= 0]
        return [int((tokens == one).sum()) - extra for one, extra in less]

    # One turn more is one message more, and nothing else.
    start, end = prompts.tokenizer.id_of("<|im_start|>"), special[2]
    more = [(one, int(one in (start, end))) for one in special]
    assert counts(prompt, more) == counts(plain, [(one, 0) for one in special])


def test_empty_prompt_has_the_shapes_of_all_prompts(codec):
    prompt, _ = codec.encode(Observation(instruction="Go", screenshot=SCREEN), ())
    empty = codec.empty_prompt()
    for one, other in zip(
        dataclasses.astuple(prompt), dataclasses.astuple(empty), strict=True
    ):
        assert one.shape == other.shape and one.dtype == other.dtype
    assert "0x" not in repr(codec)  # goes into digests of what depends on it


def test_too_long_prompts_name_both_lengths(codec):
    with pytest.raises(ValueError, match=r"prompt has \d+ tokens.* holds 512"):
        _with(codec, length=512).make("word " * 600, [], codec.prompts.picture(None))


def _said(prompt, codec: VLCodec) -> str:
    tokens = np.asarray(prompt.tokens)[np.asarray(prompt.segments) >= 0]
    return codec.prompts.tokenizer.decode(tokens)


@pytest.mark.parametrize("said", ["<|vision_start|>", "<|image_pad|> x", "Ж"])
def test_nothing_that_a_model_says_makes_later_prompts_too_long(codec, said):
    """Structure that it wrote is more tokens once it is written as plain text."""
    tokenizer = codec.prompts.tokenizer
    tokens = np.resize(np.array(tokenizer.encode(said)), codec.num_tokens)
    screen = Observation(instruction="word " * 90, screenshot=SCREEN)
    history = ()
    for _ in range(4):
        prompt, context = codec.encode(screen, history)
        assert _said(prompt, codec).count("assistant\n") == len(history) + 1
        history = codec.remember(history, tokens, WAIT, screen, context)
    for turn in history:
        shown = tokenizer.encode(tokenizer.plain_text(turn.response))
        assert 0 < len(shown) <= codec.num_tokens


def test_the_oldest_turns_go_where_not_all_fit(codec):
    turns = [
        Turn(response=f"answer {n}", image=codec.prompts.picture(SCREEN + n))
        for n in range(4)
    ]
    picture = codec.prompts.picture(SCREEN + 4)
    roomy = _with(codec, num_screenshots=3, length=1024)
    counts = [
        int(prompt_lengths(roomy.make("Go", turns[4 - n :], picture))) for n in range(4)
    ]
    for kept, length in enumerate(counts):
        tight = dataclasses.replace(roomy, length=length + 1)
        prompt = tight.make("Go", turns, picture)
        text = _said(prompt, codec)
        shown = [f"answer {n}" in text for n in range(4)]
        assert shown == [n >= 4 - kept for n in range(4)]
        wanted = [turn.image for turn in turns[4 - kept :]] + [picture]
        np.testing.assert_array_equal(prompt.images[: kept + 1], wanted)
    with pytest.raises(PromptLengthError, match="without any earlier turn"):
        dataclasses.replace(roomy, length=counts[0] - 1).make("Go", turns, picture)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 50}, "height must be a multiple of 28, got 50"),
        ({"width": 0}, "width must be a multiple of 28, got 0"),
        ({"num_responses": -1}, "num_responses must be >= 0"),
        ({"wording": "Do it"}, "wording must contain {instruction}"),
        ({"length": 8}, "length must exceed the 8 tokens of 1 pictures"),
    ],
)
def test_bad_settings_are_named(codec, changes, message):
    with pytest.raises(ValueError, match=message):
        _with(codec, **changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_mean", [0.5, 0.5, 0.5]),
        ("image_std", [0.5, 0.5, 0.5]),
        ("patch_size", 16),
        ("merge_size", 1),
        ("temporal_patch_size", 1),
    ],
)
def test_pictures_that_the_tower_does_not_know_are_named(tmp_path, name, value):
    make_tiny_checkpoint(tmp_path, "qwen2_5_vl")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(ValueError, match=rf"{name} .* must be .*got [(\d]") as caught:
        vl_codec_for(tmp_path, height=60, width=100)
    assert "\n" not in str(caught.value)


def test_a_template_without_pictures_is_refused(codec, tmp_path):
    make_tiny_checkpoint(tmp_path, codec.prompts.config.architecture)
    template = "{% for m in messages %}{{ m.content[0].text }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="wrote 0 pictures for 1"):
        vl_codec_for(tmp_path, height=60, width=100).empty_prompt()
