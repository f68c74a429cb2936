"""A desktop simulated in pure JAX: nine applications, 369 tasks, ten domains.

Functions take one desktop; `jax.vmap` makes thousands. The pool is an argument, so one
compilation serves any of them.

Example:
  >>> import jax
  >>> pool = load_world()
  >>> state = reset(pool, take_task(pool, 0), 7)
  >>> while not ended(state):
  ...     state = step(pool, state, oracle(pool, state))
  >>> float(success(pool, state))
  1.0
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.envs.sim.dynamics import (
    ended,
    reset,
    state_hash,
    step,
    success,
    take_task,
)
from stepjax.envs.sim.environment import SimEnvironment, sim_task
from stepjax.envs.sim.oracle import demonstrate, init_belief, oracle, true_belief
from stepjax.envs.sim.render import SimFrame, render, replay_frames
from stepjax.envs.sim.screens import layout_boxes, observe
from stepjax.envs.sim.state import Belief, SimPool, SimState, SimTask
from stepjax.envs.sim.tasks import (
    SimTaskTable,
    draft_tasks,
    practice_tasks,
    stack_tasks,
    task_table,
)
from stepjax.envs.sim.widgets import list_widgets
from stepjax.envs.sim.world import build_world

__all__ = [
    "Belief",
    "SimEnvironment",
    "SimFrame",
    "SimPool",
    "SimState",
    "SimTask",
    "SimTaskTable",
    "demonstrate",
    "ended",
    "init_belief",
    "list_widgets",
    "load_world",
    "observe",
    "oracle",
    "practice_tasks",
    "render",
    "replay_frames",
    "reset",
    "sim_task",
    "state_hash",
    "step",
    "success",
    "take_task",
    "task_table",
    "true_belief",
]

SLIP_PROB = 0.04
"""Chance that a click lands on another widget."""

POPUP_PROB = 0.03
"""Chance that a pop-up appears after an action."""

WANDER_PROB = 0.04
"""Chance that the demonstrator acts at random."""


@functools.lru_cache(maxsize=1)
def load_world() -> SimPool:
    """The applications and the 369 tasks on the default device; always the same."""
    world = build_world()
    drafts = list(draft_tasks()[0])
    tasks = stack_tasks(world, drafts, np.arange(len(drafts)))
    return SimPool(
        **{name: jnp.asarray(table) for name, table in world.tables.items()},
        boxes=jnp.asarray(layout_boxes()),
        slip_prob=jnp.float32(SLIP_PROB),
        popup_prob=jnp.float32(POPUP_PROB),
        wander_prob=jnp.float32(WANDER_PROB),
        tasks=jax.tree.map(jnp.asarray, tasks),
    )
