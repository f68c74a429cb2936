"""Runs on a painted desk, through everything a run on real desktops goes through."""

import functools
import json

import jax
import numpy as np
import pytest

from experiments.backends import empty_prompt, make_policy
from experiments.config import (
    AlgoConfig,
    EnvConfig,
    EvalConfig,
    ExperimentConfig,
    OptimizerConfig,
    PolicyConfig,
    WarmStartConfig,
)
from experiments.desktop_backend import Closing, screen_backend
from experiments.errors import UsageError
from experiments.loop import train
from experiments.session import run_with_report
from experiments.warm_start import warm_started_params
from stepjax.models.pointer import PointerPolicy
from stepjax.models.screen import ScreenPolicy
from tests.envs.painted_desk import PaintedDesk, desk_script, desk_table


def tiny_config(folder) -> ExperimentConfig:
    """A run of seconds that learns nothing."""
    return ExperimentConfig(
        run_dir=folder / "run",
        rounds=1,
        env=EnvConfig(backend="desktop", max_steps=5),
        algo=AlgoConfig(
            method="step_balanced", tasks_per_round=2, group_size=4, rows_per_update=8
        ),
        eval=EvalConfig(every=1, episodes_per_task=1),
        policy=PolicyConfig(width=8, layers=1, heads=1, view_width=32, view_height=20),
        warm_start=WarmStartConfig(
            steps=50, episodes=16, batch_size=8, cache_dir=folder / "cache"
        ),
    )


class Fleet:
    """Makes painted desks and remembers whether it was closed."""

    def __init__(self):
        self.closed = 0
        self.expected = []

    def __call__(self, index):
        return PaintedDesk()

    def expect(self, episodes):
        self.expected = episodes

    def status_line(self):
        return "desktops: 2 acting"

    def metrics(self):
        return {"env/desktops_booted": 2}

    def close(self):
        self.closed += 1


def open_desk(config, policy=None, *, fleet=None, script=desk_script, report=None):
    return screen_backend(
        "desktop",
        fleet or Fleet(),
        desk_table(),
        config,
        policy or make_policy(config.policy, "desktop"),
        script=script,
        num_envs=2,
        report=report,
    )


def test_the_backend_chooses_the_policy():
    sizes = PolicyConfig(width=8)
    assert isinstance(make_policy(sizes, "desktop"), ScreenPolicy)
    assert isinstance(make_policy(sizes, "miniwob"), PointerPolicy)
    assert make_policy(sizes, "vm") is make_policy(PolicyConfig(width=8), "desktop")
    config = ExperimentConfig(
        env=EnvConfig(backend="vm"), policy=PolicyConfig(view_width=64, view_height=40)
    )
    assert empty_prompt(config).screenshot.shape == (40, 64, 3)
    assert empty_prompt(ExperimentConfig()).widget_mask.shape == (32,)


def test_a_run_from_warm_start_to_report(monkeypatch, tmp_path):
    fleet = Fleet()
    open_it = functools.partial(open_desk, fleet=fleet)
    monkeypatch.setattr("experiments.backends.open_backend", open_it)
    result = run_with_report("a test", tiny_config(tmp_path))
    assert result.status == "finished" and fleet.closed
    rows = [
        json.loads(line)
        for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["env/desktops_booted"] == 2 and rows[-1]["train/valid"] == 1.0
    html = (result.run_dir / "report.html").read_text()
    assert "real applications on sandboxed desktops" in html
    pictures = list((result.run_dir / "episodes").glob("*.png")) + list(
        (result.run_dir / "episodes").glob("*.jpg")
    )
    assert pictures
    # The second run of the same settings starts from the kept warm start.
    assert list((tmp_path / "cache").glob("warm_start_*.npz"))


def test_another_view_is_another_warm_start(tmp_path):
    config = tiny_config(tmp_path)
    for view in (32, 64):
        policy = PolicyConfig(
            width=8, layers=1, heads=1, view_width=view, view_height=20
        )
        changed = ExperimentConfig(
            env=config.env, policy=policy, warm_start=config.warm_start
        )
        made = make_policy(policy, "desktop")
        backend = open_desk(changed, made)
        warm_started_params(changed, backend, made)
        backend.close()
    assert len(list((tmp_path / "cache").glob("warm_start_*.npz"))) == 2


def test_without_scripts_there_is_no_warm_start_but_there_is_a_start(tmp_path):
    config = tiny_config(tmp_path)
    policy = make_policy(config.policy, "desktop")
    backend = open_desk(config, policy, script=None)
    with pytest.raises(UsageError, match="--warm-start.steps 0 starts from random"):
        warm_started_params(config, backend, policy)
    plain = ExperimentConfig(
        env=config.env, policy=config.policy, warm_start=WarmStartConfig(steps=0)
    )
    params = warm_started_params(plain, backend, policy)
    shapes = jax.eval_shape(
        policy.init,
        jax.random.key(0),
        jax.tree.map(lambda leaf: leaf[None], empty_prompt(plain)),
    )
    assert jax.tree.structure(params) == jax.tree.structure(shapes)
    backend.close()


def test_status_is_told_while_episodes_run(monkeypatch, tmp_path):
    monkeypatch.setattr("experiments.desktop_backend._STATUS_SECONDS", 0.001)
    config, said, fleet = tiny_config(tmp_path), [], Fleet()
    backend = open_desk(config, report=said.append, fleet=fleet)
    backend.demonstrations(20, seed=0)
    assert len(fleet.expected) == 20 and fleet.expected[0][0] == "press-red"
    assert any(line.endswith("of 20 episodes; desktops: 2 acting") for line in said)
    backend.close()


def test_what_is_shared_is_closed_once_and_speaks_for_itself():
    import contextlib

    closed = []
    resources = contextlib.ExitStack()
    resources.callback(closed.append, 1)
    plain = Closing(lambda index: index, resources)
    assert plain(3) == 3 and plain.metrics() == {} and "machines" in plain.status_line()
    plain.close()
    plain.close()
    assert closed == [1]
    assert Closing(Fleet(), resources).status_line() == "desktops: 2 acting"


@pytest.mark.slow
def test_step_learns_on_pixels(tmp_path):
    config = ExperimentConfig(
        run_dir=tmp_path / "run",
        rounds=12,
        env=EnvConfig(backend="desktop", max_steps=6),
        algo=AlgoConfig(
            method="step_balanced",
            tasks_per_round=4,
            group_size=16,
            temperature=1.0,
            rows_per_update=32,
            max_augmented_steps=32,
        ),
        optim=OptimizerConfig(learning_rate=1e-3),
        eval=EvalConfig(every=12, episodes_per_task=10),
        policy=PolicyConfig(width=32),
        warm_start=WarmStartConfig(
            steps=200, episodes=200, batch_size=32, cache_dir=tmp_path / "cache"
        ),
    )
    policy = make_policy(config.policy, "desktop")
    backend = open_desk(config, policy)
    result = train(config, backend=backend, policy=policy)
    backend.close()
    lines = (result.run_dir / "metrics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    success = [row["eval/train_success"] for row in (first, last)]
    assert success[1] > success[0] + 0.15 and success[1] > 0.7, success
    assert np.isfinite(last["update/loss"])
