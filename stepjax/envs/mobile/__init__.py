"""Phones in a browser: MiniWoB++ pages behind a touch screen, AndroidWorld's manner."""

from stepjax.envs.mobile.elements import BoundingBox, UIElement, ui_elements
from stepjax.envs.mobile.environment import MobileVector, make_mobile_environment
from stepjax.envs.mobile.oracles import MOBILE_ORACLES, mobile_oracle_action
from stepjax.envs.mobile.programs import APP
from stepjax.envs.mobile.screen import PhoneScreen
from stepjax.envs.mobile.tasks import (
    PAGES,
    SOLVABLE,
    TRAIN_PAGES,
    UNSEEN_PAGES,
    make_mobile_task,
    mobile_task_table,
    step_budget,
)

__all__ = [
    "APP", "MOBILE_ORACLES", "PAGES", "SOLVABLE", "TRAIN_PAGES", "UNSEEN_PAGES",
    "BoundingBox", "MobileVector", "PhoneScreen", "UIElement",
    "make_mobile_environment", "make_mobile_task", "mobile_oracle_action",
    "mobile_task_table", "step_budget", "ui_elements",
]  # fmt: skip
