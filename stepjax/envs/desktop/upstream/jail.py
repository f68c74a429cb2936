"""The sandbox that upstream's evaluators run in.

Evaluators parse, and some of upstream's even execute, files that the agent has made. So
they get a network of their own without any device but its loopback, no view of homes,
mounts or other processes, and nothing on the disk to write to.
"""

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
    for folder in _python_folders(interpreter):
        command += ["--ro-bind", str(folder), str(folder)]
    command += ["--ro-bind", str(_WORKER), _INSIDE]
    command += ["--ro-bind", str(exchange), str(EXCHANGE)]
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    worker = [*_run(interpreter, _INSIDE), str(MEMORY_BYTES)]
    return [*command, "--chdir", "/tmp", *worker]


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


def _python_folders(interpreter: Path) -> list[Path]:
    """The virtual environment and the Python it was made from, if not under /usr."""
    root = interpreter.parent.parent
    folders = [root]
    config = root / "pyvenv.cfg"
    if config.is_file():
        for line in config.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                folders.append(Path(value.strip()).parent)
    folders.append(interpreter.resolve().parent.parent)
    outside = [folder for folder in folders if not folder.is_relative_to("/usr")]
    if any(folder == Path("/") for folder in outside):
        raise UpstreamError(
            f"{interpreter} would show the whole disk to the evaluators; make their "
            f"environment with {sys.executable} -m venv."
        )
    return list(dict.fromkeys(outside))
