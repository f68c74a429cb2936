import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import ActionKind
from stepjax.envs.grammars import format_computer_13, parse_computer_13
from tests.envs import programs as draw
from tests.envs.programs import SCREEN, action

CLICK = action("CLICK", x=100 / 1920, y=200 / 1080)


def parse(data):
    return parse_computer_13(data, **SCREEN)


def write(wanted):
    return format_computer_13(wanted, **SCREEN)


def given_as(name, /, **parameters):
    return {"action_type": name, "parameters": parameters}


def sequence(*parts):
    return action("SEQUENCE", parts=parts)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (given_as("CLICK", x=100, y=200), CLICK),
        (given_as("click", x=100.0, y=200, button="left", num_clicks=1), CLICK),
        ({"action_type": "CLICK", "x": 100, "y": 200}, CLICK),
        (given_as("CLICK", x=100, y=200, button=None, text=None), CLICK),
        ('{"action_type": "CLICK", "x": 100, "y": 200}', CLICK),
        ('It is there.\n```json\n{"action_type":"CLICK","x":100,"y":200}\n```', CLICK),
        ([given_as("CLICK", x=100, y=200)], CLICK),
        (given_as("CLICK"), action("CLICK")),
        ({"action_type": "CLICK"}, action("CLICK")),
        (given_as("CLICK", num_clicks=2), action("DOUBLE_CLICK")),
        (given_as("CLICK", num_clicks=3), action("TRIPLE_CLICK")),
        (given_as("CLICK", button="MIDDLE"), action("MIDDLE_CLICK")),
        (
            given_as("CLICK", button="right", num_clicks=2),
            sequence(*[action("RIGHT_CLICK")] * 2),
        ),
        (given_as("RIGHT_CLICK", x=0, y=0), action("RIGHT_CLICK", x=0.0, y=0.0)),
        (given_as("DOUBLE_CLICK"), action("DOUBLE_CLICK")),
        (given_as("MOVE_TO", x=960, y=540), action("MOVE", x=0.5, y=0.5)),
        (given_as("DRAG_TO", x=960, y=540), action("DRAG", to_x=0.5, to_y=0.5)),
        (
            [given_as("MOVE_TO", x=0, y=0), given_as("DRAG_TO", x=960, y=540)],
            action("DRAG", x=0.0, y=0.0, to_x=0.5, to_y=0.5),
        ),
        (given_as("MOUSE_DOWN"), action("MOUSE_DOWN")),
        (given_as("MOUSE_UP", button="right"), action("MOUSE_UP", button="right")),
        (given_as("SCROLL", dx=0, dy=-5), action("SCROLL_DOWN", amount=5.0)),
        (given_as("SCROLL", dy=3), action("SCROLL_UP", amount=3.0)),
        (
            given_as("SCROLL", dx=2, dy=3),
            sequence(
                action("SCROLL_RIGHT", amount=2.0), action("SCROLL_UP", amount=3.0)
            ),
        ),
        (given_as("TYPING", text="<ü\n"), action("TYPE", text="<ü\n")),
        (given_as("PRESS", key="enter"), action("ENTER")),
        (given_as("PRESS", key="A"), action("PRESS", keys=("shift", "a"))),
        (given_as("HOTKEY", keys=["ctrl", "c"]), action("PRESS", keys=("ctrl", "c"))),
        (given_as("KEY_DOWN", key="win"), action("KEY_DOWN", keys=("meta",))),
        (given_as("KEY_UP", key="esc"), action("KEY_UP", keys=("escape",))),
        ({"action_type": "WAIT"}, action("WAIT")),
        (given_as("DONE"), action("DONE")),
        ("FAIL", action("FAIL")),
        ("```WAIT```", action("WAIT")),
        (["DONE"], action("DONE")),
    ],
)
def test_known_dictionaries(data, expected):
    assert parse(data) == expected


class Odd(dict):
    """A dictionary that lies about its length."""

    def __len__(self):
        return 1


ROUND: dict = {"action_type": "CLICK"}
ROUND["parameters"] = ROUND


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "not a dictionary"),
        (1, "not a dictionary"),
        (b"WAIT", "not a dictionary"),
        ("", "not a JSON object"),
        ("wait", "not a JSON object"),
        ("null", "not a dictionary"),
        ('{"action_type": "CLICK"', "not a JSON object"),
        ("{'action_type': 'CLICK'}", "not a JSON object"),
        ('{"action_type": "WAIT", "action_type": "DONE"}', "given twice"),
        ('{"action_type": "CLICK", "x": ' + "9" * 5000 + ', "y": 1}', "JSON|outside"),
        ('{"action_type": "CLICK", "x": NaN, "y": 1}', "x is outside"),
        ('{"action_type": "CLICK", "x": Infinity, "y": 1}', "x is outside"),
        ('{"action_type": "CLICK", "x": 1e999, "y": 1}', "x is outside"),
        ("[" * 20_000, "not a JSON object"),
        ("[" * 10_000 + "]" * 10_000, "not a JSON object"),
        ("[" * 99 + "]" * 99, "not a dictionary"),
        ('{"a":' * 3000, "not a JSON object"),
        ("[" * 20_001, "longer than"),
        ("```json\n{}\n``` ```json\n{}\n```", "one code block"),
        ("```json\n{}", "one code block"),
        ({}, "unknown action_type"),
        ([], "no action"),
        ([[]], "not a dictionary"),
        ({"action_type": "REBOOT"}, "unknown action_type"),
        ({"action_type": "CLICK" * 10**6}, "unknown action_type"),
        ({"action_type": ["CLICK"]}, "unknown action_type"),
        ({"action_type": None}, "unknown action_type"),
        ({"action_type": "CLICK", "parameters": [1, 2]}, "not a dictionary"),
        ({"action_type": "CLICK", "parameters": {}, "x": 1}, "not a dictionary"),
        ({str(number): None for number in range(9)}, "not a dictionary"),
        (ROUND, "unknown parameter"),
        (Odd(action_type="CLICK", x=1, y=1, z=1), "unknown parameter"),
        (given_as("CLICK", x=1, y=1, force=True), "unknown parameter"),
        (given_as("WAIT", seconds=1), "unknown parameter"),
        (given_as("CLICK", x=1), "both x and y"),
        (given_as("CLICK", x="1", y="2"), "not a number"),
        (given_as("CLICK", x=True, y=False), "not a number"),
        (given_as("CLICK", x=10**400, y=1), "x is outside"),
        (given_as("CLICK", x=float("nan"), y=1), "x is outside"),
        (given_as("CLICK", x=-1, y=1), "outside the screen"),
        (given_as("CLICK", x=1921, y=1), "outside the screen"),
        (given_as("CLICK", num_clicks=4), "num_clicks is outside"),
        (given_as("CLICK", num_clicks=1.5), "whole number"),
        (given_as("CLICK", button=1), "button"),
        (given_as("CLICK", button="up"), "button"),
        (given_as("MOVE_TO"), "needs x and y"),
        (given_as("DRAG_TO", x=1, y=1, button="right"), "unknown parameter"),
        (given_as("SCROLL"), "does nothing"),
        (given_as("SCROLL", dx=0, dy=0), "does nothing"),
        (given_as("SCROLL", dy=""), "not a number"),
        (given_as("SCROLL", dy=10**6), "dy is outside"),
        (given_as("SCROLL", dy=0.5), "whole number"),
        (given_as("TYPING"), "not text"),
        (given_as("TYPING", text=["a"]), "not text"),
        (given_as("TYPING", text="a\x00"), "control characters"),
        (given_as("TYPING", text="\ud800"), "control characters"),
        (given_as("TYPING", text="x" * 10**7), "longer than"),
        (given_as("PRESS"), "not text"),
        (given_as("PRESS", key="x" * 10**7), "unknown key"),
        (given_as("PRESS", key="$(reboot)"), "unknown key"),
        (given_as("HOTKEY", keys="ctrl c"), "not a list"),
        (given_as("HOTKEY", keys=[]), "1 to 5 keys"),
        (given_as("HOTKEY", keys=["a"] * 10**6), "1 to 5 keys"),
        (given_as("HOTKEY", keys=["ctrl", 1]), "not text"),
        (given_as("KEY_DOWN", key="A"), "no Shift"),
        (["WAIT", "DONE"], "stand alone"),
        ([given_as("CLICK"), given_as("DONE")], "stand alone"),
        ([given_as("CLICK")] * 101, "more than 100"),
        ([given_as("TYPING", text="x" * 4096)] * 5, "characters to type"),
        ([given_as("CLICK")] * 10**6, "more than 100"),
    ],
)
def test_data_outside_the_grammar_is_invalid(data, reason):
    result = parse(data)
    assert result.kind is ActionKind.INVALID
    assert re.search(reason, result.text), result.text
    draw.check_any(result)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)
_NAMES = "CLICK MOVE_TO SCROLL TYPING HOTKEY PRESS MOUSE_DOWN KEY_UP WAIT".split()
_PARAMETERS = "x y dx dy button num_clicks text key keys".split()
_VALUES = _JSON | st.integers(0, 2000) | st.sampled_from(["left", "ctrl", "a"])
_ALMOST = st.builds(
    lambda name, given: {"action_type": name, "parameters": given},
    st.sampled_from(_NAMES),
    st.dictionaries(st.sampled_from(_PARAMETERS), _VALUES, max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(_JSON | _ALMOST | st.lists(_ALMOST, max_size=3) | st.text(max_size=60))
def test_any_data_gives_an_action(data):
    draw.check_any(parse(data))


_NO_BUTTON = ["left"]
_SINGLE = st.one_of(
    draw.placed(draw.CLICKS, keys=draw.HELD),
    draw.drags(_NO_BUTTON),
    draw.placed(["MOVE"], draw.PLACE),
    draw.placed(draw.SCROLLS, draw.NO_PLACE, amount=draw.NOTCHES),
    draw.placed(
        ["MOUSE_DOWN", "MOUSE_UP"],
        draw.NO_PLACE,
        button=st.sampled_from(draw.BUTTONS),
    ),
    draw.PRESSES,
    draw.HELD_KEYS,
    draw.TYPING,
)
_ACTIONS = st.one_of(_SINGLE, draw.ENDS, draw.sequences(_SINGLE))


@settings(max_examples=500, deadline=None)
@given(_ACTIONS)
def test_round_trip(wanted):
    data = write(wanted)
    assert parse(data) == wanted
    assert parse(json.dumps(data, ensure_ascii=False)) == wanted


@settings(max_examples=200, deadline=None)
@given(draw.mutated(_ACTIONS.map(write).map(json.dumps)))
def test_mutated_text_gives_an_action(text):
    draw.check_any(parse(text))


def test_a_scroll_without_an_amount_gets_one():
    data = write(action("SCROLL_LEFT"))
    assert data == given_as("SCROLL", dx=-5, dy=0)
    assert parse(data) == action("SCROLL_LEFT", amount=5.0)


@pytest.mark.parametrize(
    "unsayable",
    [
        action("ANSWER", text="4"),
        action("INVALID", text="no"),
        action("OPEN_APP", text="Clock"),
        action("BACK"),
        action("HOME"),
        action("LONG_PRESS", x=0.5, y=0.5),
        action("DONE", text="42"),
        action("WAIT", amount=1.0),
        action("TYPE", text="a", x=0.5, y=0.5),
        action("TYPE", text="a\x00"),
        action("CLICK", widget=3),
        action("CLICK", y=0.5),
        action("CLICK", x=-0.1, y=0.5),
        action("CLICK", keys=("any",)),
        action("MOVE"),
        action("MOUSE_DOWN", x=0.5, y=0.5),
        action("MOUSE_DOWN", button="up"),
        action("DRAG", to_x=0.5, to_y=0.5, button="right"),
        action("SCROLL_UP", x=0.5, y=0.5, amount=1.0),
        action("SCROLL_UP", amount=1.5),
        action("PRESS"),
        action("KEY_DOWN", keys=("a", "b")),
        action("KEY_UP"),
        action("SEQUENCE"),
        sequence(CLICK, action("DONE")),
        sequence(CLICK, sequence(CLICK, CLICK)),
    ],
    ids=lambda one: one.kind.name,
)
def test_what_cannot_be_said_is_an_error(unsayable):
    with pytest.raises(ValueError, match="format_computer_13: "):
        write(unsayable)
