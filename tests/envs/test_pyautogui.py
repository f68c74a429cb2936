import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import ActionKind
from stepjax.envs.grammars import format_pyautogui, parse_pyautogui
from tests.envs import programs as draw
from tests.envs.programs import SCREEN, action

CLICK = action("CLICK", x=100 / 1920, y=200 / 1080)
DRAG = action("DRAG", x=192 / 1920, y=108 / 1080, to_x=0.5, to_y=0.5)


def parse(text):
    return parse_pyautogui(text, **SCREEN)


def write(wanted):
    return format_pyautogui(wanted, **SCREEN)


def sequence(*parts):
    return action("SEQUENCE", parts=parts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pyautogui.click(x=100, y=200)", CLICK),
        ("pyautogui.click(100, 200)", CLICK),
        ("pyautogui.click((100, 200))", CLICK),
        ("pyautogui.click([100.0, 200], button=pyautogui.LEFT)", CLICK),
        ("pyautogui.click(100, 200, 1, 0.0, 'left', 0.5, pyautogui.linear)", CLICK),
        ("pyautogui.leftClick(100, 200)", CLICK),
        ("pyautogui.click(100, 200, button='primary', clicks=1)", CLICK),
        ("import pyautogui\nimport time\npyautogui.click(100, 200)\n", CLICK),
        ("import pyautogui, time; pyautogui.click(100, 200);", CLICK),
        ("  pyautogui . click (100,\n  200, # there\n)  # now", None),
        ("  pyautogui.click (100,\r\n  200, # there\n)  # now", CLICK),
        ("# First I click.\n\npyautogui.click(100, 200)", CLICK),
        ("```python\npyautogui.click(100, 200)\n```", CLICK),
        ("```\npyautogui.click(100, 200)\n```", CLICK),
        ("I will click it.\n\n```python\npyautogui.click(100, 200)\n```\nSo.", CLICK),
        ("'''\nThought:\nit's on\n'''\npyautogui.click(100, 200)", CLICK),
        ("pyautogui.click()", action("CLICK")),
        ("pyautogui.click(clicks=2)", action("DOUBLE_CLICK")),
        ("pyautogui.doubleClick(0, 0)", action("DOUBLE_CLICK", x=0.0, y=0.0)),
        ("pyautogui.click(0, 0, clicks=3)", action("TRIPLE_CLICK", x=0.0, y=0.0)),
        ("pyautogui.tripleClick()", action("TRIPLE_CLICK")),
        ("pyautogui.rightClick(1920, 1080)", action("RIGHT_CLICK", x=1.0, y=1.0)),
        ("pyautogui.click(button='RIGHT')", action("RIGHT_CLICK")),
        ("pyautogui.click(button=2)", action("MIDDLE_CLICK")),
        ("pyautogui.middleClick()", action("MIDDLE_CLICK")),
        (
            "pyautogui.doubleClick(button='right')",
            sequence(*[action("RIGHT_CLICK")] * 2),
        ),
        ("pyautogui.click(clicks=4)", sequence(*[action("CLICK")] * 4)),
        ("pyautogui.moveTo(960, 540, duration=0.2)", action("MOVE", x=0.5, y=0.5)),
        ("pyautogui.moveTo(192,108); pyautogui.dragTo(960,540, duration=0.5)", DRAG),
        ("pyautogui.moveTo(192,108)\npyautogui.dragRel(768, yOffset=432)", DRAG),
        ("pyautogui.dragTo(960, 540)", action("DRAG", to_x=0.5, to_y=0.5)),
        (
            "pyautogui.moveTo(0, 0); pyautogui.move(960, 540)",
            sequence(action("MOVE", x=0.0, y=0.0), action("MOVE", x=0.5, y=0.5)),
        ),
        (
            "pyautogui.mouseDown(0, 0); pyautogui.mouseUp(button='right')",
            sequence(
                action("MOUSE_DOWN", x=0.0, y=0.0), action("MOUSE_UP", button="right")
            ),
        ),
        ("pyautogui.scroll(-5)", action("SCROLL_DOWN", amount=5.0)),
        (
            "pyautogui.scroll(3, 960, 540)",
            action("SCROLL_UP", x=0.5, y=0.5, amount=3.0),
        ),
        ("pyautogui.vscroll(clicks=-2.7)", action("SCROLL_DOWN", amount=2.0)),
        ("pyautogui.hscroll(4)", action("SCROLL_RIGHT", amount=4.0)),
        ("pyautogui.hscroll(-4)", action("SCROLL_LEFT", amount=4.0)),
        ('pyautogui.typewrite("text", interval=0.01)', action("TYPE", text="text")),
        ("pyautogui.write('a' 'b'\n r'\\n')", action("TYPE", text="ab\\n")),
        ("pyautogui.write(message='''a\nb''')", action("TYPE", text="a\nb")),
        (
            r"pyautogui.write('it\'s \x41\u00e9\U0001F600\n')",
            action("TYPE", text="it's Aé😀\n"),
        ),
        (r"pyautogui.write('C:\dir')", action("TYPE", text=r"C:\dir")),
        (
            "pyautogui.write('Grüße <b> 你好 ´^~')",
            action("TYPE", text="Grüße <b> 你好 ´^~"),
        ),
        ("pyautogui.write('')", action("TYPE")),
        (
            "pyautogui.write(['a', 'enter'])",
            sequence(action("PRESS", keys=("a",)), action("ENTER")),
        ),
        ("pyautogui.press('enter')", action("ENTER")),
        ("pyautogui.press('\\n')", action("ENTER")),
        ("pyautogui.press('esc')", action("ESCAPE")),
        ("pyautogui.press(' ')", action("PRESS", keys=("space",))),
        ("pyautogui.press('A')", action("PRESS", keys=("shift", "a"))),
        (
            "pyautogui.press('tab', presses=2)",
            sequence(*[action("PRESS", keys=("tab",))] * 2),
        ),
        ("pyautogui.hotkey('ctrl', 's')", action("PRESS", keys=("ctrl", "s"))),
        ("pyautogui.hotkey(['win', 'd'])", action("PRESS", keys=("meta", "d"))),
        (
            "pyautogui.hotkey('ctrl', 'a', interval=0.1)",
            action("PRESS", keys=("ctrl", "a")),
        ),
        ("pyautogui.keyDown('shift')", action("KEY_DOWN", keys=("shift",))),
        ("pyautogui.keyUp('enter')", action("KEY_UP", keys=("enter",))),
        (
            "pyautogui.keyDown('ctrl'); pyautogui.click(100, 200);"
            "pyautogui.keyUp('ctrl')",
            action("CLICK", x=CLICK.x, y=CLICK.y, keys=("ctrl",)),
        ),
        ("import time; time.sleep(1)", action("WAIT", amount=1.0)),
        ("pyautogui.sleep(0.25)", action("WAIT", amount=0.25)),
        ("WAIT", action("WAIT")),
        (" DONE\n", action("DONE")),
        ("```FAIL```", action("FAIL")),
        ("It is finished.\n```\nDONE\n```", action("DONE")),
        (
            "import pyperclip\npyperclip.copy('héllo')\npyautogui.hotkey('ctrl', 'v')\n"
            "time.sleep(0.5)\n\npyautogui.press('enter')",
            sequence(
                action("TYPE", text="héllo"),
                action("WAIT", amount=0.5),
                action("ENTER"),
            ),
        ),
    ],
)
def test_known_programs(text, expected):
    if expected is None:
        assert parse(text).kind is ActionKind.INVALID
    else:
        assert parse(text) == expected


_PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["pyautogui.", "click", "write", "press", "hotkey", "time.sleep"]),
    st.sampled_from(["(", ")", "'", '"', ",", "=", "[", "]", ";", "\n", "\\", "#"]),
    st.sampled_from(["import ", "lambda ", "__import__", "None", "True", "'''", "```"]),
    st.integers().map(str),
    st.floats().map(str),
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=25).map("".join)))
def test_any_text_gives_an_action(text):
    draw.check_any(parse(text))


_WAITS = st.floats(0, 60).map(lambda seconds: action("WAIT", amount=seconds))
_SINGLE = st.one_of(
    draw.placed(draw.CLICKS, keys=draw.HELD),
    draw.drags(draw.BUTTONS),
    draw.placed(["MOVE"], draw.PLACE),
    draw.placed(draw.SCROLLS, amount=draw.NOTCHES),
    draw.placed(["MOUSE_DOWN", "MOUSE_UP"], button=st.sampled_from(draw.BUTTONS)),
    draw.PRESSES,
    draw.HELD_KEYS,
    draw.TYPING,
    _WAITS,
)
_ACTIONS = st.one_of(_SINGLE, draw.ENDS, draw.sequences(_SINGLE))


@settings(max_examples=500, deadline=None)
@given(_ACTIONS)
def test_round_trip(wanted):
    text = write(wanted)
    assert parse(text) == wanted
    if "```" not in text:
        program = "" if text in ("WAIT", "DONE", "FAIL") else "import pyautogui\n"
        assert parse(f"Some words.\n```python\n{program}{text}\n```") == wanted


@settings(max_examples=300, deadline=None)
@given(draw.mutated(_ACTIONS.map(write)))
def test_mutated_programs_give_an_action(text):
    result = parse(text)
    draw.check_any(result)
    if result.kind is not ActionKind.INVALID:
        again = parse(write(result))
        assert again.kind == result.kind


def test_what_is_written_is_python_with_the_same_meaning():
    """The names and arguments are those of pyautogui's own functions."""
    wanted = sequence(
        action(
            "DRAG", x=0.5, y=0.5, to_x=0.0, to_y=1.0, button="right", keys=("shift",)
        ),
        action("SCROLL_LEFT", x=0.5, y=0.5, amount=2.0),
        action("PRESS", keys=("meta", "d")),
        action("TYPE", text="a\"'\n<"),
    )
    assert write(wanted).splitlines() == [
        "pyautogui.keyDown('shift')",
        "pyautogui.moveTo(960, 540)",
        "pyautogui.dragTo(0, 1080, duration=0.5, button='right')",
        "pyautogui.keyUp('shift')",
        "pyautogui.hscroll(-2, 960, 540)",
        "pyautogui.hotkey('win', 'd')",
        "pyautogui.write('a\"\\'\\n<')",
    ]


def test_a_scroll_without_an_amount_gets_one():
    text = write(action("SCROLL_DOWN"))
    assert parse(text) == action("SCROLL_DOWN", amount=5.0)


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
        action("TYPE", text="a", x=0.5, y=0.5),
        action("TYPE", text="a\x00"),
        action("TYPE", text="x" * 4097),
        action("CLICK", widget=3),
        action("CLICK", x=0.5),
        action("CLICK", x=0.5, y=1.01),
        action("CLICK", x=float("inf"), y=0.5),
        action("CLICK", keys=("any",)),
        action("CLICK", keys=("a",) * 6),
        action("MOVE"),
        action("DRAG", x=0.5, y=0.5),
        action("DRAG", to_x=0.5, to_y=0.5, button="up"),
        action("SCROLL_UP", amount=0.0),
        action("SCROLL_UP", amount=1.5),
        action("SCROLL_UP", amount=10_001.0),
        action("SCROLL_UP", amount=float("nan")),
        action("SCROLL_UP", amount=float("inf")),
        action("WAIT", amount=61.0),
        action("WAIT", amount=float("nan")),
        action("PRESS"),
        action("KEY_DOWN", keys=("a", "b")),
        action("KEY_UP"),
        action("SEQUENCE"),
        sequence(CLICK, action("WAIT")),
        sequence(CLICK, action("DONE")),
        sequence(CLICK, sequence(CLICK, CLICK)),
        sequence(*[CLICK] * 101),
        sequence(*[action("TYPE", text="x" * 4096)] * 6),
    ],
    ids=lambda one: one.kind.name,
)
def test_what_cannot_be_said_is_an_error(unsayable):
    with pytest.raises(ValueError, match="format_pyautogui: "):
        write(unsayable)
