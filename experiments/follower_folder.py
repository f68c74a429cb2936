"""The run folder as all but one process of a run see it: shared, and not theirs."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.config import ExperimentConfig
from experiments.errors import UsageError
from experiments.run_folder import RunFolder
from experiments.team import Team

__all__ = ["FollowerFolder", "open_run_folder"]

_SECONDS_TO_APPEAR = 10.0  # network file systems may be slow to show a new file


def open_run_folder(config: ExperimentConfig, team: Team) -> RunFolder:
    """The run folder, which one process writes and the others read.

    Args:
      config: The run's settings.
      team: The processes of the run.

    Returns:
      An open folder; close it.

    Raises:
      UsageError: See `RunFolder`; or if this process sees another folder than the one
        that writes it.
    """
    if team.alone:
        return RunFolder(config)
    if not team.leads:
        told = team.from_leader("the run folder", b"").decode()
        return FollowerFolder(config, *told.split())
    folder = RunFolder(config)
    told = f"{_digest(folder.path)} {'resuming' if folder.resuming else 'new'}"
    team.from_leader("the run folder", told.encode())
    return folder


class FollowerFolder(RunFolder):
    """A run folder that is read and never written.

    Attributes:
      path: The folder.
      checkpoints: Folder for the checkpoints in it.
      resuming: True if it already held this run.
    """

    def __init__(self, config: ExperimentConfig, digest: str, how: str):
        """The folder `config.run_dir`, made by another process.

        Args:
          config: The run's settings.
          digest: Of the settings file in it.
          how: "resuming" or "new".

        Raises:
          UsageError: If it is not the same folder.
        """
        self.path = Path(config.run_dir).expanduser().absolute()
        self.checkpoints = self.path / "checkpoints"
        self.resuming = how == "resuming"
        self._lock = -1
        deadline = time.monotonic() + _SECONDS_TO_APPEAR
        while _digest(self.path) != digest:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"run folder {self.path} is not the one that process 0 sees; "
                    "choose a --run-dir on a file system that all hosts share."
                )
            time.sleep(0.1)

    def keep_rounds(self, last_round: int) -> None:
        """Left to the process that writes."""

    def log_metrics(self, row: Mapping[str, float]) -> None:
        """Left to the process that writes."""

    def log_tasks(self, row: Mapping[str, Any]) -> None:
        """Left to the process that writes."""

    def log_warning(self, round_number: int, text: str) -> None:
        """Left to the process that writes."""

    def write_task_table(self, table: Mapping[str, Any]) -> None:
        """Left to the process that writes."""

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Left to the process that writes."""

    def write_params(self, params: Mapping[str, Any]) -> None:
        """Left to the process that writes."""


def _digest(folder: Path) -> str:
    """What the settings file in a folder reads, in few letters; "none" without one."""
    try:
        content = (folder / "config.json").read_bytes()
    except OSError:
        return "none"
    return hashlib.sha256(content).hexdigest()[:16]
