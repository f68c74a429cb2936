"""Sandboxes with a program inside that runs commands, and counting what they leave."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from stepjax.envs.desktop.doctor import examine
from stepjax.envs.desktop.sandbox import Limits, SandboxSpec, start_sandbox

ROOT = pathlib.Path(__file__).resolve().parents[3]
STAND_IN = pathlib.Path(__file__).resolve().parent / "stand_in"
PATIENCE = 240.0  # machines that run tests are busy


def missing():
    """Why no sandbox can be started here, "" if one can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is missing: sudo scripts/install-desktop"
    found = {one.name: one for one in examine(start=False)}
    one = found["namespaces"]
    return "" if one.ok else f"{one.detail}; {one.remedy}"


def start(*, inside=STAND_IN, golden_home=None, timeout=PATIENCE, root=False, **limits):
    spec = SandboxSpec(needs_root=root, limits=Limits(**limits))
    return start_sandbox(spec, inside=inside, golden_home=golden_home, timeout=timeout)


def send(sandbox, request):
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(PATIENCE)
        one.connect(str(sandbox.socket))
        with one.makefile("rw") as file:
            file.write(json.dumps({"token": sandbox.token, **request}) + "\n")
            file.flush()
            line = file.readline()
    return json.loads(line) if line else None


def run(sandbox, *command, timeout=PATIENCE / 2):
    """What a command inside does: {"code", "out", "err"}, None if nobody answers."""
    return send(sandbox, {"run": command, "timeout": timeout})


def out(sandbox, *command):
    """What a command inside prints; it must succeed."""
    done = run(sandbox, *command)
    assert done["code"] == 0, done
    return done["out"]


def python(sandbox, code, *arguments, timeout=PATIENCE / 2):
    return run(sandbox, "/usr/bin/python3", "-c", code, *arguments, timeout=timeout)


def wait_for(condition, seconds=PATIENCE / 2):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def dead(sandbox):
    """Why it ended, once it has; "" if it is still alive after all patience."""
    wait_for(lambda: not sandbox.alive())
    return sandbox.why_dead()


def processes():
    """Parent of each process of the machine, dead ones left out."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    parents[int(entry.name)] = int(fields[1])
    return parents


def descendants(pid):
    parents, found = processes(), [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def namespace(sandbox):
    """Name of the process namespace inside."""
    own = os.readlink("/proc/self/ns/pid")
    links = {os.readlink(f"/proc/{pid}/ns/pid") for pid in descendants(sandbox.pid)}
    (link,) = links - {own}
    return link


def members(link):
    """Processes of a namespace."""
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/pid") == link:
                found.append(pid)
    return found


def traces():
    """What this process has on the machine: compare before and after."""
    pid, folder = os.getpid(), pathlib.Path(tempfile.gettempdir())
    return {
        "mounts": pathlib.Path("/proc/self/mountinfo").read_text(),
        "processes": set(descendants(pid)),
        "desktops": set(folder.glob(f"stepjax-desktop-{pid}-*/d-*")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "groups": control_groups(pid),
    }


def control_groups(pid):
    """Control groups of a process's desktops; others come and go meanwhile."""
    return {
        os.path.join(here, name)
        for here, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith(f"stepjax-{pid}-")
    }


def script(code, *arguments, user=None, **options):
    """A Python process that runs `code`, as another user if asked."""
    command = [sys.executable, "-c", code, *arguments]
    if user is not None:
        ids = ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
        command = ["setpriv", *ids, *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    return subprocess.Popen(
        command, cwd="/", env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip
