"""Figures of a comparison: the paper's 1, 2 and 5 for our backend, and our own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments import plot_style as style
from experiments.compare_plan import Plan
from experiments.compare_stats import CellResult, mean_interval, paired, select
from experiments.compare_tables import REFERENCES
from experiments.compare_text import Table
from experiments.methods import METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["comparison_figures", "draw_table"]

# The three that matter most in strong colors, relatives of STEP dashed.
_COLORS = {
    "step": style.BLUE,
    "step_balanced": style.RED,
    "gigrpo": style.GREEN,
    "t_grpo": style.GREY,
    "t_grpo_many": style.BLACK,
    "gigpo": style.PINK,
    "step_no_sampling": style.SKY,
    "step_no_augmentation": style.ORANGE,
    "step_no_both": "#8C6D31",
}
_PLAIN = {"fontsize": 9, "frameon": False}
_WIDE = {"step_balanced", "step", "gigrpo"}
_DASHED = {"step_no_sampling", "step_no_augmentation", "step_no_both"}
_FIGURE_2 = ("gigrpo", "step", "step_balanced")


def comparison_figures(
    plan: Plan, results: Sequence[CellResult], folder: Path
) -> dict[str, Path]:
    """PNG files by name; those whose cells are not there are left out.

    Args:
      plan: The comparison.
      results: Its finished cells.
      folder: Where the files go.
    """
    shared = dict.fromkeys(plan.methods, plan.shared_rate)
    curves = {m: select(results, m, rate) for m, rate in shared.items()}
    curves = {m: cells for m, cells in curves.items() if cells}
    made = {"figure1": _figure_1(plan, curves, folder)}
    made["curves"] = _curves(plan, curves, folder)
    made["updates"] = _against_updates(plan, curves, folder)
    if any(m in curves for m in _FIGURE_2):
        made["figure2"] = _figure_2(plan, curves, folder)
    if plan.s_lows:
        made |= _figure_5(plan, results, folder)
    if len(curves) > 1:
        made["differences"] = _differences(plan, curves, folder)
    return made


def draw_table(table: Table, folder: Path) -> Path:
    """The table as a picture, for where Markdown is not shown."""
    lines = [table.header, *table.rows]
    widths = [max(len(row[k]) for row in lines) for k in range(len(table.header))]
    total = sum(widths) + 3 * len(widths)
    figure, (axes,) = style.new_figure(
        width=max(6.0, 0.095 * total), height=0.34 * (len(lines) + 1.6)
    )
    axes.set_axis_off()
    axes.set_xlim(0, total)
    axes.set_ylim(len(lines) + 0.1, -1.1)
    axes.text(0, -0.7, table.title, fontsize=11, fontweight="bold", va="center")
    for line, row in enumerate(lines):
        left = 0
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            x = left if column == 0 else left + width + 2
            axes.text(
                x,
                line + 0.5,
                text.replace("**", ""),
                ha="left" if column == 0 else "right",
                va="center",
                fontsize=9.5,
                color=style.GREY if line == 0 else "#1F2328",
            )
            left += width + 3
        axes.axhline(line + 1, color="#D8DEE4", linewidth=0.8 if line else 1.4)
    return style.save(figure, folder / f"{table.name}.png")


def _figure_1(
    plan: Plan, curves: Mapping[str, Sequence[CellResult]], folder: Path
) -> Path:
    figure, panels = style.new_figure(width=11.5, height=4.4, columns=2)
    parts = (
        ("train/above_60", "success record, all tasks"),
        ("eval/train_above_60", "greedy, feasible tasks"),
    )
    for axes, (name, kind) in zip(panels, parts, strict=True):
        for method, cells in curves.items():
            _band(axes, cells, name, method, factor=1.0)
        style.tidy(
            axes,
            title=f"Above 60%: {kind}",
            x="trajectories collected",
            y="tasks (count)",
        )
    _legend(figure, panels[1])
    _headline(figure, plan, curves, "Figure 1")
    return style.save(figure, folder / "figure1.png")


def _curves(
    plan: Plan, curves: Mapping[str, Sequence[CellResult]], folder: Path
) -> Path:
    parts = (
        ("eval/train_success", "Training tasks, greedy"),
        ("eval/unseen_success", "Unseen tasks, greedy"),
    )
    figure, panels = style.new_figure(width=11.2, height=4.4, columns=2)
    for axes, (name, title) in zip(panels, parts, strict=True):
        for method, cells in curves.items():
            _band(axes, cells, name, method, factor=100.0)
        style.tidy(axes, title=title, x="trajectories collected", y="success (%)")
    _legend(figure, panels[0])
    _headline(figure, plan, curves, "Success over the budget")
    return style.save(figure, folder / "curves.png")


def _against_updates(
    plan: Plan, curves: Mapping[str, Sequence[CellResult]], folder: Path
) -> Path:
    figure, (axes,) = style.new_figure(width=7.6, height=4.4)
    for method, cells in curves.items():
        grids = [_by_updates(r) for r in cells]
        grids = [(x, y) for x, y in grids if len(x) > 1]
        if not grids:
            continue
        x = np.mean([x for x, _ in grids], axis=0)
        y = np.mean([y for _, y in grids], axis=0)
        axes.plot(x, 100 * y, **_line(method))
    axes.set_xscale("symlog", linthresh=32)
    style.tidy(
        axes,
        title=f"Success against optimizer updates ({_where(plan)})",
        x="optimizer updates (log scale)",
        y="greedy success on training tasks (%)",
    )
    _own_legend(axes)
    return style.save(figure, folder / "updates.png")


def _by_updates(result: CellResult) -> tuple[np.ndarray, np.ndarray]:
    rounds, counts = result.run.series("update/count", against="round")
    where, values = result.run.series("eval/train_success", against="round")
    totals = np.concatenate([[0.0], np.cumsum(counts)])
    steps = np.interp(where, np.concatenate([[0.0], rounds]), totals)
    return steps, values


def _figure_2(
    plan: Plan, curves: Mapping[str, Sequence[CellResult]], folder: Path
) -> Path:
    figure, (axes,) = style.new_figure(width=7.6, height=4.2)
    for method in _FIGURE_2:
        cells = curves.get(method, ())
        pairs = [
            r.run.series("sampling/easy_success_share", against="round") for r in cells
        ]
        pairs = [(x, y) for x, y in pairs if len(x)]
        if not pairs:
            continue
        x, y = pairs[0][0], np.mean([_smooth(y) for _, y in pairs], axis=0)
        line = _line(method)
        if method == "gigrpo":
            line["label"] = f"uniform sampling ({METHODS[method].title})"
        axes.plot(x, 100 * y, **line)
    axes.set_ylim(0, 100)
    style.tidy(
        axes,
        title=f"Figure 2 ({_where(plan)}): successes from tasks above 80%",
        x="round",
        y="share of successful trajectories (%),\nmean of 4 rounds",
    )
    _own_legend(axes)
    return style.save(figure, folder / "figure2.png")


def _smooth(values: np.ndarray, width: int = 4) -> np.ndarray:
    sums = np.cumsum(np.concatenate([[0.0], values]))
    starts = np.maximum(0, np.arange(len(values)) + 1 - width)
    return (sums[1:] - sums[starts]) / (np.arange(len(values)) + 1 - starts)


def _figure_5(
    plan: Plan, results: Sequence[CellResult], folder: Path
) -> dict[str, Path]:
    figure, panels = style.new_figure(width=11.5, height=4.2, columns=2)
    parts = (
        ("train/above_60", "success record, all tasks"),
        ("eval/train_above_60", "greedy, feasible tasks"),
    )
    drawn = False
    for axes, (name, kind) in zip(panels, parts, strict=True):
        for index, low in enumerate(plan.s_lows):
            plain = low == plan.base.algo.augment_threshold
            cells = select(results, "step", plan.shared_rate, None if plain else low)
            if cells:
                drawn = True
                color = (style.BLUE, style.RED, style.GREEN, style.ORANGE)[index % 4]
                label = f"s_low = {low:g} (n={len(cells)})"
                _plot_band(axes, cells, name, 1.0, color=color, label=label)
        style.tidy(
            axes,
            title=f"Above 60%: {kind}",
            x="trajectories collected",
            y="tasks (count)",
        )
        _own_legend(axes)
    figure.suptitle(
        f"Figure 5 ({_where(plan)}): STEP's augmentation threshold", x=0.01, ha="left"
    )
    return {"figure5": style.save(figure, folder / "figure5.png")} if drawn else {}


def _differences(
    plan: Plan, curves: Mapping[str, Sequence[CellResult]], folder: Path
) -> Path:
    references = [m for m in REFERENCES if m in curves]
    methods = [m for m in plan.methods if m in curves]
    figure, panels = style.new_figure(
        width=3.6 * max(2, len(references)),
        height=1.6 + 0.34 * len(methods),
        columns=max(1, len(references)),
    )
    for axes, reference in zip(panels, references, strict=False):
        axes.axvline(0, color=style.GREY, linewidth=1)
        for row, method in enumerate(methods):
            found = paired(curves[method], curves[reference], "auc_train")
            if found is None or method == reference:
                continue
            color = style.BLUE if found.is_clear else style.GREY
            if not math.isnan(found.low):
                axes.plot([100 * found.low, 100 * found.high], [row, row], color=color)
            axes.plot(100 * found.mean, row, "o", color=color, markersize=6)
        axes.set_ylim(len(methods) - 0.4, -0.6)
        names = [METHODS[m].title for m in methods]
        axes.set_yticks(
            range(len(methods)), names if axes is panels[0] else [""] * len(names)
        )
        style.tidy(
            axes,
            title=f"minus {METHODS[reference].title}",
            x="AUC difference (% points)",
            y="",
            grid=False,
        )
    _headline(figure, plan, curves, "Paired differences, 95% intervals")
    return style.save(figure, folder / "differences.png")


def _band(
    axes: Axes, cells: Sequence[CellResult], name: str, method: str, factor: float
) -> None:
    line = _line(method)
    _plot_band(axes, cells, name, factor, **line)


def _plot_band(
    axes: Axes, cells: Sequence[CellResult], name: str, factor: float, **line
) -> None:
    pairs = [r.run.series(name) for r in cells]
    pairs = [(x, y) for x, y in pairs if len(x)]
    if not pairs:
        return
    x = pairs[0][0]
    rows = [np.interp(x, *pair) for pair in pairs]
    found = [mean_interval([row[k] for row in rows]) for k in range(len(x))]
    axes.plot(x, [factor * f.mean for f in found], **line)
    if len(rows) > 1:
        low, high = [factor * f.low for f in found], [factor * f.high for f in found]
        axes.fill_between(x, low, high, color=line["color"], alpha=0.10, linewidth=0)


def _line(method: str) -> dict:
    return {
        "color": _COLORS[method],
        "linewidth": 2.5 if method in _WIDE else 1.6,
        "linestyle": "--" if method in _DASHED else "-",
        "label": METHODS[method].title,
    }


def _legend(figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", **_PLAIN)


def _own_legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**_PLAIN)


def _headline(
    figure, plan: Plan, curves: Mapping[str, Sequence[CellResult]], text: str
) -> None:
    counts = sorted({len(cells) for cells in curves.values()})
    seeds = "–".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    figure.suptitle(
        f"{text} ({_where(plan)}, {seeds} seeds, learning rate {plan.shared_rate:g}; "
        "bands are 95% intervals of the mean)",
        x=0.01,
        ha="left",
        fontsize=11,
    )


def _where(plan: Plan) -> str:
    return {"sim": "simulator"}.get(plan.base.env.backend, plan.base.env.backend)
