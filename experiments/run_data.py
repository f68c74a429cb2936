"""A finished or running experiment read back from its run folder."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Run", "area_under_curve", "read_json_lines", "read_run", "value_at"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a run folder holds, apart from checkpoints.

    Attributes:
      folder: Where it was read from.
      config: Content of `config.json`.
      metrics: Rows of `metrics.jsonl` in the order of their rounds, one a round.
      collected: Rows of `tasks.jsonl` that tell which tasks were run in a round.
      evaluated: Rows of `tasks.jsonl` that tell the outcome per task of an evaluation.
      task_info: Content of `tasks.json` (names, domains, split), {} if there is none.
      warnings: Distinct warnings, with the round of the first, and how often.
    """

    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    collected: list[dict[str, Any]]
    evaluated: list[dict[str, Any]]
    task_info: dict[str, Any]
    warnings: list[dict[str, Any]]

    @property
    def settings(self) -> dict[str, Any]:
        """The config with one dotted name a setting, however the file nests it."""
        return _flatten(self.config)

    def setting(self, name: str, default: Any) -> Any:
        """Value of one setting by its dotted name."""
        return self.settings.get(name, default)

    @property
    def backend(self) -> str:
        """Name of the environment backend, "unknown" if the config does not say."""
        return str(self.setting("env.backend", "unknown"))

    def series(self, name: str, against: str = "trajectories") -> tuple[Any, Any]:
        """Values of `against` and of `name`, float64, where both were logged."""
        rows = [row for row in self.metrics if _number(row.get(name)) is not None]
        rows = [row for row in rows if _number(row.get(against)) is not None]
        x = np.array([row[against] for row in rows], dtype=float)
        return x, np.array([row[name] for row in rows], dtype=float)

    def last(self, name: str) -> float | None:
        """Latest value of a metric, None if it was never logged."""
        values = self.series(name)[1]
        return float(values[-1]) if len(values) else None

    def total(self, name: str) -> float:
        """Sum of a metric over all rounds, 0.0 if it was never logged."""
        return float(np.sum(self.series(name)[1]))

    def first(self, name: str) -> float | None:
        """Earliest value of a metric, None if it was never logged."""
        values = self.series(name)[1]
        return float(values[0]) if len(values) else None


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def read_run(folder: Path | str) -> Run:
    """Content of a run folder.

    Args:
      folder: Holds at least `config.json` and `metrics.jsonl`.

    Returns:
      The run; rows that a resumed run wrote again count once, the later one wins.

    Raises:
      ValueError: If the folder is none, or a line in the middle of a file is no JSON.
    """
    folder = Path(folder)
    if (
        not (folder / "config.json").is_file()
        or not (folder / "metrics.jsonl").is_file()
    ):
        raise ValueError(
            f"{folder} is not a run folder: it must hold config.json and "
            "metrics.jsonl. Give the folder that --run-dir named."
        )
    rows = read_json_lines(folder / "tasks.jsonl")
    return Run(
        folder=folder,
        config=json.loads((folder / "config.json").read_text()),
        metrics=_one_per_round(read_json_lines(folder / "metrics.jsonl")),
        collected=_one_per_round(row for row in rows if "trajectories" in row),
        evaluated=_one_per_round(row for row in rows if "trajectories" not in row),
        task_info=_read_json(folder / "tasks.json"),
        warnings=_distinct(read_json_lines(folder / "warnings.jsonl")),
    )


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file with one JSON object a line; [] if there is no such file.

    A last line without a line break is what a killed writer leaves: it is not an error.

    Raises:
      ValueError: If another line is no JSON object, naming the line.
    """
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}, line {number}: no JSON object ({error})."
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: must be a JSON object.")
        rows.append(row)
    return rows


def area_under_curve(x: Sequence[float], y: Sequence[float]) -> float:
    """Mean height of the curve through the points, by trapezoids.

    Args:
      x: [P] float. Increasing, at least two different values.
      y: [P] float. Heights.

    Returns:
      The area divided by the width, in units of `y`.

    Example:
      >>> area_under_curve([0, 10, 20], [0.0, 1.0, 1.0])
      0.75
    """
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def value_at(x: Sequence[float], y: Sequence[float], where: float) -> float:
    """Height of the curve at `where`, linear between the points beside it.

    Example:
      >>> value_at([0, 10], [0.0, 1.0], 2.5)
      0.25
    """
    return float(np.interp(where, x, y))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _one_per_round(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    by_round = {int(row["round"]): row for row in rows if "round" in row}
    return [by_round[key] for key in sorted(by_round)]


def _distinct(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        text = str(row.get("message", row))
        entry = seen.setdefault(
            text, {"message": text, "round": row.get("round"), "times": 0}
        )
        entry["times"] += 1
    return list(seen.values())
