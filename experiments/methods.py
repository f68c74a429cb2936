"""The nine methods as a table: how to sample, which advantage, how to cut into updates.

| name | sampling | advantage | augmentation | rows of an update |
| --- | --- | --- | --- | --- |
| t_grpo | uniform | group z-score | no | the whole round |
| t_grpo_many | uniform | group z-score | no | whole trajectories |
| gigrpo | uniform | group z-score | no | steps |
| gigpo | uniform | centered in the group + in equal states | no | steps |
| step | by success rate | success rate | yes | steps |
| step_no_sampling | uniform | success rate | yes | steps |
| step_no_augmentation | by success rate | success rate | no | steps |
| step_no_both | uniform | success rate | no | steps |
| step_balanced | by success rate, capped | success rate | weight 0.25 | steps |

Six are the paper's (arXiv:2511.13091, sections 4.1, 6.1 and 6.3). t_grpo_many and gigpo
tell what more updates do, and what GiGPO as published does; step_balanced is ours.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax
import jax.numpy as jnp

import stepjax
from experiments.config import AlgoConfig
from experiments.success import solved
from stepjax import batching
from stepjax.types import StepBatch, Trajectories

__all__ = [
    "METHODS",
    "AdvantageFn",
    "Method",
    "MethodNumbers",
    "Outcomes",
    "all_in_one",
    "group_baseline",
    "method_numbers",
    "outcomes_of",
    "state_groups",
    "steps_in_parts",
    "success_only",
    "trajectories_in_parts",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What advantages depend on: a round's trajectories without prompts and actions.

    Attributes:
      task_id: [M] int32. Slots of one group of N trajectories are neighbors.
      reward: [M] float32.
      valid: [M] bool.
      step_mask: [M, L] bool.
      state_hash: [M, L] uint32.
    """

    task_id: jax.Array  # [M] int32
    reward: jax.Array  # [M] float32
    valid: jax.Array  # [M] bool
    step_mask: jax.Array  # [M, L] bool
    state_hash: jax.Array  # [M, L] uint32


AdvantageFn = Callable[..., tuple[jax.Array, jax.Array]]
"""`(outcomes, rate [T], *, group_size, discount) -> advantage [M, L], keep [M, L]`."""

PackFn = Callable[..., list[StepBatch]]
"""`(rows, *, seed, rows_per_update, micro_batch_size, max_rows) -> batches`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table.

    Attributes:
      title: Name in figures.
      resample: Share of the copies, past the first, that may go to other tasks: 0 is
        uniform sampling, 1 the paper's.
      max_cache_groups: Most extra copies of one cached task, in units of the group
        size; None for no limit.
      advantage: What a step is worth.
      augment_weight: Factor on the advantages of augmented rows; 0 turns step-level
        groups off.
      pack: Cuts a round's rows into batches, one for each update.
    """

    title: str
    resample: int
    max_cache_groups: int | None
    advantage: AdvantageFn
    augment_weight: float
    pack: PackFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodNumbers:
    """A method's numbers for given settings; traceable, so methods share compilations.

    Attributes:
      kept_copies: Copies of each task that are never replaced.
      max_cache_copies: Most extra copies of one cached task.
      augment_threshold: Success rate up to which steps are augmented; below 0: none.
      augment_weight: Factor on the advantages of augmented rows.
    """

    kept_copies: int
    max_cache_copies: int
    augment_threshold: float
    augment_weight: float


def method_numbers(algo: AlgoConfig) -> MethodNumbers:
    """The numbers of `algo.method`, after the overrides in `algo`.

    Example:
      >>> method_numbers(AlgoConfig(method="step_balanced")).max_cache_copies
      16
    """
    method = METHODS[algo.method]
    cap, weight = algo.max_cache_copies, algo.augment_weight
    if cap is None and method.max_cache_groups is not None:
        cap = method.max_cache_groups * algo.group_size
    if weight is None or method.augment_weight == 0.0:
        weight = method.augment_weight
    return MethodNumbers(
        kept_copies=1 if method.resample else algo.group_size,
        max_cache_copies=algo.trajectories_per_round if cap is None else cap,
        augment_threshold=algo.augment_threshold if weight > 0.0 else -1.0,
        augment_weight=weight,
    )


def outcomes_of(trajectories: Trajectories) -> Outcomes:
    """The part of `trajectories` that advantages depend on."""
    return Outcomes(
        task_id=trajectories.task_id,
        reward=trajectories.reward,
        valid=trajectories.valid,
        step_mask=trajectories.step_mask,
        state_hash=trajectories.state_hash,
    )


# --- Advantages -----------------------------------------------------------------------


def group_baseline(
    outcomes: Outcomes, rate: jax.Array, *, group_size: int, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Z-score of each trajectory in its group, on every step; failures count too.

    Args:
      outcomes: M trajectories, N neighbors a group.
      rate: Not used.
      group_size: N, a Python integer.
      discount: Not used.

    Returns:
      Advantages [M, L] float32, and [M, L] bool, True for steps to learn from.
    """
    del rate, discount
    rewards = outcomes.reward.reshape(-1, group_size)
    valid = outcomes.valid.reshape(-1, group_size)
    scores = jax.vmap(stepjax.group_advantages)(rewards, valid).reshape(-1)
    keep = outcomes.step_mask & outcomes.valid[:, None]
    return jax.vmap(stepjax.step_advantages)(scores, keep), keep


def state_groups(
    outcomes: Outcomes, rate: jax.Array, *, group_size: int, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Reward minus the group's mean, plus step return minus the mean in equal states.

    Neither is divided by a deviation: the default of GiGPO's own code.

    Args:
      outcomes: M trajectories, N neighbors a group.
      rate: Not used.
      group_size: N, a Python integer.
      discount: Of step returns, per step.

    Returns:
      Advantages [M, L] float32, and [M, L] bool, True for steps to learn from.
    """
    del rate
    rewards = outcomes.reward.reshape(-1, group_size)
    valid = outcomes.valid.reshape(-1, group_size)
    scores = jax.vmap(stepjax.centered_advantages)(rewards, valid).reshape(-1)
    keep = outcomes.step_mask & outcomes.valid[:, None]
    within_state = stepjax.state_group_advantages(
        outcomes.reward, outcomes.task_id, outcomes.state_hash, keep, discount=discount
    )
    return jax.vmap(stepjax.step_advantages)(scores, keep) + within_state, keep


def success_only(
    outcomes: Outcomes, rate: jax.Array, *, group_size: int, discount: float
) -> tuple[jax.Array, jax.Array]:
    """`1 - rate` on every step of successful trajectories; failures are dropped.

    Args:
      outcomes: M trajectories.
      rate: [T] float32. Success rates after the round's update.
      group_size: Not used.
      discount: Not used.

    Returns:
      Advantages [M, L] float32, and [M, L] bool, True for steps to learn from.
    """
    del group_size, discount
    success = outcomes.valid & solved(outcomes.reward)
    scores = stepjax.success_rate_advantage(outcomes.reward, rate[outcomes.task_id])
    keep = outcomes.step_mask & success[:, None]
    return jax.vmap(stepjax.step_advantages)(
        jnp.where(success, scores, 0.0), keep
    ), keep


# --- Rows of an update ----------------------------------------------------------------


def steps_in_parts(
    rows: StepBatch,
    *,
    seed: Sequence[int],
    rows_per_update: int,
    micro_batch_size: int,
    max_rows: int,
) -> list[StepBatch]:
    """Shuffled steps in equal parts of at most `rows_per_update`."""
    del max_rows
    return batching.pack_steps(
        rows,
        seed=seed,
        rows_per_update=rows_per_update,
        micro_batch_size=micro_batch_size,
    )


def trajectories_in_parts(
    rows: StepBatch,
    *,
    seed: Sequence[int],
    rows_per_update: int,
    micro_batch_size: int,
    max_rows: int,
) -> list[StepBatch]:
    """Whole trajectories in parts of about `rows_per_update` and never more."""
    del max_rows
    return batching.pack_trajectories(
        rows,
        seed=seed,
        rows_per_update=rows_per_update,
        pad_to=rows_per_update,
        micro_batch_size=micro_batch_size,
    )


def all_in_one(
    rows: StepBatch,
    *,
    seed: Sequence[int],
    rows_per_update: int,
    micro_batch_size: int,
    max_rows: int,
) -> list[StepBatch]:
    """All rows in one update, padded to `max_rows`."""
    del seed, rows_per_update
    return batching.pack_single_update(
        rows,
        micro_batch_size=micro_batch_size,
        pad_to=-(-max_rows // micro_batch_size) * micro_batch_size,
    )


# --- The table ------------------------------------------------------------------------

_STEP = Method(
    title="STEP",
    resample=1,
    max_cache_groups=None,
    advantage=success_only,
    augment_weight=1.0,
    pack=steps_in_parts,
)
_GIGRPO = dataclasses.replace(
    _STEP, title="GiGRPO", resample=0, advantage=group_baseline, augment_weight=0.0
)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "t_grpo": dataclasses.replace(_GIGRPO, title="T-GRPO", pack=all_in_one),
        "t_grpo_many": dataclasses.replace(
            _GIGRPO, title="T-GRPO, many updates", pack=trajectories_in_parts
        ),
        "gigrpo": _GIGRPO,
        "gigpo": dataclasses.replace(_GIGRPO, title="GiGPO", advantage=state_groups),
        "step": _STEP,
        "step_no_sampling": dataclasses.replace(
            _STEP, title="w/o SR-Sampling", resample=0
        ),
        "step_no_augmentation": dataclasses.replace(
            _STEP, title="w/o Step-Aug", augment_weight=0.0
        ),
        "step_no_both": dataclasses.replace(
            _STEP, title="w/o Both", resample=0, augment_weight=0.0
        ),
        "step_balanced": dataclasses.replace(
            _STEP, title="STEP, balanced", max_cache_groups=1, augment_weight=0.25
        ),
    }
)
"""Every method by the name that `--algo.method` takes."""
