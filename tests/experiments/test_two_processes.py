"""Two real processes of four devices run the loop: numbers, deaths, other meshes."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TIMEOUT = 1200.0  # seconds; generous, because machines may be busy
SOON = 60.0  # seconds within which the survivors of a death must end
ROUNDS = 6
BUSY = ("time/", "compile/", "env/policy_calls")
"""Metrics that depend on how busy the machine is."""

Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(repository_root, tmp_path):
    """Function that starts one process of a run."""
    processes = []

    def start(arguments: list[str], *, devices: int = 4) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=repository_root,
            env=os.environ
            | {
                "PYTHONPATH": str(repository_root),
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def levers(start: Start, folder: Path, count: int, *mesh: str) -> list:
    """The started processes of a run on levers."""
    place = f"localhost:{free_port()}"
    return [
        start(
            [
                "tests.experiments.lever_process",
                *(place, str(count), str(index), str(folder), str(ROUNDS), *mesh),
            ],
            devices=8 // count,
        )
        for index in range(count)
    ]


def finish(processes: list, code: int = 0) -> list[str]:
    """Errors of processes that all ended with `code`."""
    said = [process.communicate(timeout=TIMEOUT)[1] for process in processes]
    for process, errors in zip(processes, said, strict=True):
        assert process.returncode == code, errors[-3000:]
    return said


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    path = folder / name
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if "\n" in line]


def wait_for_round(folder: Path, number: int, processes: list) -> None:
    deadline = time.monotonic() + TIMEOUT
    while len(lines(folder)) <= number and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


def last_saved(folder: Path) -> int:
    """Round of the newest checkpoint, -1 before the first."""
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def wait_for_save(folder: Path, number: int, processes: list) -> None:
    deadline = time.monotonic() + TIMEOUT
    while last_saved(folder) < number and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


def gone_on_with(folder: Path, processes: list, saved: int) -> None:
    """Finishes processes, which must not have run the rounds up to `saved` again."""
    before = lines(folder)[: saved + 1]
    assert len(before) == saved + 1 and all("time/round" in row for row in before[1:])
    finish(processes)
    assert lines(folder)[: saved + 1] == before  # to the microsecond


def same_numbers(folder: Path, other: Path, tolerance: float = 1e-5) -> None:
    found, wanted = lines(folder), lines(other)
    assert len(found) == len(wanted) > 1
    for row, right in zip(found, wanted, strict=True):
        names = {name for name in right if not name.startswith(BUSY)}
        assert names <= row.keys()
        assert {n: row[n] for n in names} == pytest.approx(
            {n: right[n] for n in names}, rel=tolerance, abs=tolerance
        )
    assert lines(folder, "tasks.jsonl") == lines(other, "tasks.jsonl")


@pytest.mark.slow
def test_same_numbers_as_one_process(start, tmp_path):
    finish(levers(start, tmp_path / "one", 1))
    finish(levers(start, tmp_path / "two", 2))
    same_numbers(tmp_path / "two", tmp_path / "one")
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["status"] == "finished" and result["round"] == ROUNDS
    finish(levers(start, tmp_path / "split", 2, "data=2", "fsdp=2", "tensor=2"))
    same_numbers(tmp_path / "split", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_killed_and_gone_on_with_on_another_mesh(start, tmp_path, killed):
    finish(levers(start, tmp_path / "one", 1))
    folder = tmp_path / "killed"
    processes = levers(start, folder, 2)
    wait_for_round(folder, 3, processes)
    wait_for_save(folder, 2, processes)
    processes[killed].send_signal(signal.SIGKILL)
    began = time.monotonic()
    survivor = processes[1 - killed]
    said = survivor.communicate(timeout=TIMEOUT)[1]
    assert time.monotonic() - began < SOON
    assert survivor.returncode == 1, said[-3000:]
    assert f"process {killed} (" in said
    # On a busy machine the dead may be slow to close their connections.
    assert "is gone" in said or "says nothing any more" in said
    assert "same command" in said and "Traceback" not in said
    saved = last_saved(folder)
    assert saved >= 2
    gone_on_with(folder, levers(start, folder, 2, "data=4", "fsdp=2"), saved)
    same_numbers(folder, tmp_path / "one", 1e-4)


@pytest.mark.slow
def test_a_run_of_two_goes_on_as_one(start, tmp_path):
    finish(levers(start, tmp_path / "one", 1))
    folder = tmp_path / "stopped"
    processes = levers(start, folder, 2)
    wait_for_round(folder, 2, processes)
    processes[1].send_signal(signal.SIGTERM)  # to one; both must save and stop
    finish(processes)
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "stopped" and 2 <= result["round"] < ROUNDS
    assert last_saved(folder) == result["round"]
    again = levers(start, folder, 1, "data=2", "fsdp=4")
    gone_on_with(folder, again, result["round"])
    same_numbers(folder, tmp_path / "one", 1e-4)


@pytest.mark.slow
def test_preflight_of_real_processes(start, tmp_path):
    place, folder = f"localhost:{free_port()}", str(tmp_path / "run")
    processes = [
        start(
            [
                "tests.experiments.lever_process",
                *(place, "2", str(index), folder, str(ROUNDS), f"data={4 + index}"),
            ]
        )
        for index in range(2)
    ]
    for said in finish(processes, 2):
        assert said.count("\n") == 1
        assert "--mesh.data 5 instead of 4" in said
    assert not Path(folder).exists(), "nothing is made before all agree"


def main_job(folder: Path, *more: str) -> list[str]:
    return [
        *("experiments.osworld", "--run-dir", str(folder), "--rounds", "2"),
        *("--algo.tasks-per-round", "8", "--algo.group-size", "8"),
        *("--algo.rows-per-update", "64", "--eval.every", "2"),
        *("--policy.width", "16", "--policy.layers", "1"),
        *("--warm-start.steps", "50", "--warm-start.episodes", "256"),
        *("--warm-start.cache-dir", str(folder.parent / "cache"), *more),
    ]


@pytest.mark.slow
def test_main_job(start, tmp_path):
    finish([start(main_job(tmp_path / "one"), devices=8)])
    place = ("--launch.coordinator", f"localhost:{free_port()}")
    finish(
        [
            start(
                main_job(
                    tmp_path / "two",
                    *(*place, "--launch.num-processes", "2"),
                    *("--launch.process-id", str(index)),
                )
            )
            for index in range(2)
        ]
    )
    same_numbers(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "two" / "report.html").exists()


def model_job(checkpoint: Path, folder: Path, *more: str) -> list[str]:
    from tests.experiments.tiny_runs import arguments

    flags = {"algo.kl-coef": 0.05}  # with a reference in parts over the devices
    return [
        "tests.experiments.model_process",
        *arguments(checkpoint, folder, **flags),
        *more,
    ]


@pytest.mark.slow
def test_a_vision_language_model(start, tmp_path):
    """Rendered screens, groups that share a prompt: the losses of one process.

    Each of the two holds a half of the parameters, the reference and the moments.
    """
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    pytest.importorskip("tokenizers", reason="needs the extra vlm")
    from stepjax.models.qwen_vl.config import PRESETS
    from stepjax.models.qwen_vl.tiny import write_tiny_checkpoint

    config = PRESETS["tiny-qwen2-vl"]  # with one layer it compiles sooner
    config = dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, num_layers=1),
        vision=dataclasses.replace(config.vision, depth=1),
    )
    checkpoint = tmp_path / "tiny"
    write_tiny_checkpoint(checkpoint, config)
    (checkpoint / "wording.txt").write_text("{instruction}")
    finish([start(model_job(checkpoint, tmp_path / "one"), devices=8)])
    place = ("--launch.coordinator", f"localhost:{free_port()}")
    mesh = ("--mesh.data", "1", "--mesh.fsdp", "4", "--mesh.tensor", "2")
    finish(
        [
            start(
                model_job(
                    checkpoint,
                    tmp_path / "two",
                    *(*mesh, *place, "--launch.num-processes", "2"),
                    *("--launch.process-id", str(index)),
                )
            )
            for index in range(2)
        ]
    )
    same_numbers(tmp_path / "two", tmp_path / "one")
    rounds = [row for row in lines(tmp_path / "two") if row["round"] > 0]
    assert sum(row["update/count"] for row in rounds) >= 2
    # Two members of every step share a prompt, wherever it was seen.
    assert all(row["augment/rows"] > row["augment/steps"] for row in rounds)
    assert rounds[-1]["update/kl"] > 0.0
