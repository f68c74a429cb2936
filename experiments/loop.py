"""The training loop: one function, read from top to bottom.

    draw tasks -> resample -> collect -> record -> advantages -> step groups -> updates

Everything random is a function of the run's key and the round, so a run that was killed
goes on from its last checkpoint to the same parameters, bit for bit.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from experiments.config import ExperimentConfig, flat_config
from experiments.errors import RunError, UsageError, as_usage_error
from experiments.evaluation import evaluate
from experiments.learner import (
    Learner,
    acting_params,
    check_mesh,
    local_key,
    make_learner,
    mean_metrics,
    params_digest,
)
from experiments.methods import METHODS
from experiments.observer import RunObserver, RunResult, SilentObserver
from experiments.round import assign_credit, plan_round, round_rows
from experiments.run_folder import RunFolder
from experiments.run_notes import (
    CountingBackend,
    environment_failures,
    first_line,
    per_task,
    task_table,
)
from experiments.stopping import StopWish, stop_on_signals
from experiments.watch import round_metrics, task_counts, warnings_for
from stepjax.batching import CompileCounter
from stepjax.models.policy import Policy
from stepjax.rollout.backend import Backend
from stepjax.training.checkpoint import (
    CheckpointError,
    open_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from stepjax.training.state import TrainState

__all__ = ["train"]

_EVALUATION = 1_000_003  # what the run's key is folded with; no round has this number


def train(
    config: ExperimentConfig,
    *,
    about: str = "",
    backend: Backend | None = None,
    policy: Policy | None = None,
    start_params: Any = None,
    observer: RunObserver | None = None,
    at_end: Callable[[Backend, RunResult], None] | None = None,
) -> RunResult:
    """The result of a run, new or taken up where its folder left off.

    Args:
      config: All settings.
      about: Where the settings come from, for the run's first line.
      backend: Where to act; the one `config.env` names by default. A backend given is
        left open, so several runs can share its compilations.
      policy: What acts and learns; the one `config.policy` describes by default. A
        backend given must act with the same policy.
      start_params: Parameters of a new run; a warm start by default.
      observer: Who listens; nobody by default.
      at_end: Called after the last round, while the backend is still open.

    Returns:
      The result; `status` is "stopped" if a signal ended the run early.

    Raises:
      UsageError: If the run cannot start; one line says why.
      RunError: If the run cannot go on; its last checkpoint is whole.
    """
    observer = SilentObserver() if observer is None else observer
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        folder = stack.enter_context(contextlib.closing(RunFolder(config)))
        name = config.env.backend if backend is None else backend.name
        message = first_line(config, name, about, folder.path, folder.resuming)
        observer.started(config, name, message)
        if policy is None:
            from experiments.backends import make_policy

            policy = make_policy(config.policy, config.env.backend)
        check_mesh(config)
        if backend is None:
            from experiments.backends import open_backend

            observer.waiting("opening the environments")
            backend = open_backend(config, policy, report=observer.waiting)
            stack.callback(backend.close)
        run = _Run(config, folder, backend, policy, observer, stop)
        result = run.go(run.start_params(start_params))
        if at_end is not None and result.status == "finished":
            observer.waiting("report")
            with environment_failures():
                at_end(backend, result)
        observer.finished(result)
        return result


@dataclasses.dataclass
class _Run:
    """What all phases of a run share."""

    config: ExperimentConfig
    folder: RunFolder
    backend: Backend
    policy: Policy
    observer: RunObserver
    stop: StopWish

    def __post_init__(self):
        self.compiled = CompileCounter()
        self.warned: set[str] = set()
        self.settings = flat_config(self.config)

    # --- Start ------------------------------------------------------------------------

    def start_params(self, given: Any) -> Any:
        """Parameters before round 1: the folder's, else given ones, else a warm start.

        They are kept in the folder, so that a run goes on from the same ones whatever
        happens to the cache of warm starts.
        """
        kept = self.folder.read_params()
        if kept is not None:
            return kept
        if given is None:
            from experiments.warm_start import warm_started_params

            self.observer.waiting("warm start")
            with environment_failures():
                given = warm_started_params(
                    self.config, self.backend, self.policy, report=self.observer.waiting
                )
        self.folder.write_params(jax.device_get(given))
        return self.folder.read_params()

    def go(self, start_params: Any) -> RunResult:
        """Restore or begin, then round after round to the end."""
        config, tasks = self.config, self.backend.tasks
        self.folder.write_task_table(task_table(self.backend))
        learner = make_learner(
            config,
            self.policy,
            start_params,
            num_tasks=len(tasks.names),
            train_ids=tasks.train_ids,
        )
        with self._checkpoints() as manager:
            state = self._restore(manager, learner)
            self.stop.at_once = False
            while int(state.round) < config.rounds and not self.stop.asked:
                state = self._round(learner, state)
                self._save(manager, state)
            if self.stop.asked:
                save_checkpoint(manager, state, self.settings)
            self.observer.waiting("last checkpoint")
            manager.wait_until_finished()
            self.stop.at_once = True
        return self._result(state, start_params)

    def _restore(self, manager: Any, learner: Learner) -> TrainState:
        try:
            with as_usage_error(ValueError):
                found = restore_checkpoint(manager, learner.state)
        except CheckpointError as error:
            raise UsageError(str(error)) from error
        if found is not None:
            for number, reason in found.skipped:
                self._warn(
                    found.step,
                    f"checkpoint {number} is damaged and was set aside"
                    f" ({reason}); going on from {found.step}",
                )
            self.folder.keep_rounds(found.step)
            return found.state
        self.folder.keep_rounds(-1)
        metrics = self._evaluate(learner.state)
        self.folder.log_metrics(metrics)
        self.observer.round_finished(metrics)
        save_checkpoint(manager, learner.state, self.settings)
        return learner.state

    # --- One round --------------------------------------------------------------------

    def _round(self, learner: Learner, state: TrainState) -> TrainState:
        algo, began = self.config.algo, time.perf_counter()
        number = int(state.round) + 1

        # Draw tasks, and give copies of mastered ones to tasks in the cache.
        plan = plan_round(state, algo)

        # Collect.
        self.observer.waiting(f"round {number}: {len(plan.task_ids)} episodes")
        params = acting_params(state)
        with environment_failures():
            trajectories = jax.device_get(
                self.backend.collect(
                    params,
                    plan.task_ids,
                    plan.seeds,
                    plan.act_key,
                    temperature=algo.temperature,
                )
            )
        collected = time.perf_counter()
        if self.stop.asked:
            return state  # abandoned: the state is still that of the round before

        # Update the record; advantages; step-level groups, sampled before any update.
        credit = assign_credit(state.success_rate, trajectories, algo)
        seed = (self.config.seed, number)
        rows, augmented = round_rows(
            self.policy.sample, params, trajectories, credit, plan, algo, seed=seed
        )
        metrics = round_metrics(
            trajectories, plan, credit, train_ids=self.backend.tasks.train_ids
        )

        # Updates. The first donates `state`, whose record and sampler are replaced.
        batches = METHODS[algo.method].pack(
            rows,
            seed=seed,
            rows_per_update=algo.rows_per_update,
            micro_batch_size=learner.micro_batch_size,
            max_rows=self._most_rows(),
        )
        counts = task_counts(trajectories, credit.record.rate)
        state = dataclasses.replace(
            state,
            round=state.round + 1,
            success_rate=jax.device_put(
                credit.record, learner.state_sharding.success_rate
            ),
            sampler=jax.device_put(plan.sampler, learner.state_sharding.sampler),
        )
        updates = []
        for batch in batches:
            state, update = learner.train_step(state, batch)
            updates.append(update)
        learned = mean_metrics(updates)
        if learned.pop("update/nonfinite", 0.0) > 0.0:
            raise self._not_finite(number)
        updated = time.perf_counter()

        # Log, evaluate.
        evaluation = self._evaluate(state) if self._due(number) else {}
        ended = time.perf_counter()
        head = {"round": number, "trajectories": self._collected(number)}
        metrics = head | evaluation | metrics | augmented | learned
        if isinstance(self.backend, CountingBackend):
            metrics |= self.backend.metrics()
        metrics |= {
            "compile/count": self.compiled.count,
            "time/collect": collected - began,
            "time/update": updated - collected,
            "time/eval": ended - updated,
            "time/round": ended - began,
        }
        self.folder.log_tasks({"round": number, **counts})
        for text in warnings_for(metrics):
            self._warn(number, text)
        self.folder.log_metrics(metrics)
        self.observer.round_finished(metrics)
        return state

    def _collected(self, number: int) -> int:
        """Trajectories collected for training up to a round."""
        return number * self.config.algo.trajectories_per_round

    def _most_rows(self) -> int:
        """Rows of a round in which every step of every trajectory is kept."""
        algo = self.config.algo
        return algo.trajectories_per_round * self.backend.max_steps

    def _not_finite(self, number: int) -> RunError:
        return RunError(
            f"round {number}: the loss is not a finite number; the checkpoints in "
            f"{self.folder.checkpoints} are from before it. Start a new --run-dir with "
            "a smaller --optim.learning-rate."
        )

    # --- Evaluation -------------------------------------------------------------------

    def _due(self, number: int) -> bool:
        return number % self.config.eval.every == 0 or number == self.config.rounds

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        """Metrics of a greedy evaluation; its line of `tasks.jsonl` is written too."""
        number = int(state.round)
        self.observer.waiting(f"round {number}: evaluating")
        with environment_failures():
            found = evaluate(
                self.backend,
                acting_params(state),
                local_key(jax.random.fold_in(state.key, _EVALUATION)),
                episodes_per_task=self.config.eval.episodes_per_task,
            )
        metrics = {
            "round": number,
            "trajectories": self._collected(number),
            **found.metrics,
        }
        self.folder.log_tasks({"round": number, "eval": per_task(found)})
        self.observer.evaluated(metrics)
        return metrics

    # --- Checkpoints and the end ------------------------------------------------------

    @contextlib.contextmanager
    def _checkpoints(self) -> Iterator[Any]:
        try:
            manager = open_checkpoints(
                self.folder.checkpoints, max_to_keep=self.config.checkpoint.max_to_keep
            )
        except OSError as error:
            raise UsageError(" ".join(str(error).split())) from error
        try:
            yield manager
        finally:
            manager.close()  # also waits for the last save

    def _save(self, manager: Any, state: TrainState) -> None:
        number = int(state.round)
        last = number == self.config.rounds
        if last or number % self.config.checkpoint.save_every == 0:
            save_checkpoint(manager, state, self.settings)

    def _warn(self, number: int, text: str) -> None:
        self.folder.log_warning(number, text)
        if text not in self.warned:
            self.warned.add(text)
            self.observer.warned(text)

    def _result(self, state: TrainState, start_params: Any) -> RunResult:
        number = int(state.round)
        line = self.folder.last_evaluation()
        result = RunResult(
            run_dir=self.folder.path,
            status="finished" if number == self.config.rounds else "stopped",
            round=number,
            trajectories=self._collected(number),
            updates=int(state.step),
            params_digest=params_digest(state.params),
            evaluation=line,
            backend=self.backend.name,
            params=state.params,
            start_params=start_params,
        )
        self.folder.write_result(
            {
                field.name: getattr(result, field.name)
                for field in dataclasses.fields(result)
                if field.name not in ("params", "start_params")
            }
        )
        return result
