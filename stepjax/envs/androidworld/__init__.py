"""AndroidWorld's tasks on the user's own emulators, through AndroidWorld's server."""

from stepjax.envs.androidworld.adb import AdbDevice
from stepjax.envs.androidworld.client import AndroidWorldClient
from stepjax.envs.androidworld.environment import AndroidWorldEnvironment
from stepjax.envs.androidworld.errors import AndroidWorldError
from stepjax.envs.androidworld.fleet import AndroidWorldFleet, split_urls
from stepjax.envs.androidworld.settings import (
    DEADLINES,
    AndroidWorldSettings,
    CallSeconds,
)
from stepjax.envs.androidworld.tasks import (
    AndroidWorldTasks,
    android_world_tasks,
    app_of,
    step_budget,
)

__all__ = [
    "DEADLINES",
    "AdbDevice",
    "AndroidWorldClient",
    "AndroidWorldEnvironment",
    "AndroidWorldError",
    "AndroidWorldFleet",
    "AndroidWorldSettings",
    "AndroidWorldTasks",
    "CallSeconds",
    "android_world_tasks",
    "app_of",
    "split_urls",
    "step_budget",
]
