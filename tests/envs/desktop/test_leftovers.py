"""Nothing is left on the machine: after close, exit, a fork, or kill -9."""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from stepjax.envs.desktop.sandbox import clean_leftovers, leftovers
from tests.envs.desktop import sandboxes
from tests.envs.desktop.sandboxes import ROOT, STAND_IN, members, start, wait_for

USERS = ["own", "ordinary"]


@pytest.fixture(scope="module")
def possible():
    reason = sandboxes.missing()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A temporary folder of its own for what dead processes left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left(folder, *, state=None, lock=True, name="1-abc"):
    """A folder as a dead process leaves it."""
    made = folder / f"{leftovers.PREFIX}{name}"
    (made / "d-1").mkdir(parents=True)
    if lock:
        (made / "lock").touch()
    if state is not None:
        (made / "d-1" / "state.json").write_text(state)
    return made


@pytest.fixture
def sleeper():
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(900)"]
    ) as one:
        yield one
        one.kill()


def test_folder_of_a_dead_process_goes(folder):
    made = left(folder)
    (folder / "other").mkdir()
    assert clean_leftovers() == [f"removed {made}"]
    assert [path.name for path in folder.iterdir()] == ["other"]
    assert clean_leftovers() == []


def test_what_it_started_is_ended(folder, sleeper):
    pids = {str(sleeper.pid): leftovers.start_time(sleeper.pid)}
    made = left(folder, state=json.dumps({"pids": pids, "groups": []}))
    assert clean_leftovers() == [f"removed {made}, ended 1 desktops"]
    assert sleeper.wait(30) == -signal.SIGKILL


def test_a_process_that_got_the_number_later_is_spared(folder, sleeper):
    pids = {str(sleeper.pid): leftovers.start_time(sleeper.pid) - 1, "0": 0, "-1": 5}
    left(folder, state=json.dumps({"pids": pids, "groups": ["/etc", "/sys"]}))
    assert len(clean_leftovers()) == 1
    assert sleeper.poll() is None
    assert os.path.isdir("/etc")


@pytest.mark.parametrize(
    "state", ["", "[]", "{", '{"pids": 3}', '{"pids": {"x": 1}, "groups": []}', "null"]
)
def test_half_written_notes(folder, state):
    left(folder, state=state)
    assert len(clean_leftovers()) == 1 and not list(folder.iterdir())


def test_folder_of_a_living_process_stays(folder):
    made = left(folder)
    with open(made / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert clean_leftovers() == []
    assert made.is_dir()


def test_folder_in_the_making_stays(folder):
    made = left(folder, lock=False)
    assert clean_leftovers() == []
    old = time.time() - 1000
    os.utime(made, (old, old))
    assert clean_leftovers() == [f"removed {made}"]


def test_links_and_files_of_that_name_stay(folder):
    (folder / "target").mkdir()
    (folder / "target" / "kept").touch()
    (folder / f"{leftovers.PREFIX}1-a").symlink_to(folder / "target")
    (folder / f"{leftovers.PREFIX}1-b").touch()
    assert clean_leftovers() == []
    assert (folder / "target" / "kept").exists()


def test_lock_that_is_a_link_is_not_followed(folder, tmp_path_factory):
    made = left(folder, lock=False)
    target = tmp_path_factory.mktemp("other") / "file"
    target.touch()
    (made / "lock").symlink_to(target)
    with pytest.raises(OSError, match="Too many levels"):
        leftovers._clean_folder(made, 0.0)
    assert target.exists()


@pytest.mark.desktop
@pytest.mark.parametrize("root", [False, True], ids=["rootless", "root"])
def test_close_leaves_nothing(possible, root):
    if root and os.geteuid() != 0:
        pytest.skip("the root variant needs root")
    with start(root=root):
        pass  # what all desktops share is there now
    before = sandboxes.traces()
    links = []
    for _ in range(3):
        with start(root=root) as made:
            links.append(sandboxes.namespace(made))
            during = sandboxes.traces()
            assert during["mounts"] == before["mounts"]
            assert during["processes"] > before["processes"]
            assert during["desktops"] > before["desktops"]
    assert sandboxes.traces() == before
    assert not [link for link in links if members(link)]


HOLD = """
import os, pathlib, sys, time
from stepjax.envs.desktop.sandbox import SandboxSpec, start_sandbox
from tests.envs.desktop.sandboxes import PATIENCE, descendants, namespace
inside, mode, root = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "root"
made = [start_sandbox(SandboxSpec(needs_root=one), inside=inside, timeout=PATIENCE)
        for one in (False, root)]
print(*(namespace(one) for one in made), made[0].folder.parent, flush=True)
if mode == "raise":
    raise RuntimeError("the trainer fails")
if mode == "threads":
    import threading
    def again():
        while True:
            start_sandbox(SandboxSpec(), inside=inside, timeout=PATIENCE).close()
    for _ in range(2):
        threading.Thread(target=again, daemon=True).start()
    time.sleep(2)
if mode == "fork":
    child = os.fork()
    if child == 0:
        made[0].close()
        del made
        sys.exit(0)
    os.waitpid(child, 0)
    print(made[0].alive() and made[0].folder.is_dir(), flush=True)
if mode == "hang":
    time.sleep(900)
"""


def _hold(user, mode):
    """A process with two desktops: itself, their namespaces, its folder."""
    number = None
    if user == "ordinary":
        if os.geteuid() != 0:
            pytest.skip("only root can become somebody else")
        number = 65534
        probe = sandboxes.script("import tests.envs.desktop.sandboxes", user=number)
        probe.communicate(timeout=sandboxes.PATIENCE)
        if probe.returncode != 0:
            pytest.skip(f"{ROOT} or its Python cannot be read by other users")
    root = "root" if number is None and os.geteuid() == 0 else "rootless"
    holder = sandboxes.script(HOLD, str(STAND_IN), mode, root, user=number)
    words = holder.stdout.readline().split()
    assert len(words) == 3, holder.communicate()
    return holder, words[:2], pathlib.Path(words[2])


@pytest.mark.desktop
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("mode", ["forget", "raise", "fork", "threads"])
def test_exit_without_close_leaves_nothing(possible, user, mode):
    holder, links, folder = _hold(user, mode)
    said, errors = holder.communicate(timeout=sandboxes.PATIENCE)
    assert (holder.returncode != 0) == (mode == "raise"), errors
    assert mode != "fork" or said == "True\n"
    assert wait_for(lambda: not any(members(link) for link in links))
    assert not folder.exists()


@pytest.mark.desktop
@pytest.mark.parametrize("user", USERS)
def test_kill_9_leaves_no_process_and_the_next_start_no_file(possible, user):
    mounts = pathlib.Path("/proc/self/mountinfo").read_text()
    holder, links, folder = _hold(user, "hang")
    assert all(members(link) for link in links)
    holder.kill()
    holder.communicate()
    assert wait_for(lambda: not any(members(link) for link in links))
    assert folder.exists()
    if user == "own":
        lines = clean_leftovers()
    else:
        code = "from stepjax.envs.desktop.sandbox import *; print(clean_leftovers())"
        lines = sandboxes.script(code, user=65534).communicate()[0]
    assert str(folder) in "".join(lines)
    assert not folder.exists()
    assert pathlib.Path("/proc/self/mountinfo").read_text() == mounts
    assert not sandboxes.control_groups(holder.pid)


@pytest.mark.desktop
def test_interrupt_at_the_terminal_does_not_end_desktops(possible):
    with start() as made:
        assert os.getpgid(made.pid) != os.getpgid(0)
        assert shutil.which("bwrap") and made.alive()
