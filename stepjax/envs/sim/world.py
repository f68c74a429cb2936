"""The applications as tables: nodes, menus, items, and the names instructions use.

Built once on the host from a fixed seed. `World` keeps the strings, for instructions
and for drawing; `stepjax.envs.sim.load_world` puts the numbers on the device.
"""

import dataclasses
import enum
import functools
from collections.abc import Sequence

import numpy as np

from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.state import MENU_PAGES, MENU_SLOTS, PAGE_ROWS, WIDGET_WORDS
from stepjax.envs.words import role_id, word_id

__all__ = [
    "Alias",
    "Item",
    "ItemKind",
    "NodeGroup",
    "NodeKind",
    "World",
    "build_world",
]

_SEED = 20251123
_LABEL_SHARE = 0.15  # of settings that the instruction may call by their label
_SECOND_ALIAS_SHARE = 0.5  # of settings that go by two names
_MISSING_PER_APP = 4
_TRAP_CONFUSION_SHARE = 0.25  # of aliases of switches that get mistaken for a trap
_ERROR_SHARES = (0.44, 0.28, 0.28)  # well known, shaky, unknown
_ERROR_RANGES = ((0.005, 0.1), (0.2, 0.65), (0.8, 0.97))


class NodeKind(enum.IntEnum):
    """What a click on a node does."""

    INERT = 0
    APP = 1
    MENU = 2
    ITEM = 3
    OPTION = 4
    FIELD = 5
    OK = 6
    CANCEL = 7
    DESKTOP = 8
    MORE = 9
    LATER = 10
    RESTART = 11
    STATUS = 12


class NodeGroup(enum.IntEnum):
    """Runs of nodes of one sort; index into `SimPool.first_node`."""

    STATUS = 0
    DESKTOP = 1
    MORE = 2
    OK = 3
    CANCEL = 4
    FIELD = 5
    POPUP = 6
    LATER = 7
    RESTART = 8
    APP = 9
    TITLE = 10
    MENU = 11
    ITEM = 12
    DIALOG = 13
    OPTION = 14


class ItemKind(enum.IntEnum):
    """What an item of a menu is."""

    SWITCH = 0
    CHOICE = 1
    TEXT = 2
    TRAP = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One line of a menu.

    Attributes:
      label: What the screen calls it.
      kind: What it is.
      app: Index of its application.
      menu: Index of its menu among all menus.
      page: Page of the menu it stands on.
      default: Its value at the start: 0 or 1 of a switch, 0 to 3 of a choice, else 0.
      options: Name of its option set, "" if it is no choice.
    """

    label: str
    kind: ItemKind
    app: int
    menu: int
    page: int
    default: int
    options: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alias:
    """A name that instructions use for an item, or for something that does not exist.

    Attributes:
      phrase: As it stands in the instruction, with quotes unless it is the label.
      app: Index of the application.
      kind: Kind of the item, or what the missing thing is spoken of as.
      item: Index of the item, -1 if missing.
      options: Option set of a choice.
      error: How often a demonstrator takes it for something else.
      confusion: The three items it takes it for.
    """

    phrase: str
    app: int
    kind: ItemKind
    item: int
    options: str
    error: float
    confusion: tuple[int, int, int]


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
    menus, items = _read_menus(rng)
    aliases = _name_items(rng, items)
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


def _read_menus(
    rng: np.random.Generator,
) -> tuple[list[tuple[int, str]], list[Item]]:
    """Menus and items of `vocabulary.MENUS`, in its order."""
    menus, items = [], []
    for app, (domain, _) in enumerate(vocabulary.APPS):
        for menu_label, line in vocabulary.MENUS[domain].items():
            for row, entry in enumerate(line.split(";")):
                items.append(_read_item(rng, entry.strip(), app, len(menus), row))
            menus.append((app, menu_label))
    return menus, items


def _read_item(
    rng: np.random.Generator, entry: str, app: int, menu: int, row: int
) -> Item:
    """One entry of a menu line."""
    label, _, options = entry.strip("+!").partition("=")
    if entry.endswith("!"):
        kind, default = ItemKind.TRAP, 0
    elif options == "text":
        kind, default, options = ItemKind.TEXT, 0, ""
    elif options:
        kind, default = ItemKind.CHOICE, int(rng.integers(4))
    else:
        kind, default = (
            ItemKind.SWITCH,
            int(entry.startswith("+") or rng.random() < 0.3),
        )
    return Item(
        label=label,
        kind=kind,
        app=app,
        menu=menu,
        page=row // PAGE_ROWS,
        default=default,
        options=options,
    )


def _name_items(rng: np.random.Generator, items: list[Item]) -> list[Alias]:
    """Aliases of all settings, then names of things that do not exist."""
    values = [word for words in vocabulary.OPTION_SETS.values() for word in words]
    values += [*vocabulary.TEXT_WORDS, *(str(n) for n in range(16))]
    taken = {word_id(word) for word in values}
    aliases = []
    for index, item in enumerate(items):
        if item.kind == ItemKind.TRAP:
            continue
        plain = rng.random() < _LABEL_SHARE
        second = rng.random() < _SECOND_ALIAS_SHARE
        for turn in range(2 if second else 1):
            by_label = plain and turn == 0
            nouns = vocabulary.NOUNS[vocabulary.APPS[item.app][0]].split()
            phrase = item.label.lower() if by_label else _nickname(rng, nouns, taken)
            group = 0 if by_label else int(rng.choice(3, p=_ERROR_SHARES))
            aliases.append(
                Alias(
                    phrase=phrase,
                    app=item.app,
                    kind=item.kind,
                    item=index,
                    options=item.options,
                    error=float(rng.uniform(*_ERROR_RANGES[group])),
                    confusion=_confusion(rng, items, item, index),
                )
            )
    for app in range(len(vocabulary.APPS)):
        own = [i for i, it in enumerate(items) if it.app == app]
        for number in range(_MISSING_PER_APP):
            kind = ItemKind.CHOICE if number == 0 else ItemKind.SWITCH
            like = int(rng.choice([i for i in own if items[i].kind == kind]))
            group = int(rng.choice(3, p=_ERROR_SHARES))
            aliases.append(
                Alias(
                    phrase=_nickname(rng, vocabulary.MISSING_NOUNS, taken),
                    app=app,
                    kind=kind,
                    item=-1,
                    options=items[like].options,
                    error=float(rng.uniform(*_ERROR_RANGES[group])),
                    confusion=_confusion(rng, items, items[like], -1),
                )
            )
    return aliases


def _nickname(rng: np.random.Generator, nouns: Sequence[str], taken: set[int]) -> str:
    """A quoted adjective and noun whose hashed id is new; adds it to `taken`."""
    while True:
        adjective = vocabulary.ADJECTIVES[int(rng.integers(len(vocabulary.ADJECTIVES)))]
        phrase = f"{adjective} {nouns[int(rng.integers(len(nouns)))]}"
        if word_id(phrase) not in taken:
            taken.add(word_id(phrase))
            return f'"{phrase}"'


def _confusion(
    rng: np.random.Generator, items: list[Item], item: Item, index: int
) -> tuple[int, int, int]:
    """Three items to mistake `item` for: two look-alikes, one elsewhere or a trap."""

    def likeness(other: int) -> float:
        shared = set(item.label.split()) & set(items[other].label.split())
        near = items[other].menu == item.menu
        return 2.0 * bool(shared) + 1.0 * near + rng.random()

    alike = [
        i
        for i, other in enumerate(items)
        if i != index
        and other.app == item.app
        and other.kind == item.kind
        and other.options == item.options
    ]
    ranked = sorted(alike, key=likeness, reverse=True)
    far = [i for i in ranked if items[i].menu != item.menu] or ranked
    third = far[rng.integers(len(far))]
    if item.kind == ItemKind.SWITCH and rng.random() < _TRAP_CONFUSION_SHARE:
        traps = [
            i
            for i, other in enumerate(items)
            if other.app == item.app and other.kind == ItemKind.TRAP
        ]
        third = traps[rng.integers(len(traps))]
    return ranked[0], ranked[min(1, len(ranked) - 1)], third


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
