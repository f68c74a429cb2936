"""What stands on the screen, where, and what the policy is told about it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.envs.sim.items import ItemKind, NodeGroup, NodeKind
from stepjax.envs.sim.state import (
    MENU_SLOTS,
    PAGE_ROWS,
    WIDGET_WORDS,
    WIDGETS,
    SimPool,
    SimState,
)
from stepjax.types import ScreenPrompt

__all__ = [
    "SCREEN_KINDS",
    "Screen",
    "labelled",
    "layout_boxes",
    "mix",
    "num_changes",
    "observe",
    "read_screen",
    "take",
    "uniform",
]

SCREEN_KINDS = ("desktop", "app", "choice", "text", "popup")
_ON, _FOCUSED, _DISABLED = 1, 2, 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Screen:
    """The widgets on a screen in reading order, without gaps.

    Attributes:
      kind: [] int32. Index in `SCREEN_KINDS`.
      node: [W] int32. Which node each widget shows; 0 is padding.
      slot: [W] int32. Which place of the layout it has.
      count: [] int32. Number of widgets.
    """

    kind: jax.Array  # [] int32
    node: jax.Array  # [W] int32
    slot: jax.Array  # [W] int32
    count: jax.Array  # [] int32


def take(table: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of a table; an index below 0 reads row 0, above the end the last."""
    return jnp.take(table, index, axis=0, mode="clip")


def mix(*values: jax.Array | int) -> jax.Array:
    """A well-mixed uint32 of some integers, elementwise."""
    state = jnp.uint32(0x9E3779B9)
    for value in values:
        state = state ^ jnp.asarray(value).astype(jnp.uint32)
        state = (state ^ (state >> 16)) * jnp.uint32(0x85EBCA6B)
        state = (state ^ (state >> 13)) * jnp.uint32(0xC2B2AE35)
        state = state ^ (state >> 16)
    return state


def uniform(*values: jax.Array | int) -> jax.Array:
    """A number in [0, 1) that depends on some integers, float32."""
    return (mix(*values) >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def num_changes(pool: SimPool, state: SimState) -> jax.Array:
    """[] int32. Settings that differ from the start, sprung traps included."""
    return jnp.sum(state.settings != pool.item_default, dtype=jnp.int32)


def layout_boxes() -> np.ndarray:
    """[5, W, 4] float32. Left, top, right, bottom of each slot of each kind of screen.

    The same boxes go to the policy and to the drawing. Slots follow `_desktop_nodes`,
    `_app_nodes`, `_dialog_nodes` and `_popup_nodes`.
    """
    boxes = np.zeros((len(SCREEN_KINDS), WIDGETS, 4), np.float32)
    status, desktop = (0.62, 0.935, 0.82, 0.985), (0.015, 0.935, 0.16, 0.985)
    title, dialog = (0.01, 0.01, 0.3, 0.065), (0.27, 0.27, 0.73, 0.34)
    ok, cancel = (0.44, 0.73, 0.57, 0.79), (0.59, 0.73, 0.72, 0.79)
    for i in range(9):
        left, top = 0.1 + 0.175 * (i % 5), 0.18 + 0.34 * (i // 5)
        boxes[0, i] = (left, top, left + 0.12, top + 0.24)
    boxes[0, 9] = status
    boxes[1, 0] = title
    for i in range(MENU_SLOTS):
        boxes[1, 1 + i] = (0.01 + 0.135 * i, 0.075, 0.14 + 0.135 * i, 0.13)
    for i in range(PAGE_ROWS):
        top = 0.215 + 0.09 * i
        boxes[1, 7 + i] = (0.03, top, 0.55, top + 0.075)
    boxes[1, 13] = (0.03, 0.77, 0.2, 0.835)
    boxes[1, 14], boxes[1, 15] = desktop, status
    for kind in (2, 3):
        boxes[kind, 0], boxes[kind, 1] = title, dialog
        boxes[kind, 6], boxes[kind, 7], boxes[kind, 8] = ok, cancel, status
    for i in range(4):
        top = 0.37 + 0.085 * i
        boxes[2, 2 + i] = (0.3, top, 0.7, top + 0.07)
    boxes[3, 2] = (0.3, 0.46, 0.7, 0.54)
    boxes[4, 0] = (0.3, 0.33, 0.7, 0.41)
    boxes[4, 1], boxes[4, 2] = (0.33, 0.54, 0.48, 0.61), (0.5, 0.54, 0.67, 0.61)
    return boxes


def _ranked(keys: jax.Array) -> jax.Array:
    """[R] int32. Rank of each key; equal keys keep their order."""
    index = jnp.arange(keys.shape[0])
    smaller = keys[None, :] < keys[:, None]
    earlier = (keys[None, :] == keys[:, None]) & (index[None, :] < index[:, None])
    return jnp.sum(smaller | earlier, axis=1, dtype=jnp.int32)


def _placed(values: jax.Array, places: jax.Array, size: int) -> jax.Array:
    """[size]. Each value at its own place, 0 elsewhere; places outside are dropped."""
    hits = places[None, :] == jnp.arange(size)[:, None]
    return jnp.sum(jnp.where(hits, values[None, :], 0), axis=1, dtype=values.dtype)


def _padded(*parts: jax.Array) -> jax.Array:
    nodes = jnp.concatenate([jnp.atleast_1d(part) for part in parts]).astype(jnp.int32)
    return jnp.pad(nodes, (0, WIDGETS - nodes.shape[0]))


def _desktop_nodes(pool: SimPool, state: SimState) -> jax.Array:
    apps = jnp.arange(pool.app_menus.shape[0])
    ranks = _ranked(mix(state.seed, 1, apps))
    icons = _placed(pool.first_node[NodeGroup.APP] + apps, ranks, apps.shape[0])
    return _padded(icons, pool.first_node[NodeGroup.STATUS])


def _app_nodes(pool: SimPool, state: SimState) -> jax.Array:
    first = pool.first_node
    menus = take(pool.app_menus, state.app)
    items = take(take(pool.menu_items, state.menu), state.page)
    present = (items >= 0) & (state.menu >= 0)
    keys = mix(state.seed, 2, state.menu, items)
    ranks = _ranked(jnp.where(present, keys, jnp.uint32(0xFFFFFFFF)))
    nodes = jnp.where(present, first[NodeGroup.ITEM] + items, 0)
    paged = (take(pool.menu_pages, state.menu) > 1) & (state.menu >= 0)
    return _padded(
        first[NodeGroup.TITLE] + state.app,
        jnp.where(menus >= 0, first[NodeGroup.MENU] + menus, 0),
        _placed(nodes, ranks, PAGE_ROWS),
        jnp.where(paged, first[NodeGroup.MORE], 0),
        first[NodeGroup.DESKTOP],
        first[NodeGroup.STATUS],
    )


def _dialog_nodes(pool: SimPool, state: SimState) -> jax.Array:
    first = pool.first_node
    is_text = take(pool.item_kind, state.dialog) == ItemKind.TEXT
    options = take(pool.item_options, state.dialog) + jnp.arange(4)
    field = jnp.where(jnp.arange(4) == 0, first[NodeGroup.FIELD], 0)
    return _padded(
        first[NodeGroup.TITLE] + state.app,
        first[NodeGroup.DIALOG] + state.dialog,
        jnp.where(is_text, field, options),
        first[NodeGroup.OK],
        first[NodeGroup.CANCEL],
        first[NodeGroup.STATUS],
    )


def _popup_nodes(pool: SimPool) -> jax.Array:
    first = pool.first_node
    return _padded(
        first[NodeGroup.POPUP], first[NodeGroup.LATER], first[NodeGroup.RESTART]
    )


def read_screen(pool: SimPool, state: SimState) -> Screen:
    """The widgets now on the screen.

    Items of a panel and icons of the desktop stand in an order of the seed's own, so
    that a place says nothing.

    Args:
      pool: The applications.
      state: One desktop.

    Returns:
      The screen.
    """
    in_dialog, in_app = state.dialog >= 0, state.app >= 0
    is_text = take(pool.item_kind, state.dialog) == ItemKind.TEXT
    kind = jnp.where(in_dialog, jnp.where(is_text, 3, 2), jnp.where(in_app, 1, 0))
    kind = jnp.where(state.popup, 4, kind)
    nodes = jnp.where(in_app, _app_nodes(pool, state), _desktop_nodes(pool, state))
    nodes = jnp.where(in_dialog, _dialog_nodes(pool, state), nodes)
    nodes = jnp.where(state.popup, _popup_nodes(pool), nodes)
    real = nodes > 0
    places = jnp.where(real, jnp.cumsum(real) - 1, WIDGETS)
    return Screen(
        kind=kind,
        node=_placed(nodes, places, WIDGETS),
        slot=_placed(jnp.arange(WIDGETS), places, WIDGETS),
        count=jnp.sum(real, dtype=jnp.int32),
    )


def labelled(pool: SimPool, node: jax.Array, value: jax.Array) -> jax.Array:
    """[..., K] int32. Label of each node; a value, if any, begins the second half."""
    words = take(pool.node_words, node)
    place = jnp.arange(WIDGET_WORDS) == WIDGET_WORDS // 2
    filled = jnp.broadcast_to(place, words.shape) & (value > 0)[..., None]
    return jnp.where(filled, value[..., None], words)


def observe(pool: SimPool, state: SimState) -> ScreenPrompt:
    """What the policy sees of one desktop.

    Args:
      pool: The applications.
      state: One desktop.

    Returns:
      The prompt, with W = 16 widgets, I = 32 words, K = 4 and H = 3.
    """
    screen = read_screen(pool, state)
    kind, arg = take(pool.node_kind, screen.node), take(pool.node_arg, screen.node)
    is_item, is_field = kind == NodeKind.ITEM, kind == NodeKind.FIELD
    item = jnp.where(is_item, arg, 0)
    item_kind, setting = take(pool.item_kind, item), take(state.settings, item)
    setting = setting.astype(jnp.int32)
    option = take(pool.node_words[:, 0], take(pool.item_options, item) + setting)
    value = jnp.where(is_item & (item_kind == ItemKind.TEXT), setting, 0)
    value = jnp.where(is_item & (item_kind == ItemKind.CHOICE), option, value)
    value = jnp.where(is_field, state.draft, value)
    count = take(pool.count_words, num_changes(pool, state))
    value = jnp.where(kind == NodeKind.STATUS, count, value)
    switched = (item_kind == ItemKind.SWITCH) | (item_kind == ItemKind.TRAP)
    on = is_item & switched & (setting == 1)
    on |= (kind == NodeKind.MENU) & (arg == state.menu)
    on |= (kind == NodeKind.OPTION) & (arg == state.draft)
    disabled = is_item & (arg == state.task.disabled_item)
    mask = jnp.arange(WIDGETS) < screen.count
    boxes = take(take(pool.boxes, screen.kind), screen.slot)
    return ScreenPrompt(
        words=state.task.words,
        clause=state.task.clause,
        widget_words=labelled(pool, screen.node, value),
        widget_role=take(pool.node_role, screen.node),
        widget_state=_ON * on + _FOCUSED * is_field + _DISABLED * disabled,
        widget_box=jnp.where(mask[:, None], boxes, 0.0),
        widget_mask=mask,
        history_kind=state.history_kind,
        history_words=state.history_words,
    )
