"""Input, pictures and widgets of the program inside, on real applications."""

import numpy as np
import pytest

from stepjax.envs.desktop.view import DesktopError
from tests.envs.desktop.live_desktop import (
    HEIGHT,
    WIDTH,
    click,
    done,
    middle,
    move,
    need,
    picture,
    press,
    write,
)
from tests.envs.desktop.sandboxes import wait_for

pytestmark = pytest.mark.desktop


ASCII = "".join(map(chr, range(33, 127)))


@pytest.mark.parametrize(
    "text",
    [
        ASCII,
        "if a < b > c: <tag> << >>",
        "aaaaaaaaaaaaaaaaaaaaaaaa" * 10,
        "ÄÖÜ äöü ß éèêëñçøåæœ ŁŻ ĳ",
        "^a ~n ´e `e ¨u ˆ ˜ dead",
        "e\u0301 a\u0308 n\u0303",
        "Ελληνικά Русский עברית 日本語 한국어 ไทย",
        "€ £ ¥ “quotes” – — … ™ ½ √∞≠",
        "😀🎉🇩🇪 𝔘𝔫𝔦",
        "tab\tnew\n\nlines\r\nend",
        "".join(map(chr, range(0x4E00, 0x4E00 + 400))),
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_every_text_can_be_typed(edit, text):
    editor = edit()
    text, typed = text.replace("\r\n", "\n"), text
    assert editor.saved(text, write(typed)) == text


@pytest.mark.parametrize("layout", [["us", "-variant", "intl"], ["de"], ["fr"], ["ru"]])
def test_text_on_other_keyboards(client, edit, layout):
    need("setxkbmap")
    editor = edit()
    done(client, "setxkbmap", *layout)
    try:
        text = "zy ZY \"quoted\" 'a' `e ~n ^o é < > @ ß 1234 привет " + ASCII
        assert editor.saved(text, write(text)) == text
    finally:
        done(client, "setxkbmap", "us")


def test_keys_and_shortcuts(edit):
    editor = edit("one two three")
    assert editor.saved("", press("Control_L", "a"), press("Delete")) == ""
    keys = [write("abc"), press("Left"), press("BackSpace")]
    assert editor.saved("ac", *keys) == "ac"
    held = [
        {"op": "key", "keysym": "Shift_L", "down": True},
        press("Home"),
        {"op": "key", "keysym": "Shift_L", "down": False},
    ]
    assert editor.saved("éc", *held, write("é")) == "éc"
    keys = [press("Control_L", "Shift_L", "Left"), press("A")]
    assert editor.saved("Ac", *keys) == "Ac"


def test_double_clicks_are_of_one_request(edit):
    editor = edit("hello world")
    x, y = editor.place(2, 0)
    for _ in range(2):  # two clicks, however fast, are no double click
        editor.client.act([move(x, y), click()], settle_ms=0)
    assert editor.saved("he_llo world", write("_")) == "he_llo world"
    keys = [move(x, y), click(count=2), write("bye")]
    assert editor.saved("bye world", *keys) == "bye world"
    keys = [move(x, y), click(count=3), write("all")]
    assert editor.saved("all", *keys) == "all"


def test_dragging_selects(edit):
    editor = edit("first line\nsecond line\n")
    (left, top), (right, bottom) = editor.place(0, 0), editor.place(0, 1)
    down = {"op": "button", "button": 1, "down": True}
    up = {"op": "button", "button": 1, "down": False}
    keys = [move(left, top), down, move(right, bottom), up, write("new ")]
    assert editor.saved("new second line\n", *keys) == "new second line\n"


def test_dragging_moves_windows(client, edit):
    edit()
    done(client, "wmctrl", "-r", ":ACTIVE:", "-b", "remove,maximized_vert")
    done(client, "wmctrl", "-r", ":ACTIVE:", "-e", "0,100,100,400,300")

    def place():
        found = done(client, "xdotool", "getactivewindow", "getwindowgeometry")
        x, y = found.split("Position: ")[1].split()[0].split(",")
        return int(x), int(y)

    assert wait_for(lambda: abs(place()[0] - 100) < 10)
    old_x, old_y = place()
    button = {"op": "button", "button": 1}
    client.act(
        [move(250, 112), {**button, "down": True}, move(400, 212)]
        + [{**button, "down": False}]
    )
    assert wait_for(lambda: place() == (old_x + 150, old_y + 100)), place()


def test_the_wheel_scrolls(edit):
    editor = edit("\n".join(map(str, range(500))))
    place = editor.place(5, 5)
    before = editor.client.act([move(*place)], settle_ms=300).image
    after = editor.client.act([click(5, 10)], settle_ms=500).image
    assert (before != after).mean() > 0.001
    back = editor.client.act([click(4, 30)], settle_ms=500).image
    assert (before != back).mean() < 0.001


def test_pictures_agree_in_all_formats(client):
    client.act([move(400, 300)], settle_ms=1000)
    raw = client.view()
    assert raw.image.shape == (HEIGHT, WIDTH, 3)
    assert (raw.width, raw.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(raw.image, picture(client.screenshot("png")))
    jpeg = picture(client.screenshot("jpeg", quality=95)).astype(int)
    assert np.abs(jpeg - raw.image).mean() < 3
    small = client.view(size=(200, 150)).image
    assert small.shape == (150, 200, 3)
    blocks = raw.image.reshape(150, 4, 200, 4, 3).mean((1, 3))
    assert np.abs(blocks - small).mean() < 4
    assert client.view(size=(WIDTH, HEIGHT)).image.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DesktopError, match="image.format must be one of"):
        client.screenshot("gif")


def test_the_picture_is_the_screens(client, tmp_path):
    need("scrot")
    client.act([move(10, 10)], settle_ms=500)
    done(client, "scrot", "-o", "/tmp/scrot.png")
    theirs = picture(client.read_file("/tmp/scrot.png"))
    assert (theirs != client.view().image).any(-1).mean() < 0.001


def test_the_pointer_is_in_the_picture(client):
    here = client.act([move(100, 100)], settle_ms=300).image
    there = client.act([move(600, 400)], settle_ms=300).image
    changed = np.argwhere((here != there).any(-1))
    assert 10 < len(changed) < 5000
    assert np.abs(changed - (100, 100)).max(1).min() < 20
    assert np.abs(changed - (400, 600)).max(1).min() < 20


def test_widgets_are_where_they_say(edit):
    editor = edit("some text")
    widgets = editor.client.view(widgets=True).widgets
    menus = {one.label: one for one in widgets if one.role == "menu"}
    assert {"File", "Edit", "Help"} <= set(menus)
    field = editor.field()
    assert (field.value, field.focused, field.disabled) == ("some text", True, False)
    assert not [one for one in widgets if one.role == "menu_item"]
    editor.client.act([move(*middle(menus["Edit"])), click()])

    def items():
        found = editor.client.view(widgets=True).widgets
        return {one.label: one for one in found if one.role == "menu_item"}

    assert wait_for(lambda: {"Undo", "Paste", "Select All"} <= set(items()))
    items = items()
    assert items["Undo"].disabled
    editor.client.act([move(*middle(items["Select All"])), click()], settle_ms=500)
    assert editor.saved("gone", write("gone")) == "gone"


def test_covered_widgets_are_left_out(client, edit):
    low = edit("low")
    assert low.field().value == "low"
    high = edit("high")
    done(client, "wmctrl", "-r", high.title, "-b", "add,maximized_vert,maximized_horz")

    def values():
        found = client.view(widgets=True).widgets
        return [one.value for one in found if one.role == "text_field"]

    assert wait_for(lambda: values() == ["high"])
    done(client, "xdotool", "search", "--name", high.title, "windowminimize")
    assert wait_for(lambda: values() == ["low"])


def test_an_application_that_hangs_does_not_hang_us(client, edit):
    editor = edit("hangs")
    pid = done(client, "pgrep", "-f", editor.title).split()[0]
    done(client, "kill", "-STOP", pid)
    try:
        view = client.view(widgets=True)
        assert not view.complete
        assert view.image.shape == (HEIGHT, WIDTH, 3)
        assert client.act([move(5, 5), write("x")]).image.any()
        assert client.terminal() is None
    finally:
        done(client, "kill", "-CONT", pid)
    assert wait_for(lambda: client.view(widgets=True).complete)


@pytest.mark.parametrize(
    ("operations", "match"),
    [
        ([write("no"), {"op": "move", "x": WIDTH, "y": 0}], r"operations\[1\]: x must"),
        ([write("no"), press("NoSuchKey")], "there is no key 'NoSuchKey'"),
        ([write("no"), write("a\0b")], "U\\+0000 cannot be typed"),
        ([write("no"), write("\x1b")], "U\\+001B cannot be typed"),
        ([write("no"), {"op": "run", "command": "ls"}], "op must be one of"),
        ([write("no"), write("x" * 20_000)], "at most 20000"),
        ([write("no")] * 2001, "at most 2000 dictionaries"),
    ],
    ids=["place", "key", "zero", "escape", "unknown", "long", "many"],
)
def test_unsound_operations_do_nothing(edit, operations, match):
    editor = edit("before")
    with pytest.raises(DesktopError, match=match) as caught:
        editor.client.act(operations)
    assert caught.value.status == 400
    assert editor.saved("_before", write("_")) == "_before"


def test_a_refused_request_lets_keys_go(edit):
    editor = edit()
    down = {"op": "key", "keysym": "Shift_L", "down": True}
    editor.client.act([down])
    with pytest.raises(DesktopError, match="no key"):
        editor.client.act([press("NoSuchKey")])
    assert editor.saved("abc", write("abc")) == "abc"
