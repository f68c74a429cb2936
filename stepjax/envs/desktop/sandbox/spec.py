"""What one sandboxed desktop is given, and the error all its troubles become."""

import dataclasses

__all__ = ["Limits", "SandboxError", "SandboxSpec"]


class SandboxError(RuntimeError):
    """A desktop that cannot start or has ended; the message is one line."""


def _check_whole(owner: str, name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(
            f"{owner}.{name} must be a whole number >= {low}, got {value!r}."
        )
    if value > high:
        raise ValueError(f"{owner}.{name} must be <= {high}, got {value}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What one desktop may use of the machine, whatever the agent does in it.

    Attributes:
      memory_mb: Memory of all its processes together (proportional set size), MB.
      disk_mb: Room for files, MB: half for the home folder, half for /tmp. It is
        memory of the machine too.
      processes: Processes and threads it may have at a time.
      cpu_seconds: CPU time one process may take before it is ended, seconds.
      cpu_cores: Cores it may keep busy; None for all. Needs root (control groups).
      open_files: Files one process may have open.
      niceness: Priority below the trainer's, from 0 (the same) to 19 (lowest).
    """

    memory_mb: int = 2048
    disk_mb: int = 1024
    processes: int = 1024
    cpu_seconds: int = 3600
    cpu_cores: float | None = None
    open_files: int = 4096
    niceness: int = 5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("memory_mb", 64, 1 << 24),
            ("disk_mb", 8, 1 << 24),
            ("processes", 32, 1 << 22),
            ("cpu_seconds", 10, 1 << 30),
            ("open_files", 256, 1 << 20),
            ("niceness", 0, 19),
        ):
            _check_whole("Limits", name, getattr(self, name), low, high)
        if self.cpu_cores is not None and not self.cpu_cores > 0:
            raise ValueError(
                f"Limits.cpu_cores must be > 0, or None for all, got {self.cpu_cores}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """One desktop to start.

    Attributes:
      width: Pixels of the screen from left to right.
      height: Pixels of the screen from top to bottom.
      needs_root: The root variant: `sudo` and system files work inside, on an overlay
        that goes with the desktop. The trainer must run as root for it.
      limits: What it may use.
    """

    width: int = 1280
    height: int = 800
    needs_root: bool = False
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            _check_whole("SandboxSpec", name, getattr(self, name), 64, 16384)
        if not isinstance(self.limits, Limits):
            raise ValueError(
                f"SandboxSpec.limits must be a Limits, got {type(self.limits).__name__}"
            )
