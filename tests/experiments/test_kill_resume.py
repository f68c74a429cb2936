"""Kills at random moments: the same command goes on to the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

TIMEOUT = 600.0  # seconds; generous, because machines may be busy


class World(NamedTuple):
    """A job to kill: its command without the folder, and how many rounds it runs."""

    command: Callable[[Path], list[str]]
    rounds: int
    longest_delay: float  # seconds between a line of the metrics and the kill


def lever_command(folder: Path) -> list[str]:
    return ["-m", "tests.experiments.lever_world", str(folder), "30"]


def main_job_command(folder: Path) -> list[str]:
    return [
        *("-m", "experiments.osworld", "--run-dir", str(folder), "--rounds", "24"),
        *("--algo.tasks-per-round", "8", "--algo.group-size", "8"),
        *("--checkpoint.save-every", "2", "--eval.every", "8"),
        *("--warm-start.steps", "100", "--warm-start.episodes", "256"),
        *("--warm-start.cache-dir", str(folder.parent / "cache")),
    ]


LEVERS = World(lever_command, 30, 0.05)
MAIN_JOB = World(main_job_command, 24, 2.0)


@pytest.fixture
def start(repository_root):
    """Function that starts a job as a process of its own."""
    processes = []

    def start(arguments: list[str]) -> subprocess.Popen:
        environ = os.environ | {
            "PYTHONPATH": str(repository_root),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=repository_root,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors.decode()[-2000:]


def rounds_done(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(process: subprocess.Popen, folder: Path, lines: int, delay: float) -> bool:
    """Kill a moment after so many lines are written; False if it ended before."""
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if rounds_done(folder) >= lines:
            time.sleep(delay)
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def result_of(folder: Path, rounds: int) -> dict:
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and result["round"] == rounds
    return result


def check_kills(start, world: World, tmp_path: Path, kills: int) -> None:
    unbroken, folder = tmp_path / "unbroken", tmp_path / "killed"
    finish(start(world.command(unbroken)))
    wanted = result_of(unbroken, world.rounds)
    rng = random.Random(0)
    targets = sorted(rng.randrange(world.rounds) for _ in range(kills))
    killed = 0
    for target in targets:
        process = start(world.command(folder))
        killed += kill_at(process, folder, target, rng.uniform(0, world.longest_delay))
    assert killed >= max(1, kills - 2), "the run must not end before it is killed"
    finish(start(world.command(folder)))
    found = result_of(folder, world.rounds)
    assert found["params_digest"] == wanted["params_digest"]
    assert found["updates"] == wanted["updates"]
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["round"] for row in rows] == list(range(world.rounds + 1))


@pytest.mark.slow
def test_one_kill(start, tmp_path):
    check_kills(start, LEVERS, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("world", [LEVERS, MAIN_JOB], ids=["levers", "main job"])
def test_twenty_kills(start, tmp_path, world):
    check_kills(start, world, tmp_path, 20)
