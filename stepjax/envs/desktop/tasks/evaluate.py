"""Judging an episode: what was left behind against what the task expects."""

from pathlib import Path
from typing import Any, Protocol

from stepjax.envs.actions import ActionKind
from stepjax.envs.desktop.tasks.getters import GETTERS, EvaluationClient
from stepjax.envs.desktop.tasks.metrics import METRICS
from stepjax.envs.desktop.tasks.schema import Check, TaskSpec
from stepjax.envs.desktop.tasks.setup import RUNNABLE, SetupClient, run_steps

__all__ = ["JudgingClient", "evaluate", "unknown_parts"]


class JudgingClient(EvaluationClient, SetupClient, Protocol):
    """What is asked of the client of a desktop; `DesktopClient` has it."""


def evaluate(
    spec: TaskSpec,
    client: JudgingClient,
    *,
    ended_by: ActionKind | None,
    cache: Path | None = None,
) -> float:
    """Reward of an episode, in [0, 1].

    Args:
      spec: The task.
      client: Of the desktop as the agent left it, at rest (`client.rest`: something
        may still be saving); not used where FAIL decides.
      ended_by: DONE, FAIL, or None if a limit cut the episode.
      cache: See `setup.run_setup`; for the steps before judging.

    Returns:
      On an infeasible task 1 for FAIL, else 0. On any other 0 for FAIL, else what its
      checks say: the least of them, or the greatest if they are joined by "or".

    Raises:
      ValueError: If the task asks for a getter or a metric that is not known here, or
        gives one what it cannot use.
      SetupError: If a step before judging cannot be carried out.
      DesktopError: If the desktop does not answer.
    """
    if spec.infeasible or ended_by == ActionKind.FAIL:
        return float(spec.infeasible and ended_by == ActionKind.FAIL)
    unknown = unknown_parts(spec)
    if unknown:
        raise ValueError(f"{spec.source}: {unknown[0]}")
    evaluator = spec.evaluator
    run_steps(spec, evaluator.postconfig, client, cache=cache)
    least = evaluator.conjunction == "and"
    score = 1.0 if least else 0.0
    for check in evaluator.checks:
        one = _score(spec, check, client)
        score = min(score, one) if least else max(score, one)
        if score == (0.0 if least else 1.0):
            break
    return score


def unknown_parts(spec: TaskSpec) -> tuple[str, ...]:
    """What a task asks for that cannot be done here, one line each.

    Upstream's evaluators know far more metrics and getters than these few.
    """
    lines = [
        f"config: setup type {step.type!r} cannot run here."
        for step in spec.config
        if step.type not in RUNNABLE
    ]
    lines += [
        f"evaluator.postconfig: setup type {step.type!r} cannot run here."
        for step in spec.evaluator.postconfig
        if step.type not in RUNNABLE
    ]
    for check in spec.evaluator.checks:
        if check.metric != "infeasible" and check.metric not in METRICS:
            lines.append(_unknown("func", check.metric, METRICS))
        for key, getter in (("result", check.result), ("expected", check.expected)):
            if getter is not None and getter["type"] not in GETTERS:
                lines.append(_unknown(f"{key}.type", getter["type"], GETTERS))
    return tuple(lines)


def _unknown(key: str, name: str, known: dict[str, Any]) -> str:
    return f"evaluator.{key}: {name!r} is unknown here; known are {', '.join(known)}."


def _score(spec: TaskSpec, check: Check, client: JudgingClient) -> float:
    try:
        values = [
            GETTERS[getter["type"]](client, getter)
            for getter in (check.result, check.expected)
            if getter is not None
        ]
        score = METRICS[check.metric](*values, **check.options)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{spec.source}: evaluator: {check.metric} cannot be used like this: "
            f"{type(error).__name__}: {error}"
        ) from error
    return min(1.0, max(0.0, float(score)))
