"""Learning on web pages: `python -m experiments.miniwob [preset] [--overrides]`."""

from experiments.cli import main
from experiments.osworld import run
from experiments.presets import MINIWOB_PRESETS

__all__ = []


if __name__ == "__main__":
    main("python -m experiments.miniwob", MINIWOB_PRESETS, run)
