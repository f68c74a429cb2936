import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import ActionKind
from stepjax.envs.desktop.input_plan import MAX_NOTCHES, MAX_SLEEP, plan
from stepjax.envs.grammars import (
    parse_computer_13,
    parse_pyautogui,
    parse_ui_tars,
)
from stepjax.envs.grammars.keys import KEYSYMS
from tests.envs import programs as draw
from tests.envs.programs import SCREEN, action

FIELDS = {
    "move": {"x", "y"},
    "button": {"button", "down"},
    "click": {"button", "count"},
    "key": {"keysym", "down"},
    "press": {"keys"},
    "type": {"text"},
    "sleep": {"seconds"},
}


def planned(wanted):
    return list(plan(wanted, **SCREEN))


def move(x, y):
    return {"op": "move", "x": x, "y": y}


def click(button, count=1):
    return {"op": "click", "button": button, "count": count}


def key(keysym, down):
    return {"op": "key", "keysym": keysym, "down": down}


def button(number, down):
    return {"op": "button", "button": number, "down": down}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (action("CLICK", x=0.5, y=0.5), [move(960, 540), click(1)]),
        (action("CLICK", x=1.0, y=1.0), [move(1919, 1079), click(1)]),
        (action("CLICK"), [click(1)]),
        (action("DOUBLE_CLICK"), [click(1, 2)]),
        (action("TRIPLE_CLICK"), [click(1, 3)]),
        (action("MIDDLE_CLICK"), [click(2)]),
        (action("RIGHT_CLICK"), [click(3)]),
        (
            action("CLICK", x=0.0, y=0.0, keys=("ctrl", "shift")),
            [key("Control_L", True), key("Shift_L", True), move(0, 0), click(1)]
            + [key("Shift_L", False), key("Control_L", False)],
        ),
        (action("MOVE", x=0.5, y=0.5, widget=7), [move(960, 540)]),
        (action("SCROLL_UP", x=0.5, y=0.5), [move(960, 540), click(4, 5)]),
        (action("SCROLL_DOWN", amount=2.0), [click(5, 2)]),
        (action("SCROLL_LEFT", amount=1.0), [click(6, 1)]),
        (action("SCROLL_RIGHT", amount=10_000.0), [click(7, MAX_NOTCHES)]),
        (action("MOUSE_DOWN", button="right"), [button(3, True)]),
        (action("MOUSE_UP", x=0.0, y=0.0), [move(0, 0), button(1, False)]),
        (action("KEY_DOWN", keys=("alt",)), [key("Alt_L", True)]),
        (action("KEY_UP", keys=("alt",)), [key("Alt_L", False)]),
        (
            action("PRESS", keys=("ctrl", "alt", "t")),
            [{"op": "press", "keys": ["Control_L", "Alt_L", "t"]}],
        ),
        (action("PRESS", keys=("<",)), [{"op": "press", "keys": ["less"]}]),
        (action("ENTER"), [{"op": "press", "keys": ["Return"]}]),
        (action("ESCAPE"), [{"op": "press", "keys": ["Escape"]}]),
        (action("TYPE", text="<´é你\n"), [{"op": "type", "text": "<´é你\n"}]),
        (
            action("TYPE", text="a", x=0.5, y=0.5),
            [move(960, 540), click(1), {"op": "type", "text": "a"}],
        ),
        (action("WAIT"), [{"op": "sleep", "seconds": 1.0}]),
        (action("WAIT", amount=0.25), [{"op": "sleep", "seconds": 0.25}]),
        (action("WAIT", amount=60.0), [{"op": "sleep", "seconds": MAX_SLEEP}]),
        (action("WAIT", amount=0.0), []),
        *(
            (action(kind, text="any"), [])
            for kind in "DONE FAIL ANSWER INVALID OPEN_APP BACK HOME".split()
        ),
        (
            action("SEQUENCE", parts=(action("CLICK"), action("ENTER"))),
            [click(1), {"op": "press", "keys": ["Return"]}],
        ),
    ],
    ids=lambda value: getattr(getattr(value, "kind", None), "name", None),
)
def test_plans(wanted, expected):
    assert planned(wanted) == expected


def test_drags_move_in_small_steps():
    wanted = action("DRAG", x=0.0, y=0.0, to_x=0.5, to_y=0.5, button="middle")
    first, down, *between, up = planned(wanted)
    assert (first, down, up) == (move(0, 0), button(2, True), button(2, False))
    places = [(one["x"], one["y"]) for one in between if one["op"] == "move"]
    assert len(places) >= 4 and places == sorted(set(places))
    assert places[-1] == (960, 540)


def test_drags_start_where_the_pointer_was_left():
    parts = (action("MOVE", x=0.5, y=0.5), action("DRAG", to_x=0.5, to_y=1.0))
    moves = [
        operation
        for operation in planned(action("SEQUENCE", parts=parts))
        if operation["op"] == "move"
    ]
    assert moves[0] == move(960, 540) and moves[-1] == move(960, 1079)
    assert all(one["x"] == 960 for one in moves)
    bare = [
        one
        for one in planned(action("DRAG", to_x=0.5, to_y=0.5))
        if one["op"] == "move"
    ]
    assert bare[-1] == move(960, 540) and len(bare) > 1


def test_sleep_is_limited_in_all():
    parts = (action("WAIT", amount=4.0),) * 100
    sleeps = planned(action("SEQUENCE", parts=parts))
    assert sum(one["seconds"] for one in sleeps) == MAX_SLEEP
    assert len(sleeps) == 2


@pytest.mark.parametrize("kind", list(ActionKind), ids=lambda kind: kind.name)
def test_every_kind_is_planned_or_refused(kind):
    for fields in ({}, {"x": 0.5, "y": 0.5}, {"to_x": 0.1, "to_y": 0.1}):
        for keys in ((), ("ctrl",)):
            wanted = action(kind.name, keys=keys, text="a", **fields)
            try:
                check_operations(planned(wanted))
            except ValueError as error:
                assert str(error).startswith("plan: ")


@pytest.mark.parametrize(
    "wrong",
    [
        action("CLICK", x=1.1, y=0.5),
        action("CLICK", x=float("nan"), y=0.5),
        action("CLICK", x=0.5),
        action("CLICK", widget=3),
        action("TYPE", text="a", widget=3),
        action("TYPE", text="\ud800"),
        action("MOVE"),
        action("DRAG", x=0.5, y=0.5),
        action("DRAG", to_x=0.5, to_y=0.5, button="up"),
        action("MOUSE_DOWN", button="up"),
        action("PRESS"),
        action("PRESS", keys=("any",)),
        action("KEY_DOWN"),
        action("WAIT", amount=-1.0),
        action("WAIT", amount=float("nan")),
        action("SCROLL_UP", amount=float("inf")),
        action("SEQUENCE"),
        action("SEQUENCE", parts=(action("TYPE", text="x" * 4096),) * 5),
        action(
            "SEQUENCE",
            parts=(action("DRAG", x=0, y=0, to_x=1, to_y=1, keys=("a",) * 5),) * 100,
        ),
    ],
    ids=lambda one: one.kind.name,
)
def test_wrong_fields_are_named(wrong):
    with pytest.raises(ValueError, match="plan: "):
        planned(wrong)


def check_operations(operations):
    for operation in operations:
        given = dict(operation)
        assert set(given) - {"op"} == FIELDS[given["op"]]
        if given["op"] == "move":
            assert 0 <= given["x"] < 1920 and 0 <= given["y"] < 1080
        for keysym in given.get("keys", [given.get("keysym", "a")]):
            assert keysym in KEYSYMS.values()
        assert given.get("button", 1) in range(1, 8)
        assert 0 < given.get("count", 1) <= MAX_NOTCHES
    sleeps = [one["seconds"] for one in operations if one["op"] == "sleep"]
    assert sum(sleeps) <= MAX_SLEEP + 1e-9
    assert json.loads(json.dumps(operations)) == operations


_TEXTS = st.one_of(
    draw.mutated(
        st.sampled_from(
            [
                "pyautogui.moveTo(1, 2); pyautogui.dragTo(3, 4)",
                "pyautogui.click(1, 2, clicks=3); time.sleep(2); time.sleep(9)",
                "pyautogui.hotkey('ctrl', 's'); pyautogui.write('<é')",
                "pyautogui.scroll(-500); pyautogui.hscroll(3, 4, 5)",
            ]
        )
    ),
    draw.mutated(st.just("drag(start_box='(1,2)', end_box='(3,4)')")),
    draw.mutated(st.just('{"action_type": "SCROLL", "dx": 1, "dy": -99}')),
)


def test_the_server_in_the_desktop_takes_every_plan():
    from stepjax.envs.desktop.inside.operations import check_operations as check

    many = (action("DRAG", x=0, y=0, to_x=1, to_y=1, keys=("ctrl",) * 3),) * 90
    for wanted in (
        action("SEQUENCE", parts=many),
        action("SEQUENCE", parts=(action("WAIT", amount=60.0),) * 100),
        action("SEQUENCE", parts=(action("SCROLL_LEFT", amount=10_000.0),) * 100),
        action("SEQUENCE", parts=(action("TYPE", text="x" * 4000),) * 5),
        action("PRESS", keys=("ctrl", "alt", "shift", "meta", "delete")),
    ):
        operations = planned(wanted)
        assert check(operations, **SCREEN) == operations


@settings(max_examples=300, deadline=None)
@given(_TEXTS)
def test_whatever_a_grammar_reads_has_a_plan(text):
    for parse in (parse_pyautogui, parse_computer_13, parse_ui_tars):
        check_operations(planned(parse(text, **SCREEN)))
