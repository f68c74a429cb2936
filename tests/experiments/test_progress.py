import io
from pathlib import Path

import pytest

from experiments.config import ExperimentConfig
from experiments.observer import RunResult
from experiments.progress import LineProgress, LiveProgress, make_progress, wants_live


class Terminal(io.StringIO):
    def isatty(self):
        return True


RESULT = RunResult(
    run_dir=Path("runs/x"),
    status="finished",
    round=3,
    trajectories=768,
    updates=12,
    params_digest="0",
    evaluation={"round": 3, "eval/train_success": 0.75},
    backend="sim",
    params=None,
    start_params=None,
)


def drive(progress, rounds=3):
    progress.started(ExperimentConfig(rounds=rounds), "sim", "backend sim [x]")
    for number in range(rounds + 1):
        row = {"round": number, "trajectories": 256 * number, "train/success": 0.5}
        if number in (0, rounds):
            row |= {"eval/train_success": 0.4 + 0.1 * number, "eval/train_above_60": 51}
            progress.evaluated(row)
        progress.round_finished(row)
    progress.waiting("saving")
    progress.warned("cache nearly empty [bold]")
    progress.finished(RESULT)


def seconds():
    ticks = iter(range(0, 1000, 2))
    return lambda: float(next(ticks))


def test_plain_lines():
    stream = io.StringIO()
    drive(LineProgress(stream, clock=seconds()))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "backend sim [x]"
    assert lines[1] == (
        "round 0/3 | collected 50.0% | training tasks 40.0% | above 60%: 51 tasks"
    )
    # One round of 256 trajectories takes 2 seconds, two rounds are left.
    assert lines[2] == ("round 1/3 | collected 50.0% | 128 trajectories/s | 0:04 left")
    assert "warning: cache nearly empty [bold]" in lines
    assert lines[-1].startswith("finished after round 3 (sim) | training tasks 75.0%")
    assert "\x1b" not in stream.getvalue()


def test_live_display_shows_the_same_numbers():
    stream = Terminal()
    drive(LiveProgress(stream, clock=seconds()))
    text = stream.getvalue()
    for part in ("backend sim [x]", "round 3/3", "128 trajectories/s", "70.0%", "51"):
        assert part in text
    assert "cache nearly empty [bold]" in text
    assert text.rstrip().endswith("see runs/x")


def test_close_is_safe_at_any_time():
    progress = LiveProgress(Terminal())
    progress.close()
    progress.started(ExperimentConfig(), "sim", "x")
    progress.close()
    progress.close()
    progress.round_finished({"round": 1})


@pytest.mark.parametrize(
    ("environ", "live"),
    [
        ({}, True),
        ({"TERM": "xterm"}, True),
        ({"CI": "true"}, False),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_terminal_choice(environ, live):
    assert wants_live(Terminal(), environ) == live
    kind = LiveProgress if live else LineProgress
    assert isinstance(make_progress(Terminal(), environ), kind)


def test_pipe_gets_lines():
    assert isinstance(make_progress(io.StringIO(), {}), LineProgress)
