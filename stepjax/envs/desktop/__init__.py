"""Real applications on sandboxed desktops: no virtual machine, no root, no network."""

from stepjax.envs.desktop.booted import Desktop, DesktopPhase, boot_desktop
from stepjax.envs.desktop.environment import DesktopDiedError, DesktopEnvironment
from stepjax.envs.desktop.fleet import DesktopFleet
from stepjax.envs.desktop.sandbox.spec import Limits, SandboxError, SandboxSpec
from stepjax.envs.desktop.settings import DEADLINES, DesktopSettings
from stepjax.envs.desktop.spares import NoDesktopError, SparePool
from stepjax.envs.desktop.stock import SpareCounts
from stepjax.envs.desktop.table import (
    DesktopTasks,
    bundled_tasks,
    file_tasks,
    make_task,
)

__all__ = [
    "DEADLINES", "Desktop", "DesktopDiedError", "DesktopEnvironment", "DesktopFleet",
    "DesktopPhase", "DesktopSettings", "DesktopTasks", "Limits", "NoDesktopError",
    "SandboxError", "SandboxSpec", "SpareCounts", "SparePool", "boot_desktop",
    "bundled_tasks", "file_tasks", "make_task",
]  # fmt: skip
