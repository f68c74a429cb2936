"""The sandbox that upstream's evaluators run in.

Evaluators parse, and some of upstream's even execute, files that the agent has made. So
they get a network of their own without any device but its loopback, no view of homes,
mounts or other processes, and nothing on the disk to write to.
"""

import os
import shutil
import sys
from pathlib import Path

from stepjax.envs.desktop.upstream.errors import UpstreamError

__all__ = ["EXCHANGE", "jail_command", "open_command"]

EXCHANGE = Path("/run/stepjax")
"""Where the exchange folder is seen inside."""

SCRATCH_BYTES = 2 << 30
"""Most that the evaluators may write; it lies in memory."""

MEMORY_BYTES = 12 << 30
"""Address space of the evaluators; numpy and friends reserve more than they use."""

PROCESSES = 256
"""Processes and threads of the evaluators together; not counted where root trains."""

_NICENESS = 10
# As desktops: should memory run out all the same, these go before the trainer (0).
_OOM_SCORE = 500

_WORKER = Path(__file__).with_name("worker.py")
_INSIDE = "/opt/stepjax/worker.py"
# What Python, `file`, fontconfig and time zones look up; no accounts, no secrets.
_ETC = ("alternatives", "fonts", "ld.so.cache", "localtime", "magic", "mime.types")


def jail_command(interpreter: Path, exchange: Path) -> list[str]:
    """Command line of the worker inside its sandbox.

    Args:
      interpreter: Python of the evaluators' virtual environment.
      exchange: Folder of assets and sockets, read-only inside at `EXCHANGE`.

    Raises:
      UpstreamError: If bubblewrap is not installed.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise UpstreamError(
            "the evaluators need bubblewrap: no 'bwrap' on PATH. "
            "Run scripts/install-desktop."
        )
    command = [bwrap, "--unshare-all", "--die-with-parent", "--new-session"]
    command += ["--cap-drop", "ALL", "--hostname", "evaluators", "--clearenv"]
    command += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib64"):
        link = Path("/", name)
        if link.is_symlink():
            command += ["--symlink", f"usr/{name}", str(link)]
        elif link.is_dir():
            command += ["--ro-bind", str(link), str(link)]
    for name in _ETC:
        command += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    command += ["--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"]
    for path in _python_paths(interpreter):
        command += ["--ro-bind", str(path), str(path)]
    command += ["--ro-bind", str(_WORKER), _INSIDE]
    command += ["--ro-bind", str(exchange), str(EXCHANGE)]
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    worker = [*_run(interpreter, _INSIDE), str(MEMORY_BYTES)]
    return [*command, "--chdir", "/tmp", *_limits(), *worker]


def open_command(interpreter: Path) -> list[str]:
    """Command line of the worker without a sandbox.

    For virtual machines only: their providers need the network, engines and accounts of
    the host, and run what upstream runs.
    """
    return _run(interpreter, str(_WORKER))


def _run(interpreter: Path, script: str) -> list[str]:
    # -I: neither the user's packages, nor PYTHON variables, nor the current folder.
    return [str(interpreter), "-I", "-B", script]


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "XDG_CACHE_HOME": "/tmp/.cache",
        "NUMBA_CACHE_DIR": "/tmp/.cache/numba",
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "ignore",
        # One evaluation is one small job; many threads would only fight over cores.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _limits() -> list[str]:
    # Set inside, where processes are counted within the sandbox's user namespace.
    return [
        "/usr/bin/nice", "-n", str(_NICENESS),
        "/usr/bin/choom", "-n", str(_OOM_SCORE), "--",
        "/usr/bin/prlimit", f"--nproc={PROCESSES}", "--core=0",
    ]  # fmt: skip


def _python_paths(interpreter: Path) -> list[Path]:
    """The virtual environment, and of the Python it was made from what runs.

    That Python may lie in `~/.local`, among things that are nobody's business.
    """
    root = interpreter.parent.parent
    paths = [root]
    for program in _programs(interpreter):
        prefix = program.parent.parent
        if prefix == root:
            continue
        paths.append(program)
        paths += [
            prefix / name
            for name in ("lib", "lib64")
            if any((prefix / name).glob("python3*/os.py"))
            or any((prefix / name).glob("python3*/lib-dynload"))
        ]
    outside = [path for path in paths if not path.is_relative_to("/usr")]
    if Path("/") in outside:
        raise UpstreamError(
            f"{interpreter} would show the whole disk to the evaluators; make their "
            f"environment with {sys.executable} -m venv."
        )
    return list(dict.fromkeys(outside))


def _programs(interpreter: Path) -> list[Path]:
    """What the interpreter's links lead through, and where its environment looks."""
    programs, link = [], interpreter
    while link.is_symlink():
        link = Path(os.path.normpath(link.parent / link.readlink()))
        programs.append(link)
    programs.append(interpreter.resolve())
    config = interpreter.parent.parent / "pyvenv.cfg"
    if config.is_file():
        for line in config.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            home = Path(value.strip(), interpreter.resolve().name)
            if key.strip() == "home" and home.is_file():
                programs.append(home)
    return programs
