"""Which trajectories a report shows: what was learned, and what still goes wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.episodes import Episode, episode_from_frames
from experiments.success import solved
from stepjax.rollout.backend import Backend
from stepjax.types import Trajectories

__all__ = ["choose", "record_episodes"]


def record_episodes(
    backend: Backend,
    params: Mapping[str, Any],
    key: Any,
    *,
    num_tasks: int = 64,
    seed: int = 0,
) -> list[Episode]:
    """A few greedy trajectories worth looking at, replayed as pictures.

    The same tasks and seeds are tried by every set of parameters, so that a task that
    failed before training and is solved after it can be shown twice.

    Args:
      backend: Where to act.
      params: Parameters by moment, oldest first: {"before training": ..., "after
        training": ...}, or one moment only.
      key: Policy randomness; consumed.
      num_tasks: Tasks tried, drawn from the training tasks and, one in four, from the
        unseen ones.
      seed: Of the draw of tasks and of their episodes.

    Returns:
      At most five episodes; fewer if nothing was solved, or nothing failed.
    """
    rng = np.random.default_rng(seed)
    table = backend.tasks
    unseen = _draw(rng, table.unseen_ids, num_tasks // 4)
    train = _draw(rng, table.train_ids, num_tasks - len(unseen))
    task_ids = np.concatenate([train, unseen]).astype(np.int32)
    seeds = rng.integers(0, 2**32, size=len(task_ids), dtype=np.uint32)
    tried = {
        moment: backend.collect(weights, task_ids, seeds, key, temperature=0.0)
        for moment, weights in params.items()
    }
    success = {
        moment: np.asarray(found.valid) & solved(np.asarray(found.reward))
        for moment, found in tried.items()
    }
    lengths = {
        moment: np.asarray(found.step_mask).sum(axis=1)
        for moment, found in tried.items()
    }
    picks = choose(success, lengths, is_unseen=np.arange(len(task_ids)) >= len(train))
    return [
        _replay(backend, tried[moment], index, int(seeds[index]), moment)
        for index, moment in picks
    ]


def choose(
    success: Mapping[str, np.ndarray],
    lengths: Mapping[str, np.ndarray],
    *,
    is_unseen: np.ndarray,
) -> list[tuple[int, str]]:
    """Which trajectory of which moment to show, in the order of showing.

    Args:
      success: Moment to [M] bool. The last moment is the newest.
      lengths: Moment to [M] int. Steps taken.
      is_unseen: [M] bool. True for tasks that were not trained on.

    Returns:
      Pairs of trajectory and moment: one task that was learned, before and after; one
      more success and one failure of the training tasks; one unseen task.
    """
    moments = list(success)
    new = moments[-1]
    picks: list[tuple[int, str]] = []

    def add(allowed: np.ndarray, moment: str) -> int | None:
        used = [index for index, _ in picks]
        allowed = allowed & ~np.isin(np.arange(len(allowed)), used)
        if not allowed.any():
            return None
        # Long enough to tell a story, short enough to be read.
        taste = -np.abs(lengths[moment] - 6.0)
        index = int(np.argmax(np.where(allowed, taste, -np.inf)))
        picks.append((index, moment))
        return index

    if len(moments) > 1:
        learned = ~success[moments[0]] & success[new] & ~is_unseen
        index = add(learned, moments[0])
        if index is not None:
            picks.append((index, new))
    add(success[new] & ~is_unseen, new)
    add(~success[new] & ~is_unseen, new)
    add(success[new] & is_unseen, new)
    return picks


def _draw(rng: np.random.Generator, ids: np.ndarray, count: int) -> np.ndarray:
    return rng.permutation(np.asarray(ids))[: min(count, len(ids))]


def _replay(
    backend: Backend, found: Trajectories, index: int, seed: int, moment: str
) -> Episode:
    task = int(found.task_id[index])
    length = int(np.asarray(found.step_mask[index]).sum())
    tokens = np.asarray(found.action_tokens[index])[:length]
    unseen = task in set(np.asarray(backend.tasks.unseen_ids).tolist())
    return episode_from_frames(
        backend.replay(task, seed, tokens),
        task=backend.tasks.names[task],
        moment=moment,
        split="unseen task" if unseen else "training task",
        success=bool(found.valid[index]) and bool(solved(found.reward[index])),
    )
