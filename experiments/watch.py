"""Metrics of a round that say how its budget was spent, and when to worry."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.methods import Outcomes
from experiments.round import Credit, RoundPlan
from experiments.success import solved
from stepjax.types import StepBatch

__all__ = ["round_metrics", "sampler_metrics", "task_counts", "warnings_for"]

_EASY = 0.8
_GOOD = 0.6
_GAP = 0.1  # nats a token; bfloat16 on both sides is some hundredths apart


def round_metrics(
    outcomes: Outcomes,
    plan: RoundPlan,
    credit: Credit,
    *,
    train_ids: np.ndarray,
) -> dict[str, float]:
    """`train/...` and `sampling/...` metrics of a round.

    Args:
      outcomes: Of all trajectories of the round.
      plan: Of the round.
      credit: Of the round.
      train_ids: [T_train] int. Training tasks.

    Returns:
      Python numbers by name. `sampling/easy_success_share` is the share of successful
      trajectories whose task's rate is above 0.8, the paper's Figure 2.
    """
    valid, reward, steps = jax.device_get(
        (outcomes.valid, outcomes.reward, outcomes.step_mask)
    )
    rate = np.asarray(jax.device_get(credit.record.rate))
    success = valid & solved(reward)
    _, counts = np.unique(plan.task_ids, return_counts=True)
    easy = rate[plan.task_ids[success]] > _EASY
    used = credit.plain | credit.selected
    return {
        "train/success": _share(success.sum(), valid.sum()),
        "train/valid": _share(valid.sum(), len(valid)),
        "train/steps": int(steps[valid].sum()),
        "train/used_step_share": _share(used.sum(), steps[valid].sum()),
        "train/mean_rate": float(rate[train_ids].mean()),
        "train/above_60": int(np.sum(rate[train_ids] > _GOOD)),
        "sampling/cache_size": plan.cache_size,
        "sampling/replaced_share": float(plan.replaced.mean()),
        "sampling/max_task_share": _share(counts.max(), len(plan.task_ids)),
        "sampling/distinct_tasks": len(counts),
        "sampling/easy_success_share": _share(easy.sum(), success.sum()),
    }


def sampler_metrics(rows: StepBatch) -> dict[str, float]:
    """How far an outside sampler and the trainer are apart, on tokens to learn from.

    Args:
      rows: Of the round.

    Returns:
      Nats a token: `sampler/log_prob_gap`, the mean distance of the log-probabilities,
      and `sampler/kl`, an estimate of KL(sampler || trainer), the mean difference.
      Nothing if the trainer sampled itself, or no row is left.
    """
    real = np.asarray(rows.token_mask)
    if rows.sampler_log_prob is None or not real.any():
        return {}
    said, own = np.asarray(rows.sampler_log_prob), np.asarray(rows.old_log_prob)
    apart = (said - own)[real].astype(np.float64)
    return {
        "sampler/log_prob_gap": float(np.abs(apart).mean()),
        "sampler/kl": float(apart.mean()),
    }


def task_counts(outcomes: Outcomes, rate: Any) -> dict[str, list]:
    """Which tasks ran, how often, and how they went: a line of `tasks.jsonl`.

    Args:
      outcomes: Of all trajectories of the round.
      rate: [T] float. Success rates after the round.

    Returns:
      Lists of equal length: `task_ids`, `trajectories`, `successes`, `rate`; only valid
      trajectories count.
    """
    ids, valid, reward, rate = jax.device_get(
        (outcomes.task_id, outcomes.valid, outcomes.reward, rate)
    )
    tasks, index = np.unique(ids, return_inverse=True)
    tried = np.bincount(index, weights=valid, minlength=len(tasks))
    wins = np.bincount(index, weights=valid & solved(reward), minlength=len(tasks))
    return {
        "task_ids": tasks.tolist(),
        "trajectories": tried.astype(int).tolist(),
        "successes": wins.astype(int).tolist(),
        "rate": [round(float(value), 4) for value in np.asarray(rate)[tasks]],
    }


def warnings_for(metrics: Mapping[str, float]) -> list[str]:
    """What in a round's metrics a person should look at, one line each.

    The texts hold no numbers, so that the same worry reads the same every round.

    Args:
      metrics: The round's line of `metrics.jsonl`.

    Returns:
      Warnings, none if all is well.
    """

    def of(name: str, default: float) -> float:
        return metrics.get(name, default)

    found = []
    if of("sampling/cache_size", 8) < 8 and of("sampling/replaced_share", 0) > 0.3:
        found.append(
            "fewer than 8 tasks in the cache take over 30% of the budget; "
            "a limit (--algo.max-cache-copies) keeps the other tasks trained"
        )
    if of("sampling/max_task_share", 0) > 0.25 and of("sampling/replaced_share", 0) > 0:
        found.append(
            "one task gets more than a quarter of the round; "
            "a limit (--algo.max-cache-copies) spreads the budget"
        )
    if of("augment/advantage_share", 0) > 0.5:
        found.append(
            "augmented rows make up more than half of the summed advantage; "
            "a smaller --algo.augment-weight lets plain rows count more"
        )
    if of("augment/all_match_rate", 0) > 0.5 and of("augment/steps", 0) >= 8:
        found.append(
            "more than half of the step-level groups agree and teach nothing; "
            "the policy is sharp on its rarely solved tasks"
        )
    if of("update/entropy", 1) < 0.02:
        found.append(
            "the policy's entropy is below 0.02 nats a token; it hardly explores any "
            "more (--algo.entropy-coef, --algo.temperature)"
        )
    if of("update/clip_fraction", 0) > 0.2:
        found.append(
            "more than 20% of the tokens are clipped; "
            "a smaller --optim.learning-rate moves the policy less per round"
        )
    if of("sampler/log_prob_gap", 0) > _GAP:
        found.append(
            f"the server's log-probabilities are over {_GAP} nats a token from the "
            "trainer's; it must report those of the temperature it samples at (vLLM: "
            "--logprobs-mode processed_logprobs) and hold the weights it was handed; "
            "--policy.top-p below 1 adds to it, and so do adapters rounded to bfloat16"
        )
    if of("update/count", 1) == 0:
        found.append("no usable sample in a round: no update, only the record moved on")
    if of("train/valid", 1) < 0.9:
        found.append(
            "more than 10% of the trajectories failed in the environment and count "
            "nowhere"
        )
    return found


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0
