"""Tables and figures of a comparison put together, and all numbers behind them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from experiments.compare_figures import comparison_figures, draw_table
from experiments.compare_plan import Plan
from experiments.compare_stats import (
    CellResult,
    best_rates,
    load_results,
    paired,
    select,
)
from experiments.compare_tables import (
    REFERENCES,
    ablation_table,
    budget_table,
    final_table,
    mechanism_table,
    paired_table,
    rate_table,
)
from experiments.compare_text import Table
from experiments.errors import UsageError

__all__ = ["comparison_tables", "render"]

_SHOWN = {
    "figure1": "Figure 1. Training tasks above 60% over the budget.",
    "figure2": "Figure 2. Share of successful trajectories from tasks above 80%.",
    "figure5": "Figure 5. STEP with other augmentation thresholds.",
    "curves": "Success over the budget.",
    "updates": "Success against optimizer updates.",
    "differences": "Paired differences of the area under the curve.",
}


def render(plan: Plan, caption: str) -> tuple[str, dict[str, Any]]:
    """Markdown of all results, and the numbers behind them for JSON.

    Writes the figures, and Tables 1 and 2 as pictures, to `figures/`.

    Args:
      plan: The comparison.
      caption: Backend, seeds, command, hardware and date.

    Raises:
      UsageError: If no cell is finished.
    """
    results = load_results(plan)
    if not any("auc_train" in result.numbers for result in results):
        raise UsageError(
            f"no cell in {plan.run_dir} is finished; run without --report-only first."
        )
    folder = plan.run_dir / "figures"
    tables = comparison_tables(plan, results, caption)
    figures = comparison_figures(plan, results, folder)
    for table in tables:
        if table.name in ("table1", "table2"):
            draw_table(table, folder)
    parts = [f"Results of {len(results)} of {len(plan.cells)} cells. {caption}", ""]
    parts += [table.markdown() for table in tables]
    for name, text in _SHOWN.items():
        if name in figures:
            parts += [
                f"![{text}](figures/{figures[name].name})",
                "",
                f"{text} {caption}",
            ]
            parts.append("")
    return "\n".join(parts), _numbers(plan, results, caption)


def comparison_tables(
    plan: Plan, results: Sequence[CellResult], caption: str
) -> list[Table]:
    """All tables that the finished cells allow."""
    present = [m for m in plan.methods if select(results, m, plan.shared_rate)]
    shared = dict.fromkeys(present, plan.shared_rate)
    best = best_rates(plan, results)
    tables = [final_table(plan, results, best, caption)]
    if "step" in shared and any(name.startswith("step_") for name in shared):
        tables.append(ablation_table(plan, results, shared, caption))
    tables.append(
        budget_table(
            plan,
            results,
            shared,
            caption,
            name="shared",
            title=f"All methods at the shared learning rate, {plan.shared_rate:g}",
        )
    )
    choices = {"shared": shared}
    if len(plan.learning_rates) > 1:
        choices["best"] = best
        title = "Each method at its best learning rate"
        tables.append(
            budget_table(plan, results, best, caption, name="best", title=title)
        )
        tables.append(rate_table(plan, results, caption))
    for which, rates in choices.items():
        tables += [
            paired_table(plan, results, rates, reference, caption, which=which)
            for reference in REFERENCES
            if reference in rates and len(rates) > 1
        ]
    return [*tables, mechanism_table(plan, results, shared, caption)]


def _numbers(plan: Plan, results: Sequence[CellResult], caption: str) -> dict[str, Any]:
    cells = [
        {
            **dataclasses.asdict(r.cell),
            "numbers": r.numbers,
            "seconds": r.note.get("seconds"),
        }
        for r in results
    ]
    shared = dict.fromkeys(plan.methods, plan.shared_rate)
    best = best_rates(plan, results)
    return {
        "caption": caption,
        "shared_rate": plan.shared_rate,
        "best_rates": best,
        "cells": cells,
        "paired_shared": _all_paired(plan, results, shared),
        "paired_best": _all_paired(plan, results, best),
    }


def _all_paired(
    plan: Plan, results: Sequence[CellResult], rates: dict[str, float]
) -> list[dict[str, Any]]:
    rows = []
    for reference in REFERENCES:
        for method in plan.methods:
            if method == reference or not {method, reference} <= rates.keys():
                continue
            ours = select(results, method, rates[method])
            theirs = select(results, reference, rates[reference])
            names = sorted({name for r in ours for name in r.numbers})
            for name in names:
                found = paired(ours, theirs, name)
                if found is not None:
                    row = {"method": method, "reference": reference, "measure": name}
                    # JSON has no NaN: one seed has no interval.
                    ends = [
                        None if math.isnan(v) else v for v in (found.low, found.high)
                    ]
                    rows.append(
                        {
                            **row,
                            "mean": found.mean,
                            "low": ends[0],
                            "high": ends[1],
                            "n": found.count,
                            "values": list(found.values),
                        }
                    )
    return rows
