"""Timing and tables."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

__all__ = ["best_time", "print_table", "show_bytes", "show_rate", "show_time"]


def best_time(
    function: Callable[[], Any], *, repeats: int = 30, at_most_s: float = 20.0
) -> float:
    """Seconds of the fastest call, results ready; a call before warms up and compiles.

    Args:
      function: What to time; jax results are waited for.
      repeats: Most timed calls.
      at_most_s: No further call is started after this many seconds.

    Returns:
      Seconds.
    """
    jax.block_until_ready(function())
    began, best = time.perf_counter(), float("inf")
    for _ in range(repeats):
        before = time.perf_counter()
        jax.block_until_ready(function())
        after = time.perf_counter()
        best = min(best, after - before)
        if after - began > at_most_s:
            break
    return best


def show_time(seconds: float) -> str:
    """A time with a unit that suits it."""
    if seconds >= 1.0:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms"


def show_bytes(count: float) -> str:
    """A size in MB or GB of 10^6 or 10^9 bytes."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def show_rate(per_second: float) -> str:
    """A rate, grouped by thousands."""
    return f"{per_second:,.0f} / s"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]):
    """Print a Markdown table, aligned for the eye."""
    widths = [
        max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))
    ]
    print(f"\n### {title}\n")
    rule = ["-" * width for width in widths]
    for row in [columns, rule, *rows]:
        cells = (
            str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)
        )
        print("| " + " | ".join(cells) + " |")
