import re
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import ActionKind
from stepjax.envs.grammars import format_pyautogui, parse_pyautogui
from stepjax.envs.grammars.calls import MAX_VALUE_CHARS
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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no action"),
        ("# only a comment", "no action"),
        ("import pyautogui", "no action"),
        ("I do not know.", r"expected '\('"),
        ("import os", "may be imported"),
        ("import os as pyautogui", "may be imported"),
        ("import pyautogui as pg", "end of the statement"),
        ("from os import system", r"expected '\('"),
        ("os.system('true')", "unknown function"),
        ("time.time()", "unknown function"),
        ("time.click(1, 2)", "unknown function"),
        ("pyautogui.screenshot('/etc/passwd')", "unknown function"),
        ("pyautogui.run('c')", "unknown function"),
        ("click(1, 2)", "unknown function"),
        ("pyautogui.__class__()", "unknown function"),
        ("pyautogui.os.system('true')", "expected a call"),
        ("__import__('os').system('true')", "end of the statement"),
        ("eval('1')", "unknown function"),
        ("pyautogui.click(eval('1'), 1)", "expected"),
        ("pyautogui.write(open('/etc/passwd').read())", "expected"),
        ("pyautogui.write(f'{1}')", "expected"),
        ("pyautogui.write('a' + 'b')", "expected"),
        ("pyautogui.write('a' * 10**9)", "expected"),
        ("pyautogui.write('%s' % 1)", "expected"),
        ("pyautogui.write(b'a')", "expected"),
        ("pyautogui.write(lambda: 1)", "expected"),
        ("pyautogui.write((x := 'a'))", "expected"),
        ("pyautogui.write([c for c in 'ab'])", "expected"),
        ("pyautogui.write(*['a'])", "plain value"),
        ("pyautogui.write(**{'message': 'a'})", "plain value"),
        ("pyautogui.write({'a': 1})", "plain value"),
        ("pyautogui.click(1 if True else 2, 1)", "expected"),
        ("pyautogui.click(0x10, 1)", "plain value"),
        ("pyautogui.click(1_0, 1)", "plain value"),
        ("pyautogui.click(1j, 1)", "plain value"),
        ("pyautogui.click(((1, 2)))", "plain value"),
        ("pyautogui.click(nan, inf)", "not a number"),
        ("pyautogui.click(float('nan'), 1)", "expected"),
        ("pyautogui.click(1e999, 1)", "outside"),
        ("pyautogui.click(" + "9" * 5000 + ", 1)", "plain value"),
        ("pyautogui.click(10**9, 1)", "expected"),
        ("pyautogui.click(１, ２)", "plain value"),
        ("pyautogui.click(-1, 5)", "outside the screen"),
        ("pyautogui.click(1921, 5)", "outside the screen"),
        ("pyautogui.click(5, 1081)", "outside the screen"),
        ("pyautogui.click(100)", "both x and y"),
        ("pyautogui.click((1, 2, 3))", "both x and y"),
        ("pyautogui.click('button.png')", "both x and y"),
        ("pyautogui.click('1', '2')", "not a number"),
        ("pyautogui.click(True, False)", "not a number"),
        ("pyautogui.click(1, 2, clicks=0)", "clicks is outside"),
        ("pyautogui.click(1, 2, clicks=1000000)", "clicks is outside"),
        ("pyautogui.click(1, 2, clicks=1.5)", "not a whole number"),
        ("pyautogui.click(1, 2, button='up')", "button"),
        ("pyautogui.click(1, 2, button=7)", "button"),
        ("pyautogui.click(1, 2, duration=-1)", "duration is outside"),
        ("pyautogui.click(1, 2, duration='long')", "not a number"),
        ("pyautogui.click(1, 2, x=3)", "given twice"),
        ("pyautogui.click(x=1, x=2)", "given twice"),
        ("pyautogui.click(x=1, 2)", "follows a named one"),
        ("pyautogui.click(1, 2, z=3)", "unknown argument"),
        ("pyautogui.click(1,2,3,4,5,6,7,8,9,10)", "too many arguments"),
        ("pyautogui.click(" + "1," * 17 + ")", "more than 16 arguments"),
        ("pyautogui.write([" + "'a'," * 65 + "])", "more than 64 items"),
        ("pyautogui.moveTo()", "needs a place"),
        ("pyautogui.moveRel(1, 1)", "a place before it"),
        ("pyautogui.dragRel(1, 1)", "a place before it"),
        ("pyautogui.moveTo(0, 0); pyautogui.moveRel(-1, 0)", "outside the screen"),
        ("pyautogui.dragTo(1, 1, mouseDownUp=False)", "mouseDownUp"),
        ("pyautogui.scroll(0)", "does nothing"),
        ("pyautogui.scroll(0.5)", "does nothing"),
        ("pyautogui.scroll()", "not a number"),
        ("pyautogui.scroll(10001)", "clicks is outside"),
        ("time.sleep(-1)", "seconds is outside"),
        ("time.sleep(61)", "seconds is outside"),
        ("time.sleep(1e308)", "seconds is outside"),
        ("time.sleep()", "not a number"),
        ("pyautogui.press('$(reboot)')", "unknown key"),
        ("pyautogui.press('ctrl+s')", "unknown key"),
        ("pyautogui.press('é')", "unknown key"),
        ("pyautogui.press('')", "unknown key"),
        ("pyautogui.press([])", "not text"),
        ("pyautogui.press(1)", "not text"),
        ("pyautogui.press('a', presses=101)", "presses is outside"),
        ("pyautogui.press(['a'] * 3)", "expected"),
        ("pyautogui.press(['a', 'b'], presses=51)", "more than 100 actions"),
        ("pyautogui.press(['a'," + "'b'," * 60 + "], presses=100)", "more than 100"),
        ("pyautogui.press('a');" * 101, "more than 100 actions"),
        ("pyautogui.keyDown('A')", "no Shift"),
        ("pyautogui.keyDown(['a', 'b'])", "no Shift"),
        ("pyautogui.hotkey()", "not text"),
        ("pyautogui.hotkey('a', 'b', 'c', 'd', 'e', 'f')", "1 to 5 keys"),
        ("pyautogui.hotkey('A', 'b', 'c', 'd', 'e')", "1 to 5 keys"),
        ("pyautogui.hotkey('a', force=True)", "unknown argument"),
        ("pyautogui.write(1)", "not text"),
        ("pyautogui.write()", "not text"),
        ("pyautogui.write('a\x00b')", "control characters"),
        (r"pyautogui.write('\x1b[2J')", "control characters"),
        (r"pyautogui.write('\ud800')", "control characters"),
        ("pyautogui.write('\ud800')", "control characters"),
        (r"pyautogui.write('\N{BULLET}')", "escape is not understood"),
        (r"pyautogui.write('\7')", "escape is not understood"),
        (r"pyautogui.write('\Uffffffff')", "no character"),
        ("pyautogui.write('a\nb')", "does not end"),
        ("pyautogui.write('a", "does not end"),
        ("pyautogui.write('''a", "does not end"),
        ("pyautogui.write('a\\", "does not end"),
        (f"pyautogui.write('{'x' * (MAX_VALUE_CHARS + 1)}')", "longer than 4096"),
        ("pyautogui.write(" + "'x'" * 5000 + ")", "longer than 4096"),
        ("pyautogui.click(1, 2", "expected"),
        ("pyautogui.click(1, 2))", "end of the statement"),
        ("pyautogui.click(,)", "plain value"),
        ("pyautogui.click(1 2)", "expected"),
        ("pyautogui.click(1, 2) pyautogui.click(1, 2)", "end of the statement"),
        ("x, y = 1, 2", r"expected '\('"),
        ("pyautogui.PAUSE = 1", r"expected '\('"),
        ("while True: pyautogui.click(1, 2)", r"expected '\('"),
        ("for i in range(9):\n  pyautogui.click(1, 2)", r"expected '\('"),
        ("with pyautogui.hold('shift'):\n  pyautogui.press('a')", r"expected '\('"),
        ("pyautogui.click(1, 2)\nDONE", r"expected '\('"),
        ("DONE\nFAIL", r"expected '\('"),
        ("done", r"expected '\('"),
        ("pyperclip.copy('a')", "ctrl"),
        ("pyperclip.copy('a'); pyautogui.press('v')", "ctrl"),
        ("pyperclip.copy('a'); pyperclip.copy('b')", "ctrl"),
        ("pyperclip.copy(text='a')", "takes one text"),
        ("pyperclip.paste()", "unknown function"),
        ("```python\npyautogui.click(1, 2)\n", "one code block"),
        ("```\nWAIT\n```\n```\nDONE\n```", "one code block"),
        ("```bash\nrm -rf /\n```", "expected"),
        (None, "not text"),
        (b"WAIT", "not text"),
        (["WAIT"], "not text"),
    ],
)
def test_programs_outside_the_grammar_are_invalid(text, reason):
    result = parse(text)
    assert result.kind is ActionKind.INVALID
    assert re.search(reason, result.text), result.text
    draw.check_any(result)


@pytest.mark.parametrize(
    "text",
    [
        "pyautogui.click(" * 700_000,
        "pyautogui.write('" + "\\" * 10_000_000,
        "```" * 3_500_000,
        "\n" * 10_000_000,
        "(" * 10_000_000,
        "-" * 10_000_000,
        "é" * 5_000_000,
    ],
    ids=["calls", "escapes", "fences", "newlines", "brackets", "signs", "unicode"],
)
def test_ten_megabytes_are_turned_away(text):
    tracemalloc.start()
    assert "longer than" in parse(text).text
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "piece",
    ["(", "[", "-", "not ", "pyautogui.click(", "a.", "'a' ", "\\", "'''", '"', "#\n"]
    + [
        " ",
        "\n",
        ";",
        "```",
        "```\n",
        "import time,",
        "1",
        "x=",
        "pyautogui.press('a')\n",
    ]
    + ["lambda:", "{", "f'{", "\\x", "'\\", "pyautogui.write('a' "],
)
def test_long_repetitions_are_read_to_the_end_of_the_limit(piece):
    for before in ("", "pyautogui.write(", "import time", "'", "```\n"):
        text = (before + piece * 20_000)[:20_000]
        draw.check_any(parse(text))


def test_nothing_is_run():
    events = []
    watched = ("exec", "compile", "import", "open", "os.", "subprocess.", "ctypes.")

    def audit(event, arguments):
        if events is not None and event.startswith(watched):
            events.append((event, arguments))

    programs = [
        "import pyautogui; import time; pyautogui.click(1, 2); time.sleep(60)",
        "__import__('os').system('true')",
        "pyautogui.write(open('/etc/passwd').read())",
        "eval('1'); exec('1'); compile('1', '', 'eval')",
    ]
    parse(programs[0])  # what is imported late is imported now
    sys.addaudithook(audit)
    events.clear()
    for text in programs:
        parse(text)
    seen, events = events, None
    assert not seen


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
