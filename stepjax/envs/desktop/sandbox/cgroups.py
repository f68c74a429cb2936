"""Control groups: the kernel's own limits, where the trainer runs as root.

Version 1: groups are made below the trainer's own, so that limits it runs under still
hold. Version 2 allows no limits below a group that holds processes, as the trainer's
own usually does; they are then made beside it, under the nearest group above that
allows them, so that the limits of that group still hold but not those of the trainer's
alone.
Both versions are understood; where neither can be written to, the limits of
`limits.py` and the watch over each desktop remain.
"""

import os
import pathlib
import time

from stepjax.envs.desktop.sandbox.spec import Limits

__all__ = ["ControlGroup", "make_group", "remove_groups"]

ROOT = pathlib.Path("/sys/fs/cgroup")
_PREFIX = "stepjax-"
_PERIOD_US = 100_000


class ControlGroup:
    """The groups of one desktop, one per controller (version 1) or one (version 2).

    Attributes:
      folders: Where they are.
    """

    def __init__(self, folders: list[pathlib.Path]):
        self.folders = folders

    def add(self, pid: int) -> None:
        """Move a process in; its later children follow it."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def killed_for_memory(self) -> bool:
        """True once the kernel has ended one of its processes for its memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                for line in _read(folder / name).splitlines():
                    if line.startswith("oom_kill ") and line.split()[1] != "0":
                        return True
        return False

    def remove(self) -> None:
        """Remove the groups; their processes must be gone."""
        remove_groups([str(folder) for folder in self.folders])


def make_group(
    name: str, limits: Limits, extra_mb: int, root: pathlib.Path = ROOT
) -> ControlGroup | None:
    """Groups with a desktop's limits, or None where they cannot be had.

    Args:
      name: Ends the groups' names.
      limits: What the desktop may use.
      extra_mb: Room for its files, which the kernel counts as memory.
      root: Where the control groups are mounted.

    Returns:
      The groups, empty of processes; None for an ordinary user or a sealed machine.
    """
    if os.geteuid() != 0:
        return None
    values = _values(limits, limits.memory_mb + extra_mb)
    if (root / "cgroup.controllers").exists():
        folder = _make_second_version(root, name)
        wanted = {folder: values["second"]} if folder else {}
    else:
        wanted = {
            parent / f"{_PREFIX}{name}": values[controller]
            for controller in ("memory", "pids", "cpu")
            if (parent := _own_group(root / controller, controller)) is not None
        }
    made = []
    for folder, settings in wanted.items():
        try:
            folder.mkdir(exist_ok=True)
            made.append(folder)
            for key, value in settings.items():
                if key == "memory.swap.max" and not (folder / key).exists():
                    continue  # a machine without swap accounting
                (folder / key).write_text(value)
        except OSError:
            remove_groups([str(one) for one in made])
            return None
    return ControlGroup(made) if made else None


def remove_groups(folders: list[str]) -> None:
    """Remove groups that `make_group` made, and only such."""
    for text in folders:
        folder = pathlib.Path(text)
        if not folder.name.startswith(_PREFIX) or ".." in folder.parts:
            continue
        for _ in range(250):  # its last processes take a moment to be gone
            try:
                folder.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)


def _values(limits: Limits, memory_mb: int) -> dict[str, dict[str, str]]:
    """Files to write, for each controller of version 1 and for version 2."""
    memory, pids = str(memory_mb << 20), str(limits.processes)
    cores = limits.cpu_cores
    quota = None if cores is None else max(1000, int(cores * _PERIOD_US))
    return {
        "memory": {"memory.limit_in_bytes": memory},
        "pids": {"pids.max": pids},
        "cpu": {} if quota is None else {
            "cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(quota)
        },
        "second": {
            "memory.max": memory, "memory.swap.max": "0", "pids.max": pids,
            **({} if quota is None else {"cpu.max": f"{quota} {_PERIOD_US}"}),
        },
    }  # fmt: skip


def _own_group(mounted: pathlib.Path, controller: str) -> pathlib.Path | None:
    """Folder of the group this process is in, None if it is not to be seen."""
    for line in _read(pathlib.Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            own = mounted / path.strip("/")
            return own if own.is_dir() and os.access(own, os.W_OK) else None
    return None


def _make_second_version(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """Group below ours, or the nearest above it that may have one; None if none may."""
    own = _own_group(root, "") or root
    above = [one for one in own.parents if one.is_relative_to(root)]
    for parent in (own, *above):
        control = parent / "cgroup.subtree_control"
        if "memory" not in _read(control).split():
            try:
                control.write_text("+memory +pids +cpu")
            except OSError:
                continue  # it holds processes itself, or is not ours to change
        return parent / f"{_PREFIX}{name}"
    return None


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
