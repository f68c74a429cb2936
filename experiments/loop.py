"""The training loop: one function, read from top to bottom.

    draw tasks -> resample -> collect -> record -> advantages -> step groups -> updates

Everything random is a function of the run's key and the round, so a run that was killed
goes on from its last checkpoint to the same parameters, bit for bit.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from experiments.config import ExperimentConfig
from experiments.evaluation import evaluate
from experiments.follower_folder import open_run_folder
from experiments.learner import Learner, check_mesh, make_learner, mean_metrics
from experiments.ledger import Ledger
from experiments.methods import METHODS, outcomes_of
from experiments.observer import RunObserver, RunResult, SilentObserver
from experiments.placement import (
    acting_params,
    local_key,
    place,
    small_state,
)
from experiments.round import assign_credit, plan_round, round_rows
from experiments.run_folder import RunFolder
from experiments.run_notes import (
    environment_failures,
    first_line,
    task_table,
)
from experiments.saves import Saves, open_saves
from experiments.stopping import StopWish, stop_on_signals
from experiments.team import Team
from experiments.watch import round_metrics, sampler_metrics, task_counts
from stepjax.launch.peers import Peers
from stepjax.models.policy import Policy
from stepjax.rollout.backend import Backend
from stepjax.training.state import TrainState
from stepjax.types import StepBatch

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
    peers: Peers | None = None,
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
      at_end: Called after the last round, while the backend is still open, on the
        process that writes the run folder.
      peers: The processes of the run, all of which call this function with the same
        settings (`stepjax.launch.distributed.launched`); this one alone by default.

    Returns:
      The result, the same on every process; `status` is "stopped" if a signal ended
      the run early.

    Raises:
      UsageError: If the run cannot start; one line says why.
      RunError: If the run cannot go on; its last checkpoint is whole.
    """
    observer = SilentObserver() if observer is None else observer
    team = Team(peers, say=observer.waiting)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals())
        folder = stack.enter_context(contextlib.closing(open_run_folder(config, team)))
        name = config.env.backend if backend is None else backend.name
        message = first_line(config, name, about, folder.path, folder.resuming)
        observer.started(config, name, message)
        if policy is None:
            from experiments.backends import make_policy

            policy = make_policy(config.policy, config.env.backend, config.env)
        check_mesh(config, policy)
        if backend is None:
            from experiments.backends import open_backend

            observer.waiting("opening the environments")
            backend = open_backend(config, policy, report=observer.waiting)
            stack.callback(backend.close)
        run = _Run(config, folder, backend, policy, observer, stop, team)
        result = run.go(run.start_params(start_params))
        if at_end is not None and result.status == "finished" and team.leads:
            observer.waiting("report")
            with environment_failures():
                at_end(backend, run.with_start(result))
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
    team: Team

    def __post_init__(self):
        self.stopping = False
        self.ledger = Ledger(
            self.config, self.folder, self.observer, self.backend, self.team
        )

    # --- Start ------------------------------------------------------------------------

    def start_params(self, given: Any) -> Any:
        """Parameters before round 1: the folder's, else given ones, else a warm start.

        They are kept in the folder, so that a run goes on from the same ones whatever
        happens to the cache of warm starts. A trained policy's are where they were:
        None says that it loads them itself, each device its part.
        """
        if given is None and self.policy.load and not self.config.warm_start.steps:
            return None
        kept = self.folder.read_params() if self.team.leads else None
        if self.team.leads and kept is None:
            if given is None:
                given = self._warm_start()
            self.folder.write_params(jax.device_get(given))
        self.team.wait("the policy to start from")
        return self.folder.read_params() if kept is None else kept

    def _warm_start(self) -> Any:
        from experiments.warm_start import warm_started_params

        self.observer.waiting("warm start")
        with environment_failures():
            return warm_started_params(
                self.config, self.backend, self.policy, report=self.observer.waiting
            )

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
        self.team.wait("the checkpoints")  # devices meet next, and wait for less long
        with open_saves(self.folder, config) as saves:
            state = self._begin(saves, learner)
            self.stop.at_once = False
            while self._goes_on(state):
                state = self._round(learner, state)
                saves.after_round(state)
            if self.stopping:
                saves.save(state)
            self.observer.waiting("last checkpoint")
            saves.wait()
            self.stop.at_once = True
        params = state.params
        if not self.team.alone:
            params = acting_params(state, self.policy)
        return self.ledger.result(state, params, start_params)

    def with_start(self, result: RunResult) -> RunResult:
        """The result with the parameters of the start, for acting, if it has none."""
        again = getattr(self.policy, "load_to_act", None)
        if result.start_params is not None or again is None:
            return result
        mesh = check_mesh(self.config, self.policy)
        return dataclasses.replace(result, start_params=again(mesh))

    def _begin(self, saves: Saves, learner: Learner) -> TrainState:
        state = saves.restore(learner.like, self.ledger.warn)
        if state is not None:
            self.folder.keep_rounds(int(state.round))
            return state
        self.folder.keep_rounds(-1)
        self.observer.waiting("the state to start from")
        state = learner.begin()
        self.ledger.start(self._evaluate(state))
        saves.save(state)
        return state

    def _goes_on(self, state: TrainState) -> bool:
        """Whether there is another round; all processes must agree on everything."""
        small = small_state(state)
        self.team.assert_same(
            f"after round {int(small.round)}",
            {
                "round": small.round,
                "success-rate record": small.success_rate,
                "task sampler": small.sampler,
                "key": small.key,
            },
        )
        self._agree_to_stop()
        return int(small.round) < self.config.rounds and not self.stopping

    def _agree_to_stop(self) -> None:
        self.stopping |= self.team.any("whether to stop", self.stop.asked)

    # --- One round --------------------------------------------------------------------

    def _round(self, learner: Learner, state: TrainState) -> TrainState:
        algo, began = self.config.algo, time.perf_counter()
        number = int(state.round) + 1

        # Draw tasks, and give copies of mastered ones to tasks in the cache.
        before = small_state(state)
        plan = plan_round(before, algo)

        # Collect: each process its share of the slots.
        self.observer.waiting(f"round {number}: {len(plan.task_ids)} episodes")
        params = acting_params(state, self.policy)
        with environment_failures():
            trajectories = self.team.collect(
                self.backend,
                params,
                plan.task_ids,
                plan.seeds,
                plan.act_key,
                temperature=algo.temperature,
            )
        outcomes = self.team.gather("outcomes", outcomes_of(trajectories))
        collected = time.perf_counter()
        self._agree_to_stop()
        if self.stopping:
            return state  # abandoned: the state is still that of the round before

        # Update the record; advantages; step-level groups, sampled before any update.
        credit = assign_credit(before.success_rate, outcomes, algo)
        seed = (self.config.seed, number)
        rows, own_rows, augmented = round_rows(
            self.policy,
            params,
            trajectories,
            credit,
            plan,
            algo,
            seed=seed,
            team=self.team,
        )
        del params
        self._rest()
        metrics = sampler_metrics(rows) | round_metrics(
            outcomes, plan, credit, train_ids=self.backend.tasks.train_ids
        )

        # Updates. The first donates `state`, whose record and sampler are replaced.
        batches = self._batches(rows, own_rows, learner.micro_batch_size, number)
        counts = task_counts(outcomes, credit.record.rate)
        state = dataclasses.replace(
            state,
            round=state.round + 1,
            success_rate=place(credit.record, learner.state_sharding.success_rate),
            sampler=place(plan.sampler, learner.state_sharding.sampler),
        )
        updates = []
        for batch in batches:
            batch = self.team.on_devices(batch, own_rows, learner.batch_sharding)
            state, update = learner.train_step(state, batch)
            updates.append(update)
        learned = mean_metrics(updates)
        if learned.pop("update/nonfinite", 0.0) > 0.0:
            raise self.ledger.not_finite(number)
        updated = time.perf_counter()

        # Log, evaluate.
        evaluation = self._evaluate(state) if self._due(number) else {}
        ended = time.perf_counter()
        metrics = evaluation | metrics | augmented | learned
        metrics |= {
            "time/collect": collected - began,
            "time/update": updated - collected,
            "time/eval": ended - updated,
            "time/round": ended - began,
        }
        self.ledger.round(number, counts, metrics)
        return state

    def _batches(
        self, rows: StepBatch, own: StepBatch, micro: int, number: int
    ) -> list:
        """One batch for each update."""
        algo, pack = self.config.algo, METHODS[self.config.algo.method].pack
        seed = (self.config.seed, number)
        grouped = getattr(self.policy, "pack", None)
        if grouped and pack is METHODS["step"].pack:
            ids = self.team.prompt_ids(f"prompts of round {number}", rows, own)
            return grouped(rows, algo, prompt_id=ids, seed=seed, micro_batch_size=micro)
        return pack(
            rows,
            seed=seed,
            rows_per_update=algo.rows_per_update,
            micro_batch_size=micro,
            max_rows=algo.trajectories_per_round * self.backend.max_steps,
        )

    # --- Evaluation -------------------------------------------------------------------

    def _due(self, number: int) -> bool:
        return number % self.config.eval.every == 0 or number == self.config.rounds

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        """Metrics of a greedy evaluation of what the state has learned."""
        number = int(state.round)
        self.observer.waiting(f"round {number}: evaluating")
        with environment_failures():
            found = evaluate(
                self.backend,
                acting_params(state, self.policy),
                jax.random.fold_in(local_key(state.key), _EVALUATION),
                episodes_per_task=self.config.eval.episodes_per_task,
                team=self.team,
            )
        self._rest()
        return self.ledger.evaluation(number, found)

    def _rest(self) -> None:
        """Let a policy free what it holds on the devices while it acts."""
        rest = getattr(self.policy, "rest", None)
        if rest is not None:
            rest()
