"""Runs on a painted desk, through everything a run on real desktops goes through."""

import functools
import json
import types

import jax
import numpy as np
import pytest

from experiments.backends import empty_prompt, make_policy, open_backend
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    plain.hurry()  # nothing here waits
    hurried = types.SimpleNamespace(hurry=lambda: closed.append(2))
    Closing(hurried, resources).hurry()
    assert closed == [1, 2]
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


# --- Opening them ---------------------------------------------------------------------


TASK = {"id": "a", "instruction": "Do it.", "evaluator": {"func": "infeasible"}}


def task_folder(tmp_path):
    """A folder of one task, as users have it."""
    place = tmp_path / "tasks" / "examples" / "os"
    place.mkdir(parents=True)
    (place / "a.json").write_text(json.dumps(TASK))
    return tmp_path / "tasks"


def open_it(**env):
    config = ExperimentConfig(env=EnvConfig(**env), policy=PolicyConfig(width=8))
    policy = make_policy(config.policy, config.env.backend)
    return open_backend(config, policy)


class FakeFleet(Fleet):
    """Stands in for the desktops; remembers how it was made."""

    made = None
    trouble = None

    def __init__(self, tasks, **options):
        super().__init__()
        self.tasks, self.options = tasks, options
        FakeFleet.made = self

    def wait_ready(self, timeout):
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture
def fake_fleet(monkeypatch):
    monkeypatch.setattr("stepjax.envs.desktop.DesktopFleet", FakeFleet)
    monkeypatch.setattr(FakeFleet, "trouble", None)
    return FakeFleet


def test_bundled_tasks_are_trained_on_and_demonstrated(fake_fleet):
    backend = open_it(backend="desktop", num_envs=3, screen_width=1024)
    options = fake_fleet.made.options
    assert options["num_envs"] == 3 and options["sandbox"].width == 1024
    assert options["settings"].image_size == (512, 400)
    assert backend.name == "desktop" and len(backend.tasks.train_ids) >= 16
    np.testing.assert_array_equal(backend._practice_ids, backend.tasks.train_ids)
    smaller = open_it(backend="desktop", num_envs=3)
    assert smaller.fingerprint() != backend.fingerprint()
    backend.close()
    smaller.close()
    assert fake_fleet.made.closed


def test_desktops_that_do_not_boot_are_one_line(fake_fleet, monkeypatch):
    from stepjax.envs.desktop import NoDesktopError

    trouble = NoDesktopError("no desktop boots: no\nuser namespaces")
    monkeypatch.setattr(fake_fleet, "trouble", trouble)
    with pytest.raises(UsageError, match="no user namespaces; .* doctor") as error:
        open_it(backend="desktop")
    assert "\n" not in str(error.value) and fake_fleet.made.closed


def test_own_tasks_are_trained_on_and_bundled_ones_demonstrated(
    fake_fleet, monkeypatch, tmp_path
):
    calls = []

    class FakeEvaluators:
        def __init__(self, **options):
            calls.append(("made", options["cache"]))

        def setup(self, spec, client):
            calls.append(("setup", spec.name))

        def evaluate(self, spec, client, *, ended_by):
            calls.append(("evaluate", spec.name, ended_by))
            return 0.5

        def close(self):
            calls.append(("closed",))

    def own(what):
        return lambda spec, client, **more: (
            calls.append((what, spec.name, *more)) or 1.0
        )

    monkeypatch.setattr("stepjax.envs.desktop.upstream.Evaluators", FakeEvaluators)
    monkeypatch.setattr("stepjax.envs.desktop.tasks.setup.run_setup", own("own setup"))
    monkeypatch.setattr("stepjax.envs.desktop.tasks.evaluate.evaluate", own("own"))
    folder = task_folder(tmp_path)
    backend = open_it(backend="desktop", tasks=folder, cache=tmp_path / "cache")
    table, fleet = backend.tasks, fake_fleet.made
    assert [table.names[at] for at in table.train_ids] == ["os/a"]
    assert not len(table.unseen_ids) and table.infeasible[0]
    assert table.instruction(0, 5) == "Do it."
    practice = [table.names[at] for at in backend._practice_ids]
    assert "os/a" not in practice and len(practice) >= 16
    at = int(backend._practice_ids[0])
    assert table.instruction(at, 3) == fleet.tasks.load(practice[0], 3).instruction
    theirs, bundled = fleet.tasks.load("os/a", 0), fleet.tasks.load(practice[0], 3)
    options = fleet.options
    for spec in (theirs, bundled):
        options["setup"](spec, None)
        options["evaluate"](spec, None, ended_by=None)
    backend.close()
    assert calls == [
        ("made", tmp_path / "cache"),
        ("setup", "os/a"),
        ("evaluate", "os/a", None),
        ("own setup", bundled.name),
        ("own", bundled.name, "ended_by"),
        ("closed",),
    ]


WEB = {
    "id": "b",
    "instruction": "Read it.",
    "config": [
        {"type": "execute", "parameters": {"command": "curl https://example.org/x"}}
    ],
    "evaluator": {"func": "infeasible"},
}


def add_task(folder, task):
    (folder / "examples" / "os" / f"{task['id']}.json").write_text(json.dumps(task))


@pytest.fixture
def no_evaluators(monkeypatch):
    class NoEvaluators:
        def __init__(self, **options):
            pass

        def close(self):
            pass

    monkeypatch.setattr("stepjax.envs.desktop.upstream.Evaluators", NoEvaluators)


def test_tasks_that_cannot_run_here_are_left_out(
    fake_fleet, no_evaluators, tmp_path, caplog
):
    folder = task_folder(tmp_path)
    open_it(backend="desktop", tasks=folder).close()
    assert not caplog.messages
    add_task(folder, WEB)
    backend = open_it(backend="desktop", tasks=folder)
    names = [backend.tasks.names[at] for at in backend.tasks.train_ids]
    assert names == ["os/a"] and "os/b" not in backend.tasks.names
    (line,) = caplog.messages
    assert line.startswith("1 of 2 tasks of env.tasks can run here")
    assert f"stepjax.envs.desktop validate --tasks {folder}" in line
    backend.close()


def test_no_task_that_runs_here_is_refused(fake_fleet, no_evaluators, tmp_path):
    folder = task_folder(tmp_path)
    (folder / "examples" / "os" / "a.json").unlink()
    add_task(folder, WEB)
    with pytest.raises(UsageError, match="0 of 1 tasks .* validate --tasks") as error:
        open_it(backend="desktop", tasks=folder)
    assert "\n" not in str(error.value)


def test_one_task_that_never_sets_up_does_not_end_a_run(fake_fleet):
    for num_envs, faults in ((2, 64), (8, 128)):
        backend = open_it(backend="desktop", num_envs=num_envs)
        assert backend.pool._max_faults == faults
        backend.close()
