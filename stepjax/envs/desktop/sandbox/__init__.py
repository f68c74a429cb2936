"""Sandboxes for desktops: started, limited, watched and ended from the host.

The rootless sandbox is bubblewrap's; the root variant lets `sudo` and changes of
system files work. Both show the agent only its own files and processes.
"""

from stepjax.envs.desktop.sandbox.leftovers import clean_leftovers
from stepjax.envs.desktop.sandbox.running import Sandbox
from stepjax.envs.desktop.sandbox.spec import Limits, SandboxError, SandboxSpec
from stepjax.envs.desktop.sandbox.start import start_sandbox

__all__ = [
    "Limits",
    "Sandbox",
    "SandboxError",
    "SandboxSpec",
    "clean_leftovers",
    "start_sandbox",
]
