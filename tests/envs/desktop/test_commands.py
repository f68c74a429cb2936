import json
import socket
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from stepjax.envs.desktop import __main__ as commands
from stepjax.envs.desktop import show, vnc
from stepjax.envs.desktop.fleet import DesktopFleet
from stepjax.envs.desktop.show import find_task, show_task
from stepjax.envs.desktop.table import DesktopTasks, file_tasks, make_task
from tests.envs.desktop import fake_desktops as fake
from tests.envs.desktop.fake_desktops import FakeDesktops, FakeJob, spec_of

PIECES = {"plan": fake.plan}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["shwo"], "invalid choice: 'shwo'"),
        (["show"], "required: task"),
        (["show", "a", "--seed", "x"], "invalid int value: 'x'"),
        (["show", "a", "--seed", "-1"], "--seed must be >= 0, got -1."),
        (["show", "a", "--size", "big"], "'big' is not like 1280x800"),
        (["show", "nowhere/none.json"], "cannot be read"),
        (["show", "a", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_usage_is_one_line(arguments, words, capsys):
    try:
        code = commands.main(arguments)
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    assert code == 2
    assert not said.out
    assert said.err.count("\n") == 1
    assert said.err.startswith("python -m stepjax.envs.desktop: ")
    assert words in said.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(28, "No space left on device"), 1, "No space left"),
        (RuntimeError("two\nlines"), 1, "two lines"),
        (ImportError("No module named 'httpx'"), 2, "pip install 'stepjax[desktop]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_are_one_line(error, code, words, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setattr(commands, "_list", fail)
    assert commands.main(["list"]) == code
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert words in said.err


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        commands.main(["--help"])
    assert stop.value.code == 0
    assert "doctor" in capsys.readouterr().out


def test_show_saves_what_the_agent_would_see(tmp_path):
    from PIL import Image

    desktops, job = FakeDesktops(), FakeJob()
    out = tmp_path / "seen.png"
    shown = show_task(
        spec_of("write"), desktops, out=out,
        setup=job.setup, evaluate=job.evaluate, **PIECES,
    )  # fmt: skip
    assert (shown.width, shown.height) == (64, 40)
    with Image.open(out) as picture:
        assert np.asarray(picture).shape == (40, 64, 3)
    assert job.setups == 1
    assert len(desktops.made) == 1
    assert not desktops.left
    assert not fake.pool_threads()


@pytest.mark.parametrize("name", ["seen.gif", "none/seen.png"])
def test_show_looks_at_out_before_it_boots(tmp_path, name):
    desktops = FakeDesktops()
    with pytest.raises(ValueError, match="--out"):
        show_task(spec_of("write"), desktops, out=tmp_path / name)
    assert not desktops.asked


def test_show_ends_its_desktop_when_serving_fails(tmp_path):
    desktops, job = FakeDesktops(), FakeJob()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(vnc.VncError, match=f"port {port} cannot be used"):
            show_task(
                spec_of("write"), desktops, out=tmp_path / "a.png", vnc_port=port,
                setup=job.setup, evaluate=job.evaluate, **PIECES,
            )  # fmt: skip
    assert not desktops.left


ECHO = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
while True:
    one, _ = server.accept()
    one.sendall(b"hello")
    while data := one.recv(100):
        one.sendall(data.upper())
    one.close()
"""


@pytest.fixture
def echo():
    """A client whose launch starts a server on the socket that x11vnc would open."""
    started = []

    def launch(command):
        path = command[command.index("-unixsock") + 1]
        started.append(subprocess.Popen([sys.executable, "-c", ECHO, path]))
        sandbox.pid = started[0].pid
        client.command = command
        client.path = path

    sandbox = types.SimpleNamespace(pid=1, alive=lambda: True)
    client = types.SimpleNamespace(launch=launch, files={})
    client.write_file = client.files.__setitem__
    sandbox.pid = 2**22 + 1  # no process has this number
    yield sandbox, client
    for process in started:
        process.kill()
        process.wait()
    if started:
        subprocess.run(["rm", "-f", client.path], check=True)


def test_vnc_passes_bytes_on_and_stops(echo):
    sandbox, client = echo
    with vnc.serve_vnc(sandbox, client) as (port, password):
        (secret,) = client.files.values()
        assert secret.decode().strip() == password
        assert len(password) == 8
        assert password not in " ".join(client.command)
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as viewer:
                assert viewer.recv(5) == b"hello"
                viewer.sendall(b"pixels")
                assert viewer.recv(6) == b"PIXELS"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    fake.wait_for(lambda: "stepjax-vnc" not in [t.name for t in threading.enumerate()])


def test_vnc_without_a_server_says_so(monkeypatch):
    monkeypatch.setattr(vnc, "_START_SECONDS", 0.2)
    sandbox = types.SimpleNamespace(pid=2**22 + 1, alive=lambda: True)
    client = types.SimpleNamespace(
        launch=lambda command: None, write_file=lambda path, data: None
    )
    with pytest.raises(vnc.VncError, match="x11vnc does not start"):
        with vnc.serve_vnc(sandbox, client):
            pass


def test_find_task_reads_a_file(tmp_path):
    folder = tmp_path / "os"
    folder.mkdir()
    data = {"id": "a", "instruction": "Do.", "evaluator": {"func": "infeasible"}}
    (folder / "a.json").write_text(json.dumps(data))
    assert find_task(str(folder / "a.json"), 0).name == "os/a"


# Tables.


def test_file_tasks():
    specs = [spec_of("a"), spec_of("b", infeasible=True)]
    tasks = file_tasks(specs, unseen=[spec_of("c")])
    assert isinstance(tasks, DesktopTasks)
    assert tasks.names == ("fake/a", "fake/b", "fake/c")
    assert tasks.domains == ("fake",) * 3
    assert tasks.train_ids.tolist() == [0, 1]
    assert tasks.unseen_ids.tolist() == [2]
    assert tasks.infeasible.tolist() == [False, True, False]
    assert tasks.instruction(1, 5) == "Do b."
    assert tasks.load("fake/a", 7) is specs[0]
    with pytest.raises(ValueError, match="no task 'x'"):
        tasks.load("x", 0)
    with pytest.raises(ValueError, match="two tasks are called 'fake/a'"):
        file_tasks(specs, unseen=[spec_of("a")])
    with pytest.raises(ValueError, match="at least one task"):
        file_tasks([])


def test_a_table_fits_the_backend():
    from stepjax.rollout.backend import TaskTable

    tasks = file_tasks([spec_of("a")])
    fields = TaskTable.__dataclass_fields__
    TaskTable(**{name: getattr(tasks, name) for name in fields})


def test_a_fleet_shares_its_desktops():
    desktops, job = FakeDesktops(), FakeJob()
    tasks = file_tasks([spec_of("a"), spec_of("b", infeasible=True)])
    with DesktopFleet(
        tasks, num_envs=2, boot=desktops, setup=job.setup, evaluate=job.evaluate,
        **PIECES,
    ) as fleet:  # fmt: skip
        fleet.wait_ready()
        for index in range(2):
            task = make_task(tasks.load(tasks.names[index], 0), tasks.names[index])
            environment = fleet(index)
            assert environment.reset(task, 1).instruction == task.instruction
        fake.wait_for(lambda: fleet.status_line() == "desktops: 1 spare, 2 acting")
        assert fleet.metrics()["env/desktops_booted"] == 3
        assert desktops.most_alive == 3
    assert not desktops.left
    assert fleet.status_line() == "desktops: none"


def test_a_fleet_that_cannot_boot_closes():
    def script(number):
        raise OSError("unshare: not permitted")

    fleet = DesktopFleet(
        file_tasks([spec_of("a")]), num_envs=1, boot=FakeDesktops(script)
    )
    with pytest.raises(RuntimeError, match="not permitted"):
        fleet.wait_ready()
    assert not fake.pool_threads()
    with pytest.raises(ValueError, match="num_envs"):
        DesktopFleet(file_tasks([spec_of("a")]), num_envs=0)


def test_show_waits_for_an_interrupt(monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(show.time, "sleep", interrupt)
    show._until_interrupted()
