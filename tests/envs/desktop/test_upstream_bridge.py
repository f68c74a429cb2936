"""Ways to a desktop's server: the bridge, and the sandbox of the evaluators."""

import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from stepjax.envs.desktop.upstream import bridge
from stepjax.envs.desktop.upstream.bridge import SocketAddress
from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.evaluators import Evaluators
from stepjax.envs.desktop.upstream.install import find_interpreter
from stepjax.envs.desktop.upstream.jail import jail_command
from tests.envs.desktop.fake_upstream import (
    TOKEN,
    FakeDesktop,
    make_evaluators,
    make_task,
)

START = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_evaluators(tmp_path_factory.mktemp("evaluators") / "venv")


@pytest.fixture
def desktop(tmp_path):
    server = FakeDesktop(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def address(desktop):
    return SocketAddress(socket=desktop.socket_path, token=TOKEN)


needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="bubblewrap (bwrap) is not installed"
)


@pytest.fixture
def jailed(folder):
    with Evaluators(folder, start_timeout=START) as made:
        try:
            made.names()
        except UpstreamError as error:
            pytest.skip(f"no sandbox here: {error}")
        yield made


@needs_bubblewrap
def test_in_the_sandbox(jailed, desktop, address, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("secret")
    options = {"path": str(canary)}
    assert jailed.judge(make_task("server"), address).score == 1.0
    assert jailed.judge(make_task("canary", options=options), address).score == 0.0
    shadow = make_task("canary", options={"path": "/etc/passwd"})
    assert jailed.judge(shadow, address).score == 0.0
    assert jailed.judge(make_task("network"), address).score == 1.0  # its loopback only
    assert jailed.judge(make_task("limited"), address).score == 1.0
    with pytest.raises(UpstreamError, match="it ended during"):
        jailed.judge(make_task("crash"), address)
    assert jailed.judge(make_task("one"), address).score == 1.0


@needs_bubblewrap
def test_the_thread_that_started_the_worker_may_end(jailed, address):
    thread = threading.Thread(target=jailed.judge, args=(make_task("one"), address))
    thread.start()
    thread.join(START)
    (worker,) = jailed._workers._idle
    time.sleep(0.3)
    jailed.judge(make_task("one"), address)
    assert jailed._workers._idle == [worker]


def test_the_sandbox_shows_no_home(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/bwrap")
    command = jail_command(find_interpreter(folder), tmp_path)
    shown = [command[i + 1] for i, word in enumerate(command) if word == "--ro-bind"]
    assert str(Path.home()) not in shown and "/" not in shown and "/etc" not in shown
    assert "--unshare-all" in command and "--share-net" not in command
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UpstreamError, match="bubblewrap"):
        jail_command(find_interpreter(folder), tmp_path)


def test_of_a_shared_prefix_only_python_is_shown(monkeypatch, tmp_path):
    """A Python under ~/.local lies among its user's own things."""
    local, root = tmp_path / "local", tmp_path / "venv"
    for folder in ("bin", "lib/python3.11", "share/keyrings", "state"):
        (local / folder).mkdir(parents=True)
    (root / "bin").mkdir(parents=True)
    for name in ("bin/python3.11", "bin/tool", "lib/python3.11/os.py"):
        (local / name).touch()
    (local / "bin" / "python3").symlink_to("python3.11")
    interpreter = root / "bin" / "python"
    interpreter.symlink_to(local / "bin" / "python3")
    (root / "pyvenv.cfg").write_text(f"home = {local / 'bin'}\n")
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/bwrap")
    command = jail_command(interpreter, tmp_path / "exchange")
    shown = {command[i + 1] for i, word in enumerate(command) if word == "--ro-bind"}
    mine = {Path(name) for name in shown if name.startswith(str(tmp_path))}
    assert mine == {
        root,
        local / "bin" / "python3",
        local / "bin" / "python3.11",
        local / "lib",
        tmp_path / "exchange",
    }


def test_only_this_user_may_use_the_loopback(desktop, address, monkeypatch):
    way = bridge.LoopbackBridge(address)
    try:
        with urllib.request.urlopen(f"{way.url}/x", timeout=START) as answer:
            assert answer.read() == b"content"
        monkeypatch.setattr(bridge, "_owner", lambda *_: os.getuid() + 1)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"{way.url}/y", timeout=START)
        monkeypatch.setattr(bridge, "_owner", lambda *_: None)
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(f"{way.url}/z", timeout=START)
    finally:
        way.close()
    assert desktop.seen == ["/x"]


def test_bridge_token_cannot_be_chosen_and_bodies_pass(desktop, address):
    way = bridge.LoopbackBridge(address)
    body = os.urandom(3_000_000)
    request = urllib.request.Request(
        f"{way.url}/upload", data=body, headers={"Authorization": "Bearer wrong"}
    )
    try:
        with urllib.request.urlopen(request, timeout=START) as answer:
            assert answer.status == 200
    finally:
        way.close()
    assert desktop.bodies == [body]
    assert TOKEN not in repr(address)


def test_bridge_closes_bad_requests(desktop, address):
    way = bridge.LoopbackBridge(address)
    try:
        for text in (
            b"",
            b"GET / HTTP/1.1\r\n",
            b"x" * (bridge.MAX_HEAD_BYTES + 70000),
        ):
            with socket.create_connection(("127.0.0.1", way.port), START) as one:
                try:
                    one.sendall(text)
                    one.shutdown(socket.SHUT_WR)
                    assert one.recv(10) == b""
                except (ConnectionError, BrokenPipeError):
                    pass  # cut while we were still sending
    finally:
        way.close()
    assert not desktop.seen
