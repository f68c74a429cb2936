"""Run folders: refusals in one line, and lines that survive kills."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import (
    AlgoConfig,
    EnvConfig,
    ExperimentConfig,
    MeshConfig,
    PolicyConfig,
)
from experiments.errors import UsageError
from experiments.run_folder import RunFolder


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    return ExperimentConfig(run_dir=tmp_path / "run")


def _open_and_close(config: ExperimentConfig) -> RunFolder:
    folder = RunFolder(config)
    folder.close()
    return folder


def test_new_folder_then_resume(config):
    assert not _open_and_close(config).resuming
    stored = json.loads((config.run_dir / "config.json").read_text())
    assert stored["algo"]["group_size"] == 16
    assert _open_and_close(config).resuming


def test_refuses_other_settings_and_names_them(config):
    _open_and_close(config)
    other = dataclasses.replace(config, rounds=3, algo=AlgoConfig(threshold=0.7))
    with pytest.raises(UsageError) as error:
        RunFolder(other)
    assert "algo.threshold: 0.6 -> 0.7; rounds: 64 -> 3" in str(error.value)
    assert "\n" not in str(error.value)
    assert _open_and_close(config).resuming, "a refusal must change nothing"


def test_other_devices_may_resume(config):
    _open_and_close(config)
    other = dataclasses.replace(config, mesh=MeshConfig(data=2, fsdp=2))
    assert _open_and_close(other).resuming


def test_a_run_goes_on_elsewhere(config):
    """Servers move, and other machines hold other numbers of environments."""
    model = {"name": "qwen-vl", "checkpoint": Path("x")}
    server = {"server": "http://one:8000", "server_kind": "vllm", "server_model": "a"}
    phones = {"backend": "androidworld", "url": "http://one:5000", "num_envs": 1}
    config = dataclasses.replace(
        config,
        policy=PolicyConfig(**model, **server),
        env=EnvConfig(**phones, serials="emulator-5554"),
    )
    _open_and_close(config)
    moved = dataclasses.replace(
        config,
        policy=PolicyConfig(**model, server="http://two:9000", server_kind="sglang"),
        env=EnvConfig(backend="androidworld", url="http://two:1,http://two:2"),
    )
    assert _open_and_close(moved).resuming
    # Without a server the trainer samples itself, which is another computation.
    for policy in (PolicyConfig(**model), PolicyConfig(**model, **server, top_p=0.5)):
        with pytest.raises(UsageError, match=r"policy\.(server|top_p): "):
            RunFolder(dataclasses.replace(config, policy=policy))
    other = EnvConfig(**phones, suite_seed=30)
    with pytest.raises(UsageError, match=r"env\.suite_seed: None -> 30"):
        RunFolder(dataclasses.replace(config, env=other))


def test_no_resume_refuses_an_existing_run(config):
    _open_and_close(config)
    with pytest.raises(UsageError, match="--no-resume"):
        RunFolder(dataclasses.replace(config, resume=False))


def test_second_opener_is_refused_until_close(config):
    folder = RunFolder(config)
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()}"):
        RunFolder(config)
    folder.close()
    assert _open_and_close(config).resuming


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_damaged_config(config, content):
    _open_and_close(config)
    (config.run_dir / "config.json").write_text(content)
    with pytest.raises(UsageError, match="is damaged"):
        RunFolder(config)


def test_foreign_folder(config):
    config.run_dir.mkdir()
    (config.run_dir / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="thesis.tex but no config.json"):
        RunFolder(config)


def test_killed_before_config_was_written(config):
    config.run_dir.mkdir()
    (config.run_dir / "config.json.partial").write_text("{")
    (config.run_dir / "run.lock").write_text("123")
    assert not _open_and_close(config).resuming


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        RunFolder(ExperimentConfig(run_dir=tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be written"):
        RunFolder(ExperimentConfig(run_dir=tmp_path / "file" / "below"))


def test_keep_rounds_cuts_later_and_broken_lines(config):
    folder = RunFolder(config)
    for number in range(4):
        folder.log_metrics({"round": number, "loss": 0.5, "bad": float("nan")})
        folder.log_tasks({"round": number, "task_ids": [1]})
    with open(config.run_dir / "metrics.jsonl", "a") as file:
        file.write('{"round": 4, "lo')
    folder.keep_rounds(2)
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"round": number, "loss": 0.5} for number in range(3)
    ]
    assert len((config.run_dir / "tasks.jsonl").read_text().splitlines()) == 3
    folder.log_metrics({"round": 3, "eval/train_success": 0.5})
    folder.log_metrics({"round": 4})
    assert folder.last_evaluation() == {"round": 3, "eval/train_success": 0.5}
    folder.keep_rounds(-1)
    assert folder.last_evaluation() == {}
    folder.close()


def test_parameters_come_back_as_they_were(config):
    folder = RunFolder(config)
    assert folder.read_params() is None
    params = {"params": {"a": {"kernel": np.float32([[1.5]])}, "b": np.float32(2)}}
    params["half"] = jnp.array([[0.1, -0.0]], jnp.bfloat16)
    folder.write_params(params)
    read = folder.read_params()
    jax.tree.map(np.testing.assert_array_equal, read, params)
    assert read["half"].dtype == jnp.bfloat16 and np.signbit(read["half"][0, 1])
    (config.run_dir / "start_params.npz").write_bytes(b"PK")
    with pytest.raises(UsageError, match="is damaged"):
        folder.read_params()
    folder.close()


def test_a_damaged_line_in_the_middle_is_named(config):
    folder = RunFolder(config)
    (config.run_dir / "metrics.jsonl").write_text('{"round": 0}\nx\n{"round": 2}\n')
    with pytest.raises(UsageError, match="line 2 is damaged"):
        folder.keep_rounds(2)
    folder.close()
