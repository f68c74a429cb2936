"""The names that instructions use, and how well a demonstrator knows them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.items import Item, ItemKind
from stepjax.envs.words import word_id

__all__ = [
    "Alias",
    "name_items",
]

_LABEL_SHARE = 0.15  # of settings that the instruction may call by their label
_SECOND_ALIAS_SHARE = 0.5  # of settings that go by two names
_MISSING_PER_APP = 4
_TRAP_CONFUSION_SHARE = 0.25  # of aliases of switches that get mistaken for a trap
_ERROR_SHARES = (0.44, 0.28, 0.28)  # well known, shaky, unknown
_ERROR_RANGES = ((0.005, 0.1), (0.2, 0.65), (0.78, 0.94))


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


def name_items(rng: np.random.Generator, items: list[Item]) -> list[Alias]:
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
