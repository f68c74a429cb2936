"""The main job: `python -m experiments.osworld [preset] [--overrides]`."""

from experiments.cli import main
from experiments.config import ExperimentConfig
from experiments.presets import PRESETS

__all__ = ["run"]


def run(about: str, config: ExperimentConfig) -> None:
    """One run with everything around it: progress, TensorBoard, report."""
    from experiments.session import run_with_report

    run_with_report(about, config)


if __name__ == "__main__":
    main("python -m experiments.osworld", PRESETS, run)
