"""The simulated desktop as arrays: the pool, a task, a running desktop, a belief.

Sizes: I instruction words, G goals, K words of a widget, W widgets, H remembered
actions, N nodes (everything that can stand on a screen), M menus, E items (settings and
traps), Q aliases, A applications, P pages of a menu, R rows of a page.
"""

import dataclasses

import jax

__all__ = [
    "Belief",
    "HISTORY",
    "INSTRUCTION_WORDS",
    "MAX_GOALS",
    "MAX_STEPS",
    "MENU_PAGES",
    "MENU_SLOTS",
    "PAGE_ROWS",
    "SimPool",
    "SimState",
    "SimTask",
    "WIDGETS",
    "WIDGET_WORDS",
]

WIDGETS = 16
WIDGET_WORDS = 4
INSTRUCTION_WORDS = 32
HISTORY = 3
MAX_GOALS = 6
MAX_STEPS = 15
MENU_SLOTS = 6
MENU_PAGES = 2
PAGE_ROWS = 6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SimTask:
    """One task. Stacked along a leading axis, a table of tasks.

    Attributes:
      task_id: [] int32. Index in the pool; -1 for a practice task.
      domain: [] int32. Index in `DOMAINS`.
      num_goals: [] int32. Settings to change, 1 to G.
      goal_item: [G] int32. Item of each goal; -1 for padding and for what is missing.
      goal_value: [G] int32. 0/1 of a switch, index of an option, id of a typed word.
      goal_alias: [G] int32. Name the instruction uses for it; -1 for padding.
      words: [I] int32. Instruction as word ids; 0 is padding.
      clause: [I] int32. Clause each word stands in: the goal it belongs to.
      start_app: [] int32. Application open at the start; -1 for the bare desktop.
      disabled_item: [] int32. Item that is greyed out in this task; -1 for none.
      infeasible: [] bool. True if FAIL is the right end.
      step_limit: [] int32. The episode ends after so many actions.
    """

    task_id: jax.Array  # [] int32
    domain: jax.Array  # [] int32
    num_goals: jax.Array  # [] int32
    goal_item: jax.Array  # [G] int32
    goal_value: jax.Array  # [G] int32
    goal_alias: jax.Array  # [G] int32
    words: jax.Array  # [I] int32
    clause: jax.Array  # [I] int32
    start_app: jax.Array  # [] int32
    disabled_item: jax.Array  # [] int32
    infeasible: jax.Array  # [] bool
    step_limit: jax.Array  # [] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SimPool:
    """The applications and the 369 tasks, passed to every function as an argument.

    Attributes:
      first_node: [15] int32. First node of each `stepjax.envs.sim.items.NodeGroup`.
      node_words: [N, K] int32. Label of each node; node 0 is padding.
      node_role: [N] int32. A `stepjax.envs.words.ROLES` index.
      node_kind: [N] int32. A `stepjax.envs.sim.items.NodeKind`.
      node_arg: [N] int32. Which application, menu, item or option it is.
      app_menus: [A, 6] int32. Menus of an application; -1 for none.
      menu_items: [M, P, R] int32. Items on each page of a menu; -1 for none.
      menu_pages: [M] int32. Pages of a menu, 1 or 2.
      item_kind: [E] int32. A `stepjax.envs.sim.items.ItemKind`.
      item_app: [E] int32. Application an item belongs to.
      item_menu: [E] int32. Menu it stands in.
      item_page: [E] int32. Page of that menu.
      item_default: [E] int16. Setting at the start.
      item_options: [E] int32. First of the four nodes of its options; 0 if none.
      count_words: [16] int32. Ids of the words "0" to "15".
      boxes: [5, W, 4] float32. Where each slot of a kind of screen is drawn.
      alias_item: [Q] int32. What a name stands for; -1 for something that is missing.
      alias_error: [Q] float32. How often the demonstrator takes it for something else.
      alias_confusion: [Q, 3] int32. What it takes it for.
      slip_prob: [] float32. Chance that a click lands on another widget.
      popup_prob: [] float32. Chance that a pop-up appears after an action.
      wander_prob: [] float32. Chance that the demonstrator acts at random.
      tasks: The 369 tasks, stacked.
    """

    first_node: jax.Array  # [15] int32
    node_words: jax.Array  # [N, K] int32
    node_role: jax.Array  # [N] int32
    node_kind: jax.Array  # [N] int32
    node_arg: jax.Array  # [N] int32
    app_menus: jax.Array  # [A, 6] int32
    menu_items: jax.Array  # [M, P, R] int32
    menu_pages: jax.Array  # [M] int32
    item_kind: jax.Array  # [E] int32
    item_app: jax.Array  # [E] int32
    item_menu: jax.Array  # [E] int32
    item_page: jax.Array  # [E] int32
    item_default: jax.Array  # [E] int16
    item_options: jax.Array  # [E] int32
    count_words: jax.Array  # [16] int32
    boxes: jax.Array  # [5, W, 4] float32
    alias_item: jax.Array  # [Q] int32
    alias_error: jax.Array  # [Q] float32
    alias_confusion: jax.Array  # [Q, 3] int32
    slip_prob: jax.Array  # [] float32
    popup_prob: jax.Array  # [] float32
    wander_prob: jax.Array  # [] float32
    tasks: SimTask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SimState:
    """One desktop in the middle of one task.

    Attributes:
      task: The task.
      seed: [] uint32. Fixes misclicks, pop-ups and the order of things on the screen.
      time: [] int32. Actions taken.
      settings: [E] int16. Value of every item; 1 for a trap that was sprung.
      app: [] int32. Application in front, -1 for the desktop.
      menu: [] int32. Menu whose panel is open, -1 for none.
      page: [] int32. Page of that panel.
      dialog: [] int32. Item whose dialog is open, -1 for none.
      draft: [] int32. What the dialog holds until OK.
      popup: [] bool. A pop-up covers the screen.
      outcome: [] int32. 0 running, 1 DONE, 2 FAIL, 3 step limit.
      history_kind: [H] int32. Kinds of the latest actions, newest first; -1 for none.
      history_words: [H, K] int32. Labels they were aimed at, then text typed.
    """

    task: SimTask
    seed: jax.Array  # [] uint32
    time: jax.Array  # [] int32
    settings: jax.Array  # [E] int16
    app: jax.Array  # [] int32
    menu: jax.Array  # [] int32
    page: jax.Array  # [] int32
    dialog: jax.Array  # [] int32
    draft: jax.Array  # [] int32
    popup: jax.Array  # [] bool
    outcome: jax.Array  # [] int32
    history_kind: jax.Array  # [H] int32
    history_words: jax.Array  # [H, K] int32


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Belief:
    """What a demonstrator takes the instruction to mean, right or wrong.

    Attributes:
      item: [G] int32. Where it thinks each goal is; -1 for padding.
      value: [G] int32. What it wants it to be.
      gives_up: [] bool. It thinks something asked for does not exist.
    """

    item: jax.Array  # [G] int32
    value: jax.Array  # [G] int32
    gives_up: jax.Array  # [] bool
