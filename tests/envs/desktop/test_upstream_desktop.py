"""Upstream's own controllers, getters and metrics against this project's desktops."""

import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Task
from stepjax.envs.desktop.tasks.schema import parse_task
from stepjax.envs.desktop.upstream import (
    Evaluators,
    LoopbackBridge,
    UpstreamError,
    UrlMachine,
    VmEnvironment,
)
from stepjax.envs.desktop.upstream.assets import asset_name
from stepjax.envs.desktop.upstream.bridge import address_of
from stepjax.envs.desktop.upstream.install import find_interpreter
from stepjax.envs.desktop.upstream.names import GETTERS, METRICS, VERSION

pytestmark = pytest.mark.desktop

URL = "https://example.org/in.txt"
SLOW = 400.0
HOME = "/home/user"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def evaluators(cache):
    try:
        find_interpreter()
    except UpstreamError as error:
        pytest.skip(str(error))
    with Evaluators(cache=cache, screen=(1280, 800), start_timeout=600.0) as made:
        yield made


@pytest.fixture(scope="module")
def sandbox():
    from stepjax.envs.desktop.sandbox import SandboxError, SandboxSpec, start_sandbox

    try:
        made = start_sandbox(SandboxSpec(), timeout=120.0)
    except SandboxError as error:
        pytest.skip(f"no desktop starts here: {error}")
    yield made
    made.close()


def step(kind, **parameters):
    return {"type": kind, "parameters": parameters}


def task(*config, **evaluator):
    data = {
        "id": "t1",
        "instruction": "Do it.",
        "config": list(config),
        "evaluator": evaluator or {"func": "infeasible"},
    }
    return parse_task(data, source="t1.json")


def found(getter, expected, **more):
    """An evaluator that wants a getter to give exactly this."""
    return {
        "func": "exact_match",
        "result": {"type": getter, **more},
        "expected": {"type": "rule", "rules": {"expected": expected}},
    }


def test_names_are_upstreams(evaluators):
    names = evaluators.names(timeout=600.0)
    assert set(names["getters"]) == GETTERS
    assert set(names["metrics"]) == METRICS
    worker = evaluators._workers._idle[0]
    assert worker.version == VERSION


def test_setup_steps(evaluators, sandbox, cache):
    folder = cache / "t1"
    folder.mkdir(exist_ok=True)
    (folder / asset_name(URL, f"{HOME}/deep/in.txt")).write_bytes(
        b"g\xc3\xa4\n\x00" * 9
    )
    editor = ["mousepad", f"{HOME}/deep/in.txt"]
    spec = task(
        step("download", files=[{"url": URL, "path": f"{HOME}/deep/in.txt"}]),
        step("execute", command=["mkdir", "-p", f"{HOME}/tree/leaf"]),
        step("execute", command="echo hi > ~/tree/leaf/a.txt", shell=True),
        step("command", command=["touch", f"{HOME}/tree/b.txt"]),
        step("launch", command=editor),
        step("sleep", seconds=2),
        step("activate_window", window_name="in.txt"),
        **found("vm_command_line", "hi\n", command="cat ~/tree/leaf/a.txt", shell=True),
    )
    evaluators.setup(spec, sandbox, timeout=SLOW)
    assert evaluators.judge(spec, sandbox, timeout=SLOW).score == 1.0


@pytest.mark.parametrize(
    ("evaluator", "score"),
    [
        (found("vm_command_line", "a b\n", command=["echo", "a b"]), 1.0),
        (found("vm_command_line", "a c\n", command=["echo", "a b"]), 0.0),
        (found("vm_command_error", "x\n", command="echo x >&2", shell=True), 1.0),
        (found("vm_screen_size", {"width": 1280, "height": 800}), 1.0),
        (
            {
                "func": "check_accessibility_tree",
                "result": {"type": "accessibility_tree"},
                "expected": {
                    "type": "rule",
                    "rules": [{"xpath": "//application"}],
                },
            },
            1.0,
        ),
        (
            {
                "func": "diff_text_file",
                "result": {"type": "vm_file", "path": f"{HOME}/one", "dest": "r.txt"},
                "expected": {"type": "vm_file", "path": f"{HOME}/two", "dest": "e.txt"},
                "postconfig": [
                    step(
                        "execute", command="echo x > ~/one; echo x > ~/two", shell=True
                    )
                ],
            },
            1.0,
        ),
        (
            {
                "func": "compare_table",
                "result": {"type": "vm_file", "path": f"{HOME}/no", "dest": "r.xlsx"},
                "expected": {"type": "vm_file", "path": f"{HOME}/no", "dest": "e.xlsx"},
                "options": {"rules": []},
            },
            0.0,
        ),
    ],
)
def test_getters(evaluators, sandbox, evaluator, score):
    verdict = evaluators.judge(task(**evaluator), sandbox, timeout=SLOW)
    assert verdict.score == score, verdict.note


def test_listing(evaluators, sandbox):
    make = step("execute", command="mkdir -p ~/d && touch ~/d/f", shell=True)
    tree = {
        "type": "directory",
        "name": "d",
        "children": [{"type": "file", "name": "f"}],
    }
    spec = task(
        **found("list_directory", tree, path=f"{HOME}/d"), **{"postconfig": [make]}
    )
    assert evaluators.judge(spec, sandbox, timeout=SLOW).score == 1.0


def test_machine_by_url(evaluators, sandbox):
    """The adapter for virtual machines, on a desktop of our own behind a bridge."""
    spec = task(
        step("execute", command=["rm", "-f", f"{HOME}/made"]),
        step("launch", command=["xterm"]),
        step("sleep", seconds=3),
        **found("vm_command_line", "", command=["ls", f"{HOME}/made"]),
    )
    spec.data["evaluator"]["expected"]["rules"]["expected"] = f"{HOME}/made\n"
    bridge = LoopbackBridge(address_of(sandbox))
    machine = UrlMachine(bridge.url, evaluators=evaluators, pause=1.0)
    env = VmEnvironment(machine, lambda name, seed: spec)
    chosen = Task(task_id=0, name="os/t1", instruction="Do it.", domain="os")
    try:
        first = env.reset(chosen, 0)
        assert first.screenshot.shape == (800, 1280, 3)
        assert env.evaluate() == 0.0
        typed = Action(kind=ActionKind.TYPE, text="touch ~/made\n")
        second = env.step(typed).observation
        assert second.state_hash != first.state_hash
        assert env.step(Action(kind=ActionKind.DONE)).terminated
        assert env.evaluate() == 1.0
    finally:
        env.close()
        bridge.close()
