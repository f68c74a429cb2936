import re
import sys
import tracemalloc

import pytest

from stepjax.envs.actions import ActionKind
from stepjax.envs.grammars import parse_pyautogui
from stepjax.envs.grammars.calls import MAX_VALUE_CHARS
from tests.envs import programs as draw
from tests.envs.programs import SCREEN


def parse(text):
    return parse_pyautogui(text, **SCREEN)


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
        (r"pyautogui.write('\x85')", "control characters"),
        ("pyautogui.press('volumeup')", "unknown key"),
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
