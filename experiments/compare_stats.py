"""Numbers of a comparison: each cell's own, means over seeds, paired differences."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.compare_plan import Cell, Plan
from experiments.compare_runner import is_finished
from experiments.run_data import Run, area_under_curve, read_run, value_at

__all__ = [
    "BUDGETS",
    "CellResult",
    "Interval",
    "best_rates",
    "cell_numbers",
    "load_results",
    "mean_interval",
    "paired",
    "select",
]

BUDGETS = {"1/4": 0.25, "1/2": 0.5, "1": 1.0}
"""Parts of the budget at which methods are compared, by their name in tables."""

_AT_BUDGETS = {
    "train": "eval/train_success",
    "unseen": "eval/unseen_success",
    "above_60": "eval/train_above_60",
    "unseen_above_60": "eval/unseen_above_60",
    "record_60": "train/above_60",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """A finished cell.

    Attributes:
      cell: Which one.
      run: Its run folder's content.
      numbers: See `cell_numbers`.
      note: What it ran on, from `cell.json`.
    """

    cell: Cell
    run: Run
    numbers: dict[str, float]
    note: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds with its 95% interval.

    Attributes:
      mean: Over `values`.
      low: Lower end of Student's t interval; NaN if there is only one value.
      high: Upper end.
      values: One a seed, in order of seeds.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    @property
    def count(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def is_clear(self) -> bool:
        """True if the interval does not hold 0."""
        return self.low > 0 or self.high < 0


def load_results(plan: Plan) -> list[CellResult]:
    """Finished cells of the plan, in its order."""
    results = []
    for cell in plan.cells:
        if is_finished(plan, cell):
            run = read_run(plan.run_dir / cell.folder)
            path = run.folder / "cell.json"
            note = json.loads(path.read_text()) if path.is_file() else {}
            results.append(
                CellResult(
                    cell=cell,
                    run=run,
                    numbers=cell_numbers(run, plan.trajectories),
                    note=note,
                )
            )
    return results


def cell_numbers(run: Run, budget: int) -> dict[str, float]:
    """What the tables say of one run.

    Args:
      run: A finished run.
      budget: Trajectories in all; parts of it are `BUDGETS`.

    Returns:
      `train@1/4` and so on for greedy success on training tasks,
      `unseen`, tasks `above_60` in evaluation and `record_60` by the success record;
      `train@0` for the start, the record's after round 1; areas under the curves
      `auc_train` and `auc_unseen`;
      `infeasible@0` and `@1`; `updates` per round. What the run did not log is missing.
    """
    numbers: dict[str, float] = {}
    for short, name in _AT_BUDGETS.items():
        x, y = run.series(name)
        if len(x) < 2:
            continue
        numbers[f"{short}@0"] = float(y[0])
        for label, part in BUDGETS.items():
            numbers[f"{short}@{label}"] = value_at(x, y, part * budget)
        if short in ("train", "unseen"):
            numbers[f"auc_{short}"] = area_under_curve(x, y)
    for label, value in (
        ("infeasible@0", run.first("eval/infeasible_success")),
        ("infeasible@1", run.last("eval/infeasible_success")),
    ):
        if value is not None:
            numbers[label] = value
    updates = run.series("update/count")[1]
    if len(updates):
        numbers["updates"] = float(np.mean(updates))
    return numbers


def select(
    results: Iterable[CellResult],
    method: str,
    rate: float,
    augment_threshold: float | None = None,
) -> list[CellResult]:
    """Cells of one method at one learning rate, in order of seeds."""
    found = [
        result
        for result in results
        if result.cell.method == method
        and result.cell.learning_rate == rate
        and result.cell.augment_threshold == augment_threshold
    ]
    return sorted(found, key=lambda result: result.cell.seed)


def best_rates(plan: Plan, results: Sequence[CellResult]) -> dict[str, float]:
    """Learning rate with the highest mean `auc`, by method.

    It is chosen on the very seeds it is reported for, so a method's best is a little
    optimistic; and only over the seeds that all its learning rates have.
    """
    best: dict[str, float] = {}
    for method in plan.methods:
        by_rate = {
            rate: {
                r.cell.seed: r.numbers["auc_train"]
                for r in select(results, method, rate)
                if "auc_train" in r.numbers
            }
            for rate in plan.learning_rates
        }
        # A rate tried on fewer seeds would shrink the seeds all rates are judged on.
        most = max(len(found) for found in by_rate.values())
        need = min(most, max(2, plan.grid_seeds))
        by_rate = {rate: found for rate, found in by_rate.items() if len(found) >= need}
        if not most:
            continue
        shared = set.intersection(*(set(found) for found in by_rate.values()))
        means = {
            rate: float(np.mean([found[seed] for seed in shared or found]))
            for rate, found in by_rate.items()
        }
        best[method] = max(means, key=lambda rate: means[rate])
    return best


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of the values with Student's 95% interval for the mean.

    Example:
      >>> found = mean_interval([1.0, 2.0, 3.0])
      >>> round(found.low, 3), found.mean, round(found.high, 3)
      (-0.484, 2.0, 4.484)
    """
    from scipy import stats

    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else math.nan
    if len(array) < 2:
        return Interval(mean=mean, low=math.nan, high=math.nan, values=tuple(array))
    error = float(array.std(ddof=1)) / math.sqrt(len(array))
    reach = float(stats.t.ppf(0.975, len(array) - 1)) * error
    return Interval(
        mean=mean, low=mean - reach, high=mean + reach, values=tuple(map(float, array))
    )


def paired(
    ours: Sequence[CellResult],
    theirs: Sequence[CellResult],
    measure: str,
) -> Interval | None:
    """Interval of the differences over the seeds both have; None if there are none.

    Args:
      ours: Cells of one method.
      theirs: Cells it is compared with.
      measure: A name from `cell_numbers`.
    """

    def by_seed(results: Sequence[CellResult]) -> dict[int, float]:
        return {
            r.cell.seed: r.numbers[measure] for r in results if measure in r.numbers
        }

    mine, other = by_seed(ours), by_seed(theirs)
    seeds = sorted(mine.keys() & other.keys())
    if not seeds:
        return None
    return mean_interval([mine[seed] - other[seed] for seed in seeds])
