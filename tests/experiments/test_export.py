"""Runs as Hugging Face folders: what is written, refused, and left as it is."""

import dataclasses
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import cli, export
from experiments.backends import make_policy
from experiments.config import ExperimentConfig, PolicyConfig, flat_config
from experiments.errors import UsageError
from experiments.learner import make_learner
from experiments.presets import PRESETS
from stepjax.training import checkpoint as saved_states
from tests.experiments.tiny_runs import arguments, make_sim_generous, run

MODEL = PolicyConfig(name="qwen-vl", checkpoint=Path("no-model"), stop=("a", "b"))


def exported(capsys, *args, code=0):
    """What the command printed, without a line break, on the stream of its outcome."""
    assert export.main([str(arg) for arg in args]) == code
    streams = capsys.readouterr()
    said, other = (streams.err, streams.out) if code else (streams.out, streams.err)
    assert said.endswith("\n") and said.count("\n") == 1, streams
    return said.strip(), other


def refused(capsys, *args, code=2):
    """The one line that refuses a command."""
    said, other = exported(capsys, *args, code=code)
    assert said.startswith("python -m experiments.export: ") and not other
    return said


def files_of(folder):
    """Everything in a folder: contents and times of change."""
    paths = sorted(folder.rglob("*"))
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else None,
            path.stat().st_mtime_ns,
        )
        for path in paths
    }


# --- Refused before anything is read --------------------------------------------------


def make_run(folder, *, rounds=(0, 2), **policy):
    """A folder that looks like a run, as far as it is looked at without jax."""
    config = ExperimentConfig(
        run_dir=folder, policy=dataclasses.replace(MODEL, **policy)
    )
    (folder / "checkpoints").mkdir(parents=True)
    text = json.dumps(dataclasses.asdict(config), default=str)
    (folder / "config.json").write_text(text)
    for number in rounds:
        (folder / "checkpoints" / str(number)).mkdir()
    return folder


def test_settings_are_read_back(tmp_path):
    config = cli.parse(
        "osworld",
        PRESETS,
        [
            *("desktop", "--policy", "qwen-vl", "--policy.checkpoint", "~/model"),
            *("--policy.freeze", "^vision/", "^embed/", "--env.tasks", "/tasks"),
        ],
    )[1]
    text = json.dumps(dataclasses.asdict(config), default=str)
    (tmp_path / "config.json").write_text(text)
    assert export.read_settings(tmp_path) == config


def test_settings_of_other_versions(tmp_path):
    """What did not exist yet has its default; what is not known may mean anything."""
    path = tmp_path / "config.json"
    path.write_text('{"rounds": 3, "policy": {"width": 12}}')
    old = flat_config(export.read_settings(tmp_path))
    assert old == flat_config(ExperimentConfig()) | {"rounds": 3, "policy.width": 12}
    path.write_text('{"policy": {"wings": 2}}')
    with pytest.raises(UsageError, match=r"this version has no setting policy\.wings"):
        export.read_settings(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"env": 3}', '{"rounds": "x"}', "\xff"])
def test_damaged_settings_are_one_line(tmp_path, capsys, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    said = refused(capsys, tmp_path, tmp_path / "out")
    assert "config.json cannot be used: " in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "required: run_dir, folder"),
        (["run"], "required: folder"),
        (["run", "out", "--round", "last"], "--round: invalid int value: 'last'"),
        (["run", "out", "--dtype", "int8"], "'float32'"),
        (["run", "out", "--overwrite"], "unrecognized arguments: --overwrite"),
        (["run", "out", "--ro", "2"], "unrecognized arguments: --ro 2"),
        (["gone", "out"], "gone is not there; give the folder that --run-dir named"),
        (["empty", "out"], "empty holds no run (no config.json)"),
        (["small", "out"], "policy small, which is no Hugging Face model"),
        (["run", "out"], "policy.checkpoint no-model of the run is not there"),
        (["relative", "out"], "run this where the run was started"),
        (["young", "out"], "young holds no checkpoint yet"),
        (["whole", "out", "--round", "1"], "no checkpoint of round 1; there are those"),
        (["whole", "out", "--round", "1"], "of 0, 2."),
        (["whole", "young"], "young is there already; remove it or choose another"),
        (["whole", "model/file"], "file is there already"),
        (["whole", "model/file/out"], "file cannot be written"),
        (["whole", "whole/checkpoints/3"], "is among the run's checkpoints"),
        (["whole", "out"], "model has no config.json"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, monkeypatch, capsys, args, said):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "model"):
        Path(name).mkdir()
    Path("model/file").touch()
    make_run(Path("run"))
    make_run(Path("small"), name="small", checkpoint=None)
    make_run(Path("relative"), checkpoint=Path("models/tiny"))
    make_run(Path("young"), rounds=(), checkpoint=tmp_path / "model")
    make_run(Path("whole"), checkpoint=tmp_path / "model")
    Path("whole/checkpoints/4.orbax-checkpoint-tmp").mkdir()
    Path("whole/checkpoints/3.unreadable").mkdir()
    before = files_of(tmp_path)
    assert said in refused(capsys, *args)
    assert files_of(tmp_path) == before


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    """Found before the minutes that reading takes."""
    make_run(tmp_path / "run", checkpoint=tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    said = refused(capsys, tmp_path / "run", tmp_path / "new" / "out")
    assert f"{tmp_path} cannot be written; choose another place" in said


def test_a_full_device_is_one_line():
    with pytest.raises(export.RunError, match="JAX_PLATFORMS=cpu"), export._failures():
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    with pytest.raises(RuntimeError, match="a bug"), export._failures():
        raise RuntimeError("a bug")


# --- A run ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_run(checkpoint, tmp_path_factory):
    """The folder of a run of two rounds, with checkpoints of rounds 0 and 2."""
    folder = tmp_path_factory.mktemp("export") / "run"
    with pytest.MonkeyPatch.context() as patch:
        make_sim_generous(patch)
        assert run(arguments(checkpoint, folder)) == 0
    return folder


@pytest.fixture
def copied_run(tiny_run, tmp_path):
    """A run folder to damage."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def state_of(folder):
    """The newest state of a run, by the way that a run that goes on takes."""
    config = export.read_settings(folder)
    split = json.loads((folder / "tasks.json").read_text())["split"]
    learner = make_learner(
        config,
        make_policy(config.policy, config.env.backend, config.env),
        None,
        num_tasks=len(split),
        train_ids=np.flatnonzero(np.array(split) == "train"),
    )
    with saved_states.open_checkpoints(
        folder / "checkpoints", max_to_keep=2
    ) as manager:
        found = saved_states.restore_checkpoint(manager, learner.like)
    assert found is not None
    return found.state


def loaded(folder, dtype=np.float32):
    from stepjax.models.qwen_vl.weights import load_params

    return load_params(folder, dtype=dtype)


def assert_equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def moved(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(np.any(np.asarray(a) != np.asarray(b)) for a, b in pairs)


@pytest.mark.slow
def test_the_newest_parameters_are_written(tiny_run, copied_run, tmp_path, capsys):
    before = files_of(tiny_run)
    out = tmp_path / "model"
    said, _ = exported(capsys, tiny_run, out, "--dtype", "float32")
    assert said.startswith(f"{out}: round 2, 0.000986 GB in float32, ")
    assert said.endswith(" s")
    assert files_of(tiny_run) == before
    assert [path.name for path in tmp_path.glob("*model*")] == ["model"]
    state = state_of(copied_run)
    assert int(state.round) == 2 and int(state.step) > 0
    assert_equal_trees(loaded(out), state.params)


@pytest.mark.slow
def test_an_older_round(tiny_run, checkpoint, tmp_path, capsys):
    """Round 0 is the model that the run started from."""
    for number in (0, 2):
        out = tmp_path / str(number)
        out.mkdir()  # empty is as good as not there
        flags = ("--round", number, "--dtype", "float32")
        said, _ = exported(capsys, tiny_run, out, *flags)
        assert f": round {number}, " in said
    assert_equal_trees(loaded(tmp_path / "0"), loaded(checkpoint))
    assert moved(loaded(tmp_path / "2"), loaded(checkpoint))


@pytest.mark.slow
def test_a_run_can_start_from_it(tiny_run, checkpoint, tmp_path, capsys):
    """In bfloat16, as servers want it, with all files that a policy needs."""
    from stepjax.models.qwen_vl.export import COPIED_FILES

    out = tmp_path / "model"
    said, _ = exported(capsys, tiny_run, out)
    assert " GB in bfloat16, " in said
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    for name in COPIED_FILES:
        if (checkpoint / name).is_file():
            assert (out / name).read_bytes() == (checkpoint / name).read_bytes()
    config = export.read_settings(tiny_run)
    policy = make_policy(dataclasses.replace(config.policy, checkpoint=out))
    assert policy.load is not None
    rounded = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype("bfloat16").astype(np.float32),
        state_of(Path(shutil.copytree(tiny_run, tmp_path / "run"))).params,
    )
    assert_equal_trees(policy.load(), rounded)


@pytest.mark.slow
def test_it_needs_no_environment_and_no_server(copied_run, tmp_path, capsys):
    """Also of runs on machines, or with files, that are not here."""
    path = copied_run / "config.json"
    stored = json.loads(path.read_text())
    stored["env"]["backend"] = "vm"
    stored["env"]["tasks"] = "/gone/tasks"
    stored["policy"]["server"] = "http://localhost:1"
    stored["policy"]["wording"] = "/gone/wording.txt"
    stored["mesh"] = {"data": 3, "fsdp": 5, "tensor": 7}
    path.write_text(json.dumps(stored))
    exported(capsys, copied_run, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.fixture
def command(repository_root):
    """Function that runs the command itself, on one device."""

    def call(*args):
        return subprocess.run(
            [sys.executable, "-m", "experiments.export", *map(str, args)],
            cwd=repository_root,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.mark.slow
def test_one_device_and_a_run_that_goes_on(
    tiny_run, copied_run, tmp_path, capsys, command
):
    """While another process has the folder and is saving."""
    one, eight = tmp_path / "one", tmp_path / "eight"
    exported(capsys, tiny_run, eight, "--dtype", "float32")
    (copied_run / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    before = files_of(copied_run)
    with open(copied_run / "run.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ended = command(copied_run, one, "--dtype", "float32")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{one}: round 2, ")
    assert files_of(copied_run) == before
    weights = (folder / "model.safetensors" for folder in (one, eight))
    assert len({path.read_bytes() for path in weights}) == 1


def damage(folder, number):
    """Cut the largest file of a checkpoint short."""
    paths = (folder / "checkpoints" / str(number) / "state").rglob("*")
    largest = max((p for p in paths if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


@pytest.mark.slow
def test_damaged_checkpoints(copied_run, tmp_path, command):
    """A damaged one is passed over, unless it was asked for; all are left in place."""
    damage(copied_run, 2)
    before = files_of(copied_run)
    ended = command(copied_run, tmp_path / "model")
    assert (ended.returncode, ended.stderr.count("\n")) == (0, 1), ended.stderr
    assert "checkpoint 2 is damaged (" in ended.stderr
    assert ended.stderr.endswith("; took the one of round 0\n")
    assert ended.stdout.startswith(f"{tmp_path / 'model'}: round 0, ")
    ended = command(copied_run, tmp_path / "other", "--round", "2")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    where = copied_run / "checkpoints"
    assert f"none of the 1 checkpoints in {where} can be read (2: " in ended.stderr
    assert not ended.stdout and not (tmp_path / "other").exists()
    assert files_of(copied_run) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda run: (run / "tasks.json").unlink(), "tasks.json cannot be used"),
        (lambda run: (run / "tasks.json").write_text("{}"), "tasks.json cannot be"),
        (lambda run: other_model(run), "is another model in that folder by now?"),
    ],
)
def test_runs_that_do_not_fit(copied_run, tmp_path, capsys, break_it, said):
    break_it(copied_run)
    before = files_of(copied_run)
    assert said in refused(capsys, copied_run, tmp_path / "model")
    assert files_of(copied_run) == before
    assert not (tmp_path / "model").exists()


def other_model(folder):
    from tests.models.qwen_vl.tiny import make_tiny_checkpoint

    make_tiny_checkpoint(folder.parent / "other", "qwen2_vl")
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    stored["policy"]["checkpoint"] = str(folder.parent / "other")
    path.write_text(json.dumps(stored))


@pytest.mark.slow
def test_a_file_that_cannot_be_written_leaves_nothing(tiny_run, tmp_path, capsys):
    """As on a full disk: what safetensors raises then is an error of its own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        said = refused(capsys, tiny_run, tmp_path / "model", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "model" in said and "cannot be written" in said and "too large" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("when", ["open_checkpoints", "_read"])
def test_checkpoints_that_a_run_removes(
    copied_run, tmp_path, capsys, monkeypatch, when
):
    """They may go while they are looked for or read: a run keeps the newest only."""
    go_on = getattr(saved_states, when)

    def later(*args, **kwargs):
        shutil.rmtree(copied_run / "checkpoints", ignore_errors=True)
        return go_on(*args, **kwargs)

    monkeypatch.setattr(saved_states, when, later)
    said = refused(capsys, copied_run, tmp_path / "model", code=1)
    assert "were replaced while they were read; run this again" in said
    assert not (tmp_path / "model").exists()
