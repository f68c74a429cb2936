"""What a run writes down and tells: lines of metrics, warnings, how it ended."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.config import ExperimentConfig
from experiments.errors import RunError
from experiments.evaluation import Evaluation
from experiments.observer import RunObserver, RunResult
from experiments.placement import tree_digest
from experiments.run_folder import RunFolder
from experiments.run_notes import CountingBackend, per_task
from experiments.team import Team
from experiments.watch import warnings_for
from stepjax.batching import CompileCounter
from stepjax.rollout.backend import Backend
from stepjax.training.state import TrainState

__all__ = ["Ledger"]


class Ledger:
    """The books of one run; every process keeps them, one of them on disk."""

    def __init__(
        self,
        config: ExperimentConfig,
        folder: RunFolder,
        observer: RunObserver,
        backend: Backend,
        team: Team,
    ):
        """Books in `folder`, read out to `observer`."""
        self._config = config
        self._folder = folder
        self._observer = observer
        self._backend = backend
        self._team = team
        self._compiled = CompileCounter()
        self._warned: set[str] = set()

    def warn(self, number: int, text: str) -> None:
        """Keep a warning of a round; a person is told once."""
        self._folder.log_warning(number, text)
        if text not in self._warned:
            self._warned.add(text)
            self._observer.warned(text)

    def evaluation(self, number: int, found: Evaluation) -> dict[str, float]:
        """Metrics of an evaluation, whose line of `tasks.jsonl` is written."""
        metrics = self._head(number) | found.metrics
        self._folder.log_tasks({"round": number, "eval": per_task(found)})
        self._observer.evaluated(metrics)
        return metrics

    def start(self, metrics: Mapping[str, float]) -> None:
        """Write the line of round 0."""
        self._folder.log_metrics(metrics)
        self._observer.round_finished(metrics)

    def round(
        self, number: int, counts: Mapping[str, list], metrics: Mapping[str, float]
    ) -> None:
        """Write the lines of a round, and what in them is a worry.

        Args:
          number: Of the round.
          counts: From `watch.task_counts`.
          metrics: Of all parts of the round.
        """
        line = self._head(number) | dict(metrics)
        if isinstance(self._backend, CountingBackend):
            line |= self._team.total("environments", self._backend.metrics())
        line["compile/count"] = self._compiled.count
        self._folder.log_tasks({"round": number, **counts})
        for text in warnings_for(line):
            self.warn(number, text)
        self._folder.log_metrics(line)
        self._observer.round_finished(line)

    def not_finite(self, number: int) -> RunError:
        """The error of a round whose loss is not a finite number."""
        return RunError(
            f"round {number}: the loss is not a finite number; the checkpoints in "
            f"{self._folder.checkpoints} are from before it. Start a new --run-dir "
            "with a smaller --optim.learning-rate."
        )

    def result(self, state: TrainState, params: Any, start_params: Any) -> RunResult:
        """How the run ended, also written to `result.json`.

        Args:
          state: After the last round.
          params: Its parameters, where this process can use them.
          start_params: Parameters before the first round.

        Returns:
          The result.
        """
        number = int(state.round)
        result = RunResult(
            run_dir=self._folder.path,
            status="finished" if number == self._config.rounds else "stopped",
            round=number,
            trajectories=self._collected(number),
            updates=int(state.step),
            params_digest=tree_digest(state.params),
            evaluation=self._folder.last_evaluation(),
            backend=self._backend.name,
            params=params,
            start_params=start_params,
        )
        self._folder.write_result(
            {
                field.name: getattr(result, field.name)
                for field in dataclasses.fields(result)
                if field.name not in ("params", "start_params")
            }
        )
        return result

    def _head(self, number: int) -> dict[str, float]:
        return {"round": number, "trajectories": self._collected(number)}

    def _collected(self, number: int) -> int:
        """Trajectories collected for training up to a round."""
        return number * self._config.algo.trajectories_per_round
