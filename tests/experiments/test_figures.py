import numpy as np
import pytest

from experiments.figures import run_figures
from experiments.run_data import read_run
from tests.experiments import synthetic


def pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    run = read_run(synthetic.write_run(folder / "run"))
    return run_figures(run, folder / "figures")


def test_every_figure_is_drawn(made):
    assert set(made) == {"success", "above_60", "tasks", "budget", "share", "health"}
    for path in made.values():
        image = pixels(path)
        assert image.shape[0] > 300 and image.shape[1] > 900
        # More than text on white: lines and areas in color.
        colored = (image.max(axis=-1).astype(int) - image.min(axis=-1)) > 60
        assert colored.mean() > 0.001, path.name


def test_map_shows_all_tasks(made):
    image = pixels(made["tasks"])
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 64


def test_figures_without_data_are_left_out(tmp_path):
    folder = synthetic.write_run(tmp_path / "run")
    synthetic.write_lines(
        folder / "metrics.jsonl",
        [
            {"round": number, "trajectories": number, "eval/train_success": 0.5}
            for number in range(3)
        ],
    )
    (folder / "tasks.jsonl").unlink()
    assert set(run_figures(read_run(folder), tmp_path / "f")) == {"success"}
