"""What a comparison runs: a grid of cells, each a training run with its own folder."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from experiments.config import CheckpointConfig, ExperimentConfig, flat_config
from experiments.errors import UsageError

__all__ = ["Cell", "Plan", "check_folder"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run of a comparison.

    Attributes:
      method: A method's name.
      seed: Of everything random; equal seeds mean equal tasks and an equal start.
      learning_rate: Of the optimizer.
      augment_threshold: Largest success rate of a task whose steps are augmented, or
        None for the setting all cells share.
    """

    method: str
    seed: int
    learning_rate: float
    augment_threshold: float | None = None

    @property
    def folder(self) -> Path:
        """Where its run folder is, relative to the comparison's."""
        rate = f"lr{self.learning_rate:g}"
        if self.augment_threshold is not None:
            rate += f"-low{self.augment_threshold:g}"
        return Path("cells") / self.method / rate / f"seed{self.seed}"

    @property
    def title(self) -> str:
        """The cell in a few words."""
        low = self.augment_threshold
        return (
            f"{self.method} lr {self.learning_rate:g}"
            + (f" s_low {low:g}" if low is not None else "")
            + f" seed {self.seed}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole comparison.

    Attributes:
      base: Settings that all cells share.
      methods: Names, in the order of tables.
      seeds: Seeds 0 to seeds - 1 are run.
      grid_seeds: Seeds at the learning rates that are not the shared one.
      learning_rates: Increasing.
      shared_rate: The learning rate at which all methods are compared, chosen before
        anything is run: given, or else the middle one.
      s_lows: Augmentation thresholds of STEP in Figure 5, at the shared rate.
      workers: Processes.
      report_only: True to run nothing.
    """

    base: ExperimentConfig
    methods: tuple[str, ...]
    seeds: int
    grid_seeds: int
    learning_rates: tuple[float, ...]
    shared_rate: float
    s_lows: tuple[float, ...]
    workers: int
    report_only: bool

    @property
    def run_dir(self) -> Path:
        """The comparison's folder."""
        return self.base.run_dir.expanduser().absolute()

    @property
    def trajectories(self) -> int:
        """Budget of each cell, in trajectories."""
        return self.base.rounds * self.base.algo.trajectories_per_round

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, in the order of running.

        The shared rate comes first, and seed by seed, so that a comparison cut short is
        still a paired one.
        """
        cells = [
            Cell(method=method, seed=seed, learning_rate=self.shared_rate)
            for seed in range(self.seeds)
            for method in self.methods
        ]
        cells += [
            Cell(
                method="step",
                seed=seed,
                learning_rate=self.shared_rate,
                augment_threshold=low,
            )
            for seed in range(self.seeds)
            for low in self.s_lows
            # The shared setting is a plain cell already.
            if low != self.base.algo.augment_threshold and "step" in self.methods
        ]
        cells += [
            Cell(method=method, seed=seed, learning_rate=rate)
            for seed in range(self.grid_seeds)
            for rate in self.learning_rates
            for method in self.methods
            if rate != self.shared_rate
        ]
        return tuple(cells)

    def config(self, cell: Cell) -> ExperimentConfig:
        """The settings of one cell: the shared ones, its own, and few checkpoints."""
        base = self.base
        low = cell.augment_threshold
        low = base.algo.augment_threshold if low is None else low
        algo = dataclasses.replace(base.algo, method=cell.method, augment_threshold=low)
        return dataclasses.replace(
            base,
            run_dir=self.run_dir / cell.folder,
            seed=cell.seed,
            algo=algo,
            optim=dataclasses.replace(base.optim, learning_rate=cell.learning_rate),
            checkpoint=CheckpointConfig(save_every=base.rounds),
        )


def check_folder(plan: Plan) -> None:
    """Writes the shared settings to `compare.json`, or checks that they are there.

    More methods, seeds and rates may be added to a comparison; other settings may not
    change, as their cells could not be compared.

    Raises:
      UsageError: If the folder cannot be written or holds a comparison with other
        settings, naming them.
    """
    path = plan.run_dir / "compare.json"
    shared = _shared_settings(plan)
    try:
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))["settings"]
            differing = [
                f"{name}: {old.get(name)} -> {shared.get(name)}"
                for name in sorted(old.keys() | shared.keys())
                if old.get(name) != shared.get(name)
            ]
            if differing:
                raise UsageError(
                    f"{plan.run_dir} holds a comparison with other settings "
                    f"({'; '.join(differing)}); choose another --run-dir, or repeat "
                    "the old settings."
                )
            return
        plan.run_dir.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".partial")
        part.write_text(json.dumps({"settings": shared}, indent=2) + "\n")
        os.replace(part, path)
    except OSError as error:
        raise UsageError(
            f"{plan.run_dir} cannot be written ({error.strerror}); choose another "
            "--run-dir."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is damaged ({error}); choose another --run-dir."
        ) from error


def _shared_settings(plan: Plan) -> dict[str, Any]:
    skipped = ("run_dir", "seed", "resume", "algo.method", "optim.learning_rate")
    where = ("env.chromium", "mesh.", "warm_start.cache_dir", "checkpoint.")
    return {
        name: value
        for name, value in flat_config(plan.base).items()
        if name not in skipped and not name.startswith(where)
    }
