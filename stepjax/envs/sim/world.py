"""The applications as tables: nodes, menus, items, and the names instructions use.

Built once on the host from a fixed seed. `World` keeps the strings, for instructions
and for drawing; `stepjax.envs.sim.load_world` puts the numbers on the device.
"""

import dataclasses
import functools

import numpy as np

from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.aliases import Alias, name_items
from stepjax.envs.sim.items import Item, ItemKind, NodeGroup, NodeKind, read_menus
from stepjax.envs.sim.state import MENU_PAGES, MENU_SLOTS, PAGE_ROWS, WIDGET_WORDS
from stepjax.envs.words import role_id, word_id

__all__ = [
    "World",
    "build_world",
]

_SEED = 20251123


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """The host's description of all applications.

    Attributes:
      menus: (application index, label) of each menu.
      items: All items.
      aliases: All names.
      node_labels: Text of each node; the node tables follow its order.
      tables: Arrays by the names of `SimPool`'s fields.
    """

    menus: tuple[tuple[int, str], ...]
    items: tuple[Item, ...]
    aliases: tuple[Alias, ...]
    node_labels: tuple[str, ...]
    tables: dict[str, np.ndarray]


@functools.lru_cache(maxsize=1)
def build_world() -> World:
    """The world, always the same one."""
    rng = np.random.default_rng(_SEED)
    menus, items = read_menus(rng)
    aliases = name_items(rng, items)
    labels, tables = _node_tables(menus, items)
    tables |= _menu_tables(menus, items, int(tables["first_node"][NodeGroup.OPTION]))
    tables |= {
        "alias_item": np.array([alias.item for alias in aliases], np.int32),
        "alias_error": np.array([alias.error for alias in aliases], np.float32),
        "alias_confusion": np.array([alias.confusion for alias in aliases], np.int32),
        "count_words": np.array([word_id(str(n)) for n in range(16)], np.int32),
    }
    return World(
        menus=tuple(menus),
        items=tuple(items),
        aliases=tuple(aliases),
        node_labels=tuple(labels),
        tables=tables,
    )


def _node_tables(
    menus: list[tuple[int, str]], items: list[Item]
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Labels and tables of everything that can stand on a screen."""
    rows: list[tuple[str, str, NodeKind, int]] = [("", "other", NodeKind.INERT, 0)]
    first = []
    for entries in _node_groups(menus, items):
        first.append(len(rows))
        rows.extend(entries)
    words = np.zeros((len(rows), WIDGET_WORDS), np.int32)
    for node, (label, *_) in enumerate(rows):
        ids = [word_id(word) for word in label.split()]
        words[node, : len(ids)] = ids
    tables = {
        "first_node": np.array(first, np.int32),
        "node_words": words,
        "node_role": np.array([role_id(row[1]) for row in rows], np.int32),
        "node_kind": np.array([int(row[2]) for row in rows], np.int32),
        "node_arg": np.array([row[3] for row in rows], np.int32),
    }
    return [row[0] for row in rows], tables


def _node_groups(
    menus: list[tuple[int, str]], items: list[Item]
) -> list[list[tuple[str, str, NodeKind, int]]]:
    """(label, role, kind, argument) of each node, in the order of `NodeGroup`."""
    names = [name for _, name in vocabulary.APPS]
    switch_roles = {ItemKind.SWITCH: "check_box"}
    return [
        [("changes", "status", NodeKind.STATUS, 0)],
        [("Desktop", "button", NodeKind.DESKTOP, 0)],
        [("More", "button", NodeKind.MORE, 0)],
        [("OK", "button", NodeKind.OK, 0)],
        [("Cancel", "button", NodeKind.CANCEL, 0)],
        [("text", "text_field", NodeKind.FIELD, 0)],
        [("Update available", "dialog", NodeKind.INERT, 0)],
        [("Later", "button", NodeKind.LATER, 0)],
        [("Restart now", "button", NodeKind.RESTART, 0)],
        [(name, "icon", NodeKind.APP, i) for i, name in enumerate(names)],
        [(name, "text", NodeKind.INERT, i) for i, name in enumerate(names)],
        [(label, "menu", NodeKind.MENU, i) for i, (_, label) in enumerate(menus)],
        [
            (item.label, switch_roles.get(item.kind, "menu_item"), NodeKind.ITEM, i)
            for i, item in enumerate(items)
        ],
        [(item.label, "dialog", NodeKind.INERT, i) for i, item in enumerate(items)],
        [
            (word, "radio", NodeKind.OPTION, k)
            for words in vocabulary.OPTION_SETS.values()
            for k, word in enumerate(words)
        ],
    ]


def _menu_tables(
    menus: list[tuple[int, str]], items: list[Item], first_option: int
) -> dict[str, np.ndarray]:
    """What stands in which application, menu and page."""
    app_menus = np.full((len(vocabulary.APPS), MENU_SLOTS), -1, np.int32)
    for menu, (app, _) in enumerate(menus):
        app_menus[app, np.argmax(app_menus[app] < 0)] = menu
    menu_items = np.full((len(menus), MENU_PAGES, PAGE_ROWS), -1, np.int32)
    for index, item in enumerate(items):
        page = menu_items[item.menu, item.page]
        page[np.argmax(page < 0)] = index
    sets = list(vocabulary.OPTION_SETS)
    options = [
        first_option + 4 * sets.index(item.options) if item.options else 0
        for item in items
    ]
    return {
        "app_menus": app_menus,
        "menu_items": menu_items,
        "menu_pages": 1 + (menu_items[:, 1, 0] >= 0).astype(np.int32),
        "item_kind": np.array([int(item.kind) for item in items], np.int32),
        "item_app": np.array([item.app for item in items], np.int32),
        "item_menu": np.array([item.menu for item in items], np.int32),
        "item_page": np.array([item.page for item in items], np.int32),
        "item_default": np.array([item.default for item in items], np.int16),
        "item_options": np.array(options, np.int32),
    }
