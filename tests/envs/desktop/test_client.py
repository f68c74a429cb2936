"""The client against a server that is slow, dead, foreign, garbled or fine."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepjax.envs.desktop.client import DesktopClient
from stepjax.envs.desktop.view import DesktopError, read_view, split_answer
from stepjax.envs.desktop.widgets import read_widgets
from tests.envs.desktop.fake_server import FakeServer, answer, body_of

HEAD = {
    "width": 4,
    "height": 2,
    "image": {"format": "raw", "width": 4, "height": 2},
}
PICTURE = bytes(range(24))
WIDGET = {
    "role": "push button",
    "name": "OK",
    "value": "",
    "box": [1, 0, 3, 2],
    "states": ["sensitive", "focused"],
    "ref": ":1.2/a",
}
CALLS = {
    "act": lambda client: client.act([{"op": "move", "x": 1, "y": 1}]),
    "view": lambda client: client.view(widgets=True),
    "screenshot": lambda client: client.screenshot(),
    "execute": lambda client: client.execute(["true"]),
    "launch": lambda client: client.launch(["xterm"]),
    "open_file": lambda client: client.open_file("a.txt"),
    "activate_window": lambda client: client.activate_window("a"),
    "close_window": lambda client: client.close_window("a"),
    "windows": lambda client: client.windows(),
    "read_file": lambda client: client.read_file("a"),
    "write_file": lambda client: client.write_file("a", b"b"),
    "accessibility_xml": lambda client: client.accessibility_xml(),
    "terminal": lambda client: client.terminal(),
    "list_directory": lambda client: client.list_directory("/"),
    "start_recording": lambda client: client.start_recording(),
    "end_recording": lambda client: client.end_recording(),
}


@pytest.fixture
def connect():
    """Clients of a fake server that replies as told."""
    opened = []

    def make(reply, **options):
        if isinstance(reply, bytes):
            said = reply

            def reply(request):
                return said

        server = FakeServer(reply)
        client = DesktopClient(server.path, "secret", **options)
        opened.append((server, client))
        return client, server

    yield make
    for server, client in opened:
        client.close()
        server.__exit__()


def fails(call, match, status=None):
    with pytest.raises(DesktopError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 300
    assert caught.value.status == status


def test_a_view_is_pixels_and_widgets(connect):
    head = {**HEAD, "widgets": [WIDGET], "complete": False}
    client, server = connect(answer(body_of(head, PICTURE)))
    view = client.act(
        ({"op": "move", "x": 3, "y": 1},), settle_ms=7, size=(4, 2), widgets=True
    )
    np.testing.assert_array_equal(view.image.ravel(), np.arange(24))
    assert view.image.shape == (2, 4, 3)
    assert view.image.dtype == np.uint8
    assert (view.width, view.height, view.complete) == (4, 2, False)
    (widget,) = view.widgets
    assert widget.box == (0.25, 0.0, 0.75, 1.0)
    assert (widget.role, widget.label, widget.focused) == ("button", "OK", True)
    assert not widget.disabled
    asked = server.requests[0]
    assert asked["headers"]["authorization"] == "Bearer secret"
    assert json.loads(asked["body"]) == {
        "operations": [{"op": "move", "x": 3, "y": 1}],
        "settle_ms": 7,
        "image": {"format": "raw", "size": [4, 2]},
        "widgets": True,
    }


def test_every_call_says_what_the_server_needs(connect):
    replies = {
        "/act": body_of({"image": {"format": "png"}}, b"png"),
        "/execute": {"returncode": 3, "output": "out", "error": "err"},
        "/windows": [{"title": "A", "class": "a.A"}, {"title": "B"}],
        "/file": b"\0\xff",
        "/accessibility": {"AT": "<desktop-frame/>"},
        "/terminal": {"output": None, "status": "success"},
        "/list_directory": {"directory_tree": {"name": "x"}},
        "/end_recording": b"mp4",
    }
    client, server = connect(lambda asked: answer(replies.get(asked["path"], b"fine")))
    assert client.screenshot() == b"png"
    done = client.execute(["ls", "-l"], timeout=3.0, cwd="/tmp")
    assert (done.returncode, done.output, done.error) == (3, "out", "err")
    assert client.windows() == ("A", "B")
    assert client.read_file("~/ä b&c=d") == b"\0\xff"
    assert client.accessibility_xml() == "<desktop-frame/>"
    assert client.terminal() is None
    assert client.list_directory("/tmp") == {"name": "x"}
    assert client.end_recording() == b"mp4"
    client.write_file("Desktop/ü", b"\r\n--data\0")
    client.launch(["xterm"])
    client.activate_window("Calc")
    bodies = {one["path"]: one["body"] for one in server.requests}
    assert json.loads(bodies["/execute"]) == {
        "command": ["ls", "-l"],
        "timeout": 3.0,
        "cwd": "/tmp",
    }
    assert "\r\n\r\n~/ä b&c=d\r\n" in bodies["/file"].decode()
    assert b"\r\n--data\0" in bodies["/setup/upload"]
    assert json.loads(bodies["/setup/launch"]) == {"command": ["xterm"]}
    assert json.loads(bodies["/setup/activate_window"])["must_exist"] is True


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("reply", "match", "status"),
    [
        (answer({"message": "the token is\nwrong"}, 401), "401: the token is w", 401),
        (answer(b"File <b>not</b> found", 404), "404: File", 404),
        (answer(b"\xff" * 5000, 500), "500", 500),
        (answer(version="2"), "version 2, this client needs 1", None),
        (answer(version=None), "version None", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no proper answer: BadStatusLine", None),
        (b"\0" * 100 + b"\r\n\r\n", "no proper answer: BadStatusLine", None),
        (
            answer(b"{", length=1000),
            "no proper answer: HTTPException: 999 bytes",
            None,
        ),
    ],
    ids=["token", "missing", "bytes", "newer", "foreign", "ssh", "zeros", "cut"],
)
def test_bad_answers_are_one_line(connect, call, reply, match, status):
    client, _ = connect(lambda asked: lambda socket: socket.sendall(reply))
    fails(lambda: call(client), match, status)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0",
        b"\xff\xff\xff\xff{}",
        body_of(b"{"),
        body_of(b"[]"),
        body_of(b"[" * 100_000),
        body_of({}),
        body_of({**HEAD, "image": None}, PICTURE),
        body_of({**HEAD, "image": {"format": "jpeg", "width": 4, "height": 2}}, b"x"),
        body_of(HEAD, PICTURE[:-1]),
        body_of(HEAD, PICTURE + b"x"),
        body_of({**HEAD, "width": 0}, PICTURE),
        body_of({**HEAD, "width": True}, PICTURE),
        body_of({**HEAD, "width": "4"}, PICTURE),
        body_of({**HEAD, "width": 1 << 40}, PICTURE),
        body_of(HEAD, PICTURE, length=3),
    ],
)
def test_garbled_views_are_one_line(connect, body):
    client, _ = connect(answer(body))
    fails(client.view, "/act")


@pytest.mark.parametrize(
    "change",
    [
        {"box": [0, 0, 5, 1]},
        {"box": [2, 0, 1, 1]},
        {"box": [0, 0, 1]},
        {"box": None},
        {"box": ["a", 0, 1, 1]},
        {"states": None},
    ],
)
def test_unsound_widgets_are_one_line(connect, change):
    head = {**HEAD, "widgets": [{**WIDGET, **change}]}
    client, _ = connect(answer(body_of(head, PICTURE)))
    fails(lambda: client.view(widgets=True), "the widgets are unsound")


@pytest.mark.parametrize("widgets", [None, {}, [1], [{}], [WIDGET] * 1001])
def test_widgets_that_are_none(widgets):
    head = {**HEAD, "widgets": widgets}
    fails(lambda: read_view(body_of(head, PICTURE), True), "the widgets are unsound")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"5", b'{"output": 1}', b"[" * 100_000]
)
@pytest.mark.parametrize("name", ["execute", "accessibility_xml", "list_directory"])
def test_garbled_objects_are_one_line(connect, name, body):
    client, _ = connect(answer(body))
    fails(lambda: CALLS[name](client), "the answer")


def test_windows_must_be_a_list(connect):
    client, _ = connect(answer({"a": 1}))
    fails(client.windows, "no list of windows")
    client, _ = connect(answer([1]))
    fails(client.windows, "no list of windows")


def test_a_server_that_says_nothing_is_given_up(connect):
    client, server = connect(lambda asked: lambda socket: server.pause(60), timeout=0.3)
    fails(client.view, "no whole answer in 0.3 s")


def test_a_server_that_drips_is_given_up(connect):
    def drip(socket):
        socket.sendall(answer(b"", length=100_000))
        for _ in range(600):
            socket.sendall(b"x")
            server.pause(0.1)

    client, server = connect(lambda asked: drip, timeout=1.0)
    fails(client.view, "no whole answer in 1 s")


def test_a_server_that_dies_in_the_middle(connect):
    whole = answer(body_of(HEAD, PICTURE))
    client, _ = connect(lambda asked: lambda socket: socket.sendall(whole[:-5]))
    fails(client.view, "no proper answer")


def test_a_client_recovers_when_the_server_does(connect):
    replies = [b"garbage\r\n\r\n", answer(b"{}", 500), answer(body_of(HEAD, PICTURE))]

    def reply(asked):
        said = replies.pop(0)
        return (lambda socket: socket.sendall(said)) if said[:1] == b"g" else said

    client, _ = connect(reply)
    fails(client.view, "no proper answer")
    fails(client.view, "500", 500)
    assert client.view().image.shape == (2, 4, 3)


def test_no_server(tmp_path):
    client = DesktopClient(tmp_path / "nothing", "secret")
    fails(client.view, "the desktop has gone")
    client.close()


def test_a_server_that_ends_between_calls(connect):
    client, server = connect(answer(body_of(HEAD, PICTURE)))
    client.view()
    server.__exit__()
    fails(client.view, "the desktop has gone")
    fails(client.view, "the desktop has gone")


def test_too_large_a_file(connect):
    client, _ = connect(answer(b"x" * 5000))
    fails(lambda: client.read_file("a", max_bytes=1000), "more than 1000 bytes")


def test_no_proxy_and_no_settings_of_the_user(connect, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    client, _ = connect(answer(body_of(HEAD, PICTURE)))
    assert client.view().width == 4


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_a_timeout_is_needed(timeout):
    with pytest.raises(ValueError, match="timeout must be > 0"):
        DesktopClient("/nowhere", "secret", timeout=timeout)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_view_or_an_error(data):
    for widgets in (False, True):
        try:
            read_view(data, widgets)
        except DesktopError:
            continue


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_widgets_or_an_error(data):
    for found in (data, [data], [{**WIDGET, "box": data}], [{**WIDGET, "role": data}]):
        try:
            read_view(body_of({**HEAD, "widgets": found}, PICTURE), True)
        except DesktopError:
            continue


def test_a_text_is_a_field_only_if_it_can_be_edited():
    states = (["sensitive"], ["sensitive", "editable"])
    found = [{**WIDGET, "role": "text", "states": one} for one in states]
    roles = [one.role for one in read_widgets(found, width=4, height=2)]
    assert roles == ["text", "text_field"]


def test_head_and_picture_come_apart():
    assert split_answer(body_of({"a": 1}, b"b")) == ({"a": 1}, b"b")
