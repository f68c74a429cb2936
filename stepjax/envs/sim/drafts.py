"""Random tasks over the applications, and the sentences that ask for them."""

import dataclasses
import random
from collections.abc import Sequence

import numpy as np

from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.aliases import Alias
from stepjax.envs.sim.items import ItemKind
from stepjax.envs.sim.world import World

__all__ = [
    "Drafter",
    "TaskDraft",
    "expected_success",
    "num_actions",
    "write_instruction",
]

_STEP_SURVIVAL = 0.985  # expected share of episodes that noise leaves alone, per action
_GOAL_SHARES = (0.14, 0.26, 0.27, 0.18, 0.1, 0.05)  # tasks with 1, 2, .. 6 goals
_OPEN_SHARE = 0.6  # of tasks that start with their first application open
_MAX_ACTIONS = 13  # a faultless run leaves two of fifteen actions for mishaps
_TRIES = 20

_TEMPLATES = {
    (ItemKind.SWITCH, 0): ("turn off {name}", "disable {name}"),
    (ItemKind.SWITCH, 1): ("turn on {name}", "enable {name}", "switch on {name}"),
    (ItemKind.CHOICE, 0): ("set {name} to {value}", "change {name} to {value}"),
    (ItemKind.TEXT, 0): ("put {value} into {name}", "write {value} into {name}"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskDraft:
    """A task before it becomes arrays.

    Attributes:
      domain: Index in `vocabulary.DOMAINS`.
      goals: (alias index, value) of each goal; the value of a text is its word.
      start_app: Application open at the start, -1 for none.
      disabled_item: Item that is greyed out, -1 for none.
      infeasible: True if FAIL is the right end.
      style: Chooses the wording.
    """

    domain: int
    goals: tuple[tuple[int, int | str], ...]
    start_app: int
    disabled_item: int
    infeasible: bool
    style: int

    @property
    def key(self) -> frozenset[tuple[int, int | str]]:
        """What is asked for, whatever the order and the wording."""
        return frozenset(self.goals)


def write_instruction(world: World, draft: TaskDraft) -> str:
    """The instruction: a clause for each goal, the application named where it changes.

    Args:
      world: The applications.
      draft: The task.

    Returns:
      A sentence such as 'In Calc turn on "quiet cells", then set zoom size to large.'
    """
    parts, app = [], -1
    for number, (index, value) in enumerate(draft.goals):
        alias = world.aliases[index]
        kind = alias.kind
        templates = _TEMPLATES[kind, int(value) if kind == ItemKind.SWITCH else 0]
        if kind == ItemKind.CHOICE:
            value = vocabulary.OPTION_SETS[alias.options][int(value)]
        text = templates[(draft.style + number) % len(templates)].format(
            name=alias.phrase, value=value
        )
        if alias.app != app:
            app = alias.app
            text = f"{'in' if parts else 'In'} {vocabulary.APPS[app][1]} {text}"
        parts.append(text)
    if len(parts) == 1:
        return f"{parts[0]}."
    return f"{', '.join(parts[:-1])}, then {parts[-1]}."


def num_actions(world: World, draft: TaskDraft) -> int:
    """Actions a faultless run of a task takes, DONE or FAIL included."""
    count, app, menu, page = 1, draft.start_app, -1, 0
    for index, _ in draft.goals:
        alias = world.aliases[index]
        if alias.item < 0:
            continue
        item = world.items[alias.item]
        if app != item.app:
            count += 1 if app < 0 else 2
            app, menu = item.app, -1
        if menu != item.menu:
            count, menu, page = count + 1, item.menu, 0
        count, page = count + (page != item.page), item.page
        count += 1 if item.kind == ItemKind.SWITCH else 3
    return count


def expected_success(world: World, draft: TaskDraft) -> float:
    """Rough success of the demonstrator: it knows every name, and noise spares it."""
    errors = [
        world.aliases[index].error
        for index, _ in draft.goals
        if not draft.infeasible
        or world.aliases[index].item in (-1, draft.disabled_item)
    ]
    known = float(np.prod([1.0 - error for error in errors]))
    return known * _STEP_SURVIVAL ** num_actions(world, draft)


class Drafter:
    """Draws random tasks over the applications."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        apps = range(len(vocabulary.APPS))
        aliases = list(enumerate(world.aliases))
        self.names = [
            [i for i, a in aliases if a.app == app and a.item >= 0] for app in apps
        ]
        self.missing = [
            [i for i, a in aliases if a.app == app and a.item < 0] for app in apps
        ]

    def draft(
        self, domain: int, infeasible: bool, names: list[list[int]] | None = None
    ) -> TaskDraft:
        """One random task of a domain that fits the step limit.

        Args:
          domain: Index in `vocabulary.DOMAINS`.
          infeasible: Whether to ask for something that cannot be done.
          names: Aliases to draw from, for each application; all by default.
        """
        names = names or self.names
        while True:
            count = 1 + self.weighted(_GOAL_SHARES)
            if infeasible:
                count = min(count, 3)
            # Several tries for one count, or long tasks would be rare; not for ever,
            # or a count beyond what `names` offers would never end.
            for _ in range(_TRIES):
                draft = self._compose(domain, count, infeasible, names)
                if draft is not None and num_actions(self.world, draft) <= _MAX_ACTIONS:
                    return draft

    def _compose(
        self, domain: int, count: int, infeasible: bool, names: list[list[int]]
    ) -> TaskDraft | None:
        """One random task of so many goals, or None if two of them are one setting."""
        split = self._split(domain, count)
        count = sum(size for _, size in split)
        chosen = [
            self._pick(names[app], count) for app, size in split for _ in range(size)
        ]
        disabled = -1
        if infeasible:
            place = self._below(count)
            alias = self.world.aliases[chosen[place]]
            if self.rng.random() < 0.5:
                disabled = alias.item
            else:
                options = self.missing[alias.app]
                chosen[place] = options[self._below(len(options))]
        aliases = [self.world.aliases[index] for index in chosen]
        if len({alias.item for alias in aliases}) < count:
            return None
        return TaskDraft(
            domain=domain,
            goals=tuple(
                (index, self._value(alias))
                for index, alias in zip(chosen, aliases, strict=True)
            ),
            start_app=split[0][0] if self.rng.random() < _OPEN_SHARE else -1,
            disabled_item=disabled,
            infeasible=infeasible,
            style=self._below(6),
        )

    def _split(self, domain: int, count: int) -> list[tuple[int, int]]:
        """(application, goals in it): one application, or two for `multi_apps`."""
        num_apps = len(vocabulary.APPS)
        if domain < num_apps:
            return [(domain, count)]
        count = max(count, 2)
        first, second = self._below(num_apps), self._below(num_apps - 1)
        cut = 1 + self._below(count - 1)
        return [(first, cut), (second + (second >= first), count - cut)]

    def _pick(self, options: list[int], count: int) -> int:
        """One alias; a switch more often where there are many goals."""
        index = options[self._below(len(options))]
        for _ in range(2 if count >= 4 else 0):
            if self.world.aliases[index].kind != ItemKind.SWITCH:
                index = options[self._below(len(options))]
        return index

    def _value(self, alias: Alias) -> int | str:
        """A value that differs from the one at the start."""
        if alias.kind == ItemKind.TEXT:
            return vocabulary.TEXT_WORDS[self._below(len(vocabulary.TEXT_WORDS))]
        default = self.world.items[alias.item].default if alias.item >= 0 else 0
        if alias.kind == ItemKind.SWITCH:
            return 1 - default
        return (default + 1 + self._below(3)) % 4

    def _below(self, limit: int) -> int:
        return int(self.rng.random() * limit)

    def weighted(self, shares: Sequence[float]) -> int:
        """A random index, in proportion to `shares`."""
        left = self.rng.random() * sum(shares)
        for index, share in enumerate(shares):
            left -= share
            if left < 0.0:
                return index
        return len(shares) - 1
