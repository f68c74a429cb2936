"""A comparison's plan, numbers and tables."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import compare
from experiments.compare_args import parse_plan
from experiments.compare_figures import draw_table
from experiments.compare_plan import Cell, check_folder
from experiments.compare_results import comparison_tables
from experiments.compare_stats import (
    best_rates,
    cell_numbers,
    load_results,
    mean_interval,
    paired,
    select,
)
from experiments.errors import UsageError
from experiments.run_data import read_run
from tests.experiments import synthetic
from tests.experiments.synthetic import make_plan

ROUNDS, PER_ROUND = 16, synthetic.PER_ROUND


def finish(plan, cell, lift):
    folder = plan.run_dir / cell.folder
    synthetic.write_run(
        folder,
        method=cell.method,
        seed=cell.seed,
        learning_rate=cell.learning_rate,
        lift=lift,
        rounds=ROUNDS,
        eval_every=4,
    )
    (folder / "result.json").write_text('{"status": "finished"}')
    note = {"seconds": 60.0, "device": "cpu", "devices": 1, "jax": "0.10.2"}
    (folder / "cell.json").write_text(json.dumps(note | {"date": "2026-01-02"}))


# Final lift of greedy success by method and seed at the shared rate.
LIFTS = {"step": (0.30, 0.34, 0.32), "gigrpo": (0.28, 0.30, 0.26)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    plan = make_plan(
        folder / "c", "--methods", "step,gigrpo", "--seeds", "3",
        "--learning-rates", "3e-4,1e-3", "--grid-seeds", "2", "--s-low", "0.2,1.0",
    )  # fmt: skip
    for cell in plan.cells:
        lift = LIFTS[cell.method][cell.seed]
        if cell.learning_rate != plan.shared_rate:
            lift += 0.1 if cell.method == "step" else -0.1
        if cell.augment_threshold is not None:
            lift -= 0.2
        finish(plan, cell, lift)
    check_folder(plan)
    return plan


# --- The plan -------------------------------------------------------------------------


def test_cells_are_paired_and_the_shared_rate_comes_first(finished):
    cells = finished.cells
    assert len(cells) == 3 * 2 + 3 * 1 + 2 * 2
    assert {c.learning_rate for c in cells[:6]} == {1e-3}
    assert [c.seed for c in cells[:4]] == [0, 0, 1, 1]
    lows = [c for c in cells if c.augment_threshold is not None]
    assert {c.augment_threshold for c in lows} == {1.0}
    assert len({c.folder for c in cells}) == len(cells)


def test_cells_differ_only_in_what_is_compared(finished):
    base = finished.base
    config = finished.config(Cell(method="gigpo", seed=5, learning_rate=3e-4))
    assert config.algo.method == "gigpo" and config.seed == 5
    assert config.optim.learning_rate == 3e-4
    assert config.algo == dataclasses.replace(base.algo, method="gigpo")
    assert config.rounds == 16 and config.eval == base.eval
    low = Cell(method="step", seed=0, learning_rate=1e-3, augment_threshold=1.0)
    assert finished.config(low).algo.augment_threshold == 1.0


def test_evaluations_fall_on_quarters():
    assert parse_plan(["--rounds", "24"]).base.eval.every == 2
    assert parse_plan(["--rounds", "64"]).base.eval.every == 4
    assert parse_plan(["--rounds", "8", "--eval.every", "1"]).base.eval.every == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "stepp"], "did you mean step"),
        (["--methods", ","], "at least one method"),
        (["--seeds", "0"], "--seeds must be >= 1, got 0"),
        (["--seeds", "two"], "invalid int value: 'two'"),
        (["--workers", "0"], "--workers"),
        (["--learning-rates", "fast"], "--learning-rates must be numbers"),
        (["--learning-rates", "0"], "--learning-rates must be a positive number"),
        (["--shared-learning-rate", "1e-5"], "must be one of --learning-rates (0.001)"),
        (["--rounds", "10"], "multiple of 4"),
        (["--rounds", "64", "--eval.every", "5"], "--eval.every must divide"),
        (["--s-low", "2"], "--s-low must be in [0, 1]"),
        (["--seed", "3"], "use --seeds"),
        (["--algo.method", "step"], "use --methods"),
        (["--no-such-flag"], "unknown flag --no-such-flag"),
        (["--env.backend", "osx"], "env.backend"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert compare.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1 and "Traceback" not in error


def test_other_settings_are_refused(finished):
    check_folder(make_plan(finished.run_dir, "--seeds", "9", "--methods", "gigpo"))
    with pytest.raises(UsageError, match=r"algo\.threshold: 0\.6 -> 0\.7"):
        check_folder(make_plan(finished.run_dir, "--algo.threshold", "0.7"))


# --- Numbers --------------------------------------------------------------------------


def test_numbers_of_a_cell_by_hand(finished):
    run = read_run(finished.run_dir / "cells/step/lr0.001/seed0")
    numbers = cell_numbers(run, finished.trajectories)
    # Greedy success runs from 0.4 to 0.7 in a straight line.
    expected = {
        "train@0": 0.4,
        "train@1/4": 0.475,
        "train@1/2": 0.55,
        "train@1": 0.7,
        "unseen@1": 0.35,
        "infeasible@1": 0.175,
        "auc_train": 0.55,
        "auc_unseen": 0.275,
        "above_60@1": 22.0,  # 0.7 of 32 tasks
        "updates": 4.0,
    }
    for name, value in expected.items():
        assert numbers[name] == pytest.approx(value, abs=1e-9), name


def test_paired_interval_by_hand(finished):
    results = load_results(finished)
    step, gigrpo = (select(results, name, 1e-3) for name in ("step", "gigrpo"))
    found = paired(step, gigrpo, "train@1")
    assert found is not None
    # 0.02, 0.04, 0.06: mean 0.04, deviation 0.02, t(2) = 4.3027.
    assert found.values == pytest.approx((0.02, 0.04, 0.06))
    assert found.mean == pytest.approx(0.04)
    assert found.high - found.mean == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    assert found.low < 0 and not found.is_clear


def test_pairs_are_the_seeds_that_both_have(finished):
    results = load_results(finished)
    step, gigrpo = (select(results, name, 1e-3) for name in ("step", "gigrpo"))
    found = paired(step[1:], gigrpo[:2], "train@1")
    assert found is not None and found.values == pytest.approx((0.04,))
    assert np.isnan(found.low) and not found.is_clear
    assert paired(step[2:], gigrpo[:2], "train@1") is None


def test_interval_of_one_value_and_of_equal_values():
    assert np.isnan(mean_interval([0.5]).low)
    same = mean_interval([0.25, 0.25])
    assert (same.low, same.mean, same.high) == (0.25, 0.25, 0.25)


def test_best_rate_by_method(finished):
    best = best_rates(finished, load_results(finished))
    assert best == {"step": 3e-4, "gigrpo": 1e-3}


# --- Tables and figures ---------------------------------------------------------------


def test_tables_say_what_was_measured(finished):
    tables = {
        table.name: table
        for table in comparison_tables(finished, load_results(finished), "Simulator.")
    }
    rows = {row[0]: row for row in tables["table1"].rows}
    assert rows["start"][2] == "40.0 ± 0.0"
    # STEP at its best rate, 3e-4, two seeds: (80 + 84) / 2, t(1) * 2 = 25.4.
    assert rows["+ STEP"][1:3] == ("0.0003", "82.0 ± 25.4")
    assert rows["+ STEP"][-1] == "2" and rows["+ GiGRPO"][-1] == "3"
    shared = tables["paired_shared_gigrpo"]
    (row,) = shared.rows
    assert row[0] == "STEP"
    assert row[shared.header.index("greedy @1")] == "+4.0 [-1.0, +9.0], 3 of 3"
    budget = tables["shared"]
    header, row = budget.header, budget.rows[0]
    assert row[header.index("greedy @1/4")] == "48.0"  # 40 + 32 / 4
    assert row[header.index("updates")] == "4.0"
    assert all("Simulator." in table.caption for table in tables.values())
    assert tables["mechanisms"].rows[0][1] != "–"


@pytest.mark.slow
def test_results_are_written(finished, capsys):
    arguments = [
        "--run-dir", str(finished.run_dir), *synthetic.SMALL_PLAN,
        "--methods", "step,gigrpo",
        "--seeds", "3", "--learning-rates", "3e-4,1e-3", "--grid-seeds", "2",
        "--s-low", "0.2,1.0", "--report-only",
    ]  # fmt: skip
    assert compare.main(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("backend sim, a simulated desktop")
    text = (finished.run_dir / "results.md").read_text()
    assert text.startswith("Results of 13 of 13 cells.")
    for word in ("Simulator", "seeds 0 to 2", "2026-01-02", "1 × cpu", "Table 1"):
        assert word in text
    numbers = json.loads((finished.run_dir / "results.json").read_text())
    assert numbers["best_rates"]["step"] == 3e-4
    row = next(
        row
        for row in numbers["paired_shared"]
        if (row["method"], row["reference"], row["measure"])
        == ("step", "gigrpo", "train@1")
    )
    assert row["n"] == 3 and row["mean"] == pytest.approx(0.04)
    from PIL import Image

    names = ("figure1", "figure2", "figure5", "curves", "updates", "differences")
    for name in (*names, "table1"):
        with Image.open(finished.run_dir / "figures" / f"{name}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, name
        if name in names:
            assert f"](figures/{name}.png)" in text


def test_report_of_nothing_is_an_error(tmp_path, capsys):
    arguments = ["--run-dir", str(tmp_path / "x"), "--report-only"]
    assert compare.main(arguments) == 2
    assert "no cell" in capsys.readouterr().err


def test_a_partial_comparison_is_reported(tmp_path):
    methods = ["--methods", "step,step_no_both", "--seeds", "2"]
    plan = make_plan(tmp_path / "c", *methods)
    check_folder(plan)
    for cell, lift in zip(plan.cells[:2], (0.3, 0.2), strict=True):
        finish(plan, cell, lift)
    tables = comparison_tables(plan, load_results(plan), "")
    (table2,) = [table for table in tables if table.name == "table2"]
    row = table2.rows[1]
    assert row[:3] == ("w/o Both", "60.0", "-10.0 (n=1)")  # no interval of one seed
    assert row[-1] == "1"


def test_drawn_table_is_a_picture(finished, tmp_path):
    table = comparison_tables(finished, load_results(finished), "x")[0]
    assert draw_table(table, tmp_path).stat().st_size > 5_000
