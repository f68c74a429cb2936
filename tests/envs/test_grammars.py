import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars import format_ui_tars, parse_ui_tars
from stepjax.envs.grammars.calls import (
    MAX_VALUE_CHARS,
    GrammarError,
    format_call,
    scan_call,
)
from stepjax.envs.grammars.keys import (
    KEYS,
    KEYSYMS,
    key_name,
    key_names,
    pyautogui_key,
)
from stepjax.envs.grammars.ui_tars import MAX_RESPONSE_CHARS

CLICK = Action(kind=ActionKind.CLICK, x=0.1, y=0.2)


def action(kind, **fields) -> Action:
    return Action(kind=ActionKind[kind], **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("click(start_box='(100,200)')", CLICK),
        ("click(start_box='<|box_start|>(100,200)<|box_end|>')", CLICK),
        ("click(start_box='[100, 200]')", CLICK),
        ("click(start_box='(50,150,150,250)')", CLICK),
        ("click(point='<point>100 200</point>')", CLICK),
        ('  click ( start_box = "(100,200)" ) \n', CLICK),
        ("Thought: I click.\nAction: click(start_box='(100,200)')", CLICK),
        ("Action: click(start_box='(100,200)')\r\n", CLICK),
        ("left_double(start_box='(0,0)')", action("DOUBLE_CLICK", x=0.0, y=0.0)),
        ("right_single(start_box='(1000,1000)')", action("RIGHT_CLICK", x=1.0, y=1.0)),
        ("long_press(start_box='(500,500)')", action("LONG_PRESS", x=0.5, y=0.5)),
        (
            "drag(start_box='(100,200)', end_box='(300,400)')",
            action("DRAG", x=0.1, y=0.2, to_x=0.3, to_y=0.4),
        ),
        ("scroll(direction='down')", action("SCROLL_DOWN")),
        (
            "scroll(start_box='(100,200)', direction='up')",
            action("SCROLL_UP", x=0.1, y=0.2),
        ),
        (
            "scroll(direction='left', amount='3')",
            action("SCROLL_LEFT", amount=3.0),
        ),
        (
            "scroll(point='<point>100 200</point>', direction='right')",
            action("SCROLL_RIGHT", x=0.1, y=0.2),
        ),
        ("left_single(start_box='(100,200)')", CLICK),
        ("left_triple(start_box='(0,0)')", action("TRIPLE_CLICK", x=0.0, y=0.0)),
        ("middle_single(start_box='(0,0)')", action("MIDDLE_CLICK", x=0.0, y=0.0)),
        ("hover(start_box='(0,0)')", action("MOVE", x=0.0, y=0.0)),
        (
            "select(start_box='(100,200)', end_box='(300,400)')",
            action("DRAG", x=0.1, y=0.2, to_x=0.3, to_y=0.4),
        ),
        ("press(key='arrowleft')", action("PRESS", keys=("left",))),
        ("keydown(key='Shift_L')", action("KEY_DOWN", keys=("shift",))),
        ("release(key='shift')", action("KEY_UP", keys=("shift",))),
        (
            "hotkey(key='ctrl alt shift super F5')",
            action("PRESS", keys=("ctrl", "alt", "shift", "meta", "f5")),
        ),
        ("hotkey(key='ctrl c')", action("PRESS", keys=("ctrl", "c"))),
        ("hotkey(key='Ctrl+Shift+T')", action("PRESS", keys=("ctrl", "shift", "t"))),
        ("hotkey(key='ctrl +')", action("PRESS", keys=("ctrl", "+"))),
        ("hotkey(key='ctrl++')", action("PRESS", keys=("ctrl", "+"))),
        ("hotkey(key='Return')", action("ENTER")),
        ("hotkey(key='esc')", action("ESCAPE")),
        (r"type(content='it\'s \"5\"\n')", action("TYPE", text='it\'s "5"\n')),
        (r"type(content='C:\dir\new')", action("TYPE", text="C:\\dir\new")),
        (r"type(content='C:\\new')", action("TYPE", text=r"C:\new")),
        ("type(content='Grüße 你好')", action("TYPE", text="Grüße 你好")),
        ("type(content='')", action("TYPE")),
        ("type(content='x\nAction: wait()')", action("TYPE", text="x\nAction: wait()")),
        ("open_app(app_name='Clock')", action("OPEN_APP", text="Clock")),
        ("press_home()", action("HOME")),
        ("press_back()", action("BACK")),
        ("wait()", action("WAIT")),
        ("finished()", action("DONE")),
        ("finished(content='42')", action("DONE", text="42")),
        ("call_user()", action("FAIL")),
    ],
)
def test_known_texts(text, expected):
    if "\nAction: wait" in text:
        # Alone, the line that begins with "Action:" would be taken for the action.
        text = f"Action: {text}"
    assert parse_ui_tars(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected an action name"),
        ("I do not know.", "expected an action name"),
        ("reboot()", "unknown action"),
        ("__import__('os').system('true')", "expected an action name"),
        ("os.system(cmd='true')", r"expected '\('"),
        ("click(start_box=click(start_box='(1,1)'))", "expected a quoted value"),
        ("click(start_box=f'(1,1)')", "expected a quoted value"),
        ("click(start_box='(1,1)'", "expected ','"),
        ("click(start_box='(1,1)", "does not end"),
        ("click(start_box='(1,1)'); wait()", "text follows"),
        ("wait()\nwait()", "text follows"),
        ("click()", "needs the argument start_box"),
        ("click(start_box='(1,1)', force='yes')", "unknown argument"),
        ("click(start_box='(1,1)', start_box='(2,2)')", "given twice"),
        ("click(start_box='(1,1)', point='(2,2)')", "unknown argument"),
        ("click(start_box='(1001,1)')", "outside the screen"),
        ("click(start_box='(-1,1)')", "not a place"),
        ("click(start_box='(nan,inf)')", "not a place"),
        ("click(start_box='(1e3,1)')", "not a place"),
        ("click(start_box='(١,٢)')", "not a place"),
        ("click(start_box='(1,2,3)')", "not a place"),
        (f"click(start_box='({'9' * 5000},1)')", "longer than|not a place"),
        ("scroll(direction='in')", "up, down, left or right"),
        ("scroll(direction='up', amount='0')", "outside 1 to"),
        ("scroll(direction='up', amount='-1')", "not a whole number"),
        ("scroll(direction='up', amount='99999')", "outside 1 to"),
        ("scroll(direction='up', amount='1e3')", "not a whole number"),
        ("keydown(key='ctrl c')", "one key"),
        ("hotkey(key='')", "1 to 5 keys"),
        ("hotkey(key='a b c d e f')", "1 to 5 keys"),
        ("hotkey(key='$(reboot)')", "unknown key"),
        ("type(content='a\x00b')", "control characters"),
        ("type(content='a\x1b[2J')", "control characters"),
        ("type(content='\ud800')", "control characters"),
        (f"type(content='{'x' * (MAX_VALUE_CHARS + 1)}')", "longer than"),
        ("x" * (MAX_RESPONSE_CHARS + 1), "longer than"),
        ("wait(a='1',b='2',c='3',d='4',e='5')", "more than 4 arguments"),
        (None, "not text"),
        (b"wait()", "not text"),
    ],
)
def test_text_outside_the_grammar_is_invalid(text, reason):
    result = parse_ui_tars(text)
    assert result.kind is ActionKind.INVALID
    assert re.search(reason, result.text), result.text


@pytest.mark.parametrize(
    "text",
    [
        "click(" * 2_000_000,
        "type(content='" + "\\" * 10_000_000,
        "Action:" * 1_500_000,
        "\n" * 10_000_000,
        "type(content='" + "'" * 10_000_000 + "')",
    ],
    ids=["nested", "escapes", "prefixes", "newlines", "quotes"],
)
def test_ten_megabytes_are_turned_away(text):
    assert "longer than" in parse_ui_tars(text).text


def test_pixels():
    text = "click(start_box='(960,270)')"
    result = parse_ui_tars(text, width=1920, height=1080)
    assert (result.x, result.y) == (0.5, 0.25)
    assert format_ui_tars(result, width=1920, height=1080) == text
    assert parse_ui_tars(text, width=900, height=900).kind is ActionKind.INVALID


_NAMES = ["click", "type", "drag", "hotkey", "finished", "eval", "__import__", "wait"]
_PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*_NAMES, "Action:", "Thought:", "(", ")", "='", "'", '"', ","]),
    st.sampled_from(["start_box", "content", "key", "\\", "\n", "(1,1)", "\x00"]),
    st.integers().map(str),
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=50), st.lists(_PIECES, max_size=20).map("".join)))
def test_any_text_gives_an_action(text):
    result = parse_ui_tars(text)
    assert isinstance(result, Action)
    for share in (result.x, result.y, result.to_x, result.to_y):
        assert share is None or 0.0 <= share <= 1.0
    assert set(result.keys) <= KEYS
    assert len(result.text) <= MAX_VALUE_CHARS
    result.text.encode()


_GRID = st.integers(0, 1000).map(lambda number: number / 1000)
_TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t\"'\\"),
    max_size=60,
)
_AIMED = ["CLICK", "DOUBLE_CLICK", "RIGHT_CLICK", "LONG_PRESS", "MOVE"]
_AIMED += ["TRIPLE_CLICK", "MIDDLE_CLICK"]
_SCROLLS = ["SCROLL_DOWN", "SCROLL_UP", "SCROLL_LEFT", "SCROLL_RIGHT"]
_NOTCHES = st.none() | st.integers(1, 10_000).map(float)
_ACTIONS = st.one_of(
    st.builds(action, st.sampled_from(_AIMED), x=_GRID, y=_GRID),
    st.builds(action, st.just("DRAG"), x=_GRID, y=_GRID, to_x=_GRID, to_y=_GRID),
    st.builds(action, st.sampled_from(_SCROLLS), x=_GRID, y=_GRID, amount=_NOTCHES),
    st.builds(action, st.sampled_from(_SCROLLS), amount=_NOTCHES),
    st.builds(action, st.sampled_from(["TYPE", "DONE", "OPEN_APP"]), text=_TEXT),
    st.sampled_from(
        "SCROLL_DOWN SCROLL_UP ENTER ESCAPE WAIT DONE FAIL BACK HOME".split()
    ).map(action),
    st.builds(
        action,
        st.sampled_from(["KEY_DOWN", "KEY_UP"]),
        keys=st.sampled_from(sorted(KEYS)).map(lambda key: (key,)),
    ),
    st.lists(st.sampled_from(sorted(KEYS)), min_size=2, max_size=5).map(
        lambda keys: action("PRESS", keys=tuple(keys))
    ),
)


@settings(max_examples=300, deadline=None)
@given(_ACTIONS, st.sampled_from(["", "I press the button, then wait."]))
def test_round_trip(wanted, thought):
    assert parse_ui_tars(format_ui_tars(wanted, thought=thought)) == wanted


@pytest.mark.parametrize(
    "unsayable",
    [
        action("MOVE"),
        action("ANSWER", text="4"),
        action("MOUSE_DOWN", x=0.5, y=0.5),
        action("SEQUENCE", parts=(CLICK, CLICK)),
        action("CLICK", x=0.5, y=0.5, keys=("ctrl",)),
        action("DRAG", x=0.5, y=0.5, to_x=0.1, to_y=0.1, button="right"),
        action("WAIT", amount=2.0),
        action("SCROLL_DOWN", amount=0.5),
        action("SCROLL_DOWN", widget=3),
        action("PRESS"),
        action("PRESS", keys=("any",)),
        action("TYPE", text="\x00"),
        action("CLICK", x=1.5, y=0.5),
        action("CLICK", x=float("nan"), y=0.5),
        action("INVALID"),
        action("TYPE", text="a", x=0.5, y=0.5),
        action("CLICK"),
        action("DRAG", x=0.5, y=0.5),
    ],
    ids=lambda one: one.kind.name,
)
def test_what_cannot_be_said_is_an_error(unsayable):
    with pytest.raises(ValueError, match="format_ui_tars"):
        format_ui_tars(unsayable)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "key", "content"]), _TEXT))
def test_calls_round_trip(arguments):
    text = format_call("name", **arguments)
    if len(arguments) > 4:
        with pytest.raises(GrammarError):
            scan_call(text)
    else:
        assert scan_call(text).arguments == arguments


def test_every_key_has_one_name():
    for key in KEYS:
        assert key_names(key) == (key,)
        assert key_name(pyautogui_key(key)) == key


def test_keysyms_are_names_too():
    assert len(set(KEYSYMS.values())) == len(KEYSYMS)
    for key, keysym in KEYSYMS.items():
        assert key_name(keysym) == key
