import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars import (
    format_android_world,
    format_ui_tars_mobile,
    parse_android_world,
    parse_ui_tars_mobile,
)

WIDTH, HEIGHT = 1080, 2400


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def action(kind, **fields) -> Action:
    return Action(kind=ActionKind[kind], **fields)


def read(data, **options):
    return parse_android_world(data, width=WIDTH, height=HEIGHT, **options)


def write(one):
    return format_android_world(one, width=WIDTH, height=HEIGHT)


ENTRIES = [
    ({"action_type": "click", "x": 540, "y": 600}, action("CLICK", x=0.5, y=0.25)),
    ({"action_type": "click", "index": 3}, action("CLICK", widget=3)),
    ({"action_type": "double_tap", "x": 0, "y": 0}, action("DOUBLE_CLICK", x=0, y=0)),
    ({"action_type": "long_press", "index": 0}, action("LONG_PRESS", widget=0)),
    (
        {"action_type": "input_text", "text": "ann", "index": 1, "clear_text": True},
        action("TYPE", text="ann", widget=1),
    ),
    (
        {"action_type": "input_text", "text": "ann", "index": 1},
        action(
            "SEQUENCE", parts=(action("CLICK", widget=1), action("TYPE", text="ann"))
        ),
    ),
    ({"action_type": "input_text", "text": "ann"}, action("TYPE", text="ann")),
    ({"action_type": "scroll", "direction": "down"}, action("SCROLL_DOWN")),
    (
        {"action_type": "scroll", "direction": "left", "index": 2},
        action("SCROLL_LEFT", widget=2),
    ),
    (
        {"action_type": "swipe", "direction": "up"},
        action("DRAG", x=0.5, y=1.0, to_x=0.5, to_y=0.0),
    ),
    ({"action_type": "navigate_home"}, action("HOME")),
    ({"action_type": "navigate_back"}, action("BACK")),
    ({"action_type": "keyboard_enter"}, action("ENTER")),
    ({"action_type": "wait"}, action("WAIT")),
    ({"action_type": "open_app", "app_name": "VLC"}, action("OPEN_APP", text="VLC")),
    ({"action_type": "answer", "text": "42"}, action("ANSWER", text="42")),
    ({"action_type": "status", "goal_status": "complete"}, action("DONE")),
    ({"action_type": "status", "goal_status": "infeasible"}, action("FAIL")),
    (
        [
            {"action_type": "answer", "text": "42"},
            {"action_type": "status", "goal_status": "complete"},
        ],
        action("DONE", text="42"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), ENTRIES)
def test_android_world_both_ways(data, expected):
    assert read(data) == expected
    assert write(expected) == data
    assert read(json.dumps(data)) == expected


def test_android_world_in_an_answer():
    text = '```json\n{"action_type": "wait", "x": null}\n```'
    assert read(text) == action("WAIT")
    assert read('Reason: it loads.\nAction: {"action_type": "wait"}') == action("WAIT")
    assert read({"action_type": "click", "index": "7"}) == action("CLICK", widget=7)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("tap it", "not a JSON object"),
        ([], "no action"),
        ({"action_type": "unknown"}, "unknown action"),
        ({"action_type": ["click"]}, "action_type is not text"),
        ({"action_type": "click"}, "an index or x and y are needed"),
        ({"action_type": "click", "x": 3}, "a place needs both x and y"),
        ({"action_type": "click", "x": 3, "y": 2401}, "outside the screen"),
        ({"action_type": "click", "x": True, "y": 2}, "not a number"),
        ({"action_type": "click", "index": 1, "x": 3, "y": 3}, "either an index"),
        ({"action_type": "click", "index": 9}, "index is outside 0 to 4"),
        ({"action_type": "click", "index": -1}, "index is outside"),
        ({"action_type": "wait", "x": 1, "y": 1}, "does not take"),
        ({"action_type": "wait", "sudo": "rm"}, "an unknown key"),
        ({"action_type": "wait", "keycode": "KEYCODE_A"}, "does not take"),
        ({"action_type": "status", "goal_status": "ok"}, "goal_status must be"),
        ({"action_type": "scroll", "direction": "in"}, "direction must be"),
        ({"action_type": "input_text"}, "text is missing"),
        ({"action_type": "input_text", "text": 4}, "text is not text"),
        ({"action_type": "input_text", "text": "\x00"}, "control characters"),
        ({"action_type": "input_text", "text": "a", "clear_text": True}, "clear_text"),
        ({"action_type": "open_app", "app_name": " "}, "app_name is empty"),
        ('{"action_type": "wait", "action_type": "wait"}', "given twice"),
        (
            [{"action_type": "status", "goal_status": "complete"}]
            + [{"action_type": "wait"}],
            "actions follow the end",
        ),
    ],
)
def test_android_world_refuses(data, reason):
    found = read(data, num_elements=5)
    assert found.kind is ActionKind.INVALID
    assert reason in found.text


def test_the_last_pixel_is_on_the_screen():
    corner = write(action("CLICK", x=1.0, y=1.0))
    assert (corner["x"], corner["y"]) == (WIDTH - 1, HEIGHT - 1)


@pytest.mark.parametrize(
    "one",
    [
        action("CLICK"),
        action("RIGHT_CLICK", x=0.5, y=0.5),
        action("CLICK", x=0.5, y=1.5),
        action("DRAG", x=0.5, y=0.5, to_x=0.7, to_y=0.5),
        action("SCROLL_DOWN", amount=3.0),
        action("CLICK", x=0.5, y=0.5, keys=("ctrl",)),
        action("PRESS", keys=("ctrl", "c")),
        action("OPEN_APP"),
        action("SEQUENCE"),
        action("INVALID", text="?"),
    ],
)
def test_android_world_has_no_form(one):
    with pytest.raises(ValueError, match="format_android_world"):
        write(one)


def test_the_escape_key_goes_back():
    assert write(action("ESCAPE")) == {"action_type": "navigate_back"}


shares_x = st.integers(0, WIDTH - 1).map(lambda pixel: pixel / WIDTH)
shares_y = st.integers(0, HEIGHT - 1).map(lambda pixel: pixel / HEIGHT)
texts = st.text(
    st.characters(blacklist_categories=["Cc", "Cs"], whitelist_characters="\n\t"),
    max_size=40,
)
aims = st.one_of(
    st.fixed_dictionaries({"x": shares_x, "y": shares_y}),
    st.fixed_dictionaries({"widget": st.integers(0, 99)}),
)
maybe_aims = st.one_of(st.just({}), aims)
TOUCH = ["CLICK", "DOUBLE_CLICK", "LONG_PRESS"]
SCROLL = ["SCROLL_DOWN", "SCROLL_UP", "SCROLL_LEFT", "SCROLL_RIGHT"]
BARE = ["HOME", "BACK", "ENTER", "WAIT"]


def made(kinds, fields):
    return st.builds(
        lambda kind, given: action(kind, **given), st.sampled_from(kinds), fields
    )


named = texts.filter(str.strip).map(lambda text: {"text": text})
singles = st.one_of(
    made(TOUCH, aims),
    made(SCROLL, maybe_aims),
    made(BARE, st.just({})),
    made(["OPEN_APP"], named),
    made(["ANSWER"], texts.map(lambda text: {"text": text})),
    st.builds(lambda aim, text: action("TYPE", text=text, **aim), maybe_aims, texts),
)
sequences = st.lists(singles, min_size=2, max_size=6).map(
    lambda parts: action("SEQUENCE", parts=tuple(parts))
)
ends = st.one_of(
    st.just(action("FAIL")), texts.map(lambda text: action("DONE", text=text))
)


@unhurried
@given(st.one_of(singles, sequences, ends))
def test_android_world_reads_what_it_writes(one):
    assert read(write(one)) == one
    assert read(json.dumps(write(one))) == one


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    "click double_tap long_press scroll swipe input_text navigate_home status answer"
    " open_app wait unknown".split()
)
keys = st.sampled_from(
    "index x y text direction goal_status app_name keycode clear_text".split()
)
near_misses = st.builds(
    lambda name, rest: {"action_type": name, **rest},
    st.one_of(names, json_values),
    st.dictionaries(keys, json_values, max_size=4),
)


@unhurried
@given(st.one_of(json_values, near_misses, st.lists(near_misses, max_size=3)))
def test_android_world_survives_anything(data):
    found = read(data)
    assert isinstance(found, Action)
    for part in (found, *found.parts):
        for share in (part.x, part.y, part.to_x, part.to_y):
            assert share is None or 0 <= share <= 1


@unhurried
@given(st.text(max_size=200))
def test_any_text_is_survived(text):
    read(text)
    read('{"action_type": ' + text)
    parse_ui_tars_mobile(text)
    parse_ui_tars_mobile(f"Action: type(content='{text}')")


MOBILE = [
    ("click(point='<point>250 500</point>')", action("CLICK", x=0.25, y=0.5)),
    ("long_press(point='<point>0 1000</point>')", action("LONG_PRESS", x=0, y=1)),
    ("type(content='ann')", action("TYPE", text="ann")),
    ("type(content='\\n')", action("ENTER")),
    (
        "type(content='ann\\n')",
        action("SEQUENCE", parts=(action("TYPE", text="ann"), action("ENTER"))),
    ),
    (
        "scroll(point='<point>500 500</point>', direction='down')",
        action("SCROLL_DOWN", x=0.5, y=0.5),
    ),
    ("open_app(app_name='Clock')", action("OPEN_APP", text="Clock")),
    (
        "drag(start_point='<point>100 200</point>',"
        " end_point='<point>300 400</point>')",
        action("DRAG", x=0.1, y=0.2, to_x=0.3, to_y=0.4),
    ),
    ("press_home()", action("HOME")),
    ("press_back()", action("BACK")),
    ("wait()", action("WAIT")),
    ("call_user()", action("FAIL")),
    ("finished(content='42')", action("DONE", text="42")),
    ("finished()", action("DONE")),
]


@pytest.mark.parametrize(("text", "expected"), MOBILE)
def test_ui_tars_mobile_both_ways(text, expected):
    assert parse_ui_tars_mobile(text) == expected
    assert format_ui_tars_mobile(expected) == text
    thought = format_ui_tars_mobile(expected, thought="I tap.")
    assert parse_ui_tars_mobile(thought) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hotkey(key='ctrl c')",
        "left_double(point='<point>1 1</point>')",
        "right_single(point='<point>1 1</point>')",
        "scroll(direction='down', amount='3')",
        "hover(point='<point>1 1</point>')",
        "open_app(app_name='')",
        "press_home(x='1')",
        "click(point='<point>1 1001</point>')",
    ],
)
def test_ui_tars_mobile_refuses(text):
    assert parse_ui_tars_mobile(text).kind is ActionKind.INVALID


grid = st.integers(0, 1000).map(lambda pixel: pixel / 1000)
points = st.fixed_dictionaries({"x": grid, "y": grid})
typed = texts.filter(lambda text: not text.endswith("\n"))
mobile = st.one_of(
    made(["CLICK", "LONG_PRESS"], points),
    made(SCROLL, st.one_of(st.just({}), points)),
    made([*BARE, "FAIL"], st.just({})),
    made(["OPEN_APP"], named),
    made(["TYPE"], typed.map(lambda text: {"text": text})),
    made(["DONE"], texts.map(lambda text: {"text": text})),
    st.builds(lambda x, y, a, b: action("DRAG", x=x, y=y, to_x=a, to_y=b),
              grid, grid, grid, grid),
    texts.filter(bool).map(
        lambda text: action(
            "SEQUENCE", parts=(action("TYPE", text=text), action("ENTER"))
        )
    ),
)  # fmt: skip


@unhurried
@given(mobile)
def test_ui_tars_mobile_reads_what_it_writes(one):
    assert parse_ui_tars_mobile(format_ui_tars_mobile(one)) == one


@pytest.mark.parametrize("kind", list(ActionKind), ids=lambda kind: kind.name)
def test_no_field_gets_lost(kind):
    """What is written is read back whole, or not written."""
    full = Action(
        kind=kind, x=0.5, y=0.5, to_x=0.25, to_y=0.25, text="t", keys=("a",),
        amount=2.0, button="right", parts=(action("WAIT"),),
    )  # fmt: skip
    for form in (write, format_ui_tars_mobile):
        with pytest.raises(ValueError):
            form(full)
    assert dataclasses.replace(full) == full
