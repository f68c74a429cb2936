"""Tables of a comparison: the paper's two, and what tells methods and budgets apart."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.compare_plan import Plan
from experiments.compare_stats import BUDGETS, CellResult, paired, select
from experiments.compare_text import (
    AREA_TEXT,
    Table,
    interval_text,
    mean_text,
    paired_text,
    plain_text,
)
from experiments.methods import METHODS

__all__ = [
    "REFERENCES",
    "ablation_table",
    "budget_table",
    "final_table",
    "mechanism_table",
    "paired_table",
    "rate_table",
]

REFERENCES = ("gigrpo", "t_grpo_many", "t_grpo", "step")
"""Methods that all others are compared with, seed by seed."""

_PAPER_ROWS = ("t_grpo", "gigrpo", "step")
_ABLATIONS = ("step", "step_no_sampling", "step_no_augmentation", "step_no_both")
_MECHANISMS = (
    ("sampling/cache_size", "cache (tasks)", 1.0, 1),
    ("sampling/replaced_share", "replaced (%)", 100.0, 0),
    ("sampling/max_task_share", "largest task (%)", 100.0, 0),
    ("augment/advantage_share", "augmented share of \\|A\\| (%)", 100.0, 0),
    ("augment/all_match_rate", "all match (%)", 100.0, 0),
    ("update/entropy", "entropy (nats)", 1.0, 2),
    ("update/clip_fraction", "clipped (%)", 100.0, 1),
)

Rates = Mapping[str, float]


def final_table(
    plan: Plan, results: Sequence[CellResult], rates: Rates, caption: str
) -> Table:
    """The paper's Table 1: success at the end, unseen and infeasible tasks apart."""
    # All methods start alike, so one cell a seed tells it.
    every = list({r.cell.seed: r for r in results}.values())
    rows: list[tuple[str, ...]] = [
        (
            "start",
            "",
            mean_text(every, "train@0"),
            mean_text(every, "unseen@0"),
            mean_text(every, "infeasible@0"),
            str(len(every)),
        )
    ]
    order = [m for m in _PAPER_ROWS if m in rates]
    order += [m for m in plan.methods if m in rates and m not in _PAPER_ROWS]
    for method in order:
        cells = select(results, method, rates[method])
        shares = [
            mean_text(cells, f"{name}@1") for name in ("train", "unseen", "infeasible")
        ]
        rows.append(
            (
                f"+ {METHODS[method].title}",
                f"{rates[method]:g}",
                *shares,
                str(len(cells)),
            )
        )
    return Table(
        name="table1",
        title="Table 1 (simulator). Success at the end of the budget, greedy, %",
        caption="Each method at its best learning rate (highest area under the curve "
        f"on these seeds). Mean over seeds ± half of the 95% interval. {caption}",
        header=("method", "learning rate", "train", "unseen", "infeasible", "seeds"),
        rows=tuple(rows),
    )


def ablation_table(
    plan: Plan, results: Sequence[CellResult], rates: Rates, caption: str
) -> Table:
    """The paper's Table 2: what each part of STEP is worth, as paired differences."""
    full = select(results, "step", rates["step"]) if "step" in rates else []
    rows = []
    for method in (*_ABLATIONS, "step_balanced"):
        if method not in rates or not full:
            continue
        cells = select(results, method, rates[method])
        row = [METHODS[method].title]
        for name in ("train@1", "unseen@1", "auc_train"):
            row.append(mean_text(cells, name))
            difference = None if method == "step" else paired(cells, full, name)
            row.append("" if difference is None else interval_text(difference, 100.0))
        rows.append((*row, str(len(cells))))
    return Table(
        name="table2",
        title="Table 2 (simulator). Ablations of STEP, greedy success at the end, %",
        caption="Differences to STEP are paired by seed, with their 95% interval; AUC "
        f"is {AREA_TEXT}. All at the shared learning rate. {caption}",
        header=(
            "variant",
            "train",
            "difference",
            "unseen",
            "difference",
            "AUC",
            "difference",
            "seeds",
        ),
        rows=tuple(rows),
    )


def budget_table(
    plan: Plan,
    results: Sequence[CellResult],
    rates: Rates,
    caption: str,
    *,
    name: str,
    title: str,
) -> Table:
    """Success and tasks above 60% at parts of the budget; area under the curve."""
    measures = [
        (short, text, factor)
        for short, text, factor in (
            ("train", "greedy", 100.0),
            ("above_60", "> 60%", 1.0),
            ("record_60", "record > 60%", 1.0),
            ("unseen", "unseen", 100.0),
        )
        if any(f"{short}@1" in r.numbers for r in results)
    ]
    header = ["method", "learning rate"]
    for _, text, _ in measures:
        header += [f"{text} @{part}" for part in BUDGETS]
    header += ["AUC", "AUC unseen", "updates", "seeds"]
    rows = []
    for method in plan.methods:
        cells = select(results, method, rates[method]) if method in rates else []
        if not cells:
            continue
        row = [METHODS[method].title, f"{rates[method]:g}"]
        for short, _, factor in measures:
            row += [plain_text(cells, f"{short}@{part}", factor) for part in BUDGETS]
        row += [mean_text(cells, "auc_train"), mean_text(cells, "auc_unseen")]
        rows.append((*row, plain_text(cells, "updates", 1.0), str(len(cells))))
    return Table(
        name=name,
        title=title,
        caption="Success in %, `> 60%` in training tasks by greedy evaluation and by "
        "the success record that training keeps; @1/4 is after a quarter of the "
        f"budget of {plan.trajectories:,} trajectories. `unseen` is greedy. AUC is "
        f"{AREA_TEXT}, mean over seeds ± half of the 95% interval. `updates` "
        f"counts optimizer updates per round. {caption}",
        header=tuple(header),
        rows=tuple(rows),
    )


def rate_table(plan: Plan, results: Sequence[CellResult], caption: str) -> Table:
    """Area under the curve of every method at every learning rate."""
    rows = []
    for method in plan.methods:
        row = [METHODS[method].title]
        for rate in plan.learning_rates:
            cells = select(results, method, rate)
            row.append(f"{mean_text(cells, 'auc')} (n={len(cells)})" if cells else "–")
        rows.append(tuple(row))
    return Table(
        name="learning_rates",
        title="Area under the curve by learning rate, %",
        caption=f"AUC is {AREA_TEXT}; mean over n seeds ± half of the 95% "
        f"interval. The shared rate is {plan.shared_rate:g}. {caption}",
        header=("method", *(f"{rate:g}" for rate in plan.learning_rates)),
        rows=tuple(rows),
    )


def paired_table(
    plan: Plan,
    results: Sequence[CellResult],
    rates: Rates,
    reference: str,
    caption: str,
    *,
    which: str,
) -> Table:
    """Differences of all methods to one of them, paired by seed, with intervals."""
    base = select(results, reference, rates[reference])
    measures = (
        ("auc_train", "AUC"),
        ("train@1/4", "greedy @1/4"),
        ("train@1/2", "greedy @1/2"),
        ("train@1", "greedy @1"),
        ("unseen@1", "unseen @1"),
    )
    rows = []
    for method in plan.methods:
        if method == reference or method not in rates:
            continue
        cells = select(results, method, rates[method])
        row = [METHODS[method].title]
        for name, _ in measures:
            found = paired(cells, base, name)
            row.append("–" if found is None else paired_text(found))
        rows.append(tuple(row))
    title = METHODS[reference].title
    return Table(
        name=f"paired_{which}_{reference}",
        title=f"Difference to {title}, each method at {_WHICH[which]}, % points",
        caption="Mean of the differences over seeds both have, its 95% interval "
        "(Student's t), and in how many of n seeds the method is ahead; bold where "
        f"the interval is clear of 0. No correction for many comparisons. {caption}",
        header=("method", *(f"{text}" for _, text in measures)),
        rows=tuple(rows),
    )


_WHICH = {
    "shared": "the shared learning rate",
    "best": "its best learning rate",
}


def mechanism_table(
    plan: Plan, results: Sequence[CellResult], rates: Rates, caption: str
) -> Table:
    """Means over the run of what explains the differences; Figure 2 in quarters."""
    quarters = ("1st", "2nd", "3rd", "4th")
    rows = []
    for method in plan.methods:
        cells = select(results, method, rates[method]) if method in rates else []
        if not cells:
            continue
        row = [METHODS[method].title]
        shares = [_quarters(r, "sampling/easy_success_share") for r in cells]
        for part in np.nanmean(shares, axis=0) if shares else ():
            row.append(f"{100 * part:.0f}")
        for name, _, factor, digits in _MECHANISMS:
            row.append(
                _over_run(cells, name, lambda v: float(np.mean(v)), factor, digits)
            )
        rows.append((*row, str(len(cells))))
    return Table(
        name="mechanisms",
        title="Where the budget went and how the updates looked",
        caption="`easy` is the share of successful trajectories from tasks above 80% "
        "in each quarter of the rounds, the paper's Figure 2; the rest are means over "
        f"all rounds. Means over seeds, at the shared learning rate. {caption}",
        header=(
            "method",
            *(f"easy, {quarter} quarter (%)" for quarter in quarters),
            *(text for _, text, _, _ in _MECHANISMS),
            "seeds",
        ),
        rows=tuple(rows),
    )


def _quarters(result: CellResult, name: str) -> list[float]:
    rounds, values = result.run.series(name, against="round")
    if not len(values):
        return [math.nan] * 4
    last = float(result.run.metrics[-1]["round"])
    part = np.minimum(np.floor(4 * (rounds - 1) / last), 3)
    return [
        float(values[part == k].mean()) if (part == k).any() else math.nan
        for k in range(4)
    ]


def _over_run(
    cells: Sequence[CellResult],
    name: str,
    reduce: Callable[[np.ndarray], float],
    factor: float,
    digits: int,
) -> str:
    values = [r.run.series(name)[1] for r in cells]
    means = [reduce(found) for found in values if len(found)]
    return f"{factor * np.mean(means):.{digits}f}" if means else "–"
