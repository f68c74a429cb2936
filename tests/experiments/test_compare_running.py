"""Running a comparison: workers that answer, fail, die and are replaced."""

import io
import json
import os
import subprocess
import sys

import pytest

from experiments import compare
from experiments.compare_plan import check_folder
from experiments.compare_runner import is_finished, run_cells
from experiments.compare_stats import load_results
from experiments.compare_worker import serve
from experiments.errors import RunError
from experiments.observer import RunResult
from tests.experiments.synthetic import make_plan


def result_of(config, status="finished"):
    config.run_dir.mkdir(parents=True, exist_ok=True)
    (config.run_dir / "result.json").write_text(json.dumps({"status": status}))
    return RunResult(
        run_dir=config.run_dir,
        status=status,
        round=config.rounds,
        trajectories=0,
        updates=0,
        params_digest="",
        evaluation={},
        backend="sim",
        params=None,
        start_params=None,
    )


def test_worker_answers_for_every_cell(tmp_path):
    plan = make_plan(tmp_path / "c", "--methods", "step,gigrpo", "--seeds", "1")

    def train(config, *, observer):
        if config.algo.method == "gigrpo":
            raise RunError("loss is not finite")
        observer.round_finished({"round": 1})
        return result_of(config)

    replies = io.StringIO()
    serve(plan, io.StringIO("0\n1\n"), replies, train)
    said = [json.loads(line) for line in replies.getvalue().splitlines()]
    assert [(m["cell"], m["event"]) for m in said] == [
        (0, "round"),
        (0, "done"),
        (1, "failed"),
    ]
    assert said[-1]["why"] == "loss is not finite"
    assert is_finished(plan, plan.cells[0])
    note = plan.run_dir / plan.cells[0].folder / "cell.json"
    assert json.loads(note.read_text())["devices"] >= 1


def test_worker_leaves_when_stopped(tmp_path):
    plan = make_plan(tmp_path / "c", "--methods", "step,gigrpo", "--seeds", "1")
    replies = io.StringIO()
    serve(
        plan,
        io.StringIO("0\n1\n"),
        replies,
        lambda config, *, observer: result_of(config, "stopped"),
    )
    said = [json.loads(line)["event"] for line in replies.getvalue().splitlines()]
    assert said == ["stopped"]


@pytest.mark.slow
def test_cells_of_the_real_loop(tmp_path):
    import functools

    from experiments.loop import train
    from tests.experiments import lever_world

    plan = make_plan(
        tmp_path / "c", "--methods", "t_grpo,gigrpo,step_balanced", "--seeds", "2",
        "--learning-rates", "0.05", "--rounds", "8", "--algo.tasks-per-round", "4",
        "--algo.rows-per-update", "32",
    )  # fmt: skip
    check_folder(plan)
    shared = functools.partial(
        train,
        backend=lever_world.LeverBackend(),
        policy=lever_world.POLICY,
        start_params=lever_world.start_params(),
    )
    numbers = "".join(f"{number}\n" for number in range(len(plan.cells)))
    replies = io.StringIO()
    serve(plan, io.StringIO(numbers), replies, shared)
    events = [json.loads(line) for line in replies.getvalue().splitlines()]
    assert [m for m in events if m["event"] == "failed"] == []
    text = compare.write_results(plan).read_text()
    assert text.startswith("Results of 6 of 6 cells.")
    results = load_results(plan)
    starts = {round(r.numbers["train@0"], 6) for r in results if r.cell.seed == 0}
    assert len(starts) == 1  # one start for all methods
    # Cells that come later find everything compiled but the program of their own
    # first state.
    last = results[-1].run
    assert last.last("compile/count") <= 1
    updates = {r.cell.method: r.numbers["updates"] for r in results}
    assert updates["t_grpo"] <= 1 < updates["gigrpo"]


FAKE_WORKER = """
import json, os, pathlib, sys
root, cells = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
for line in sys.stdin:
    number = int(line)
    folder = root / cells[number]
    once = root / f"died{number}"
    if number == 1 and not once.exists():
        once.write_text("")
        os._exit(9)
    if number == 2:
        print(json.dumps({"cell": 2, "event": "failed", "why": "bad luck"}), flush=True)
        continue
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text('{"status": "finished"}')
    print(json.dumps({"cell": number, "event": "round", "round": 1}), flush=True)
    print(json.dumps({"cell": number, "event": "done", "seconds": 2.0}), flush=True)
"""


def test_runner_survives_workers_and_resumes(tmp_path):
    plan = make_plan(
        tmp_path / "c", "--methods", "step,gigrpo", "--seeds", "2", "--workers", "2"
    )
    check_folder(plan)
    script = tmp_path / "worker.py"
    script.write_text(FAKE_WORKER)
    folders = json.dumps([str(cell.folder) for cell in plan.cells])
    command = [sys.executable, str(script), str(plan.run_dir), folders]
    said = []
    outcome = run_cells(plan, lambda worker: command, said.append)
    assert outcome.ran == 2 and not outcome.stopped
    assert set(outcome.failed) == {plan.cells[1].title, plan.cells[2].title}
    assert "code 9" in outcome.failed[plan.cells[1].title]
    assert "bad luck" in outcome.failed[plan.cells[2].title]
    again = run_cells(plan, lambda worker: command, said.append)
    assert again.ran == 1  # the one whose worker died; finished cells are skipped
    assert "2 finished before" in "\n".join(said)


def test_help_is_quick_and_names_the_flags(repository_root):
    found = subprocess.run(
        [sys.executable, "-m", "experiments.compare", "--help"],
        cwd=repository_root,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    for flag in ("--methods", "--seeds", "--run-dir", "--report-only"):
        assert flag in found.stdout
