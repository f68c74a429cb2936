"""The environment and its spares on desktops that are really there."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Task
from stepjax.envs.desktop import (
    DEADLINES,
    DesktopFleet,
    DesktopSettings,
    SandboxSpec,
    doctor,
    file_tasks,
)
from stepjax.envs.desktop.tasks.schema import parse_task
from stepjax.envs.pool import EnvironmentPool
from tests.envs.desktop.fake_desktops import pool_threads, wait_for

pytestmark = [
    pytest.mark.desktop,
    # httpx leaves a socket that could not connect to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

SCREEN = SandboxSpec(width=640, height=400)
TYPE = Action(kind=ActionKind.TYPE, text="echo -n right >out\n")
DONE = Action(kind=ActionKind.DONE)


@pytest.fixture(autouse=True, scope="module")
def desktops_start():
    findings = doctor.examine(start=False)
    lacking = [one for one in findings if one.needed and not one.ok]
    if lacking:
        pytest.skip(f"no desktop: {lacking[0].name}: {lacking[0].detail}")


def task(name, commands, **more):
    steps = [{"type": "launch", "parameters": {"command": one}} for one in commands]
    return parse_task(
        {
            "id": name,
            "instruction": "Write the word right to the file out.",
            "config": steps,
            "related_apps": ["os"],
            "evaluator": {"func": "our_own"},
            **more,
        },
        source="test",
    )


TASKS = file_tasks([task("write", [["xterm"]]), task("idle", [])])


def judge(spec, client, *, ended_by):
    said = client.execute(["cat", "out"], timeout=60.0)
    return float(said.output == "right")


@pytest.fixture
def make_fleet():
    """Fleets that are closed; then no thread, process or folder of them is left."""
    fleets = []
    children, folders = set(sandboxes()), sandbox_folders()

    def make(num_envs=1, **options):
        options.setdefault("evaluate", judge)
        settings = options.pop("settings", DesktopSettings(quiet_seconds=10.0))
        fleet = DesktopFleet(
            TASKS, num_envs=num_envs, sandbox=SCREEN, settings=settings, **options
        )
        fleets.append(fleet)
        fleet.wait_ready(120.0)
        return fleet

    yield make
    for fleet in fleets:
        fleet.close()
    assert not pool_threads()
    wait_for(lambda: set(sandboxes()) <= children)
    assert sandbox_folders() <= folders


def sandboxes(parent=None):
    """Sandboxes that a process has started, by process id."""
    parent = os.getpid() if parent is None else parent
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            name, _, rest = stat.partition("(")[2].rpartition(")")
            fields = rest.split()
            if name == "bwrap" and fields[0] != "Z" and int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def sandbox_folders():
    """Folders of single desktops of this process."""
    return set(pathlib.Path(tempfile.gettempdir()).glob(f"stepjax-*{os.getpid()}*/d-*"))


def make_task(index):
    spec = TASKS.load(TASKS.names[index], 0)
    return Task(
        task_id=index, name=spec.name, instruction=spec.instruction, domain="os"
    )


def right(ready):
    return [TYPE if one.step == 0 else DONE for one in ready]


def test_an_episode_and_a_revert(make_fleet):
    environment = make_fleet()(0)
    first = environment.reset(make_task(0), 0)
    assert first.screenshot.shape == (400, 640, 3)
    assert first.state_hash
    # Somewhere there is a window on the empty desktop.
    assert len(np.unique(first.screenshot.reshape(-1, 3), axis=0)) > 2
    assert environment.evaluate() == 0.0
    after = environment.step(TYPE).observation
    assert after.state_hash != first.state_hash
    assert environment.step(DONE).terminated
    assert environment.evaluate() == 1.0
    again = environment.reset(make_task(0), 0)
    assert environment.evaluate() == 0.0
    assert again.state_hash == first.state_hash
    environment.close()


def test_the_same_state_keeps_its_name(make_fleet):
    environment = make_fleet()(0)
    names = {environment.reset(make_task(0), 0).state_hash}
    for _ in range(4):
        wait = Action(kind=ActionKind.WAIT, amount=0.4)
        names.add(environment.step(wait).observation.state_hash)
    assert len(names) == 1


def test_a_run_with_desktops_that_are_killed(make_fleet):
    """One spare and one desktop in use are killed from outside; nothing is lost."""
    fleet = make_fleet(num_envs=1, spares=1)
    killed = []

    def act(ready):
        for one in ready:
            if one.episode == 1 and len(killed) < 2:
                pids = sandboxes()
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
        return right(ready)

    lines = []
    with EnvironmentPool(
        fleet, num_envs=1, deadlines=DEADLINES, report=lines.append, max_retries=3
    ) as pool:
        results = pool.run([(make_task(0), n) for n in range(4)], act, max_steps=3)
    assert [one.reward for one in results] == [1.0] * 4
    assert all(one.status.valid for one in results)
    assert len(killed) == 2
    assert fleet.spares.counts.died == 2


def test_an_agent_that_kills_its_own_screen(make_fleet):
    """The trajectory is invalid, not a failure; other episodes go on."""
    fleet = make_fleet(num_envs=1, spares=0)
    kill = Action(kind=ActionKind.TYPE, text="pkill -9 Xvfb\n")

    def act(ready):
        return [
            (kill if one.step == 0 else TYPE) if one.episode == 0 else right([one])[0]
            for one in ready
        ]

    with EnvironmentPool(
        fleet, num_envs=1, deadlines=DEADLINES, max_retries=1, report=lambda line: None
    ) as pool:
        results = pool.run([(make_task(0), n) for n in range(3)], act, max_steps=3)
    assert not results[0].status.valid
    assert [one.reward for one in results[1:]] == [1.0, 1.0]


def test_kill_frees_a_call(make_fleet):
    fleet = make_fleet(spares=0)
    environment = fleet(0)
    environment.reset(make_task(0), 0)
    raised = threading.Event()

    def wait():
        try:
            environment.step(Action(kind=ActionKind.WAIT, amount=5.0))
            environment.step(Action(kind=ActionKind.WAIT, amount=5.0))
        except RuntimeError:
            raised.set()

    thread = threading.Thread(target=wait)
    thread.start()
    environment.kill()
    thread.join()
    assert raised.is_set()
    assert fleet.spares.counts.killed == 1


CHILD = """
import os, signal, sys, time
from stepjax.envs.desktop import DesktopFleet, SandboxSpec
from tests.envs.desktop.test_real_desktops import SCREEN, TASKS, judge, sandboxes
fleet = DesktopFleet(TASKS, num_envs=1, spares=1, sandbox=SCREEN, evaluate=judge)
fleet.wait_ready(120)
fleet.spares.take(timeout=120)
fleet.spares.wait_ready()
print(*sandboxes(), flush=True)
if sys.argv[1] == "hang":
    time.sleep(600)
if sys.argv[1] == "raise":
    raise SystemExit("forgot")
"""


@pytest.mark.parametrize("mode", ["hang", "raise", "forget"])
def test_the_end_of_the_trainer_leaves_no_desktop(mode, repository_root):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, mode],
        cwd=repository_root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as trainer:
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        if mode == "hang":
            trainer.kill()
        _, said = trainer.communicate(timeout=300)
    assert pids
    wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids))
    assert said.strip() == ("forgot" if mode == "raise" else "")
