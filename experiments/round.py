"""The parts of a round between the pool of tasks and the optimizer.

Each part is compiled once per shape and shared by all runs of a process; the numbers of
a method are traced, so methods that differ in numbers only share compilations too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stepjax
from experiments.config import AlgoConfig
from experiments.methods import METHODS, AdvantageFn, Outcomes, method_numbers
from experiments.placement import local_key
from experiments.success import solved
from experiments.team import Team
from stepjax.batching import flatten_steps, take_rows
from stepjax.models.policy import Policy
from stepjax.training.state import TaskSampler, TrainState, draw_tasks
from stepjax.types import StepBatch, SuccessRateRecord, Trajectories

__all__ = ["Credit", "RoundPlan", "assign_credit", "plan_round", "round_rows"]

# What a round's key is folded with: one number for each use.
_DRAW, _RESAMPLE, _SEEDS, _ACT, _AUGMENT, _PICK = range(6)

_SMALLEST_BUCKET = 64  # of steps to augment; larger ones are powers of two


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """Which tasks a round runs.

    Attributes:
      sampler: The task sampler after the draw.
      task_ids: [M] int32. Task of each trajectory; N neighbors were copies of one task.
      replaced: [M] bool. Whether the copy was given to another task.
      seeds: [M] uint32. Episode seeds, below 2**31: larger ones are for evaluation.
      act_key: Key of the policy's draws while acting.
      augment_key: Key of the policy's draws for step-level groups.
      cache_size: Tasks in the cache.
    """

    sampler: TaskSampler
    task_ids: np.ndarray
    replaced: np.ndarray
    seeds: np.ndarray
    act_key: jax.Array
    augment_key: jax.Array
    cache_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Credit:
    """What a round's trajectories are worth.

    Attributes:
      record: The success-rate record after the round.
      advantage: [M, L] float32. Advantage of each step.
      plain: [M, L] bool. Steps to learn from as they are.
      selected: [M, L] bool. Steps to replace by a step-level group.
    """

    record: SuccessRateRecord
    advantage: np.ndarray
    plain: np.ndarray
    selected: np.ndarray


# --- Plan: draw tasks, move copies to where they teach more ---------------------------


def plan_round(state: TrainState, algo: AlgoConfig) -> RoundPlan:
    """The tasks and seeds of the round after `state.round`; SR-Traj.

    Args:
      state: State before the round.
      algo: The method and its numbers.

    Returns:
      The plan, a function of `state` and `algo` alone.
    """
    numbers = method_numbers(algo)
    drawn = _plan_program(algo.tasks_per_round, algo.group_size)(
        state.sampler,
        state.success_rate,
        state.key,
        state.round,
        threshold=algo.threshold,
        sharpness=algo.sharpness,
        kept_copies=numbers.kept_copies,
        max_cache_copies=numbers.max_cache_copies,
        unsolved_share=algo.unsolved_share,
    )
    sampler, act_key, augment_key, *rest = drawn
    slots, replaced, seeds, cache_size = jax.device_get(rest)
    return RoundPlan(
        sampler=sampler,
        task_ids=slots.reshape(-1),
        replaced=replaced.reshape(-1),
        seeds=seeds,
        act_key=local_key(act_key),
        augment_key=local_key(augment_key),
        cache_size=int(cache_size),
    )


@functools.cache
def _plan_program(num_tasks: int, group_size: int) -> Callable[..., tuple]:
    def plan(sampler, record, key, round_number, **numbers):
        key = jax.random.fold_in(key, round_number)
        draw, resample, seed, act, augment = (
            jax.random.fold_in(key, use)
            for use in (_DRAW, _RESAMPLE, _SEEDS, _ACT, _AUGMENT)
        )
        sampler, task_ids = draw_tasks(sampler, draw, num_tasks=num_tasks)
        # Held-out tasks count as mastered: they are neither cached nor unsolved.
        trained = jnp.zeros(record.rate.shape, bool).at[sampler.order].set(True)
        rate = jnp.where(trained, record.rate, 1.0)
        slots, replaced = stepjax.resample_tasks(
            resample, task_ids, rate, group_size=group_size, **numbers
        )
        cache = stepjax.cache_mask(rate, threshold=numbers["threshold"])
        seeds = jax.random.bits(seed, (num_tasks * group_size,), jnp.uint32) >> 1
        return sampler, act, augment, slots, replaced, seeds, jnp.sum(cache)

    return jax.jit(plan)


# --- Credit: update the record, then advantages ---------------------------------------


def assign_credit(
    record: SuccessRateRecord, outcomes: Outcomes, algo: AlgoConfig
) -> Credit:
    """The updated record, and what each step is worth under it; SR-Adv.

    Args:
      record: Before the round.
      outcomes: Of all trajectories of the round, in the order of the plan.
      algo: The method and its numbers.

    Returns:
      The credit. Steps whose advantage is 0 are in neither mask: they would add no
      gradient and dilute the mean.
    """
    program = _credit_program(METHODS[algo.method].advantage, algo.group_size)
    record, *rest = program(
        record,
        outcomes,
        discount=algo.step_return_discount,
        augment_threshold=method_numbers(algo).augment_threshold,
    )
    advantage, plain, selected = jax.device_get(rest)
    return Credit(record=record, advantage=advantage, plain=plain, selected=selected)


@functools.cache
def _credit_program(advantage_fn: AdvantageFn, group_size: int) -> Callable[..., tuple]:
    def credit(record, outcomes, *, discount, augment_threshold):
        success = outcomes.valid & solved(outcomes.reward)
        record = stepjax.update_success_rate(
            record, outcomes.task_id, success, outcomes.valid, group_size=group_size
        )
        advantage, keep = advantage_fn(
            outcomes, record.rate, group_size=group_size, discount=discount
        )
        keep &= advantage != 0
        selected = keep & jax.vmap(
            functools.partial(stepjax.augmentation_mask, threshold=augment_threshold)
        )(outcomes.step_mask, success, record.rate[outcomes.task_id])
        return record, advantage, keep & ~selected, selected

    return jax.jit(credit)


# --- Rows: plain steps, and step-level groups in place of selected ones ---------------


def round_rows(
    policy: Policy,
    params: Any,
    trajectories: Trajectories,
    credit: Credit,
    plan: RoundPlan,
    algo: AlgoConfig,
    *,
    seed: tuple[int, ...],
    team: Team | None = None,
) -> tuple[StepBatch, StepBatch, dict[str, float]]:
    """The rows to learn from, and what the augmentation did; SL-GRPO.

    Args:
      policy: Who acted. One with `regroup` and `rescore`, such as
        `experiments.model_policy.ModelPolicy`, makes groups in its own way.
      params: The parameters that acted.
      trajectories: Of this process's share of the round.
      credit: Of the whole round.
      plan: Of the whole round.
      algo: The method and its numbers.
      seed: Numbers that decide which steps are augmented if there are too many.
      team: The processes that share the round; this one alone by default.

    Returns:
      Rows without padding: those of all processes, and this one's own, as
      `Team.pool_rows` has them; and `augment/...` metrics of the whole round.
    """
    team = Team() if team is None else team
    mine = team.share(len(plan.task_ids))
    chosen = _at_most(credit.selected, algo.max_augmented_steps, (*seed, _PICK))
    kept = credit.plain | (credit.selected & ~chosen)

    def rows_of(steps: np.ndarray) -> StepBatch:
        rows = flatten_steps(trajectories, credit.advantage[mine], keep=steps[mine])
        number: Any = np.asarray(rows.trajectory_id) + np.int32(mine.start)
        return dataclasses.replace(rows, trajectory_id=number)

    def scored(rows: StepBatch) -> StepBatch:
        rescore = getattr(policy, "rescore", None)
        return rescore(params, rows, algo.temperature) if rescore else rows

    plain, number = scored(rows_of(kept)), int(chosen.sum())
    stats: dict[str, float] = {"augment/steps": number, "augment/rows": 0}
    if not number:
        rows, own = team.pool_rows("rows", plain)
        return rows, own, stats | {"augment/advantage_share": 0.0}
    places = np.flatnonzero(chosen[mine]) + chosen[: mine.start].size
    regroup = getattr(policy, "regroup", None)
    regroup = regroup or functools.partial(_step_groups, policy.sample)
    groups, agreeing = regroup(params, rows_of(chosen), places, plan.augment_key, algo)
    groups = scored(groups)
    rows, own = team.pool_rows("rows", plain, groups)
    made = team.total(
        "step-level groups",
        {
            "rows": len(groups.weight),
            "agreeing": agreeing,
            "advantage": float(np.abs(groups.advantage).sum()),
            "plain": float(np.abs(plain.advantage).sum()),
        },
    )
    total = made["advantage"] + made["plain"]
    stats |= {
        "augment/rows": made["rows"],
        "augment/advantage_share": made["advantage"] / total if total else 0.0,
        "augment/all_match_rate": made["agreeing"] / number,
    }
    return rows, own, stats


def _at_most(mask: np.ndarray, limit: int | None, seed: tuple[int, ...]) -> np.ndarray:
    """`mask` with a random choice of `limit` True entries if it has more."""
    where = np.flatnonzero(mask)
    if limit is None or len(where) <= limit:
        return mask
    kept = np.random.default_rng(seed).choice(where, limit, replace=False)
    fewer = np.zeros(mask.size, bool)
    fewer[kept] = True
    return fewer.reshape(mask.shape)


def _step_groups(
    sample_fn: Callable[..., tuple],
    params: Any,
    taken: StepBatch,
    places: np.ndarray,
    key: jax.Array,
    algo: AlgoConfig,
) -> tuple[StepBatch, int]:
    """Rows of all groups that disagree, and how many groups agree."""
    count, size = len(places), algo.resolved_step_group_size
    if not count:
        return taken, 0
    bucket = max(_SMALLEST_BUCKET, 1 << (count - 1).bit_length())
    padded = np.minimum(np.arange(bucket), count - 1)
    rows = take_rows(taken, padded)
    found = _group_program(sample_fn, size)(
        params,
        rows.prompt,
        (rows.action_tokens, rows.token_mask, rows.old_log_prob),
        rows.advantage,
        places[padded],
        key,
        temperature=algo.temperature,
        weight=method_numbers(algo).augment_weight,
    )
    tokens, mask, log_prob, advantage = (x[:count] for x in jax.device_get(found))
    step, member = np.nonzero(advantage)
    groups = dataclasses.replace(
        take_rows(taken, step),
        action_tokens=tokens[step, member],
        token_mask=mask[step, member],
        old_log_prob=log_prob[step, member],
        advantage=advantage[step, member],
    )
    return groups, int(np.sum(~advantage.any(axis=1)))


@functools.cache
def _group_program(sample_fn: Callable[..., tuple], size: int) -> Callable[..., tuple]:
    def group(
        params, prompt, taken, step_advantage, places, key, *, temperature, weight
    ):
        def again(member):
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, member)
            return sample_fn(params, prompt, keys, temperature=temperature)

        others = jax.vmap(again)(jnp.arange(1, size))  # 3 x [G - 1, J, A]
        tokens, mask, log_prob = (
            jnp.swapaxes(jnp.concatenate([first[None], rest]), 0, 1)
            for first, rest in zip(taken, others, strict=True)
        )  # [J, G, A]
        same = (tokens == tokens[:, :1]) & (mask == mask[:, :1])
        match = jnp.all(same | ~(mask | mask[:, :1]), axis=-1)  # [J, G]
        advantage = jax.vmap(
            functools.partial(stepjax.step_group_advantages, weight=weight)
        )(match, jnp.ones_like(match), step_advantage)
        return tokens, mask, log_prob, advantage

    return jax.jit(group)
