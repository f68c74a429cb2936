"""The simulated desktop as a picture for people, drawn from the boxes the policy gets.

Needs Pillow, of the extra `experiments`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.envs.actions import ActionKind
from stepjax.envs.base import Widget
from stepjax.envs.sim.canvas import FAINT, Canvas
from stepjax.envs.sim.dynamics import ended, reset, step, take_task
from stepjax.envs.sim.state import SimPool, SimState
from stepjax.envs.sim.tasks import task_table
from stepjax.envs.sim.widgets import list_widgets, spell

__all__ = [
    "SimFrame",
    "action_text",
    "render",
    "replay_frames",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimFrame:
    """One picture of an episode; the fields of `stepjax.rollout.backend.Frame`.

    Attributes:
      image: [height, width, 3] uint8. The screen before the action.
      instruction: The task in words.
      action: The action in words, "" on the closing frame.
      box: What the action was aimed at, as shares of the screen, or None.
    """

    image: np.ndarray  # [height, width, 3] uint8
    instruction: str
    action: str
    box: tuple[float, float, float, float] | None = None


def render(
    pool: SimPool,
    state: SimState,
    *,
    action: np.ndarray | None = None,
    width: int = 640,
    height: int = 400,
) -> np.ndarray:
    """One desktop as a picture.

    Args:
      pool: The applications of `stepjax.envs.sim.load_world`.
      state: One desktop.
      action: [3] int. Tokens of an action to draw on it, or None.
      width: Pixels across.
      height: Pixels down.

    Returns:
      [height, width, 3] uint8.

    Raises:
      ModuleNotFoundError: Pillow is missing.
    """
    behind_all = _backdrop(width, height, int(state.app), int(state.menu) >= 0)
    canvas = Canvas(width, height, on=behind_all)
    widgets = list_widgets(pool, state)
    popup, in_dialog = bool(state.popup), int(state.dialog) >= 0
    if popup or in_dialog:
        behind = dataclasses.replace(
            state, dialog=jnp.int32(-1), popup=jnp.bool_(False)
        )
        for widget in list_widgets(pool, behind):
            canvas.widget(widget)
    if in_dialog and not popup:
        canvas.sheet(0.25, 0.25, 0.75, 0.82)
    if popup:
        canvas.sheet(0.27, 0.3, 0.73, 0.66)
        canvas.text("Restart to finish installing it.", (0.31, 0.43, 0.7, 0.5), FAINT)
    for widget in widgets:
        canvas.widget(widget)
    if action is not None:
        canvas.action(action, widgets, action_text(action, widgets, state))
    return np.asarray(canvas.image, np.uint8)


@functools.lru_cache(maxsize=64)
def _backdrop(width: int, height: int, app: int, with_panel: bool) -> Any:
    """What stands behind the widgets, the dearest part of a picture."""
    canvas = Canvas(width, height)
    canvas.wallpaper()
    if app >= 0:
        canvas.window(app, with_panel=with_panel)
    canvas.taskbar()
    return canvas.image


def action_text(
    action: np.ndarray, widgets: tuple[Widget, ...], state: SimState
) -> str:
    """An action in words, such as 'click "Zoom size"'."""
    kind, index, word = (int(token) for token in action)
    if not 0 <= kind <= ActionKind.FAIL:
        return f"invalid action {kind}"
    name = ActionKind(kind).name.lower().replace("_", " ")
    if kind not in (ActionKind.CLICK, ActionKind.TYPE):
        return name.upper() if kind in (ActionKind.DONE, ActionKind.FAIL) else name
    label = widgets[index].label if 0 <= index < len(widgets) else "nothing"
    if kind == ActionKind.CLICK:
        return f'click "{label}"'
    words = np.asarray(state.task.words)
    typed = spell(int(words[word])) if 0 <= word < len(words) else ""
    return f'type "{typed}" into "{label}"'


@functools.lru_cache(maxsize=1)
def _stepper():
    return jax.jit(step)


def replay_frames(
    pool: SimPool, task_id: int, seed: int, action_tokens: np.ndarray
) -> list[SimFrame]:
    """Pictures of an episode: one for each action up to the end, and one of the end.

    Args:
      pool: The applications of `stepjax.envs.sim.load_world`.
      task_id: Task of the pool.
      seed: Seed of the desktop.
      action_tokens: [L, 3] int. Actions; those after the end are left out.

    Returns:
      The frames.
    """
    task = take_task(pool, jnp.int32(task_id))
    state = reset(pool, task, jnp.uint32(seed))
    instruction = task_table().instructions[task_id]
    frames = []
    for tokens in np.asarray(action_tokens, np.int32):
        if bool(ended(state)):
            break
        widgets = list_widgets(pool, state)
        aims = int(tokens[0]) in (ActionKind.CLICK, ActionKind.TYPE)
        hit = aims and 0 <= int(tokens[1]) < len(widgets)
        frames.append(
            SimFrame(
                image=render(pool, state, action=tokens),
                instruction=instruction,
                action=action_text(tokens, widgets, state),
                box=widgets[int(tokens[1])].box if hit else None,
            )
        )
        state = _stepper()(pool, state, jnp.asarray(tokens))
    closing = SimFrame(image=render(pool, state), instruction=instruction, action="")
    return [*frames, closing]
