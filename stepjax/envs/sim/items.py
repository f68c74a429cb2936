"""What stands in the menus of the applications, and what a click on it does."""

import dataclasses
import enum

import numpy as np

from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.state import PAGE_ROWS

__all__ = [
    "Item",
    "ItemKind",
    "NodeGroup",
    "NodeKind",
    "read_menus",
]

_ON_SHARE = 0.3  # of switches that start on


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


def read_menus(
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
            int(entry.startswith("+") or rng.random() < _ON_SHARE),
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
