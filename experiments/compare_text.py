"""A table as Markdown, and numbers as the text in it."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments.compare_stats import CellResult, Interval, mean_interval

__all__ = [
    "AREA_TEXT",
    "Table",
    "interval_text",
    "mean_text",
    "paired_text",
    "plain_text",
]


AREA_TEXT = "the mean greedy success on training tasks over the whole budget"
"""What the area under the curve is of, for captions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table to be written or drawn.

    Attributes:
      name: File name without an ending.
      title: Above it, in bold.
      caption: What must be known to read it.
      header: Names of the columns.
      rows: Cells of each row.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown, caption below."""
        lines = [f"**{self.title}**", "", _line(self.header)]
        lines.append(_line(["---"] + ["---:"] * (len(self.header) - 1)))
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, "", self.caption, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _values(cells: Sequence[CellResult], name: str) -> list[float]:
    return [r.numbers[name] for r in cells if name in r.numbers]


def mean_text(cells: Sequence[CellResult], name: str) -> str:
    """Mean over seeds in percent, with half of its 95% interval."""
    values = _values(cells, name)
    if not values:
        return "–"
    found = mean_interval(values)
    half = "" if math.isnan(found.low) else f" ± {100 * (found.high - found.mean):.1f}"
    return f"{100 * found.mean:.1f}{half}"


def plain_text(cells: Sequence[CellResult], name: str, factor: float) -> str:
    """Mean over seeds, times `factor`."""
    values = _values(cells, name)
    return f"{factor * np.mean(values):.1f}" if values else "–"


def interval_text(interval: Interval, factor: float) -> str:
    """A difference with its interval, such as "+1.2 [-0.3, +2.7]"."""
    mean = f"{factor * interval.mean:+.1f}"
    if math.isnan(interval.low):
        return f"{mean} (n=1)"
    return f"{mean} [{factor * interval.low:+.1f}, {factor * interval.high:+.1f}]"


def paired_text(found: Interval) -> str:
    """Difference in percent points, bold if clear of 0, and seeds that are ahead."""
    text = interval_text(found, 100.0)
    if found.is_clear:
        text = f"**{text}**"
    ahead = sum(value > 0 for value in found.values)
    return f"{text}, {ahead} of {found.count}"
