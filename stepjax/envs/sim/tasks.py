"""The 369 tasks, their instructions, and practice tasks outside of them.

Tasks are drawn at random and kept so that the expected success of the demonstrator
falls into fixed shares per bin: the warm-started policy then starts near the paper's
base model, with a wide spread over tasks.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from stepjax.envs.sim import vocabulary
from stepjax.envs.sim.drafts import (
    Drafter,
    TaskDraft,
    expected_success,
    write_instruction,
)
from stepjax.envs.sim.state import INSTRUCTION_WORDS, MAX_GOALS, MAX_STEPS, SimTask
from stepjax.envs.sim.world import World, build_world
from stepjax.envs.words import clauses, split_words, word_id

__all__ = [
    "SimTaskTable",
    "draft_tasks",
    "practice_drafts",
    "practice_tasks",
    "stack_tasks",
    "task_table",
]

# OSWorld's counts per domain in the order of `vocabulary.DOMAINS`, split 128 to 241.
_TRAIN_PER_DOMAIN = (16, 9, 16, 17, 8, 8, 5, 6, 8, 35)
_UNSEEN_PER_DOMAIN = (30, 17, 31, 30, 15, 16, 10, 11, 15, 66)
_TRAIN_INFEASIBLE = 12
_UNSEEN_INFEASIBLE = 18
# Wanted mix of expected success: upper ends of the bins and their shares.
_BIN_ENDS = (0.1, 0.3, 0.6, 0.8, 1.0)
_BIN_SHARES = (0.35, 0.17, 0.18, 0.12, 0.18)
_SHARED_ALIAS_SHARE = 0.75  # of unseen goals per application named as in training
_SEED = 369


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


@functools.lru_cache(maxsize=1)
def draft_tasks() -> tuple[tuple[TaskDraft, ...], np.ndarray]:
    """The 369 tasks in order of domain, and [369] bool which are for training."""
    world = build_world()
    drafter = Drafter(world, _SEED)
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
    drafter: Drafter,
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


def _names_for_unseen(drafter: Drafter, used: set[int]) -> list[list[int]]:
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


def practice_drafts(
    num: int, seed: int, *, infeasible_share: float = 0.1
) -> list[TaskDraft]:
    """Random tasks over the same applications, none of them asking for one of the 369.

    Args:
      num: How many.
      seed: Fixes the draw.
      infeasible_share: Share of tasks that cannot be done.

    Returns:
      The tasks, before they become arrays; `write_instruction` puts them in words.
    """
    world = build_world()
    drafter = Drafter(world, (_SEED << 32) + seed + 1)
    pool = {draft.key for draft in draft_tasks()[0]}
    drafts: list[TaskDraft] = []
    while len(drafts) < num:
        domain = drafter.weighted(_TRAIN_PER_DOMAIN)
        draft = drafter.draft(domain, drafter.rng.random() < infeasible_share)
        if draft.key not in pool:
            drafts.append(draft)
    return drafts


def practice_tasks(num: int, seed: int, *, infeasible_share: float = 0.1) -> SimTask:
    """The tasks of `practice_drafts` as arrays.

    Args:
      num: How many.
      seed: Fixes the draw.
      infeasible_share: Share of tasks that cannot be done.

    Returns:
      [num, ...] A stacked `SimTask` of NumPy arrays; every task_id is -1.
    """
    drafts = practice_drafts(num, seed, infeasible_share=infeasible_share)
    return stack_tasks(build_world(), drafts, np.full(num, -1, np.int32))
