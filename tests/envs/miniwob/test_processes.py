"""The browser's processes: none is left over, and a crash is said at once."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.miniwob import BrowserError, make_task, make_vector_environment

pytestmark = pytest.mark.browser

ROOT = pathlib.Path(__file__).resolve().parents[3]
PARENT = """
import sys, time
from stepjax.envs.miniwob import make_vector_environment
made = make_vector_environment(sys.argv[1], 2)
print(made.pid, flush=True)
if sys.argv[2] == "hang":
    time.sleep(600)
"""


def group_members(group):
    """Processes of a group that still run; dead ones nobody waited for do not."""
    members = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(int(entry.name))
    return members


def gone(group, seconds=20.0):
    deadline = time.monotonic() + seconds
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not group_members(group)


def profiles():
    folder = pathlib.Path(tempfile.gettempdir())
    return set(folder.glob(f"stepjax-chromium-{os.getpid()}-*"))


@pytest.fixture
def small(chromium):
    made = make_vector_environment(chromium, 2)
    yield made
    made.close()


def test_close_leaves_nothing(chromium):
    before = profiles()
    made = make_vector_environment(chromium, 1)
    assert group_members(made.pid)
    assert profiles() != before
    made.close()
    made.close()
    assert gone(made.pid)
    assert profiles() == before


def start_parent(chromium, mode):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, chromium, mode],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    group = int(parent.stdout.readline())
    return parent, group


def test_killed_parent_leaves_nothing(chromium):
    parent, group = start_parent(chromium, "hang")
    with parent:
        assert group_members(group)
        parent.kill()
    assert gone(group)


def test_parent_that_forgets_to_close_leaves_nothing(chromium):
    parent, group = start_parent(chromium, "forget")
    with parent:
        assert parent.wait(30) == 0
    assert gone(group)


def test_crash_is_said_at_once(small):
    small.reset_many([0, 1], [make_task("click-test")] * 2, [1, 2])
    os.killpg(small.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(BrowserError, match="ended"):
        small.step_many([0], [Action(kind=ActionKind.WAIT)])
    assert time.monotonic() - began < 10


def test_crash_of_the_page_is_said_at_once(small):
    small.reset_many([0], [make_task("click-test")], [1])
    renderers = [
        pid
        for pid in group_members(small.pid)
        if b"--type=renderer" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    for pid in renderers:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(BrowserError, match="crashed"):
        small.step_many([0], [Action(kind=ActionKind.WAIT)])


def test_kill_ends_a_call_that_hangs(small):
    small.reset_many([0], [make_task("click-test")], [1])
    for pid in group_members(small.pid):
        os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.3, small.kill).start()
    with pytest.raises(BrowserError):
        small.step_many([0], [Action(kind=ActionKind.WAIT)])


def test_deadline(chromium):
    made = make_vector_environment(chromium, 1, timeout=60.0)
    try:
        made.reset_many([0], [make_task("click-test")], [1])
        made._tools.timeout = 0.5
        for pid in group_members(made.pid):
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(BrowserError, match="in time"):
            made.step_many([0], [Action(kind=ActionKind.WAIT)])
    finally:
        made.close()
    assert gone(made.pid)


def test_what_does_not_start_is_said(tmp_path):
    broken = tmp_path / "browser"
    broken.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
    broken.chmod(0o755)
    before = profiles()
    with pytest.raises(BrowserError, match="no display"):
        make_vector_environment(str(broken), 1)
    assert profiles() == before
