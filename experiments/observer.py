"""What a run tells the outside: the loop calls, displays and writers listen.

The loop knows nothing about terminals, TensorBoard or reports. Each of them is a
`RunObserver`; `ObserverGroup` passes every call on to several.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.config import ExperimentConfig

__all__ = [
    "ObserverGroup",
    "RunObserver",
    "RunResult",
    "SilentObserver",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended; all but the parameters is also in `result.json`.

    Attributes:
      run_dir: The run folder.
      status: "finished" after the last round, "stopped" after SIGTERM or SIGINT.
      round: Rounds done.
      trajectories: Trajectories collected for training, in all.
      updates: Optimizer updates made, in all.
      params_digest: SHA-256 of the parameters; equal digests mean equal bits.
      evaluation: The latest `eval/...` metrics, with their `round`.
      backend: Name of the backend the numbers are from.
      params: Parameters at the end.
      start_params: Parameters at the start, before any round; None if the policy loads
        them itself (`at_end` of `train` is given them all the same).
    """

    run_dir: Path
    status: str
    round: int
    trajectories: int
    updates: int
    params_digest: str
    evaluation: Mapping[str, float]
    backend: str
    params: Any = dataclasses.field(repr=False)
    start_params: Any = dataclasses.field(repr=False)


class RunObserver(Protocol):
    """Listener to one run. Calls come from the training thread, in order."""

    def started(
        self, config: ExperimentConfig, backend_name: str, message: str
    ) -> None:
        """The run begins or goes on; `message` is the run's first line.

        By now `metrics.jsonl` holds exactly the rounds that will not be run again.
        """
        ...

    def round_finished(self, metrics: Mapping[str, float]) -> None:
        """A round is done; `metrics` is its line of `metrics.jsonl`.

        Called for round 0 too, which only holds the evaluation before any update;
        not called again for rounds that were in the folder when the run went on.
        """
        ...

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """An evaluation is done: `round`, `trajectories` and `eval/...`."""
        ...

    def warned(self, text: str) -> None:
        """Something a person should know about, in one line."""
        ...

    def waiting(self, text: str) -> None:
        """What the run is busy with or waits for, in a few words."""
        ...

    def finished(self, result: RunResult) -> None:
        """The run is over; everything is on disk. Not called after an error."""
        ...


class SilentObserver:
    """An observer that does nothing; base for those that want only some calls."""

    def started(
        self, config: ExperimentConfig, backend_name: str, message: str
    ) -> None:
        """See `RunObserver`."""

    def round_finished(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""

    def warned(self, text: str) -> None:
        """See `RunObserver`."""

    def waiting(self, text: str) -> None:
        """See `RunObserver`."""

    def finished(self, result: RunResult) -> None:
        """See `RunObserver`."""


class ObserverGroup:
    """Several observers as one; each call goes to all of them, in order."""

    def __init__(self, observers: Sequence[RunObserver]):
        """A group of `observers`."""
        self._observers = tuple(observers)

    def started(
        self, config: ExperimentConfig, backend_name: str, message: str
    ) -> None:
        """See `RunObserver`."""
        for observer in self._observers:
            observer.started(config, backend_name, message)

    def round_finished(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""
        for observer in self._observers:
            observer.round_finished(metrics)

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """See `RunObserver`."""
        for observer in self._observers:
            observer.evaluated(metrics)

    def warned(self, text: str) -> None:
        """See `RunObserver`."""
        for observer in self._observers:
            observer.warned(text)

    def waiting(self, text: str) -> None:
        """See `RunObserver`."""
        for observer in self._observers:
            observer.waiting(text)

    def finished(self, result: RunResult) -> None:
        """See `RunObserver`."""
        for observer in self._observers:
            observer.finished(result)
