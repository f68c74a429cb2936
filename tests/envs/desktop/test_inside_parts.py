"""Parts of the program inside a desktop that need no desktop."""

import importlib
import os
import socket
import struct
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.desktop.input_plan import plan
from stepjax.envs.desktop.unix_http import UnixHttp, form_body

# Inside, its folder is a package at the top.
sys.modules.setdefault("inside", importlib.import_module("stepjax.envs.desktop.inside"))
boot = importlib.import_module("inside.boot")
filing = importlib.import_module("inside.filing")
forms = importlib.import_module("inside.forms")
operations = importlib.import_module("inside.operations")
processes = importlib.import_module("inside.processes")
resting = importlib.import_module("inside.resting")
serving = importlib.import_module("inside.serving")
stacking = importlib.import_module("inside.stacking")
wire = importlib.import_module("inside.wire")

SCREEN = {"width": 100, "height": 50}


@pytest.mark.parametrize(
    ("one", "match"),
    [
        (None, "op must be one of"),
        ({}, "op must be one of"),
        ({"op": "exec"}, "op must be one of"),
        ({"op": "move", "x": 1}, "exactly x, y"),
        ({"op": "move", "x": 1, "y": 1, "z": 1}, "exactly x, y"),
        ({"op": "move", "x": 100, "y": 1}, r"x must be in \[0, 99\], got 100"),
        ({"op": "move", "x": 1, "y": -1}, r"y must be in \[0, 49\], got -1"),
        ({"op": "move", "x": 1.0, "y": 1}, "x of move must be int, got float"),
        ({"op": "move", "x": True, "y": 1}, "x of move must be int, got bool"),
        ({"op": "click", "button": 8, "count": 1}, "button must be in"),
        ({"op": "click", "button": 1, "count": 0}, "count must be in"),
        ({"op": "click", "button": 1, "count": 10**9}, "count must be in"),
        ({"op": "press", "keys": []}, "1 to 8 names"),
        ({"op": "press", "keys": ["a"] * 9}, "1 to 8 names"),
        ({"op": "press", "keys": [1]}, "1 to 8 names"),
        ({"op": "type", "text": "a" * 20_001}, "at most 20000 characters"),
        ({"op": "sleep", "seconds": 5.1}, "seconds must be in"),
        ({"op": "sleep", "seconds": float("nan")}, "seconds must be in"),
    ],
)
def test_unsound_operations(one, match):
    with pytest.raises(operations.OperationError, match=match) as caught:
        operations.check_operations([{"op": "sleep", "seconds": 0}, one], **SCREEN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "some", [None, {}, "x", [{"op": "sleep", "seconds": 0}] * 2001]
)
def test_operations_must_be_a_list(some):
    with pytest.raises(operations.OperationError, match="a list of at most"):
        operations.check_operations(some, **SCREEN)


def test_pauses_add_up():
    with pytest.raises(operations.OperationError, match="10.0 s or less in total"):
        operations.check_operations([{"op": "sleep", "seconds": 4}] * 3, **SCREEN)


def test_forms_come_back_as_they_were():
    fields = {"file_path": "ä b".encode(), "file_data": b"\0\r\n--x\r\n\r\n\xff"}
    assert forms.read_form(*form_body(fields)) == fields


@settings(deadline=None)
@given(st.dictionaries(st.text("abcdefghij_", min_size=1), st.binary(), max_size=9))
def test_any_form_comes_back(fields):
    assert forms.read_form(*form_body(fields)) == fields if fields else True


def test_forms_as_others_write_them():
    body = (
        b'--"b\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; '
        b'filename="x"; name="file_path"\r\n\r\n/a\r\n--"b\r\n'
        b'Content-Disposition: form-data; name="file_path"\r\n\r\n/b\r\n--"b--'
    )
    plain = b"file_path=%2Fa+b&file_path=c&x="
    kind = "application/x-www-form-urlencoded"
    assert forms.read_form(plain, kind) == {"file_path": b"/a b", "x": b""}
    body = body.replace(b'--"b', b"--b")
    kind = "multipart/form-data; charset=x; boundary=b"
    assert forms.read_form(body, kind) == {"file_path": b"/a"}


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60),
    st.sampled_from(
        ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=b"]
        + ["application/x-www-form-urlencoded"]
    ),
)
def test_any_body_is_a_form_or_an_error(body, kind):
    for some in (body, b"--b" + body, b"--b\r\n" + body + b"\r\n--b"):
        try:
            assert isinstance(forms.read_form(some, kind), dict)
        except forms.FormError:
            continue


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 100_000, b"1"])
def test_bodies_that_are_no_json_object(body):
    with pytest.raises(forms.FormError, match="the body"):
        forms.read_json(body)


def test_commands():
    line = processes.command_line
    assert line(["ls", "~/a", "~"]) == ["ls", os.path.expanduser("~/a"), "~"]
    assert line("echo 'a b' c") == ["echo", "a b", "c"]
    assert line("echo $HOME; ls", True) == ["/bin/sh", "-c", "echo $HOME; ls"]
    for bad in ([], "", None, 1, [1], ["a\0b"], {"a": 1}):
        with pytest.raises(ValueError, match="command"):
            line(bad)
    with pytest.raises(ValueError, match="empty"):
        line([], True)


def test_programs_leave_nothing_open(tmp_path):
    programs = processes.Programs({**os.environ, "HOME": str(tmp_path)})
    done = programs.run(["sh", "-c", "pwd; echo no >&2; exit 3"], timeout=60.0)
    assert (done.returncode, done.output, done.error) == (3, f"{tmp_path}\n", "no\n")
    done = programs.run(["sh", "-c", r"printf 'a\377\r\nb\r'"], timeout=60.0)
    assert done.output == "a\ufffd\nb\n"
    # The background program holds our standard output for a minute.
    done = programs.run(["sh", "-c", "sleep 60 & echo $!"], timeout=30.0)
    assert done.returncode == 0
    os.kill(int(done.output), 9)
    done = programs.run(["sh", "-c", "sleep 60 & echo $!; wait"], timeout=0.5)
    assert done.timed_out
    assert done.returncode == -9


def test_regular_files_only(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert filing.read_regular_file(tmp_path / "a") == b"x" * 10
    with pytest.raises(OSError, match="more than 9 bytes"):
        filing.read_regular_file(tmp_path / "a", 9)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError):
            filing.read_regular_file(path)


def test_directory_tree(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "a").touch()
    tree = filing.directory_tree(str(tmp_path))
    assert tree["name"] == tmp_path.name
    children = {one["name"]: one for one in tree["children"]}
    assert children["a"] == {"type": "file", "name": "a"}
    below = {one["name"]: one for one in children["b"]["children"]}
    assert below["loop"]["children"] == below["c"]["children"] == []
    assert "error" in filing.directory_tree(str(tmp_path / "none"))


def test_xauthority():
    data = boot.xauthority(b"c" * 16, "vm")
    assert data.startswith(struct.pack(">HH", 256, 2) + b"vm")
    assert data.count(b"MIT-MAGIC-COOKIE-1\0\x10" + b"c" * 16) == 2


def read(signature, data):
    return wire.read_value(data, signature, 0, 0)[0]


def test_wire_values():
    assert wire.encode("su", ("ab", 7)) == b"\2\0\0\0ab\0\0\7\0\0\0"
    assert read("s", wire.encode("s", ("äöü",))) == "äöü"
    assert read("(iiii)", struct.pack("<4i", 1, -2, 3, 4)) == (1, -2, 3, 4)
    assert read("au", struct.pack("<3I", 8, 5, 6)) == [5, 6]
    assert read("as", struct.pack("<I", 0)) == []
    assert read("v", b"\1s\0\0" + wire.encode("s", ("x",))) == "x"
    assert read("v", b"\1d\0" + bytes(5) + struct.pack("<d", 0.5)) == 0.5
    pairs = struct.pack("<II", 15, 0)
    pairs += wire.encode("ss", ("k", "abc"))
    assert read("a{ss}", pairs) == {"k": "abc"}
    ref = wire.encode("so", (":1.2", "/a"))
    assert read("(so)", ref) == (":1.2", "/a")
    assert read("a(so)", struct.pack("<II", len(ref), 0) + ref) == [(":1.2", "/a")]
    # An array in a struct ends where the struct goes on.
    data = struct.pack("<II", 4, 9) + struct.pack("<I", 3)
    assert read("(aui)", data) == ([9], 3)
    assert wire.read_value(data, "(aui)s", 0, 0)[1:] == (12, 5)


def test_covered_widgets():
    window = {"name": "low", "box": (0, 0, 50, 50)}
    popup = {"name": "", "box": (60, 0, 20, 20)}
    other = {"name": "nobody knows", "box": None}
    stack = [
        ("low", (0, 0, 50, 50)),
        ("high", (30, 0, 50, 50)),
        ("", (60, 0, 20, 20)),
    ]
    widgets = [
        {"box": (0, 0, 10, 10), "window": 0},
        {"box": (20, 0, 36, 10), "window": 0},
        {"box": (20, 0, 44, 10), "window": 0},
        {"box": (60, 0, 70, 10), "window": 1},
        {"box": (60, 0, 70, 10), "window": 2},
        {"box": (60, 0, 70, 10), "window": -1},
    ]
    found = stacking.uncovered(widgets, [window, popup, other], stack)
    assert found == [widgets[0], widgets[1], *widgets[3:]]
    assert stacking.uncovered(widgets, [], []) == widgets


@pytest.fixture
def serve(tmp_path):
    """A server in this process with routes as told, and a way to ask it."""
    ended = []

    def start(**routes):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        made = {("POST", f"/{name}"): route for name, route in routes.items()}
        server = serving.Server(listener, "t" * 20, made)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        ended.append((server, listener, thread))

        def ask(path, body=b"", token="t" * 20, method="POST"):
            http = UnixHttp(
                str(tmp_path / "socket"), {"Authorization": f"Bearer {token}"}
            )
            try:
                return http.request(
                    method, path, body, "text/plain", timeout=60.0, max_bytes=1 << 20
                )
            finally:
                http.close()

        return ask

    yield start
    for server, listener, thread in ended:
        server.shutdown()
        thread.join()
        listener.close()


def test_serving(serve):
    release = threading.Event()

    def echo(request):
        return serving.Answer(200, "text/plain", request.body, b"!")

    def fail(request):
        raise RuntimeError("two\nlines")

    def hang(request):
        release.wait(60)

    ask = serve(
        echo=serving.Route(echo, 60.0),
        fail=serving.Route(fail, 60.0),
        hang=serving.Route(hang, 0.1),
    )
    reply = ask("/echo?x=1", b"a")
    assert (reply.status, reply.body) == (200, b"a!")
    assert reply.headers["x-stepjax-version"] == "1"
    assert ask("/fail").status == 500
    assert ask("/nothing").status == 404
    assert ask("/echo", method="GET").status == 404
    for token in ("", "x", "t" * 19, "t" * 21, "T" * 20):
        assert ask("/echo", token=token).status == 401
        assert ask("/nothing", token=token).status == 401
    assert ask("/hang").status == 504
    release.set()


def test_lengths_that_lie(serve, tmp_path):
    ask = serve(echo=serving.Route(lambda _: serving.Answer(200, "a"), 60.0))
    start = f"POST /echo HTTP/1.1\r\nAuthorization: Bearer {'t' * 20}\r\n"
    for line, status in (
        ("Content-Length: 99999999999999", b"413"),
        ("Content-Length: -1", b"411"),
        ("Content-Length: 1_0", b"411"),
        ("Transfer-Encoding: chunked", b"411"),
    ):
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(60)
            one.connect(str(tmp_path / "socket"))
            one.sendall(f"{start}{line}\r\n\r\n".encode())
            assert one.recv(100).split()[1] == status
    assert ask("/echo").status == 200


def test_the_plans_of_actions_are_sound():
    from stepjax.envs.actions import Action, ActionKind

    for kind in set(ActionKind) - {ActionKind.SEQUENCE}:
        keys = ("ctrl",) if kind.name in ("PRESS", "KEY_DOWN", "KEY_UP") else ()
        action = Action(
            kind=kind, x=1.0, y=1.0, to_x=0.0, to_y=0.0, text="a<ü", keys=keys
        )
        done = plan(action, width=100, height=50)
        assert operations.check_operations(list(done), **SCREEN) == list(done)


def write_process(proc, pid, ticks, states):
    """A process as /proc shows it, with a thread for each state."""
    fields = " ".join(["0"] * 10 + [str(ticks), "0"] + ["0"] * 9)
    for number, state in enumerate(states):
        task = proc / str(pid) / "task" / str(pid + number)
        task.mkdir(parents=True, exist_ok=True)
        (task / "stat").write_text(f"{pid} (a b) c) {state} {fields}")
    (proc / str(pid) / "stat").write_text(f"{pid} (a b) c) S {fields}")


def test_programs_rest_when_nothing_computes_or_waits_to(tmp_path, monkeypatch):
    write_process(tmp_path, 7, 100, "SS")
    write_process(tmp_path, os.getpid(), 0, "R")  # whoever looks does not count
    (tmp_path / "9").mkdir()  # has just ended
    (tmp_path / "uptime").write_text("1")
    assert resting.await_rest(60.0, proc=tmp_path, pause=0.0)
    write_process(tmp_path, 8, 0, "SR")  # wants a processor and gets none
    assert not resting.await_rest(0.0, proc=tmp_path, pause=0.0)
    assert not resting.await_rest(0.05, proc=tmp_path, pause=0.001)

    ticks = iter(range(100, 160, 10))

    def go_on(seconds):
        write_process(tmp_path, 8, next(ticks, 150), "SS")

    monkeypatch.setattr(resting.time, "sleep", go_on)
    assert resting.await_rest(60.0, proc=tmp_path, pause=0.0)
    assert next(ticks, None) is None
