"""Made-up run folders with known content."""

import json
from pathlib import Path

import numpy as np

from experiments.compare_args import parse_plan

SMALL_PLAN = ["--rounds", "16", "--algo.tasks-per-round", "8", "--algo.group-size", "8"]
TASKS, ROUNDS, PER_ROUND = 32, 16, 64


def write_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(
    folder: Path,
    *,
    method: str = "step",
    seed: int = 0,
    learning_rate: float = 1e-3,
    lift: float = 0.5,
    rounds: int = ROUNDS,
    num_tasks: int = TASKS,
    eval_every: int = 2,
    backend: str = "sim",
) -> Path:
    """A run whose success rises in a straight line from 0.4 to 0.4 + lift."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "run_dir": str(folder),
        "seed": seed,
        "rounds": rounds,
        "env.backend": backend,
        "algo.method": method,
        "algo.tasks_per_round": 8,
        "algo.group_size": 8,
        "optim.learning_rate": learning_rate,
    }
    (folder / "config.json").write_text(json.dumps(config))
    metrics, tasks = [], []
    skill = rng.uniform(0.0, 0.9, size=num_tasks)
    for number in range(rounds + 1):
        done = number / rounds
        row = {"round": number, "trajectories": PER_ROUND * number}
        if number:
            ids = np.sort(rng.choice(num_tasks, size=8, replace=False))
            rate = np.clip(skill[ids] + lift * done, 0, 1)
            row |= _round_metrics(rng, number, done, lift)
            tasks.append(
                {
                    "round": number,
                    "task_ids": ids.tolist(),
                    "trajectories": rng.multinomial(
                        PER_ROUND, np.full(8, 1 / 8)
                    ).tolist(),
                    "successes": [1] * 8,
                    "rate": rate.tolist(),
                }
            )
        if number % eval_every == 0:
            row |= evaluation(0.4 + lift * done, num_tasks)
        metrics.append(row)
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "tasks.jsonl", tasks)
    return folder


def evaluation(success: float, num_tasks: int = TASKS) -> dict[str, float]:
    return {
        "eval/train_success": success,
        "eval/unseen_success": 0.5 * success,
        "eval/infeasible_success": 0.25 * success,
        "eval/train_above_60": round(success * num_tasks),
        "eval/unseen_above_60": round(success * num_tasks / 2),
    }


def _round_metrics(rng, number: int, done: float, lift: float) -> dict[str, float]:
    return {
        "train/success": float(np.clip(0.4 + lift * done + rng.normal(0, 0.04), 0, 1)),
        "train/valid": 1.0,
        "train/above_60": round(32 * (0.3 + lift * done)),
        "sampling/cache_size": float(6 - 4 * done),
        "sampling/easy_success_share": 0.6 - 0.3 * done,
        "update/count": 4,
        "update/entropy": 0.8 - 0.5 * done,
        "update/clip_fraction": 0.05 + 0.1 * done,
        "time/round": 1.5,
    }


def make_plan(folder, *more):
    """A small comparison's plan in `folder`, from the command line's flags."""
    return parse_plan(["--run-dir", str(folder), *SMALL_PLAN, *more])
