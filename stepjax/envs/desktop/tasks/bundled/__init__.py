"""Tasks of our own on real applications, made anew from every seed."""

from stepjax.envs.desktop.tasks.bundled.oracles import oracle_script, wrong_script
from stepjax.envs.desktop.tasks.bundled.parts import Draft, ScriptStep
from stepjax.envs.desktop.tasks.bundled.registry import (
    FAST_TASKS,
    PROGRAMS,
    TRAIN_TASKS,
    UNSEEN_TASKS,
    bundled_draft,
    bundled_task,
)

__all__ = [
    "FAST_TASKS",
    "PROGRAMS",
    "TRAIN_TASKS",
    "UNSEEN_TASKS",
    "Draft",
    "ScriptStep",
    "bundled_draft",
    "bundled_task",
    "oracle_script",
    "wrong_script",
]
