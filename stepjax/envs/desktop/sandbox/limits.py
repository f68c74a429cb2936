"""Limits every process of a desktop is born with."""

from stepjax.envs.desktop.sandbox.spec import Limits, SandboxSpec

__all__ = ["SHARED_MEMORY_MB", "limited", "tmpfs_megabytes"]

SHARED_MEMORY_MB = 128
"""Room in /dev/shm, MB."""

_RUN_MB, _VAR_MB = 16, 64
# Above the trainer's (0): should memory run out all the same, desktops go first.
_OOM_SCORE = 500


def tmpfs_megabytes(spec: SandboxSpec) -> dict[str, int]:
    """MB of each file system in memory, by the folder it is mounted on."""
    half = max(spec.limits.disk_mb // 2, 4)
    # The X server keeps its picture in a file below /run.
    picture = spec.width * spec.height * 4 >> 20
    return {
        "/home/user": half,
        "/tmp": half,
        "/dev/shm": SHARED_MEMORY_MB,
        "/run": _RUN_MB + 2 * picture,
        "/var": _VAR_MB,
    }


def limited(command: list[str], limits: Limits, *, count: bool = True) -> list[str]:
    """A command line that starts `command` under the limits.

    They are set inside the sandbox, where the number of processes counts within its
    user namespace; set outside, it would count all processes of the trainer's user.

    Args:
      command: What to run.
      limits: What it may use.
      count: Limit the number of processes here (without a control group for it).

    Returns:
      The command behind `nice`, `choom` and `prlimit`, which each become the next.
    """
    memory = limits.memory_mb << 20
    rlimits = {
        "core": 0,
        # Not the address space: Chromium reserves terabytes that it never touches.
        "data": memory,
        # A little more than there is room: "no space left" comes before a signal.
        "fsize": limits.disk_mb + 16 << 20,
        "nofile": limits.open_files,
        "cpu": limits.cpu_seconds,
        "memlock": 64 << 10,
        "msgqueue": 819_200,
        "sigpending": 4096,
    }
    if count:
        rlimits["nproc"] = limits.processes
    return [
        "/usr/bin/nice", "-n", str(limits.niceness),
        "/usr/bin/choom", "-n", str(_OOM_SCORE), "--",
        "/usr/bin/prlimit", *(f"--{name}={value}" for name, value in rlimits.items()),
        *command,
    ]  # fmt: skip
