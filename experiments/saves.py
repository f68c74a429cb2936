"""Checkpoints of a run: opened, restored and written as the settings say."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import ExperimentConfig, flat_config
from experiments.errors import UsageError, as_usage_error
from experiments.run_folder import RunFolder
from stepjax.training.checkpoint import (
    CheckpointError,
    open_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from stepjax.training.state import TrainState

__all__ = ["Saves", "open_saves"]

_REFERENCE = "reference_digest"
_BLOCK, _BLOCKS = 4096, 64  # bytes read at a time, and how often, in a file of weights


class Saves:
    """The open checkpoints of a run; all processes call the same methods."""

    def __init__(self, manager: Any, config: ExperimentConfig):
        """Checkpoints of `manager`; `open_saves` makes one."""
        self._manager = manager
        self._settings = flat_config(config)
        self._config = config
        self._reference = _reference_digest(config)
        if self._reference is not None:
            self._settings[_REFERENCE] = self._reference
        self._rounds = config.rounds
        self._every = config.checkpoint.save_every

    def restore(
        self, like: TrainState, warn: Callable[[int, str], None]
    ) -> TrainState | None:
        """The newest whole state, None if there is none.

        Args:
          like: A state of the shapes and places to expect.
          warn: Told the round gone on from, and which newer checkpoint is damaged.

        Raises:
          UsageError: If there are checkpoints, but none that fits or is whole, or if
            the policy that the run is kept near is another one by now.
        """
        try:
            with as_usage_error(ValueError):
                found = restore_checkpoint(self._manager, like)
        except CheckpointError as error:
            raise UsageError(str(error)) from error
        if found is None:
            return None
        self._check_reference(found.metadata.get(_REFERENCE))
        for number, reason in found.skipped:
            warn(
                found.step,
                f"checkpoint {number} is damaged and was set aside"
                f" ({reason}); going on from {found.step}",
            )
        return found.state

    def _check_reference(self, saved: str | None) -> None:
        if saved is not None and saved != self._reference:
            raise UsageError(
                f"policy.checkpoint {self._config.policy.checkpoint} holds other "
                "weights than when this run began, and algo.kl_coef keeps the policy "
                "near those; put them back, or start anew with another --run-dir."
            )

    def after_round(self, state: TrainState) -> None:
        """Save `state` if it is due."""
        number = int(state.round)
        if number == self._rounds or number % self._every == 0:
            self.save(state)

    def save(self, state: TrainState) -> None:
        """Save `state`, in the background."""
        save_checkpoint(self._manager, state, self._settings)

    def wait(self) -> None:
        """Wait until all is written."""
        self._manager.wait_until_finished()


@contextlib.contextmanager
def open_saves(folder: RunFolder, config: ExperimentConfig) -> Iterator[Saves]:
    """A block with the checkpoints of a run folder; its end waits for the last save.

    Raises:
      UsageError: If the folder cannot be written.
    """
    keep = config.checkpoint.max_to_keep
    try:
        manager = open_checkpoints(folder.checkpoints, max_to_keep=keep)
    except OSError as error:
        raise UsageError(" ".join(str(error).split())) from error
    try:
        yield Saves(manager, config)
    finally:
        manager.close()


def _reference_digest(config: ExperimentConfig) -> str | None:
    """What tells the weights of `policy.checkpoint` apart, None if they are read once.

    With a KL term they are read at every start. Files can be large: of each its size
    and blocks at equal distances are read.
    """
    if config.policy.checkpoint is None or not config.algo.kl_coef:
        return None
    digest = hashlib.sha256()
    folder = Path(config.policy.checkpoint).expanduser()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size};".encode())
        with open(path, "rb") as file:
            for at in np.linspace(0, max(0, size - _BLOCK), _BLOCKS).astype(int):
                file.seek(int(at))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()
