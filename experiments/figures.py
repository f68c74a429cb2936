"""Figures of one run: how it learned, task by task, and where the budget went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import plot_style as style
from experiments.run_data import Run
from experiments.task_history import TaskHistory, task_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["run_figures"]

_SPLITS = (
    ("eval/train_success", "training tasks", style.BLUE, "-"),
    ("eval/unseen_success", "unseen tasks", style.RED, "-"),
    ("eval/infeasible_success", "infeasible tasks", style.GREEN, "--"),
)


def run_figures(run: Run, folder: Path) -> dict[str, Path]:
    """PNG files by name ("success", "above_60", "tasks", "budget", "share", "health").

    Figures whose data the run does not have are left out.

    Args:
      run: What to draw.
      folder: Where the files go; made if missing.
    """
    history = task_history(run)
    made = {"success": _success(run, folder)}
    if _has(run, "eval/train_above_60"):
        made["above_60"] = _above_60(run, folder)
    if history is not None:
        made["tasks"] = _task_map(run, history, folder)
        made["budget"] = _budget_map(run, history, folder)
    if _has(run, "sampling/easy_success_share"):
        made["share"] = _easy_share(run, folder)
    if _has(run, "update/entropy"):
        made["health"] = _health(run, folder)
    return made


def _has(run: Run, name: str) -> bool:
    return len(run.series(name)[1]) > 0


def _success(run: Run, folder: Path) -> Path:
    figure, (axes,) = style.new_figure(height=4.0)
    x, y = run.series("train/success")
    if len(x):
        axes.plot(x, 100 * y, color=style.GREY, alpha=0.35, linewidth=1.2)
        axes.plot([], [], color=style.GREY, alpha=0.6, label="collected, sampled")
    for name, label, color, line in _SPLITS:
        x, y = run.series(name)
        if len(x):
            axes.plot(x, 100 * y, line, color=color, marker="o", markersize=4)
            axes.plot([], [], line, color=color, marker="o", label=label)
    _percent(axes)
    style.tidy(
        axes,
        title=f"Success, greedy ({_place(run)})",
        x="trajectories collected",
        y="success (% of tasks)",
    )
    axes.legend(loc="best", ncols=2, fontsize=9, frameon=False)
    return style.save(figure, folder / "success.png")


def _above_60(run: Run, folder: Path) -> Path:
    figure, (axes,) = style.new_figure(height=3.4)
    for name, label, color in (
        ("eval/train_above_60", "training tasks", style.BLUE),
        ("eval/unseen_above_60", "unseen tasks", style.RED),
    ):
        x, y = run.series(name)
        if len(x):
            axes.plot(x, y, color=color, marker="o", markersize=4, label=label)
    axes.set_ylim(bottom=0)
    style.tidy(
        axes,
        title=f"Tasks solved more often than 60% ({_place(run)})",
        x="trajectories collected",
        y="tasks (count)",
    )
    axes.legend(loc="best", fontsize=9, frameon=False)
    return style.save(figure, folder / "above_60.png")


def _task_map(run: Run, history: TaskHistory, folder: Path) -> Path:
    figure, (axes,) = style.new_figure(height=_map_height(history))
    image = axes.imshow(
        100 * history.rate, aspect="auto", cmap="cividis", vmin=0, vmax=100,
        interpolation="nearest", extent=_extent(history),
    )  # fmt: skip
    _name_rows(axes, history)
    style.tidy(
        axes,
        title=f"Success of each training task ({_place(run)})",
        x="round",
        y="task, best at the top",
        grid=False,
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("smoothed success (%)")
    return style.save(figure, folder / "tasks.png")


def _budget_map(run: Run, history: TaskHistory, folder: Path) -> Path:
    import matplotlib

    figure, (axes,) = style.new_figure(height=_map_height(history))
    counts = np.ma.masked_equal(history.trajectories, 0)
    colors = matplotlib.colormaps["viridis_r"].with_extremes(bad="#F4F5F7")
    image = axes.imshow(
        counts, aspect="auto", cmap=colors, vmin=1,
        vmax=max(2, int(history.trajectories.max())),
        interpolation="nearest", extent=_extent(history),
    )  # fmt: skip
    _name_rows(axes, history)
    style.tidy(
        axes,
        title=f"Where the budget went ({_place(run)})",
        x="round",
        y="task, same order as above",
        grid=False,
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("trajectories in the round (count)")
    return style.save(figure, folder / "budget.png")


def _easy_share(run: Run, folder: Path) -> Path:
    figure, (axes,) = style.new_figure(height=3.2)
    x, y = run.series("sampling/easy_success_share", against="round")
    axes.bar(x, 100 * y, width=0.9, color=style.BLUE, alpha=0.25, label="one round")
    smooth = _running_mean(y, max(1, min(8, len(y) // 4)))
    axes.plot(x, 100 * smooth, color=style.BLUE, label="running mean")
    _percent(axes)
    style.tidy(
        axes,
        title=f"Successes that come from easy tasks ({_place(run)})",
        x="round",
        y="share of successes from\ntasks above 80% (%)",
    )
    axes.legend(loc="upper right", fontsize=9, frameon=False)
    return style.save(figure, folder / "share.png")


def _health(run: Run, folder: Path) -> Path:
    panels = (
        ("update/entropy", "Entropy of the policy", "nats per token", 1.0),
        ("update/clip_fraction", "Clipped tokens", "% of tokens", 100.0),
        ("sampling/cache_size", "Tasks in the cache", "tasks (count)", 1.0),
        ("update/count", "Optimizer updates", "updates per round", 1.0),
    )
    figure, all_axes = style.new_figure(height=4.6, columns=2, rows=2)
    for axes, (name, title, unit, factor) in zip(all_axes, panels, strict=True):
        x, y = run.series(name, against="round")
        axes.plot(x, factor * y, color=style.BLUE, linewidth=1.6)
        axes.set_ylim(bottom=0)
        style.tidy(axes, title=title, x="round", y=unit)
    return style.save(figure, folder / "health.png")


def _place(run: Run) -> str:
    return {"sim": "simulator"}.get(run.backend, run.backend)


def _percent(axes: Axes) -> None:
    axes.set_ylim(0, 102)
    axes.set_yticks(range(0, 101, 20))


def _running_mean(values: Any, width: int) -> Any:
    sums = np.cumsum(np.concatenate([[0.0], values]))
    starts = np.maximum(0, np.arange(len(values)) + 1 - width)
    return (sums[1:] - sums[starts]) / (np.arange(len(values)) + 1 - starts)


def _map_height(history: TaskHistory) -> float:
    return float(np.clip(0.055 * len(history.task_ids), 3.2, 7.5))


def _extent(history: TaskHistory) -> tuple[float, float, float, float]:
    first, last = float(history.rounds[0]), float(history.rounds[-1])
    return (first - 0.5, last + 0.5, len(history.task_ids) - 0.5, -0.5)


def _name_rows(axes: Axes, history: TaskHistory) -> None:
    # More names than this overlap at the figure's height.
    if history.names and len(history.names) <= 40:
        axes.set_yticks(range(len(history.names)), history.names, fontsize=7)
