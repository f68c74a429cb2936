"""The 369 tasks, their instructions, and practice tasks outside of them.

Tasks are drawn at random and kept so that the expected success of the demonstrator
falls into fixed shares per bin: the warm-started policy then starts near the paper's
base model, with a wide spread over tasks.
"""

import dataclasses
import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.state import INSTRUCTION_WORDS, MAX_GOALS, MAX_STEPS, SimTask
from stepjax.envs.sim.world import Alias, ItemKind, World, build_world
from stepjax.envs.words import clauses, split_words, word_id

__all__ = [
    "SimTaskTable",
    "TaskDraft",
    "draft_tasks",
    "expected_success",
    "num_actions",
    "practice_tasks",
    "stack_tasks",
    "task_table",
    "write_instruction",
]

# OSWorld's counts per domain in the order of `vocabulary.DOMAINS`, split 128 to 241.
_TRAIN_PER_DOMAIN = (16, 9, 16, 17, 8, 8, 5, 6, 8, 35)
_UNSEEN_PER_DOMAIN = (30, 17, 31, 30, 15, 16, 10, 11, 15, 66)
_TRAIN_INFEASIBLE = 12
_UNSEEN_INFEASIBLE = 18
# Wanted mix of expected success: upper ends of the bins and their shares.
_BIN_ENDS = (0.1, 0.3, 0.6, 0.8, 1.0)
_BIN_SHARES = (0.28, 0.15, 0.19, 0.14, 0.24)
_STEP_SURVIVAL = 0.985  # expected share of episodes that noise leaves alone, per action
_GOAL_SHARES = (0.14, 0.26, 0.27, 0.18, 0.1, 0.05)  # tasks with 1, 2, .. 6 goals
_OPEN_SHARE = 0.6  # of tasks that start with their first application open
_SHARED_ALIAS_SHARE = 0.5  # of goals of unseen tasks whose name occurs in training
_MAX_ACTIONS = 13  # a faultless run leaves two of fifteen actions for mishaps
_TRIES = 20
_SEED = 369

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimTaskTable:
    """What people and reports need to know about the 369 tasks.

    Attributes:
      names: Short name of each task.
      domains: Domain of each task.
      train_ids: [128] int32. Tasks to train on.
      unseen_ids: [241] int32. Tasks to evaluate on only.
      infeasible: [369] bool. True if FAIL is the right end.
      instructions: Instruction of each task.
      expected_success: [369] float32. Rough success of the demonstrator.
    """

    names: tuple[str, ...]
    domains: tuple[str, ...]
    train_ids: np.ndarray  # [128] int32
    unseen_ids: np.ndarray  # [241] int32
    infeasible: np.ndarray  # [369] bool
    instructions: tuple[str, ...]
    expected_success: np.ndarray  # [369] float32

    def instruction(self, task_id: int, seed: int = 0) -> str:
        """Instruction of a task; the same for every seed."""
        del seed
        return self.instructions[task_id]


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


class _Drafter:
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
        left = self.rng.random() * sum(shares)
        for index, share in enumerate(shares):
            left -= share
            if left < 0.0:
                return index
        return len(shares) - 1


@functools.lru_cache(maxsize=1)
def draft_tasks() -> tuple[tuple[TaskDraft, ...], np.ndarray]:
    """The 369 tasks in order of domain, and [369] bool which are for training."""
    world = build_world()
    drafter = _Drafter(world, _SEED)
    seen: set[str] = set()
    train = _select(drafter, _TRAIN_PER_DOMAIN, _TRAIN_INFEASIBLE, seen, None)
    used = {index for draft in train for index, _ in draft.goals}
    unseen = _select(drafter, _UNSEEN_PER_DOMAIN, _UNSEEN_INFEASIBLE, seen, used)
    drafts = [(draft.domain, True, draft) for draft in train]
    drafts += [(draft.domain, False, draft) for draft in unseen]
    drafter.rng.shuffle(drafts)
    drafts.sort(key=lambda entry: entry[0])
    return (
        tuple(draft for _, _, draft in drafts),
        np.array([is_train for _, is_train, _ in drafts]),
    )


def _select(
    drafter: _Drafter,
    per_domain: tuple[int, ...],
    num_infeasible: int,
    seen: set[str],
    used: set[int] | None,
) -> list[TaskDraft]:
    """Tasks that fill the counts per domain and the shares per bin; adds to `seen`."""
    world = drafter.world
    total = sum(per_domain)
    ends = np.round(np.cumsum(_BIN_SHARES) * total).astype(int)
    bins = np.diff(ends, prepend=0)
    domains = [d for d, size in enumerate(per_domain) for _ in range(size)]
    drafter.rng.shuffle(domains)
    picked: list[TaskDraft] = []
    for place, domain in enumerate(domains):
        while len(picked) == place:
            names = _names_for_unseen(drafter, used) if used is not None else None
            draft = drafter.draft(domain, place < num_infeasible, names)
            level = int(np.searchsorted(_BIN_ENDS, expected_success(world, draft)))
            text = write_instruction(world, draft)
            if bins[level] and text not in seen:
                bins[level] -= 1
                seen.add(text)
                picked.append(draft)
    return picked


def _names_for_unseen(drafter: _Drafter, used: set[int]) -> list[list[int]]:
    """Aliases to draw from: those of training, or the new ones, by chance."""
    shared = drafter.rng.random() < _SHARED_ALIAS_SHARE
    return [
        [index for index in own if (index in used) == shared] or own
        for own in drafter.names
    ]


def stack_tasks(world: World, drafts: list[TaskDraft], task_ids: np.ndarray) -> SimTask:
    """Tasks as arrays with a leading axis.

    Args:
      world: The applications.
      drafts: The tasks.
      task_ids: [T] int32. Their ids.

    Returns:
      A `SimTask` of NumPy arrays.

    Raises:
      ValueError: An instruction does not fit.
    """
    num = len(drafts)
    goals = np.full((3, num, MAX_GOALS), -1, np.int32)
    text = np.zeros((2, num, INSTRUCTION_WORDS), np.int32)
    for row, draft in enumerate(drafts):
        for k, (index, value) in enumerate(draft.goals):
            number = word_id(value) if isinstance(value, str) else value
            goals[:, row, k] = (world.aliases[index].item, number, index)
        text[:, row] = _read(write_instruction(world, draft))
    leaves: dict[str, Any] = {
        "task_id": np.asarray(task_ids, np.int32),
        "domain": np.array([d.domain for d in drafts], np.int32),
        "num_goals": np.array([len(d.goals) for d in drafts], np.int32),
        "goal_item": goals[0],
        "goal_value": goals[1],
        "goal_alias": goals[2],
        "words": text[0],
        "clause": text[1],
        "start_app": np.array([d.start_app for d in drafts], np.int32),
        "disabled_item": np.array([d.disabled_item for d in drafts], np.int32),
        "infeasible": np.array([d.infeasible for d in drafts], bool),
        "step_limit": np.full(num, MAX_STEPS, np.int32),
    }
    return SimTask(**leaves)


def _read(text: str) -> np.ndarray:
    """[2, I] int32. Word ids and clauses of an instruction, without punctuation."""
    words = split_words(text)
    pairs = [
        (number, clause)
        for number, clause in zip(map(word_id, words), clauses(words), strict=True)
        if number
    ]
    if len(pairs) > INSTRUCTION_WORDS:
        raise ValueError(
            f"instruction has {len(pairs)} words, must have at most"
            f" {INSTRUCTION_WORDS}: shorten {text!r}"
        )
    result = np.zeros((2, INSTRUCTION_WORDS), np.int32)
    result[:, : len(pairs)] = np.array(pairs, np.int32).T
    return result


@functools.lru_cache(maxsize=1)
def task_table() -> SimTaskTable:
    """Names, domains, splits and instructions of the 369 tasks."""
    world = build_world()
    drafts, is_train = draft_tasks()
    ids = np.arange(len(drafts), dtype=np.int32)
    domains = tuple(vocabulary.DOMAINS[draft.domain] for draft in drafts)
    return SimTaskTable(
        names=tuple(
            f"{domain}-{i:03d}" for i, domain in zip(ids, domains, strict=True)
        ),
        domains=domains,
        train_ids=ids[is_train],
        unseen_ids=ids[~is_train],
        infeasible=np.array([draft.infeasible for draft in drafts]),
        instructions=tuple(write_instruction(world, draft) for draft in drafts),
        expected_success=np.array(
            [expected_success(world, draft) for draft in drafts], np.float32
        ),
    )


def practice_tasks(num: int, seed: int, *, infeasible_share: float = 0.1) -> SimTask:
    """Random tasks over the same applications, none of them asking for one of the 369.

    Args:
      num: How many.
      seed: Fixes the draw.
      infeasible_share: Share of tasks that cannot be done.

    Returns:
      [num, ...] A stacked `SimTask` of NumPy arrays; every task_id is -1.
    """
    world = build_world()
    drafter = _Drafter(world, (_SEED << 32) + seed + 1)
    pool = {draft.key for draft in draft_tasks()[0]}
    drafts: list[TaskDraft] = []
    while len(drafts) < num:
        domain = drafter.weighted(_TRAIN_PER_DOMAIN)
        draft = drafter.draft(domain, drafter.rng.random() < infeasible_share)
        if draft.key not in pool:
            drafts.append(draft)
    return stack_tasks(world, drafts, np.full(num, -1, np.int32))
