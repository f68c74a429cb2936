"""Learning on phones: `python -m experiments.androidworld [preset] [--overrides]`."""

from experiments.cli import main
from experiments.osworld import run
from experiments.presets import MOBILE_PRESETS

__all__ = []


if __name__ == "__main__":
    main("python -m experiments.androidworld", MOBILE_PRESETS, run)
