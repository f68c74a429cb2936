"""Kills at random moments: the same command goes on to the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROUNDS = 30
TIMEOUT = 300.0  # seconds; generous, because machines may be busy


@pytest.fixture
def start(repository_root):
    """Function that starts the run of a folder as a process of its own."""
    processes = []

    def start(folder: Path) -> subprocess.Popen:
        environ = os.environ | {
            "PYTHONPATH": str(repository_root),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.experiments.lever_world"),
                *(str(folder), str(ROUNDS)),
            ],
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


def result_of(folder: Path) -> dict:
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and result["round"] == ROUNDS
    return result


def check_kills(start, tmp_path: Path, kills: int) -> None:
    finish(start(tmp_path / "unbroken"))
    wanted = result_of(tmp_path / "unbroken")
    rng, folder = random.Random(0), tmp_path / "killed"
    targets = sorted(rng.randrange(ROUNDS) for _ in range(kills))
    killed = 0
    for target in targets:
        killed += kill_at(start(folder), folder, target, rng.uniform(0.0, 0.05))
    assert killed >= max(1, kills - 2), "the run must not end before it is killed"
    finish(start(folder))
    found = result_of(folder)
    assert found["params_digest"] == wanted["params_digest"]
    assert found["updates"] == wanted["updates"]
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["round"] for row in rows] == list(range(ROUNDS + 1))


def test_three_kills(start, tmp_path):
    check_kills(start, tmp_path, 3)


@pytest.mark.slow
def test_twenty_kills(start, tmp_path):
    check_kills(start, tmp_path, 20)
