"""Who knows how: the oracle, and the demonstrator that believes it knows."""

import jax
import jax.numpy as jnp

from stepjax.envs.actions import ActionKind
from stepjax.envs.sim.items import ItemKind, NodeGroup
from stepjax.envs.sim.screens import Screen, read_screen, take
from stepjax.envs.sim.state import MAX_GOALS, Belief, SimPool, SimState, SimTask

__all__ = [
    "demonstrate",
    "init_belief",
    "oracle",
    "true_belief",
]


def true_belief(pool: SimPool, task: SimTask) -> Belief:
    """What the instruction means."""
    is_goal = jnp.arange(MAX_GOALS) < task.num_goals
    return Belief(
        item=task.goal_item,
        value=task.goal_value,
        gives_up=jnp.any(is_goal & (task.goal_item < 0)),
    )


def init_belief(pool: SimPool, task: SimTask, key: jax.Array) -> Belief:
    """What a demonstrator takes the instruction to mean, for one episode.

    Each name is mistaken with the error of its own, for one of three items of its own.

    Args:
      pool: The applications.
      task: The task.
      key: Random key.

    Returns:
      The belief.
    """
    error_key, place_key = jax.random.split(key)
    is_goal = jnp.arange(MAX_GOALS) < task.num_goals
    errors = take(pool.alias_error, task.goal_alias)
    wrong = is_goal & (jax.random.uniform(error_key, (MAX_GOALS,)) < errors)
    place = jax.random.randint(place_key, (MAX_GOALS,), 0, 3)
    options = take(pool.alias_confusion, task.goal_alias)
    taken_for = jnp.take_along_axis(options, place[:, None], axis=1)[:, 0]
    kind = take(pool.item_kind, taken_for)
    start = take(pool.item_default, taken_for).astype(jnp.int32)
    flips = (kind == ItemKind.SWITCH) | (kind == ItemKind.TRAP)
    value = jnp.where(flips, 1 - start, task.goal_value)
    return Belief(
        item=jnp.where(wrong, taken_for, task.goal_item),
        value=jnp.where(wrong, value, task.goal_value),
        gives_up=jnp.any(is_goal & ~wrong & (task.goal_item < 0)),
    )


def oracle(pool: SimPool, state: SimState) -> jax.Array:
    """The next action of one who knows everything, from any state.

    It closes pop-ups, undoes what should not have changed, cancels dialogs that are not
    needed, and ends with DONE, or with FAIL where the task cannot be done.

    Args:
      pool: The applications.
      state: One desktop.

    Returns:
      [3] int32. The action's tokens.
    """
    return _act(pool, state, true_belief(pool, state.task))


def demonstrate(
    pool: SimPool, state: SimState, belief: Belief, key: jax.Array
) -> jax.Array:
    """The next action of a demonstrator: true to its belief, now and then random.

    Args:
      pool: The applications.
      state: One desktop.
      belief: What it takes the instruction to mean.
      key: Random key.

    Returns:
      [3] int32. The action's tokens.
    """
    chance_key, kind_key, widget_key = jax.random.split(key, 3)
    count = read_screen(pool, state).count
    others = jnp.array(
        [ActionKind.SCROLL_DOWN, ActionKind.SCROLL_UP, ActionKind.ESCAPE], jnp.int32
    )
    other = jax.random.randint(kind_key, (), 0, 12)
    clicks = other >= others.shape[0]
    widget = jax.random.randint(widget_key, (), 0, jnp.maximum(count, 1))
    random = _tokens(
        jnp.where(clicks, int(ActionKind.CLICK), take(others, other)),
        jnp.where(clicks, widget, 0),
    )
    wanders = jax.random.uniform(chance_key) < pool.wander_prob
    return jnp.where(wanders, random, _act(pool, state, belief))


def _tokens(
    kind: jax.Array | int, widget: jax.Array | int = 0, word: jax.Array | int = 0
) -> jax.Array:
    parts = [jnp.asarray(part, jnp.int32) for part in (kind, widget, word)]
    return jnp.stack(parts)


def _wanted(
    pool: SimPool, state: SimState, belief: Belief
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Next item to change (-1 for none), its value, and [E] the value of every item."""
    items = jnp.arange(pool.item_default.shape[0])
    wanted = pool.item_default.astype(jnp.int32)
    is_goal = jnp.zeros(items.shape, bool)
    for k in range(MAX_GOALS):
        hit = (items == belief.item[k]) & (k < state.task.num_goals)
        wanted, is_goal = jnp.where(hit, belief.value[k], wanted), is_goal | hit
    off = state.settings.astype(jnp.int32) != wanted
    stray = off & ~is_goal & (pool.item_kind != ItemKind.TRAP)
    open_goal = (
        take(off, belief.item)
        & (belief.item >= 0)
        & (jnp.arange(MAX_GOALS) < state.task.num_goals)
    )
    goal = jnp.where(jnp.any(open_goal), belief.item[jnp.argmax(open_goal)], -1)
    item = jnp.where(jnp.any(stray), jnp.argmax(stray), goal)
    return item, take(wanted, item), wanted


def _find(screen: Screen, node: jax.Array) -> jax.Array:
    """[] int32. Widget that shows a node."""
    return jnp.argmax(screen.node == node)


def _act(pool: SimPool, state: SimState, belief: Belief) -> jax.Array:
    """[3] int32. Best next action under a belief."""
    screen = read_screen(pool, state)
    item, _, wanted = _wanted(pool, state, belief)
    here = _go(pool, state, screen, item)
    here = jnp.where(item < 0, _tokens(int(ActionKind.DONE)), here)
    here = jnp.where(state.dialog >= 0, _fill(pool, state, screen, wanted), here)
    here = jnp.where(belief.gives_up, _tokens(int(ActionKind.FAIL)), here)
    later = _tokens(0, _find(screen, pool.first_node[NodeGroup.LATER]))
    return jnp.where(state.popup, later, here)


def _go(pool: SimPool, state: SimState, screen: Screen, item: jax.Array) -> jax.Array:
    """[3] int32. The way to an item, the click on it, or FAIL if it is greyed out."""
    first = pool.first_node
    app, menu = take(pool.item_app, item), take(pool.item_menu, item)
    page = take(pool.item_page, item)
    node = first[NodeGroup.ITEM] + item
    node = jnp.where(state.menu != menu, first[NodeGroup.MENU] + menu, node)
    node = jnp.where(state.app != app, first[NodeGroup.DESKTOP], node)
    node = jnp.where(state.app < 0, first[NodeGroup.APP] + app, node)
    click = _tokens(int(ActionKind.CLICK), _find(screen, node))
    in_menu = (state.app == app) & (state.menu == menu)
    down = page > state.page
    scroll = jnp.where(down, int(ActionKind.SCROLL_DOWN), int(ActionKind.SCROLL_UP))
    tokens = jnp.where(in_menu & (state.page != page), _tokens(scroll), click)
    stuck = in_menu & (state.page == page) & (item == state.task.disabled_item)
    return jnp.where(stuck, _tokens(int(ActionKind.FAIL)), tokens)


def _fill(
    pool: SimPool, state: SimState, screen: Screen, wanted: jax.Array
) -> jax.Array:
    """[3] int32. What to do in a dialog: fill it in and confirm, or cancel it."""
    first = pool.first_node
    want = take(wanted, state.dialog)
    fine = take(state.settings, state.dialog).astype(jnp.int32) == want
    is_text = take(pool.item_kind, state.dialog) == ItemKind.TEXT
    field = _find(screen, first[NodeGroup.FIELD])
    typed = _tokens(int(ActionKind.TYPE), field, jnp.argmax(state.task.words == want))
    fill = jnp.where(want == 0, _tokens(int(ActionKind.CLICK), field), typed)
    option = take(pool.item_options, state.dialog) + want
    choose = _tokens(int(ActionKind.CLICK), _find(screen, option))
    edit = jnp.where(is_text, fill, choose)
    ok = _tokens(int(ActionKind.CLICK), _find(screen, first[NodeGroup.OK]))
    cancel = _tokens(int(ActionKind.CLICK), _find(screen, first[NodeGroup.CANCEL]))
    tokens = jnp.where(state.draft == want, ok, edit)
    return jnp.where(fine, cancel, tokens)
