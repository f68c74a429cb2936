"""The loop on a tiny world: bookkeeping, resuming, stopping, failing."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import METHOD_NAMES, AlgoConfig, MeshConfig
from experiments.errors import RunError, UsageError
from experiments.loop import _Run, train
from experiments.observer import SilentObserver
from experiments.stopping import StopWish
from experiments.team import Team
from stepjax.training.state import TaskSampler, TrainState
from stepjax.types import SuccessRateRecord
from tests.experiments.lever_world import (
    POLICY,
    LeverBackend,
    lever_config,
    start_params,
)
from tests.launch.meetings import connected, together


def run(config, backend=None, **options):
    backend = LeverBackend() if backend is None else backend
    options = {"policy": POLICY, "start_params": start_params()} | options
    return train(config, backend=backend, **options)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A finished run that others are compared with, and its backend."""
    backend = LeverBackend()
    config = lever_config(tmp_path_factory.mktemp("unbroken") / "run")
    return run(config, backend), backend


class Listener(SilentObserver):
    def __init__(self):
        self.rounds, self.warnings, self.evaluations = [], [], []
        self.first_line, self.result = "", None

    def started(self, config, backend_name, message):
        self.first_line = message

    def round_finished(self, metrics):
        self.rounds.append(metrics["round"])

    def evaluated(self, metrics):
        self.evaluations.append(metrics["round"])

    def warned(self, text):
        self.warnings.append(text)

    def finished(self, result):
        self.result = result


def test_run_folder_holds_the_whole_story(unbroken):
    result, _ = unbroken
    rows = lines(result.run_dir / "metrics.jsonl")
    assert [row["round"] for row in rows] == list(range(7))
    assert [row["trajectories"] for row in rows] == [32 * n for n in range(7)]
    evaluated = [row["round"] for row in rows if "eval/train_success" in row]
    assert evaluated == [0, 3, 6]
    for name in ("eval/unseen_success", "eval/infeasible_success"):
        assert [row["round"] for row in rows if name in row] == evaluated
    told = json.loads((result.run_dir / "result.json").read_text())
    assert told["params_digest"] == result.params_digest
    assert told["status"] == "finished" and told["round"] == 6
    table = json.loads((result.run_dir / "tasks.json").read_text())
    assert table["split"].count("train") == 12
    assert table["infeasible"].count(True) == 1


def test_every_promised_metric_is_logged(unbroken):
    result, _ = unbroken
    rows = lines(result.run_dir / "metrics.jsonl")[1:]
    logged = set.union(*(set(row) for row in rows))
    promised = """
      train/success train/valid sampling/cache_size sampling/replaced_share
      sampling/max_task_share sampling/distinct_tasks sampling/easy_success_share
      augment/steps augment/rows augment/advantage_share augment/all_match_rate
      update/count update/rows update/loss update/entropy update/clip_fraction
      update/approx_kl update/grad_norm compile/count time/collect time/update
      time/eval time/round eval/train_above_60 eval/unseen_above_60
    """.split()
    assert set(promised) <= logged


def test_task_lines_add_up(unbroken):
    result, _ = unbroken
    rows = lines(result.run_dir / "tasks.jsonl")
    rounds = [row for row in rows if "trajectories" in row]
    assert [row["round"] for row in rounds] == list(range(1, 7))
    for row in rounds:
        assert sum(row["trajectories"]) == 32
        assert all(np.less_equal(row["successes"], row["trajectories"]))
    evaluations = [row for row in rows if "eval" in row]
    assert [row["round"] for row in evaluations] == [0, 3, 6]
    assert evaluations[0]["eval"]["task_ids"] == list(range(20))


def test_evaluation_is_greedy_paired_and_on_other_seeds(unbroken):
    _, backend = unbroken
    greedy = [call for call in backend.calls if call[0] == 0.0]
    training = [call for call in backend.calls if call[0] != 0.0]
    assert len(greedy) == 3 and len(training) == 6
    for _, ids, seeds in greedy:
        np.testing.assert_array_equal(seeds, greedy[0][2])
        np.testing.assert_array_equal(ids, greedy[0][1])
        assert (seeds >= 2**31).all()
    for _, ids, seeds in training:
        assert (seeds < 2**31).all()
        assert (ids < 12).all(), "only training tasks are trained on"


def test_an_epoch_visits_every_task(unbroken):
    _, backend = unbroken
    training = [ids for temperature, ids, _ in backend.calls if temperature]
    kept = np.concatenate([ids.reshape(4, 8)[:, 0] for ids in training[:3]])
    assert sorted(kept.tolist()) == list(range(12))


def test_same_settings_same_bits(unbroken, tmp_path):
    again = run(lever_config(tmp_path / "run"))
    assert again.params_digest == unbroken[0].params_digest
    other = run(lever_config(tmp_path / "other", seed=1))
    assert other.params_digest != again.params_digest


def test_a_finished_run_is_not_run_again(unbroken):
    backend, listener = LeverBackend(), Listener()
    result = run(lever_config(unbroken[0].run_dir), backend, observer=listener)
    assert backend.calls == [] and listener.rounds == []
    assert result == dataclasses.replace(
        unbroken[0], params=result.params, start_params=result.start_params
    )
    assert "going on in" in listener.first_line and "levers" in listener.first_line


@pytest.mark.parametrize("failing_call", [0, 1, 3, 7])
def test_a_run_that_died_goes_on_to_the_same_bits(unbroken, tmp_path, failing_call):
    config, broken = lever_config(tmp_path / "run"), LeverBackend()

    def fail(calls):
        if len(calls) > failing_call:
            raise ConnectionError("environment gone")

    broken.on_collect = fail
    with pytest.raises(ConnectionError):
        run(config, broken)
    result = run(config)
    assert result.params_digest == unbroken[0].params_digest
    rows = lines(config.run_dir / "metrics.jsonl")
    assert [row["round"] for row in rows] == list(range(7))
    wanted = lines(unbroken[0].run_dir / "metrics.jsonl")
    for row, other in zip(rows, wanted, strict=True):
        for name in row.keys() & other.keys():
            if not name.startswith(("time/", "compile/")):
                assert row[name] == other[name], name


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(unbroken, tmp_path, kind):
    config, backend = lever_config(tmp_path / "run"), LeverBackend()

    def ask(calls):
        if len(calls) == 4:  # in round 3, whose number no checkpoint falls on
            os.kill(os.getpid(), kind)

    backend.on_collect = ask
    before = signal.getsignal(kind)
    stopped = run(config, backend)
    assert signal.getsignal(kind) == before
    assert stopped.status == "stopped" and stopped.round == 2
    result = run(config)
    assert result.params_digest == unbroken[0].params_digest


def test_a_signal_before_the_first_round_ends_at_once(unbroken, tmp_path):
    config, backend = lever_config(tmp_path / "run"), LeverBackend()
    backend.on_collect = lambda calls: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run(config, backend)
    assert stop.value.code == 0 and len(backend.calls) == 1
    assert run(config).params_digest == unbroken[0].params_digest


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(
    unbroken, tmp_path
):
    config, backend = lever_config(tmp_path / "run"), LeverBackend()
    listener = Listener()

    def fail(calls):
        if len(calls) == 7:  # two evaluations and round 5
            raise ConnectionError("environment gone")

    backend.on_collect = fail
    with pytest.raises(ConnectionError):
        run(config, backend)
    newest = config.run_dir / "checkpoints" / "4"
    victims = [path for path in (newest / "state").rglob("*") if path.is_file()]
    for path in victims:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = run(config, observer=listener)
    assert any("checkpoint 4 is damaged" in text for text in listener.warnings)
    assert listener.rounds == [3, 4, 5, 6]
    assert result.params_digest == unbroken[0].params_digest


def test_not_a_number_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    def broken(params, prompt, tokens, mask, *, temperature):
        output = POLICY.evaluate(params, prompt, tokens, mask, temperature=temperature)
        return dataclasses.replace(output, log_prob=output.log_prob * jnp.nan)

    config = lever_config(tmp_path / "run")
    with pytest.raises(
        RunError, match=r"round \d: the loss is not a finite number"
    ) as e:
        run(config, policy=dataclasses.replace(POLICY, evaluate=broken))
    assert "\n" not in str(e.value)
    assert (config.run_dir / "checkpoints" / "0").is_dir()
    assert run(config).status == "finished", "a mended policy goes on from there"


def test_no_success_means_no_update_but_a_record(tmp_path):
    listener = Listener()
    hopeless = {"table": -50.0 * start_params(1.0)["table"] ** 2}
    config = lever_config(tmp_path / "run", rounds=2)
    result = run(config, start_params=hopeless, observer=listener)
    assert result.updates == 0 and result.status == "finished"
    assert any("no usable sample" in text for text in listener.warnings)
    rows = lines(config.run_dir / "metrics.jsonl")
    assert rows[-1]["update/count"] == 0 and "update/loss" not in rows[-1]


def test_invalid_trajectories_count_nowhere(tmp_path):
    class Broken(LeverBackend):
        def collect(self, params, task_ids, seeds, key, *, temperature):
            found = super().collect(
                params, task_ids, seeds, key, temperature=temperature
            )
            valid = np.arange(len(task_ids)) % 2 == 0
            reward = np.where(valid, found.reward, 1.0).astype(np.float32)
            return dataclasses.replace(found, valid=valid, reward=reward)

    config = lever_config(tmp_path / "run", rounds=2)
    run(config, Broken())
    rows = lines(config.run_dir / "metrics.jsonl")
    assert rows[-1]["train/valid"] == 0.5
    tasks = [row for row in lines(config.run_dir / "tasks.jsonl") if "rate" in row]
    assert sum(tasks[0]["trajectories"]) == 16


@pytest.mark.parametrize(
    "method",
    [
        name
        if name in ("step", "gigpo")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in METHOD_NAMES
    ],
)
def test_every_method_runs_and_learns(tmp_path, method):
    config = lever_config(tmp_path / "run", method, rounds=12)
    result = run(config)
    first, *rounds = lines(config.run_dir / "metrics.jsonl")
    assert result.status == "finished" and result.updates >= 8
    assert rounds[-1]["eval/train_success"] >= first["eval/train_success"]
    updates = [row["update/count"] for row in rounds]
    if method == "t_grpo":
        assert max(updates) == 1
    if method in ("t_grpo_many", "gigrpo"):
        assert max(updates) > 1


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"mesh": MeshConfig(data=3)}, "does not fit"),
        ({"algo": AlgoConfig(rows_per_update=12)}, "not divisible by the 8 devices"),
        ({"algo": AlgoConfig(tasks_per_round=13)}, "more than the 12 training tasks"),
    ],
    ids=["mesh", "rows", "tasks"],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, text):
    with pytest.raises(UsageError, match=text) as error:
        run(lever_config(tmp_path / "run", **changes))
    assert "\n" not in str(error.value)


def record(first_rate: float) -> SuccessRateRecord:
    rate = jnp.array([first_rate, 0.0, 0.0])
    return SuccessRateRecord(rate=rate, visits=jnp.zeros(3, jnp.int32))


def sampler(position: int) -> TaskSampler:
    return TaskSampler(order=jnp.arange(3), position=jnp.int32(position))


def after_round_3(**changes) -> TrainState:
    state = TrainState(
        step=jnp.int32(5),
        round=jnp.int32(3),
        params=None,
        opt_state=None,
        success_rate=record(0.0),
        sampler=sampler(0),
        key=jax.random.key(7),
    )
    return dataclasses.replace(state, **changes)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("nothing", dict),
        ("success-rate record", lambda: {"success_rate": record(0.1)}),
        ("task sampler", lambda: {"sampler": sampler(1)}),
        ("key", lambda: {"key": jax.random.key(8)}),
    ],
    ids=["nothing", "record", "sampler", "key"],
)
def test_processes_that_differ_stop_before_the_next_round(tmp_path, name, changes):
    """The second of two processes, played by threads, has a part of its own."""
    config, observer = lever_config(tmp_path / "run"), SilentObserver()

    def goes_on(peers, state):
        parts = (None, LeverBackend(), POLICY, observer, StopWish(), Team(peers))
        return _Run(config, *parts)._goes_on(state)

    with connected(2) as (first, second):
        found = together(
            lambda: goes_on(first, after_round_3()),
            lambda: goes_on(second, after_round_3(**changes())),
        )
    if name == "nothing":
        assert found == [True, True]
        return
    for error in found:
        assert isinstance(error, RunError)
        assert str(error).startswith("after round 3: process 1")
        assert f"has another {name} than process 0" in str(error)


def test_at_end_sees_the_open_backend(tmp_path):
    seen = []
    result = run(
        lever_config(tmp_path / "run", rounds=1),
        at_end=lambda backend, result: seen.append((backend.name, result.status)),
    )
    assert seen == [("levers", "finished")]
    assert result.evaluation["round"] == 1
