"""The command line: fixed flags, one line per mistake, exit codes, no jax for help."""

import subprocess
import sys

import pytest

from experiments import cli
from experiments.errors import RunError, UsageError
from experiments.presets import PRESETS

PROGRAM = "python -m experiments.osworld"


def parse(*args):
    return cli.parse(PROGRAM, PRESETS, args)


def test_presets():
    assert parse()[0] == "quick"
    assert parse("paper")[1] == PRESETS["paper"].config


def test_fixed_flags(tmp_path):
    _, config = parse(
        *("--run-dir", str(tmp_path), "--seed", "3", "--env.backend", "miniwob"),
        *("--env.chromium", "/usr/bin/chromium", "--algo.method", "gigpo"),
        *("--algo.group-size", "4", "--algo.threshold", "0.5"),
        *("--algo.sharpness", "5", "--algo.augment-threshold", "0.1"),
        *("--mesh.data", "2", "--mesh.fsdp", "-1", "--mesh.tensor", "1"),
    )
    assert config.run_dir == tmp_path and config.seed == 3
    assert config.env.backend == "miniwob"
    assert str(config.env.chromium) == "/usr/bin/chromium"
    assert (config.algo.method, config.algo.group_size) == ("gigpo", 4)
    assert (config.algo.threshold, config.algo.sharpness) == (0.5, 5.0)
    assert config.algo.augment_threshold == 0.1
    assert (config.mesh.data, config.mesh.fsdp, config.mesh.tensor) == (2, -1, 1)


@pytest.mark.parametrize(
    "args, name",
    [
        (["--env.backend", "desktop"], "desktop"),
        (["--seed", "1", "--env.backend=desktop"], "desktop"),
        (["--env.backend", "vm", "--env.tasks", "somewhere"], "vm"),
        (["--env.backend", "sim"], "quick"),
        (["--env.backend", "miniwob"], "quick"),  # has a command of its own
        (["paper", "--env.backend", "desktop"], "paper"),
        (["--env.backend"], None),
    ],
)
def test_the_backend_chooses_the_preset_unless_one_is_named(args, name):
    if name is None:
        with pytest.raises(UsageError, match="env.backend"):
            parse(*args)
        return
    found, config = parse(*args)
    assert found == name
    assert config.algo == PRESETS[name].config.algo


def test_resume_flag_and_none():
    assert parse()[1].resume
    assert not parse("--no-resume")[1].resume
    assert (
        parse("--algo.max-augmented-steps", "None")[1].algo.max_augmented_steps is None
    )


@pytest.mark.parametrize(
    "args, texts",
    [
        (["qick"], ["unknown preset 'qick'", "did you mean quick?", "paper"]),
        (["--algo.tresholdd", "1"], ["unknown flag", "--algo.threshold?"]),
        (["--algo.group-size", "1"], ["algo.group_size must be >= 2", "got 1"]),
        (["--algo.group-size", "many"], ["--algo.group-size", "'many'"]),
        (["--algo.threshold", "1.5"], ["algo.threshold must be in [0, 1], got 1.5"]),
        (["--algo.method", "stepp"], ["unknown name 'stepp'", "did you mean step"]),
        (["--env.backend", "desktp"], ["unknown name 'desktp'", "mean desktop"]),
        (["--seed"], ["--seed"]),
        (["--seed", "1", "stray"], ["stray"]),
    ],
)
def test_mistakes_are_one_line(args, texts):
    with pytest.raises(UsageError) as error:
        parse(*args)
    message = str(error.value)
    assert "\n" not in message and len(message) < 300
    for text in texts:
        assert text in message


@pytest.mark.parametrize(
    "error, code", [(UsageError("no browser"), 2), (RunError("loss is NaN"), 1)]
)
def test_exit_codes(capsys, error, code):
    def run(about, config):
        raise error

    with pytest.raises(SystemExit) as stop:
        cli.main(PROGRAM, PRESETS, run, [])
    assert stop.value.code == code
    assert capsys.readouterr().err == f"{PROGRAM}: {error}\n"


def test_success_exits_0_and_names_preset_and_method(capsys):
    said = []
    with pytest.raises(SystemExit) as stop:
        cli.main(PROGRAM, PRESETS, lambda about, _: said.append(about), [])
    assert stop.value.code == 0
    assert "preset quick" in said[0] and PRESETS["quick"].config.algo.method in said[0]


def test_another_method_than_the_presets_is_said(capsys):
    said = []
    with pytest.raises(SystemExit):
        cli.main(
            *(PROGRAM, PRESETS, lambda about, _: said.append(about)),
            ["--algo.method", "gigrpo"],
        )
    assert "gigrpo, as asked for" in said[0]


def test_help_lists_settings_without_importing_jax(repository_root):
    code = (
        "import sys, runpy; sys.argv = ['osworld', '--help']\n"
        "try: runpy.run_module('experiments.osworld', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for text in ("--algo.augment-threshold", "Preset paper", "--mesh.fsdp"):
        assert text in done.stdout


def test_a_mistake_ends_the_process_with_2_and_one_line(repository_root):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.osworld", "--algo.group-size", "1"],
        cwd=repository_root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_a_full_disk_is_one_line(capsys):
    def run(about, config):
        raise OSError(28, "No space left on device", "runs/x/metrics.jsonl")

    with pytest.raises(SystemExit) as stop:
        cli.main("python -m experiments.osworld", PRESETS, run, [])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line and "run the same command again" in line
