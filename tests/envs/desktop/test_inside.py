"""The program inside a desktop, on real desktops with real applications."""

import io
import itertools
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from stepjax.envs.desktop.client import DesktopClient
from stepjax.envs.desktop.sandbox import SandboxSpec, start_sandbox
from stepjax.envs.desktop.unix_http import UnixHttp
from stepjax.envs.desktop.view import DesktopError
from tests.envs.desktop import sandboxes
from tests.envs.desktop.sandboxes import PATIENCE, wait_for

pytestmark = pytest.mark.desktop

NUMBERS = itertools.count()
WIDTH, HEIGHT = 800, 600
ST = "{https://accessibility.ubuntu.example.org/ns/state}"
CP = "{https://accessibility.ubuntu.example.org/ns/component}"


def boot():
    reason = sandboxes.missing()
    if reason:
        pytest.skip(reason)
    spec = SandboxSpec(width=WIDTH, height=HEIGHT)
    sandbox = start_sandbox(spec, timeout=PATIENCE)
    return sandbox, DesktopClient(sandbox.socket, sandbox.token, timeout=PATIENCE)


@pytest.fixture(scope="module")
def desktop():
    """One desktop for the tests that leave it as it was."""
    sandbox, client = boot()
    yield sandbox, client
    client.close()
    sandbox.close()


@pytest.fixture
def client(desktop):
    return desktop[1]


@pytest.fixture
def own():
    """A desktop of the test's own."""
    sandbox, client = boot()
    yield sandbox, client
    client.close()
    sandbox.close()


def need(program):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def move(x, y):
    return {"op": "move", "x": int(x), "y": int(y)}


def click(button=1, count=1):
    return {"op": "click", "button": button, "count": count}


def press(*keys):
    return {"op": "press", "keys": list(keys)}


def write(text):
    return {"op": "type", "text": text}


def pause(seconds):
    return {"op": "sleep", "seconds": seconds}


def done(client, *command, **options):
    finished = client.execute(command, timeout=60.0, **options)
    assert finished.returncode == 0, finished
    return finished.output


def middle(widget):
    left, top, right, bottom = widget.box
    return (left + right) / 2 * WIDTH, (top + bottom) / 2 * HEIGHT


class Editor:
    """Mousepad on a file of its own, in front and maximized."""

    def __init__(self, client, text=""):
        need("mousepad")
        self.client = client
        self.path = f"/home/user/edit{next(NUMBERS)}.txt"
        client.write_file(self.path, text.encode())
        client.launch(["mousepad", "--disable-server", self.path])
        self.title = self.path.rpartition("/")[2]
        assert wait_for(lambda: any(self.title in w for w in client.windows()))
        client.activate_window(self.title)
        assert wait_for(lambda: self.ready(text))
        client.act([press("Control_L", "Home")], settle_ms=300)

    def ready(self, text):
        """Keys pressed before that are lost."""
        field = self.field()
        loaded = field is not None and field.focused and field.value == text[:200]
        return loaded and self.title in self.active()

    def active(self):
        return self.client.execute(
            ["xdotool", "getactivewindow", "getwindowname"], timeout=60.0
        ).output

    def field(self):
        found = self.client.view(widgets=True).widgets
        fields = [one for one in found if one.role == "text_field"]
        return fields[0] if fields else None

    def place(self, column, line):
        """Where a character is: the font is of one width."""
        left, top = self.field().box[:2]
        size = 16  # of a line; half of it is wide enough for a guess at a column
        return left * WIDTH + 2 + column * size / 2, top * HEIGHT + (line + 0.5) * size

    def saved(self, expected, *operations):
        """The file after some input and ctrl+s; waits for what is expected."""
        self.client.act(operations)
        text = None

        def as_expected():
            nonlocal text
            self.client.act([press("Control_L", "s")], settle_ms=500)
            text = self.client.read_file(self.path).decode()
            return text == expected

        wait_for(as_expected, 30.0)
        return text

    def end(self):
        done(self.client, "pkill", "-f", self.title)


@pytest.fixture
def edit(client):
    made = []

    def start(text=""):
        made.append(Editor(client, text))
        return made[-1]

    yield start
    for one in made:
        one.end()


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


def picture(data):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


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


def test_nothing_without_the_token(desktop):
    sandbox, _ = desktop
    for token in (None, "", "Bearer", "Bearer ", f"Bearer {sandbox.token}x", "Basic x"):
        headers = {} if token is None else {"Authorization": token}
        http = UnixHttp(str(sandbox.socket), headers)
        for method, path in (
            ("GET", "/screenshot"),
            ("POST", "/execute"),
            ("POST", "/act"),
            ("GET", "/nothing"),
        ):
            reply = http.request(
                method, path, b"{}", "application/json", timeout=60, max_bytes=1 << 20
            )
            assert reply.status == 401
            assert b"token" in reply.body
        http.close()


def test_the_token_is_out_of_reach(desktop):
    sandbox, client = desktop
    script = """
import glob, os, sys
found = []
for name in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    try:
        if sys.argv[1].encode() in open(name, "rb").read():
            found.append(name)
    except OSError:
        pass
server = int(os.popen("pgrep -f inside[.]main").read().split()[-1])
for name in ("mem", "environ", "maps", "fd", "root"):
    try:
        path = f"/proc/{server}/{name}"
        os.listdir(path) if name in ("fd", "root") else open(path, "rb").read(1)
        found.append(path)
    except OSError:
        pass
me = [f"/proc/{os.getpid()}/", "/proc/self/"]
print([name for name in found if not name.startswith(tuple(me))])
"""
    assert done(client, "python3", "-c", script, sandbox.token).strip() == "[]"
    assert sandbox.token not in done(client, "env")
    assert "PYTHONPATH" not in done(client, "env")


def test_a_program_left_in_the_background_does_not_block(client):
    script = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    pid = done(client, "python", "-c", script).strip()
    assert done(client, "ps", "-o", "comm=", "-p", pid).strip() == "sleep"
    done(client, "kill", pid)


def test_programs_are_ended_at_their_deadline(client):
    with pytest.raises(DesktopError, match="500: the command was ended after 1 s"):
        client.execute(["sh", "-c", "sleep 654; true"], timeout=1.0)
    assert client.execute(["pgrep", "-f", "sleep 654"]).output == ""


def ask(desktop, route, method="POST", **data):
    """A request as OSWorld's controllers make it; status and body."""
    sandbox, _ = desktop
    http = UnixHttp(str(sandbox.socket), {"Authorization": f"Bearer {sandbox.token}"})
    try:
        reply = http.request(
            method, route, json.dumps(data).encode(), "application/json",
            timeout=PATIENCE, max_bytes=1 << 26,
        )  # fmt: skip
    finally:
        http.close()
    if reply.headers["Content-Type"] == "application/json":
        return reply.status, json.loads(reply.body)
    return reply.status, reply.body


def test_execute_as_osworld_does(desktop):
    assert ask(desktop, "/execute", command="echo $HOME | wc -c", shell=True) == (
        200,
        {"status": "success", "output": "11\n", "error": "", "returncode": 0},
    )
    status, said = ask(desktop, "/setup/execute", command="ls -d ~/Desktop '~'")
    assert (status, said["output"]) == (200, "/home/user/Desktop\n")
    assert "'~'" in said["error"]
    status, said = ask(desktop, "/execute", command=["no-such-program"])
    assert status == 500
    assert said["status"] == "error"
    assert "no-such-program" in said["message"]
    assert ask(desktop, "/execute", command=[])[0] == 400
    assert ask(desktop, "/execute", command=["ls"], timeout=1e9)[0] == 400
    status, said = ask(desktop, "/run_python", code="print(1)\n1/0")
    assert (status, said["status"], said["output"]) == (200, "error", "1\n")
    assert "ZeroDivisionError" in said["error"]
    status, said = ask(desktop, "/run_bash_script", script="x=3\necho $x", timeout=60)
    assert (said["status"], said["output"], said["returncode"]) == ("success", "3\n", 0)
    status, said = ask(
        desktop,
        "/setup/execute_with_verification",
        command=["touch", "/tmp/there"],
        verification={"command_success": "test -e /tmp/there"},
    )
    assert (status, said["verification"]) == (200, "passed")
    status, said = ask(
        desktop,
        "/execute_with_verification",
        command=["true"],
        verification={"window_exists": "no such window"},
        max_wait_time=0.2,
        check_interval=0.1,
    )
    assert (status, said["verification"]) == (500, "failed")


def test_small_routes(desktop):
    assert ask(desktop, "/platform", "GET") == (200, b"Linux")
    size = {"width": WIDTH, "height": HEIGHT}
    assert ask(desktop, "/screen_size") == (200, size)
    desktop[1].act([move(12, 34)])
    assert ask(desktop, "/cursor_position", "GET") == (200, [12, 34])
    path = {"desktop_path": "/home/user/Desktop"}
    assert ask(desktop, "/desktop_path") == (200, path)
    assert ask(desktop, "/setup/download_file", url="http://a", path="/b")[0] == 501
    # Upstream says nothing about windows that are not there.
    assert ask(desktop, "/setup/activate_window", window_name="none")[0] == 200
    assert ask(desktop, "/setup/open_file", path="/no/such/file")[0] == 404


def test_output_is_bounded_and_need_not_be_text(client):
    assert len(done(client, "head", "-c", "20000000", "/dev/zero")) == 8 << 20
    assert done(client, "printf", r"\377") == "\ufffd"


def test_files(client):
    data = bytes(range(256)) * 5000
    client.write_file("~/new/folder/ä b.bin", data)
    assert client.read_file("/home/user/new/folder/ä b.bin") == data
    assert client.read_file("$HOME/new/folder/ä b.bin") == data
    done(client, "chmod", "755", "new/folder/ä b.bin")
    client.write_file("new/folder/ä b.bin", b"")
    assert client.read_file("new/folder/ä b.bin") == b""
    assert "rwxr-xr-x" in done(client, "ls", "-l", "new/folder")
    children = client.list_directory("~/new")["children"]
    assert children[0]["children"] == [{"type": "file", "name": "ä b.bin"}]
    done(client, "mkfifo", "new/pipe")
    for path, match in (
        ("new/none", "404: File not found"),
        ("new/pipe", "no regular file"),
        ("new", "no regular file|directory"),
        ("/dev/zero", "no regular file"),
        ("/etc/shadow", "500|404"),
    ):
        with pytest.raises(DesktopError, match=match):
            client.read_file(path)
    for path in ("new/pipe", "/usr/x", "new", "/dev/full"):
        with pytest.raises(DesktopError, match="500"):
            client.write_file(path, b"x")
    with pytest.raises(DesktopError, match="not a directory"):
        client.list_directory("new/none")


def test_windows(client, edit):
    one, two = edit("one"), edit("two")
    client.activate_window(one.title.upper())
    active = lambda: done(client, "xdotool", "getactivewindow", "getwindowname")  # noqa: E731
    assert wait_for(lambda: one.title in active())
    client.activate_window(two.title)
    assert wait_for(lambda: two.title in active())
    path = "/home/user/opened by name.txt"
    client.write_file(path, b"x")
    client.open_file(path, timeout=110.0)
    assert any("opened by name" in title for title in client.windows())
    client.close_window("opened by name")
    assert wait_for(
        lambda: not any("opened by name" in title for title in client.windows())
    )
    for call in (client.activate_window, client.close_window):
        with pytest.raises(DesktopError, match="404: Window nobody not found"):
            call("nobody")
    with pytest.raises(DesktopError, match="404"):
        client.open_file("/home/user/none.txt")


def test_the_tree_is_osworlds(client, edit):
    edit("tree text")
    tree = ElementTree.fromstring(client.accessibility_xml())
    assert tree.tag == "desktop-frame"
    application = tree.find("./application[@name='mousepad']")
    menu = application.find(".//menu[@name='File']")
    assert menu.get(f"{ST}showing") == "true"
    x, y = (int(part) for part in menu.get(f"{CP}screencoord").strip("()").split(","))
    assert 0 <= x < WIDTH
    assert 0 <= y < HEIGHT
    assert [one.text for one in application.iter("text")] == ["tree text"]


def test_the_terminals_text(client):
    need("gnome-terminal")
    client.launch(["gnome-terminal"])
    assert wait_for(lambda: any("erminal" in w or "@" in w for w in client.windows()))
    client.act([pause(2.0), write("echo a''b\n")], settle_ms=1000)
    try:
        assert wait_for(lambda: "\nab\n" in (client.terminal() or ""))
    finally:
        client.execute(["pkill", "gnome-terminal"])
    assert wait_for(lambda: client.terminal() is None)


def test_recording(client):
    need("ffmpeg")
    client.start_recording()
    with pytest.raises(DesktopError, match="already in progress"):
        client.start_recording()
    client.act([move(100, 100), pause(0.5), move(200, 200), pause(0.5)])
    assert client.end_recording()[4:8] == b"ftyp"


def test_programs_that_probe_the_screen_harm_nothing(client):
    """The X server must not start anew when a client leaves, nor lack a cookie."""
    for _ in range(5):
        assert "Openbox" in done(client, "wmctrl", "-m")
    finished = client.execute(
        ["python3", "-c", "import Xlib.display; Xlib.display.Display()"], timeout=60.0
    )
    assert (finished.output, finished.error, finished.returncode) == ("", "", 0)
    assert client.view().image.shape == (HEIGHT, WIDTH, 3)


def test_pyautogui_as_osworld_calls_it(client, edit):
    editor = edit("word other")
    x, y = editor.place(1, 0)

    def run(code):
        prefix = "import pyautogui; import time; pyautogui.FAILSAFE = False; "
        return done(client, "python", "-c", prefix + code)

    assert run("print(*pyautogui.size())").split() == [str(WIDTH), str(HEIGHT)]
    run(f"pyautogui.moveTo({x}, {y}, 0.1, pyautogui.easeInElastic)")
    assert run("print(pyautogui.position())") == f"Point(x={int(x)}, y={int(y)})\n"
    run("pyautogui.doubleClick(); pyautogui.typewrite('<Ü\\n'); pyautogui.press('end')")
    run("pyautogui.keyDown('shift')")
    run("pyautogui.press('home')")
    run("pyautogui.keyUp('shift')")
    run("pyautogui.hotkey('ctrl', 'c'); pyautogui.hotkey('ctrl', 'End')")
    run("pyautogui.write('+', interval=0.01); pyautogui.hotkey('ctrl', 'v')")
    text = "<Ü\n other+ other"
    assert editor.saved(text) == text
    (left, top), (right, bottom) = editor.place(0, 0), editor.place(0, 1)
    run(f"pyautogui.mouseDown({left}, {top})")
    run(f"pyautogui.moveTo({right}, {bottom}); pyautogui.mouseUp(); time.sleep(0.2)")
    run("pyautogui.press(['delete', 'no such key'])")
    assert editor.saved(" other+ other") == " other+ other"
    run(f"pyautogui.click({left}, {top}); pyautogui.dragTo({right + 300}, {top})")
    run(
        "pyautogui.scroll(-3); pyautogui.hscroll(2); pyautogui.screenshot('/tmp/a.png')"
    )
    assert picture(client.read_file("/tmp/a.png")).shape == (HEIGHT, WIDTH, 3)


def test_spreadsheet(own):
    need("soffice")
    _, client = own
    client.launch(["soffice", "--calc", "--norestore"])
    assert wait_for(lambda: any("Calc" in title for title in client.windows()))

    def seen():
        return {one.label: one for one in client.view(widgets=True).widgets}

    assert wait_for(lambda: {"File", "Bold", "Sheet1"} <= set(seen()))
    widgets = client.view(widgets=True).widgets
    assert len([one for one in widgets if one.label == "File"]) == 1
    assert not [one for one in widgets if one.label in ("A1", "B7")]
    # LibreOffice says places that are off by its menu bar's height.
    bold = wait_for(lambda: seen().get("Bold"))
    assert not bold.on
    client.act([move(*middle(bold)), pause(0.5), click()])
    assert wait_for(lambda: (found := seen().get("Bold")) and found.on)
    client.act([write("12\n=A1*2\n")], settle_ms=1000)
    cells = ElementTree.fromstring(client.accessibility_xml()).iter("table-cell")
    named = {cell.get("name"): cell.text for cell in cells}
    assert named["A1"] == "12"
    assert named["A2"] == "24"
    assert 20 < len(named) < 2000


def test_a_desktop_without_its_screen_ends(own):
    sandbox, client = own
    done(client, "pkill", "-KILL", "Xvfb")
    assert wait_for(lambda: not sandbox.alive())
    with pytest.raises(DesktopError):
        client.view()


def test_a_screen_that_hangs_does_not_hang_us(own):
    _, client = own
    done(client, "pkill", "-STOP", "Xvfb")
    with pytest.raises(DesktopError, match="no whole answer in 2 s"):
        client.act([move(1, 1)], timeout=2.0)
    assert done(client, "echo", "alive") == "alive\n"
    done(client, "pkill", "-CONT", "Xvfb")
    assert wait_for(lambda: client.view().image.shape == (HEIGHT, WIDTH, 3))
