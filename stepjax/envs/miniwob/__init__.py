"""MiniWoB++'s own pages in a real Chromium, many at once."""

from stepjax.envs.miniwob.cdp import BrowserError
from stepjax.envs.miniwob.chromium import CHROMIUM_VARIABLE, find_chromium
from stepjax.envs.miniwob.environment import (
    MAX_WIDGETS,
    MiniwobVector,
    make_vector_environment,
)
from stepjax.envs.miniwob.oracles import ORACLES, oracle_action
from stepjax.envs.miniwob.tasks import (
    TRAIN_TASKS,
    UNSEEN_TASKS,
    MiniwobTasks,
    make_task,
    task_table,
)

__all__ = [
    "CHROMIUM_VARIABLE", "MAX_WIDGETS", "ORACLES", "TRAIN_TASKS", "UNSEEN_TASKS",
    "BrowserError", "MiniwobTasks", "MiniwobVector", "find_chromium",
    "make_task", "make_vector_environment", "oracle_action", "task_table",
]  # fmt: skip
