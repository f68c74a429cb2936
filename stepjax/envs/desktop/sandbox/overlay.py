"""The root variant: system files can be changed and `sudo` works, on an overlay.

All mounts are made in a mount namespace of the desktop's own and vanish with it; the
host sees none. Root inside has the rights of root in an ordinary container.
"""

import json
import os
import pathlib
import shutil
import stat

from stepjax.envs.desktop.sandbox.home import VARIABLES, browser_files
from stepjax.envs.desktop.sandbox.limits import limited, tmpfs_megabytes
from stepjax.envs.desktop.sandbox.seccomp import filter_program
from stepjax.envs.desktop.sandbox.spec import SandboxSpec

__all__ = ["overlay_command", "readable_copy"]

_PROGRAM = pathlib.Path(__file__).resolve().parent / "rooted.py"
# "password", as on OSWorld's machines, whose tasks type it.
_SHADOW = (
    "root:*:19000:0:99999:7:::\n"
    "user:$6$stepjax$KlV/7QV9sZHhUzMKy.Co.jbvRT8yEjRXD3kM1mlDElp7/Kt7sEhnuwn."
    "CFRnUoH1zIKPmidg6ldXrmaA2G1QW/:19000:0:99999:7:::\n"
)
_OWN_ETC = {
    "shadow": (_SHADOW, 0o640),
    "gshadow": ("root:*::\nsudo:*::user\nuser:!::\n", 0o640),
    "sudoers": (
        "Defaults !fqdn\nroot ALL=(ALL:ALL) ALL\nuser ALL=(ALL:ALL) ALL\n", 0o440
    ),
    "fstab": ("", 0o644),
}  # fmt: skip
_VAR = (
    "cache/fontconfig", "cache/debconf", "lib/apt", "lib/aspell", "lib/dpkg",
    "lib/dictionaries-common", "lib/pam", "lib/systemd", "lib/ucf", "lib/xfonts",
)  # fmt: skip


def overlay_command(
    *,
    folder: pathlib.Path,
    stage: pathlib.Path,
    spec: SandboxSpec,
    command: list[str],
    info_fd: int,
    block_fd: int,
) -> tuple[list[str], str]:
    """Command line that runs `command` in a sandbox with its own system files.

    Args:
      folder: The desktop's folder; mounts are made in it, unseen by the host.
      stage: What `home.make_stage` made.
      spec: For the sizes of the file systems in memory.
      command: What to run inside, as an ordinary user who may use `sudo`.
      info_fd: Gets a JSON object with the host's pid of the first process inside.
      block_fd: The sandbox waits until something can be read here.

    Returns:
      The command line, to which the number of a descriptor has to be added, and the
      plan that must be readable there; the agent can read command lines.
    """
    etc = stage / "system-etc"
    if not etc.exists():
        readable_copy(pathlib.Path("/etc"), etc, stage / "etc")
    for name in ("root", "scratch"):
        (folder / name).mkdir()
    links, binds = browser_files()
    plan = {
        "root": str(folder / "root"),
        "scratch": str(folder / "scratch"),
        "scratch_mb": spec.limits.disk_mb,
        "etc": str(etc),
        "var": [name for name in _VAR if pathlib.Path("/var", name).is_dir()],
        "binds": {
            f"/opt/stepjax/{name}": str(stage / name) for name in ("inside", "home")
        }
        | binds,
        "links": links,
        "tmpfs": tmpfs_megabytes(spec),
        "variables": {**VARIABLES, "PYTHONPATH": "/opt/stepjax"},
        # The user's number is one of the host's: a control group counts instead.
        "command": limited(command, spec.limits, count=False),
        "filter": filter_program().hex(),
        "info_fd": info_fd,
        "block_fd": block_fd,
    }
    starter = [
        "/usr/bin/setpriv", "--pdeathsig", "KILL",
        "/usr/bin/unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "--net",
        "--cgroup", "--kill-child=KILL", "--propagation", "private",
        "/usr/bin/python3", "-I", str(_PROGRAM),
    ]  # fmt: skip
    return starter, json.dumps(plan)


def readable_copy(
    source: pathlib.Path, target: pathlib.Path, own: pathlib.Path
) -> None:
    """Copy what everybody may read of /etc, and the desktop's own files over it.

    Host keys, password hashes and the like are readable by root, which an agent can
    become in there, so they are left out.

    Args:
      source: The host's /etc.
      target: A folder that does not exist yet.
      own: Files that replace the host's.
    """
    made = target.with_name(f"{target.name}.{os.getpid()}")
    for here, folders, files in os.walk(source):
        folders[:] = [name for name in folders if _public(pathlib.Path(here, name))]
        there = made / pathlib.Path(here).relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        links = [one for one in folders if pathlib.Path(here, one).is_symlink()]
        for name in files + links:
            path = pathlib.Path(here, name)
            if path.is_symlink():
                (there / name).symlink_to(os.readlink(path))
            elif path.is_file() and _public(path):
                shutil.copy(path, there / name)
    shutil.copytree(own, made, dirs_exist_ok=True)
    for name, (text, mode) in _OWN_ETC.items():
        (made / name).write_text(text, encoding="utf-8")
        (made / name).chmod(mode)
    shutil.rmtree(made / "sudoers.d", ignore_errors=True)
    made.rename(target)


def _public(path: pathlib.Path) -> bool:
    mode = path.lstat().st_mode
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return stat.S_ISLNK(mode) or mode & wanted == wanted
