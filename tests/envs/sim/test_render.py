import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.envs import sim

pytest.importorskip("PIL")


@pytest.fixture
def state(quiet):
    return sim.reset(quiet, sim.take_task(quiet, 0), 0)


def _screens(quiet, state):
    kinds = np.asarray(quiet.item_kind)
    yield dataclasses.replace(state, app=jnp.int32(-1))
    for app in range(9):
        yield dataclasses.replace(state, app=jnp.int32(app))
    for kind in (1, 2):
        item = int(np.argmax(kinds == kind))
        yield dataclasses.replace(
            state,
            app=quiet.item_app[item],
            menu=quiet.item_menu[item],
            dialog=jnp.int32(item),
        )
    yield dataclasses.replace(state, popup=jnp.bool_(True))


def test_every_screen_is_drawn_and_differs(quiet, state):
    images = [sim.render(quiet, screen) for screen in _screens(quiet, state)]
    for image in images:
        assert image.shape == (400, 640, 3) and image.dtype == np.uint8
        assert image.std() > 10
    assert len({image.tobytes() for image in images}) == len(images)


def test_widgets_are_drawn_inside_their_boxes(quiet, state):
    """Each widget changes the picture where its box says."""
    for screen in _screens(quiet, state):
        image = sim.render(quiet, screen)
        for widget in sim.list_widgets(quiet, screen):
            left, top, right, bottom = widget.box
            assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
            rows = slice(int(top * 400), int(bottom * 400) + 1)
            columns = slice(int(left * 640), int(right * 640) + 1)
            assert len(np.unique(image[rows, columns].reshape(-1, 3), axis=0)) > 3


def test_an_action_is_drawn(quiet, state):
    plain = sim.render(quiet, state)
    for tokens in ([0, 1, 0], [1, 1, 2], [7, 0, 0], [0, 99, 0], [-4, -1, 77]):
        assert np.any(sim.render(quiet, state, action=np.array(tokens)) != plain)


def test_size_is_free(quiet, state):
    assert sim.render(quiet, state, width=320, height=200).shape == (200, 320, 3)


def test_replay_shows_an_episode_to_its_end(quiet):
    tokens = np.array([[0, 0, 0], [6, 0, 0], [7, 0, 0], [0, 1, 0]])
    frames = sim.replay_frames(quiet, 0, 3, tokens)
    assert len(frames) == 4
    assert [frame.action for frame in frames[1:]] == ["wait", "DONE", ""]
    assert frames[0].action.startswith("click") and frames[0].box is not None
    assert frames[1].box is None
    assert frames[0].instruction == sim.task_table().instructions[0]
