"""Virtual machines as environments, on stand-ins."""

import json

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Task
from stepjax.envs.desktop.tasks.schema import parse_task
from stepjax.envs.desktop.upstream.bridge import LoopbackBridge, SocketAddress
from stepjax.envs.desktop.upstream.errors import UpstreamError
from stepjax.envs.desktop.upstream.evaluators import Evaluators
from stepjax.envs.desktop.upstream.install import find_interpreter
from stepjax.envs.desktop.upstream.jail import open_command
from stepjax.envs.desktop.upstream.machines import (
    ProviderMachine,
    UrlMachine,
    parse_url,
)
from stepjax.envs.desktop.upstream.vm import VmEnvironment
from tests.envs.desktop.fake_upstream import (
    TOKEN,
    FakeDesktop,
    make_evaluators,
    make_png,
)

START = 120.0
TASK = Task(task_id=0, name="os/t1", instruction="go", domain="os")
CLICK = Action(kind=ActionKind.CLICK, x=0.5, y=0.5)
DONE = Action(kind=ActionKind.DONE)
FAIL = Action(kind=ActionKind.FAIL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_evaluators(tmp_path_factory.mktemp("evaluators") / "venv")


@pytest.fixture(scope="module")
def evaluators(folder):
    python = find_interpreter(folder)
    with Evaluators(command=lambda _: open_command(python), start_timeout=START) as one:
        yield one


@pytest.fixture
def server(tmp_path):
    """Url of a fake desktop's server, and the server."""
    desktop = FakeDesktop(tmp_path)
    desktop.pages["/screenshot"] = make_png((8, 4))
    address = SocketAddress(socket=desktop.socket_path, token=TOKEN)
    bridge = LoopbackBridge(address)
    yield bridge.url, desktop
    bridge.close()
    desktop.stop()


def load(name, seed, func="one"):
    data = {"id": "t1", "instruction": "go", "evaluator": {"func": func}}
    return parse_task(data, source=name)


class Recorder:
    """A machine that only remembers."""

    def __init__(self, size=(8, 4)):
        self.png = make_png(size)
        self.programs = []
        self.judged = None
        self.closed = 0

    def reset(self, spec):
        return self.png

    def act(self, program):
        self.programs.append(program)
        return self.png

    def evaluate(self, spec, ended_by):
        self.judged = ended_by
        return 1.0

    def close(self):
        self.closed += 1


def made(machine=None, **settings):
    machine = machine or Recorder()
    env = VmEnvironment(machine, load, **settings)
    return env, machine


def test_observations():
    env, _ = made()
    first = env.reset(TASK, 0)
    assert first.instruction == "go"
    assert first.screenshot is not None
    assert first.screenshot.shape == (4, 8, 3)
    assert first.screenshot.dtype == np.uint8
    assert (first.screenshot[..., 0] == 255).all()
    assert first.state_hash and first.widgets is None
    small, _ = made(image_size=(4, 2))
    assert small.reset(TASK, 0).screenshot.shape == (2, 4, 3)


def sequence(*parts):
    return Action(kind=ActionKind.SEQUENCE, parts=parts)


@pytest.mark.parametrize(
    ("action", "programs", "ended_by"),
    [
        (CLICK, ["pyautogui.click(4, 2)"], None),
        (DONE, ["DONE"], ActionKind.DONE),
        (FAIL, ["FAIL"], ActionKind.FAIL),
        (Action(kind=ActionKind.WAIT), ["WAIT"], None),
        (Action(kind=ActionKind.INVALID, text="why"), [], None),
        (Action(kind=ActionKind.CLICK), None, None),
        (sequence(CLICK, DONE, CLICK), ["pyautogui.click(4, 2)", "DONE"], DONE.kind),
        (sequence(FAIL, CLICK), ["FAIL"], FAIL.kind),
    ],
)
def test_actions(action, programs, ended_by):
    env, machine = made()
    env.reset(TASK, 0)
    result = env.step(action)
    if programs is not None:
        assert [program.strip() for program in machine.programs] == programs
    assert result.terminated == (ended_by is not None)
    assert env.evaluate() == 1.0
    assert machine.judged is ended_by


def test_order_of_calls():
    env, machine = made()
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step(CLICK)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.evaluate()
    env.close()
    assert machine.closed == 1


@pytest.mark.parametrize("png", [b"", b"no picture", make_png((8, 4))[:40]])
def test_what_is_no_picture_is_a_fault(png):
    machine = Recorder()
    machine.png = png
    env, _ = made(machine)
    with pytest.raises(UpstreamError, match="no picture"):
        env.reset(TASK, 0)


def test_by_url(server, evaluators):
    url, desktop = server
    machine = UrlMachine(url, evaluators=evaluators, pause=0.0)
    env = VmEnvironment(machine, load)
    assert env.reset(TASK, 0).screenshot.shape == (4, 8, 3)
    assert "/setup/go" in desktop.seen
    env.step(CLICK)
    command = json.loads(desktop.bodies[-1])
    assert command["shell"] is False
    assert command["command"][:2] == ["python", "-c"]
    assert command["command"][2].endswith("pyautogui.click(4, 2)")
    before = len(desktop.bodies)
    assert env.step(DONE).terminated
    assert len(desktop.bodies) == before
    assert env.evaluate() == 1.0
    env.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"returncode": 1, "error": "no\\nmodule"}', r"failed \(1\): no module"),
        (b"no json", "not OSWorld's"),
        (b"[]", "not OSWorld's"),
        (b"{}", "not OSWorld's"),
    ],
)
def test_by_url_when_programs_fail(server, evaluators, answer, message):
    url, desktop = server
    env = VmEnvironment(UrlMachine(url, evaluators=evaluators, pause=0.0), load)
    env.reset(TASK, 0)
    desktop.pages["/execute"] = answer
    with pytest.raises(UpstreamError, match=message):
        env.step(CLICK)
    env.close()


def test_by_url_when_the_server_goes(server, evaluators):
    url, desktop = server
    env = VmEnvironment(UrlMachine(url, evaluators=evaluators, pause=0.0), load)
    env.reset(TASK, 0)
    desktop.dead = True
    with pytest.raises(UpstreamError, match="/screenshot"):
        env.step(Action(kind=ActionKind.WAIT))
    with pytest.raises(UpstreamError):
        env.reset(TASK, 0)
    env.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "https://host:5000",
        "http://",
        "http://host:x",
        "http://h/p",
        "ftp://h",
    ],
)
def test_malformed_url(url):
    with pytest.raises(ValueError, match="url must be like http://host:5000"):
        parse_url(url)


def test_url():
    assert (parse_url("http://host").host, parse_url("http://host").port) == (
        "host",
        5000,
    )
    assert parse_url("http://10.0.0.1:81/").port == 81


def test_by_provider(folder, tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    monkeypatch.setenv("FAKE_VM_CLOSED", str(closed))
    machine = ProviderMachine("docker", folder=folder, pause=0.0, start_timeout=START)
    env = VmEnvironment(machine, lambda name, seed: load(name, seed, func="infeasible"))
    assert env.reset(TASK, 0).screenshot.shape == (4, 8, 3)
    assert not env.step(CLICK).terminated
    assert env.evaluate() == 0.0
    env.step(FAIL)
    assert env.evaluate() == 1.0
    env.reset(TASK, 0)
    env.step(DONE)
    assert env.evaluate() == 0.0
    assert not closed.exists()
    env.close()
    env.close()
    assert closed.exists()


def test_bad_provider(folder):
    with pytest.raises(ValueError, match="provider must be one of vmware, virtualbox"):
        ProviderMachine("qemu", folder=folder)


def test_provider_that_does_not_start(folder, tmp_path):
    broken = make_evaluators(tmp_path / "venv")
    (module,) = broken.glob("lib/python3*/site-packages/desktop_env/desktop_env.py")
    text = module.read_text().replace(
        'def get_vm_path(self, **_): return "vm"',
        "def get_vm_path(self, **_): import docker",
    )
    module.write_text(text)
    with pytest.raises(UpstreamError, match="vm_open: ModuleNotFoundError.*docker"):
        ProviderMachine("docker", folder=broken, start_timeout=START)
