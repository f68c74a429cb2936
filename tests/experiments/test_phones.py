"""Runs on phones: their command line, and their pictures in reports."""

import importlib.util
import io

import numpy as np
import pytest

from experiments.cli import parse
from experiments.compare_args import parse_plan
from experiments.config import EnvConfig, ExperimentConfig
from experiments.episodes import draw_step, is_tall
from experiments.errors import UsageError
from experiments.presets import MOBILE_PRESETS
from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Widget
from stepjax.rollout.frames import frame_of, touch_frame_of

PROGRAM = "python -m experiments.androidworld"
BUTTON = Widget(role="button", label="OK", box=(0.25, 0.5, 0.75, 0.75))
SEEN = Observation(instruction="Tap OK", widgets=(BUTTON,))


def parsed(*args):
    return parse(PROGRAM, MOBILE_PRESETS, args)


def test_phones_in_a_browser_are_the_default():
    name, config = parsed()
    assert (name, config.env.backend) == ("quick", "miniwob-mobile")
    assert (config.env.screen_width, config.env.screen_height) == (1080, 2400)
    name, config = parsed("--env.backend", "androidworld", "--env.url", "http://a:1")
    assert (name, config.env.url) == ("paper", "http://a:1")


def test_a_comparison_of_methods_on_phones():
    plan = parse_plan(["--env", "miniwob-mobile", "--seeds", "2"])
    assert plan.base.env.backend == "miniwob-mobile"
    assert plan.base.algo.tasks_per_round == 10
    assert parse_plan(["--env=miniwob-mobile"]).base.env == plan.base.env
    assert parse_plan([]).base.env.backend == "sim"


def test_a_model_needs_pictures():
    with pytest.raises(UsageError, match="miniwob-mobile does not give"):
        parsed("--policy", "qwen-vl", "--policy.checkpoint", "folder")


def test_servers_name_their_own_tasks(tmp_path):
    assert EnvConfig(backend="androidworld", task_list=tmp_path).tasks is None
    with pytest.raises(ValueError, match="give the folder as env.tasks"):
        EnvConfig(backend="desktop", task_list=tmp_path)


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (EnvConfig(backend="androidworld"), "env.url is needed"),
        (EnvConfig(backend="miniwob-mobile"), "--env.device-scale"),
        (EnvConfig(backend="miniwob-mobile", chromium="/no/such"), "is no executable"),
    ],
)
def test_what_cannot_be_opened_is_a_line(env, reason):
    from experiments.backends import make_policy, open_backend

    if importlib.util.find_spec("miniwob") is None:
        pytest.skip("MiniWoB++'s pages are missing")
    config = ExperimentConfig(env=env)
    with pytest.raises(UsageError, match=reason):
        open_backend(config, make_policy(config.policy, env.backend))


def touch(kind, **fields):
    return touch_frame_of(SEEN, Action(kind=ActionKind[kind], **fields)).touch


def test_touches_of_actions():
    assert touch("CLICK", widget=0) == ((0.5, 0.625),)
    ((x, y),) = touch("LONG_PRESS", x=0.25, y=0.75)
    assert (x, y) == (pytest.approx(0.25), pytest.approx(0.75))
    assert touch("DRAG", x=0.1, y=0.2, to_x=0.3, to_y=0.4) == ((0.1, 0.2), (0.3, 0.4))
    (start, end) = touch("SCROLL_DOWN")
    assert start[1] > end[1] and start[0] == end[0] == 0.5
    (start, end) = touch("SCROLL_LEFT", widget=0)
    assert start[0] < end[0] and start[1] == 0.625
    parts = (Action(kind=ActionKind.WAIT), Action(kind=ActionKind.CLICK, widget=0))
    assert touch("SEQUENCE", parts=parts) == ((0.5, 0.625),)
    for kind in ("HOME", "WAIT", "DONE", "ENTER", "INVALID"):
        assert touch(kind) == ()
    assert touch_frame_of(SEEN, None).touch == ()
    assert frame_of(SEEN, Action(kind=ActionKind.CLICK, widget=0)).touch == ()


def test_touches_are_drawn_where_they_were():
    from PIL import Image

    image = np.full((2400, 1080, 3), 255, np.uint8)
    file = draw_step(image, BUTTON.box, [(0.5, 0.75), (0.5, 0.25)])
    assert is_tall(file)
    with Image.open(io.BytesIO(file)) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int32)
    assert pixels.shape[0] <= 720
    orange = np.abs(pixels - (213, 94, 0)).sum(axis=-1) < 90
    rows, columns = np.nonzero(orange)
    height, width = pixels.shape[:2]
    assert 0.22 < rows.min() / height < 0.27  # the head of the arrow
    assert 0.75 < rows.max() / height < 0.79  # the ring around its start
    assert abs(columns.mean() / width - 0.5) < 0.02
    assert not is_tall(draw_step(image[:800], None))
