"""Named configurations, each with a note on what to expect of it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.config import (
    AlgoConfig,
    CheckpointConfig,
    EnvConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
    PolicyConfig,
    WarmStartConfig,
)

__all__ = ["MINIWOB_PRESETS", "MOBILE_PRESETS", "PRESETS", "Preset"]

_COMPARED = "step_balanced"  # what the comparison showed best; see docs/results.md


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A named configuration and what is known about it.

    Attributes:
      config: The settings.
      note: What it is for and what to expect, in a line; printed when a run starts.
    """

    config: ExperimentConfig
    note: str


_DESKTOP = ExperimentConfig(
    run_dir=Path("runs/osworld_desktop"),
    rounds=28,
    env=EnvConfig(backend="desktop", max_steps=12),
    algo=AlgoConfig(
        method=_COMPARED,
        tasks_per_round=8,
        group_size=8,
        temperature=1.0,
        rows_per_update=16,
        max_augmented_steps=64,
    ),
    optim=OptimizerConfig(learning_rate=1e-3),
    eval=EvalConfig(every=14, episodes_per_task=2),
    policy=PolicyConfig(width=64),
    warm_start=WarmStartConfig(episodes=360, steps=300, batch_size=32),
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quick": Preset(
            config=ExperimentConfig(
                run_dir=Path("runs/osworld_quick"),
                rounds=64,
                algo=AlgoConfig(
                    method=_COMPARED, temperature=1.0, max_augmented_steps=256
                ),
                optim=OptimizerConfig(learning_rate=1e-3),
            ),
            note=(
                f"minutes on 2 cores; uses {_COMPARED}, the best method of the "
                "comparison in docs/results.md"
            ),
        ),
        "paper": Preset(
            config=ExperimentConfig(run_dir=Path("runs/osworld_paper")),
            note=(
                "16 tasks x 16 trajectories and the paper's settings; uses step, the "
                "paper's method, literally"
            ),
        ),
        "desktop": Preset(
            config=_DESKTOP,
            note=(
                "real applications on sandboxed desktops, about an hour on 2 cores; "
                f"uses {_COMPARED}; what --env.backend desktop means without a preset"
            ),
        ),
        "vm": Preset(
            config=dataclasses.replace(
                _DESKTOP,
                run_dir=Path("runs/osworld_vm"),
                env=EnvConfig(
                    backend="vm", max_steps=15, screen_width=1920, screen_height=1080
                ),
                warm_start=WarmStartConfig(steps=0),
            ),
            note=(
                "OSWorld's virtual machines and your own copy of its tasks (needs "
                "--env.tasks); starts from random parameters: not exercised"
            ),
        ),
    }
)
"""Presets of `python -m experiments.osworld`. Without a name it is the first that has
the backend asked for, else the first."""

MINIWOB_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quick": Preset(
            config=ExperimentConfig(
                run_dir=Path("runs/miniwob_quick"),
                rounds=180,
                env=EnvConfig(backend="miniwob", max_steps=10),
                algo=AlgoConfig(
                    method=_COMPARED,
                    tasks_per_round=10,
                    group_size=8,
                    temperature=1.0,
                    rows_per_update=32,
                    max_augmented_steps=64,
                    unsolved_share=0.25,
                ),
                optim=OptimizerConfig(learning_rate=5e-4),
                checkpoint=CheckpointConfig(save_every=4),
                eval=EvalConfig(every=20, episodes_per_task=8),
                warm_start=WarmStartConfig(episodes=800, steps=400),
            ),
            note=(
                f"real pages in a real Chromium, on 2 cores; uses {_COMPARED} with a "
                "quarter of replaced copies going to pages never solved"
            ),
        ),
    }
)
"""Presets of `python -m experiments.miniwob`; the first is the default."""

_PHONE: dict[str, Any] = {"screen_width": 1080, "screen_height": 2400}

MOBILE_PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "quick": Preset(
            config=ExperimentConfig(
                run_dir=Path("runs/androidworld_quick"),
                rounds=70,
                env=EnvConfig(backend="miniwob-mobile", max_steps=10, **_PHONE),
                algo=AlgoConfig(
                    method=_COMPARED,
                    tasks_per_round=10,
                    group_size=8,
                    temperature=1.0,
                    rows_per_update=32,
                    max_augmented_steps=64,
                    unsolved_share=0.25,
                ),
                optim=OptimizerConfig(learning_rate=5e-4),
                checkpoint=CheckpointConfig(save_every=4),
                eval=EvalConfig(every=14, episodes_per_task=4),
                warm_start=WarmStartConfig(episodes=344, steps=400, batch_size=128),
            ),
            note=(
                "MiniWoB++ pages on a phone's touch screen in Chromium, 20 minutes "
                f"on 2 cores; uses {_COMPARED}; episodes are cut after 10 actions, "
                "where AndroidWorld would allow 30"
            ),
        ),
        "paper": Preset(
            config=ExperimentConfig(
                run_dir=Path("runs/androidworld_paper"),
                env=EnvConfig(backend="androidworld", max_steps=30, **_PHONE),
                warm_start=WarmStartConfig(steps=0),
            ),
            note=(
                "AndroidWorld's servers and your emulators (needs --env.url), 16 tasks "
                "x 16 trajectories, the paper's method and settings; starts from "
                "random parameters unless --policy qwen-vl names a model"
            ),
        ),
    }
)
"""Presets of `python -m experiments.androidworld`; see `PRESETS`."""
