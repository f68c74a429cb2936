"""How the simulated desktop answers an action: pure functions of one desktop."""

import dataclasses

import jax
import jax.numpy as jnp

from stepjax.envs.actions import ActionKind
from stepjax.envs.sim.items import ItemKind, NodeGroup, NodeKind
from stepjax.envs.sim.screens import (
    Screen,
    labelled,
    mix,
    num_changes,
    read_screen,
    take,
    uniform,
)
from stepjax.envs.sim.state import (
    HISTORY,
    INSTRUCTION_WORDS,
    WIDGET_WORDS,
    WIDGETS,
    SimPool,
    SimState,
    SimTask,
)

__all__ = [
    "ended",
    "reset",
    "state_hash",
    "step",
    "success",
    "take_task",
]

_DONE, _FAIL, _LIMIT = 1, 2, 3


def take_task(pool: SimPool, task_id: jax.Array) -> SimTask:
    """One task of the pool by its id; ids outside read the nearest."""
    return jax.tree.map(lambda leaf: take(leaf, jnp.asarray(task_id)), pool.tasks)


def reset(pool: SimPool, task: SimTask, seed: jax.Array) -> SimState:
    """A desktop at the start of a task.

    Args:
      pool: The applications.
      task: The task.
      seed: [] uint32. Fixes misclicks, pop-ups and the order of things on the screen.

    Returns:
      The desktop.
    """
    none = jnp.int32(-1)
    return SimState(
        task=jax.tree.map(jnp.asarray, task),
        seed=jnp.asarray(seed).astype(jnp.uint32),
        time=jnp.int32(0),
        settings=pool.item_default,
        app=jnp.asarray(task.start_app, jnp.int32),
        menu=none,
        page=jnp.int32(0),
        dialog=none,
        draft=jnp.int32(0),
        popup=jnp.bool_(False),
        outcome=jnp.int32(0),
        history_kind=jnp.full(HISTORY, -1, jnp.int32),
        history_words=jnp.zeros((HISTORY, WIDGET_WORDS), jnp.int32),
    )


def ended(state: SimState) -> jax.Array:
    """[] bool. The episode is over."""
    return state.outcome > 0


def success(pool: SimPool, state: SimState) -> jax.Array:
    """[] float32. 1 if the episode is over and did what was asked and nothing else.

    An infeasible task asks for FAIL. As in OSWorld, running into the step limit does
    not spoil a desktop that is as it should be.

    Args:
      pool: The applications.
      state: One desktop.

    Returns:
      0 or 1; 0 while the episode runs.
    """
    task = state.task
    is_goal = jnp.arange(task.goal_item.shape[0]) < task.num_goals
    values = take(state.settings, task.goal_item).astype(jnp.int32)
    reached = jnp.all((values == task.goal_value) | ~is_goal)
    clean = num_changes(pool, state) == task.num_goals
    stopped = (state.outcome == _DONE) | (state.outcome == _LIMIT)
    feasible = stopped & reached & clean
    right = jnp.where(task.infeasible, state.outcome == _FAIL, feasible)
    return right.astype(jnp.float32)


def state_hash(pool: SimPool, state: SimState) -> jax.Array:
    """[] uint32. Equal for desktops alike in settings and screen, at whatever time."""
    items = jnp.arange(state.settings.shape[0])
    parts = mix(items, state.settings.astype(jnp.int32))
    changed = state.settings != pool.item_default
    settings = jnp.sum(jnp.where(changed, parts, 0), dtype=jnp.uint32)
    view = (state.app, state.menu, state.page, state.dialog, state.draft)
    flags = (state.popup.astype(jnp.int32), state.outcome)
    return mix(settings, *view, *flags)


def step(pool: SimPool, state: SimState, tokens: jax.Array) -> SimState:
    """The desktop after one action; the same desktop if the episode is over.

    A click may slip to another widget; a pop-up may come after any action. Tokens that
    make no sense do nothing but take time.

    Args:
      pool: The applications.
      state: One desktop.
      tokens: [3] int32. Kind of action, widget, word of the instruction.

    Returns:
      The next desktop.
    """
    kind, widget, word = tokens[0], tokens[1], tokens[2]
    screen = read_screen(pool, state)
    aims = (kind == ActionKind.CLICK) | (kind == ActionKind.TYPE)
    real = aims & (widget >= 0) & (widget < screen.count)
    aimed = jnp.where(real, take(screen.node, widget), 0)
    typed = _typed_word(state, kind, word)
    node = jnp.where(
        kind == ActionKind.CLICK,
        _slip(pool, state, screen, widget, aimed),
        _key_node(pool, state, kind),
    )
    after = _scroll(pool, _click(pool, state, node), kind)
    fills = (take(pool.node_kind, aimed) == NodeKind.FIELD) & (typed > 0)
    time = state.time + 1
    popup = uniform(state.seed, 3, time) < pool.popup_prob
    outcome = jnp.where(time >= state.task.step_limit, _LIMIT, 0)
    outcome = jnp.where(kind == ActionKind.DONE, _DONE, outcome)
    outcome = jnp.where(kind == ActionKind.FAIL, _FAIL, outcome)
    words = jnp.where(aims, labelled(pool, aimed, typed), 0)
    after = dataclasses.replace(
        after,
        time=time,
        draft=jnp.where(fills, typed, after.draft),
        popup=after.popup | (popup & (outcome == 0)),
        outcome=outcome.astype(jnp.int32),
        history_kind=jnp.concatenate([_kind_id(kind), state.history_kind[:-1]]),
        history_words=jnp.concatenate([words[None], state.history_words[:-1]]),
    )
    stopped = ended(state)
    return jax.tree.map(lambda old, new: jnp.where(stopped, old, new), state, after)


def _kind_id(kind: jax.Array) -> jax.Array:
    """[1] int32. The kind as the history keeps it; nonsense is WAIT."""
    known = (kind >= 0) & (kind <= ActionKind.FAIL)
    return jnp.where(known, kind, int(ActionKind.WAIT)).astype(jnp.int32)[None]


def _typed_word(state: SimState, kind: jax.Array, word: jax.Array) -> jax.Array:
    """[] int32. Id of the word that is typed, 0 for none."""
    real = (kind == ActionKind.TYPE) & (word >= 0) & (word < INSTRUCTION_WORDS)
    return jnp.where(real, take(state.task.words, word), 0)


def _slip(
    pool: SimPool, state: SimState, screen: Screen, widget: jax.Array, aimed: jax.Array
) -> jax.Array:
    """[] int32. The node a click lands on, which may be another widget's."""
    slips = uniform(state.seed, 4, state.time) < pool.slip_prob
    others = jnp.maximum(screen.count - 1, 1).astype(jnp.uint32)
    shift = 1 + (mix(state.seed, 5, state.time) % others).astype(jnp.int32)
    other = jnp.clip(widget, 0, WIDGETS - 1) + shift
    other = jnp.where(other >= screen.count, other - screen.count, other)
    return jnp.where(slips & (aimed > 0), take(screen.node, other), aimed)


def _key_node(pool: SimPool, state: SimState, kind: jax.Array) -> jax.Array:
    """[] int32. The node whose click ENTER or ESCAPE stands for, 0 for none."""
    first, in_dialog = pool.first_node, state.dialog >= 0
    enter = jnp.where(in_dialog, first[NodeGroup.OK], 0)
    enter = jnp.where(state.popup, first[NodeGroup.RESTART], enter)
    escape = jnp.where(in_dialog, first[NodeGroup.CANCEL], 0)
    escape = jnp.where(state.popup, first[NodeGroup.LATER], escape)
    node = jnp.where(kind == ActionKind.ENTER, enter, 0)
    return jnp.where(kind == ActionKind.ESCAPE, escape, node)


def _click(pool: SimPool, state: SimState, node: jax.Array) -> SimState:
    """The desktop after a click on a node; node 0 does nothing."""
    kind, arg = take(pool.node_kind, node), take(pool.node_arg, node)
    on_item = (kind == NodeKind.ITEM) & (arg != state.task.disabled_item)
    item_kind = take(pool.item_kind, arg)
    old = take(state.settings, jnp.where(on_item, arg, state.dialog)).astype(jnp.int32)
    flips = on_item & (item_kind == ItemKind.SWITCH)
    springs = on_item & (item_kind == ItemKind.TRAP)
    opens = on_item & ~flips & ~springs
    ok, restart = kind == NodeKind.OK, kind == NodeKind.RESTART
    closes = ok | restart | (kind == NodeKind.CANCEL)
    to_app, to_menu = kind == NodeKind.APP, kind == NodeKind.MENU
    leaves = (kind == NodeKind.DESKTOP) | restart
    new = jnp.where(flips, 1 - old, jnp.where(ok, state.draft, 1))
    target = jnp.where(flips | springs, arg, jnp.where(ok, state.dialog, -1))
    hit = jnp.arange(state.settings.shape[0]) == target
    settings = jnp.where(hit, new.astype(jnp.int16), state.settings)
    lost = restart & (pool.item_kind != ItemKind.TRAP)
    draft = jnp.where(opens, old, state.draft)
    draft = jnp.where(kind == NodeKind.OPTION, arg, draft)
    draft = jnp.where(closes | (kind == NodeKind.FIELD), 0, draft)
    menu = jnp.where(to_menu, arg, jnp.where(to_app | leaves, -1, state.menu))
    turned = jnp.where(kind == NodeKind.MORE, 1 - state.page, state.page)
    return dataclasses.replace(
        state,
        settings=jnp.where(lost, pool.item_default, settings),
        app=jnp.where(to_app, arg, jnp.where(leaves, -1, state.app)),
        menu=menu,
        page=jnp.where(to_menu | to_app | leaves, 0, turned),
        dialog=jnp.where(opens, arg, jnp.where(closes, -1, state.dialog)),
        draft=draft,
        popup=state.popup & (kind != NodeKind.LATER) & ~restart,
    )


def _scroll(pool: SimPool, state: SimState, kind: jax.Array) -> SimState:
    """The desktop after SCROLL_DOWN or SCROLL_UP; other kinds change nothing."""
    shift = jnp.where(kind == ActionKind.SCROLL_DOWN, 1, 0)
    shift = jnp.where(kind == ActionKind.SCROLL_UP, -1, shift)
    free = ~state.popup & (state.dialog < 0) & (state.menu >= 0)
    last = take(pool.menu_pages, state.menu) - 1
    page = jnp.where(free, jnp.clip(state.page + shift, 0, last), state.page)
    return dataclasses.replace(state, page=page)
