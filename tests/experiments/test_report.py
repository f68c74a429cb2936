import json
import re
import types

import numpy as np
import pytest

from experiments.config import ExperimentConfig
from experiments.episode_choice import choose, record_episodes
from experiments.episodes import (
    draw_step,
    episode_from_frames,
    load_episodes,
    save_episodes,
)
from experiments.report import main, write_report
from experiments.run_data import area_under_curve, read_run, value_at
from experiments.task_history import task_history
from experiments.tensorboard import TensorBoardObserver
from stepjax.rollout.backend import Frame, TaskTable
from tests.experiments import synthetic

EVIL = '<script>alert("x")</script><img src=http://evil.test/a.png>'


def frames(count=3, instruction=EVIL):
    image = np.full((60, 90, 3), 200, np.uint8)
    return [
        Frame(
            image=image,
            instruction=instruction,
            action=f"click {EVIL}" if index < count - 1 else "",
            box=(0.1, 0.2, 0.5, 0.6) if index < count - 1 else None,
        )
        for index in range(count)
    ]


def episode(**changes):
    settings = dict(
        task="a", moment="after training", split="unseen task", success=True
    )
    return episode_from_frames(frames(), **(settings | changes))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = synthetic.write_run(tmp_path_factory.mktemp("report") / "run")
    names = [f"{EVIL} {index}" for index in range(synthetic.TASKS)]
    table = {"names": names, "domains": ["writer"] * synthetic.TASKS}
    (folder / "tasks.json").write_text(json.dumps(table))
    synthetic.write_lines(
        folder / "warnings.jsonl",
        [{"round": 3, "message": EVIL}, {"round": 5, "message": EVIL}],
    )
    save_episodes(folder / "episodes", [episode(), episode(success=False)])
    return folder


@pytest.fixture(scope="module")
def html(run_dir):
    return write_report(run_dir).read_text()


def test_report_is_one_safe_file(html):
    assert "<script" not in html.lower()
    assert "&lt;script&gt;" in html
    # Data URIs aside, no address of anything, and no tag that could load one.
    rest = re.sub(r'"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+"', '""', html)
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", rest)
    assert [s for s in sources if "evil.test" not in s] == []
    assert not re.search(r"<(link|iframe|object|embed|script)", rest)
    assert re.search(r"<img[^>]*evil", rest) is None
    assert "default-src 'none'" in html
    assert len(html) < 5_000_000


def test_report_shows_the_run(html, run_dir):
    for text in (
        "step on the simulated desktop",
        "simulator",
        "90.0%",  # 0.4 + 0.5 at the end
        "+50.0 points",
        "from 40.0%",
        "solved",
        "failed",
        "1,024",  # 16 rounds of 64
        "Where the budget went",
        "after training",
        "learning_rate",
    ):
        assert text in html, text
    assert html.count("data:image/") == 6 + 6  # figures, steps
    assert not list(run_dir.glob("*.part"))


def test_report_of_a_run_that_just_began(tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / "config.json").write_text('{"env": {"backend": "miniwob"}}')
    (folder / "metrics.jsonl").write_text(
        '{"round": 0, "trajectories": 0, "eval/train_success": 0.4}\n{"round": 1, "tra'
    )
    html = write_report(folder).read_text()
    assert "miniwob" in html and "40.0%" in html


def test_report_command(run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.report.run_figures", lambda run, folder: {})
    assert main([str(run_dir)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and error.count("\n") == 1


def test_episodes_survive_the_disk(tmp_path):
    made = [episode(), episode(task="b", success=False)]
    save_episodes(tmp_path / "e", made)
    assert load_episodes(tmp_path / "e") == made
    assert load_episodes(tmp_path / "none") == []


def test_action_is_drawn_where_it_went():
    from io import BytesIO

    from PIL import Image

    image = np.full((100, 200, 3), 255, np.uint8)
    plain = np.asarray(Image.open(BytesIO(draw_step(image, None))).convert("RGB"))
    drawn = draw_step(image, (0.25, 0.4, 0.75, 0.6))
    marked = np.asarray(Image.open(BytesIO(drawn)).convert("RGB"))
    changed = np.argwhere((plain.astype(int) - marked).any(axis=-1))
    assert plain.shape == image.shape and (plain == 255).all()
    # The frame, drawn just outside rows 40 to 60 and columns 50 to 150, and a pointer
    # whose tip is in the middle.
    assert 35 <= changed[:, 0].min() < 40 and 45 <= changed[:, 1].min() < 50
    assert 60 < changed[:, 0].max() <= 71 and 150 < changed[:, 1].max() <= 155
    inside = changed[(changed[:, 0] > 44) & (changed[:, 0] < 56)]
    inside = inside[(inside[:, 1] > 55) & (inside[:, 1] < 145)]
    assert abs(inside.min(axis=0) - [50, 100]).max() <= 2  # its rim is white


def test_wide_pictures_are_scaled_down():
    from io import BytesIO

    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), dtype=np.uint8)
    assert Image.open(BytesIO(draw_step(noise, None))).width <= 640


def test_choice_prefers_what_was_learned():
    success = {
        "before training": np.array([True, False, False, False]),
        "after training": np.array([True, True, False, True]),
    }
    lengths = {moment: np.full(4, 5) for moment in success}
    unseen = np.array([False, False, False, True])
    assert choose(success, lengths, is_unseen=unseen) == [
        (1, "before training"),
        (1, "after training"),
        (0, "after training"),
        (2, "after training"),
        (3, "after training"),
    ]


class FakeBackend:
    name, max_steps = "fake", 4
    tasks = TaskTable(
        names=("a", "b", "c", "d"),
        domains=("x",) * 4,
        train_ids=np.array([0, 1, 2]),
        unseen_ids=np.array([3]),
        infeasible=np.zeros(4, bool),
        instruction=lambda task, seed: "",
    )

    def collect(self, params, task_ids, seeds, key, *, temperature):
        assert temperature == 0.0 and seeds.dtype == np.uint32
        count = len(task_ids)
        return types.SimpleNamespace(
            task_id=task_ids,
            reward=(task_ids >= params).astype(np.float32),
            valid=np.ones(count, bool),
            step_mask=np.arange(4) < np.full((count, 1), 3),
            action_tokens=np.zeros((count, 4, 3), np.int32),
        )

    def replay(self, task_id, seed, action_tokens):
        assert action_tokens.shape == (3, 3)
        return frames(len(action_tokens) + 1)

    def close(self):
        pass


def test_record_episodes():
    params = {"before training": 9, "after training": 2}
    made = record_episodes(FakeBackend(), params, None, num_tasks=4)
    shown = [(e.task, e.moment, e.success) for e in made]
    assert shown[:2] == [("c", "before training", False), ("c", "after training", True)]
    assert {e.split for e in made} == {"training task", "unseen task"}
    assert all(len(e.steps) == 4 for e in made)


def test_run_is_read_whole(tmp_path):
    folder = synthetic.write_run(tmp_path / "run")
    with open(folder / "metrics.jsonl", "a") as file:
        # A round run again after a kill: the later line counts.
        row = {"round": 16, "trajectories": 1024, "eval/train_success": 0.1}
        file.write(json.dumps(row) + "\n")
    run = read_run(folder)
    assert len(run.metrics) == 17
    assert run.last("eval/train_success") == 0.1
    assert run.first("eval/train_success") == 0.4
    assert run.backend == "sim"
    x, y = run.series("train/success")
    assert list(x) == [64 * number for number in range(1, 16)] and len(y) == 15


def test_damaged_line_is_named(tmp_path):
    folder = synthetic.write_run(tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = "{half"
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 4"):
        read_run(folder)


def test_task_history_by_hand(tmp_path):
    folder = synthetic.write_run(tmp_path / "run", rounds=4)
    synthetic.write_lines(
        folder / "tasks.jsonl",
        [
            {
                "round": 1,
                "task_ids": [4, 7],
                "trajectories": [4, 4],
                "successes": [1, 4],
            },
            {"round": 2, "task_ids": [4], "trajectories": [8], "successes": [4]},
            {
                "round": 3,
                "task_ids": [7, 9],
                "trajectories": [1, 7],
                "successes": [0, 7],
                "rate": [0.75, 1.0],
            },
        ],
    )
    history = task_history(read_run(folder))
    assert history is not None
    assert list(history.task_ids) == [9, 7, 4]
    expected = [[np.nan, np.nan, 1.0], [1.0, 1.0, 0.75], [0.25, 0.5, 0.5]]
    np.testing.assert_array_equal(history.rate, expected)
    np.testing.assert_array_equal(
        history.trajectories, [[0, 0, 7], [4, 0, 1], [4, 8, 0]]
    )


def test_curve_arithmetic():
    # Trapezoids (0+1)/2 * 10 and (1+1)/2 * 30 over a width of 40.
    assert area_under_curve([0, 10, 40], [0.0, 1.0, 1.0]) == 0.875
    assert value_at([0, 10, 40], [0.0, 1.0, 0.0], 25) == 0.5


def test_tensorboard_events(tmp_path):
    observer = TensorBoardObserver(tmp_path / "events")
    observer.started(ExperimentConfig(), "sim", "hello")
    observer.round_finished({"round": 1, "train/success": 0.5, "bad": float("nan")})
    observer.close()
    observer.close()
    (path,) = (tmp_path / "events").iterdir()
    content = path.read_bytes()
    assert b"train/success" in content and b"bad" not in content
