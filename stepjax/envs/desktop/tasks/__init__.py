"""Tasks of the desktop in OSWorld's format: files, setup, evaluation, bundled ones."""

from stepjax.envs.desktop.tasks.files import load_task, load_tasks, task_files
from stepjax.envs.desktop.tasks.schema import TaskSpec, parse_task

__all__ = ["TaskSpec", "load_task", "load_tasks", "parse_task", "task_files"]
