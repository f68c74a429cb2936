"""Runs on phones: their command line, and their pictures in reports."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import parse
from experiments.compare_args import parse_plan
from experiments.config import EnvConfig, ExperimentConfig, PolicyConfig
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
    with pytest.raises(UsageError, match="add --env.backend androidworld"):
        parsed("--env.url", "http://a:1")
    name, config = parsed("--env.backend", "androidworld", "--env.url", "http://a:1")
    assert (name, config.env.url) == ("paper", "http://a:1")


@pytest.mark.parametrize("columns", ["60", "80", "97", "120"])
def test_a_wrong_address_is_all_that_is_said(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(UsageError) as error:
        parsed("paper", "--env.url", "localhost:5000")
    assert str(error.value).endswith("http://host:5000, got 'localhost:5000'.")


def test_a_comparison_of_methods_on_phones():
    plan = parse_plan(["--env", "miniwob-mobile", "--seeds", "2"])
    assert plan.base.env.backend == "miniwob-mobile"
    assert plan.base.algo.tasks_per_round == 10
    assert parse_plan(["--env=miniwob-mobile"]).base.env == plan.base.env
    assert parse_plan([]).base.env.backend == "sim"


def test_phones_name_their_own_tasks(tmp_path):
    for backend in ("androidworld", "miniwob-mobile"):
        assert EnvConfig(backend=backend, task_list=tmp_path).tasks is None
    with pytest.raises(ValueError, match="give the folder as env.tasks"):
        EnvConfig(backend="desktop", task_list=tmp_path)


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (EnvConfig(backend="androidworld"), "env.url is needed"),
        (EnvConfig(backend="miniwob-mobile"), "--env.device-scale"),
        (
            EnvConfig(
                backend="miniwob-mobile",
                screen_width=1080,
                screen_height=2400,
                chromium=Path("/no/such"),
            ),
            "is no executable",
        ),
    ],
)
def test_what_cannot_be_opened_is_a_line(env, reason):
    from experiments.backends import make_policy, open_backend

    if importlib.util.find_spec("miniwob") is None:
        pytest.skip("MiniWoB++'s pages are missing")
    config = ExperimentConfig(env=env)
    with pytest.raises(UsageError, match=reason):
        open_backend(config, make_policy(config.policy, env.backend))


def test_settings_of_a_suite():
    _, config = parsed("paper", "--env.suite-seed", "30", "--env.url", "http://a:1")
    assert config.env.suite_seed == 30
    for wrong in ("-1", "4294967296", "x"):
        with pytest.raises(UsageError, match="suite.seed"):
            parsed("--env.suite-seed", wrong)


@pytest.fixture
def pages():
    from tests.envs.mobile.conftest import MISSING

    if MISSING:
        pytest.skip(MISSING)


def small_phone(**more):
    return EnvConfig(
        backend="miniwob-mobile", screen_width=360, screen_height=780,
        device_scale=1.0, max_steps=2, num_envs=2, **more,
    )  # fmt: skip


def opened(policy=None, **env):
    from experiments.backends import make_policy, open_backend

    config = ExperimentConfig(
        env=small_phone(**env),
        policy=policy or PolicyConfig(),
    )
    return open_backend(
        config, make_policy(config.policy, "miniwob-mobile", config.env)
    )


def test_lists_of_pages(pages, tmp_path):
    file = tmp_path / "pages.json"

    def refusal(text):
        file.write_text(text)
        with pytest.raises(UsageError) as error:
            opened(task_list=file)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert f"env.task_list {file}: 'click-tset' is no page" in refusal(
        '{"click": ["click-tset"]}'
    )
    assert "name at least one page to train on" in refusal('{"a": ["drag-box"]}')
    assert "cannot be read" in refusal("{")
    file.write_text('{"click": ["click-test", "drag-box"]}')
    backend = opened(task_list=file)
    assert backend.tasks.names == ("click-test", "drag-box")
    backend.close()


@pytest.mark.slow
@pytest.mark.browser
def test_a_model_sees_the_screen_and_touches_it(pages, tmp_path):
    """Prompts hold the phone's picture; what the model says becomes a touch."""
    pytest.importorskip("safetensors", reason="needs the extra vlm")
    pytest.importorskip("tokenizers", reason="needs the extra vlm")
    import jax

    from experiments.backends import make_policy
    from tests.models.qwen_vl.tiny import make_tiny_checkpoint

    make_tiny_checkpoint(tmp_path, "qwen2_5_vl")
    (tmp_path / "wording.txt").write_text("{instruction}")
    policy = PolicyConfig(
        name="qwen-vl",
        checkpoint=tmp_path,
        wording=tmp_path / "wording.txt",
        max_pixels=28 * 28 * 24,
        max_new_tokens=24,
        prompt_tokens=192,
        past_responses=1,
        slots=2,
        dtype="float32",
        remat="none",
    )
    backend: Any = opened(policy)
    try:
        (click,) = np.flatnonzero(np.array(backend.tasks.names) == "click-test")
        ids, seeds = np.array([click, click], np.int32), np.array([1, 2], np.uint32)
        codec = backend._codec
        assert codec.mobile
        model: Any = make_policy(policy, "miniwob-mobile", small_phone())
        params = model.load()
        found = backend.collect(params, ids, seeds, jax.random.key(0), temperature=1.0)
        assert found.valid.all()
        pictures = np.asarray(found.prompt.images)[:, 0, 0]  # [M, H, W, 3]
        assert (pictures[:, :8] < 80).any(), "the status bar is dark"
        assert (pictures > 250).mean() > 0.3, "the page is white"
        place = codec.encode_action(Action(kind=ActionKind.HOME), SEEN, None)
        frames = backend.replay(int(click), 1, place[None])
        assert frames[0].image.shape == (780, 360, 3) and frames[0].action == "home"
        assert len(np.unique(frames[1].image[200:400].reshape(-1, 3), axis=0)) > 50
    finally:
        backend.close()


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
