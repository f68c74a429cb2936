"""Routes of the program inside, on real desktops with real applications."""

import json
from xml.etree import ElementTree

import pytest

from stepjax.envs.desktop.unix_http import UnixHttp
from stepjax.envs.desktop.view import DesktopError
from tests.envs.desktop.live_desktop import (
    CP,
    HEIGHT,
    ST,
    WIDTH,
    click,
    done,
    middle,
    move,
    need,
    pause,
    picture,
    write,
)
from tests.envs.desktop.sandboxes import PATIENCE, wait_for

pytestmark = pytest.mark.desktop


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

    def everything():
        view = client.view(widgets=True)
        return view.widgets if view.complete else None

    widgets = wait_for(everything)
    assert len([one for one in widgets if one.label == "File"]) == 1
    assert not [one for one in widgets if one.label in ("A1", "B7")]
    # LibreOffice says places that are off by its menu bar's height.
    bold = wait_for(lambda: seen().get("Bold"))
    assert not bold.on
    client.act([move(*middle(bold)), pause(0.5), click()])
    assert wait_for(lambda: (found := seen().get("Bold")) and found.on)
    client.act([write("12\n=A1*2\n")])
    named = {}

    def calculated():
        cells = ElementTree.fromstring(client.accessibility_xml()).iter("table-cell")
        named.clear()
        named.update({cell.get("name"): cell.text for cell in cells})
        return (named.get("A1"), named.get("A2")) == ("12", "24")

    assert wait_for(calculated)
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
