import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from stepjax.envs import sim
from stepjax.envs.sim.screens import layout_boxes, mix, read_screen, uniform
from stepjax.envs.words import role_id, word_id


def test_prompt_has_the_promised_shapes(pool, play):
    _, _, records = play(pool)
    shapes = jax.tree.map(lambda leaf: leaf.shape[2:], records["prompt"])
    assert vars(shapes) == {
        "words": (32,),
        "clause": (32,),
        "widget_words": (16, 4),
        "widget_role": (16,),
        "widget_state": (16,),
        "widget_box": (16, 4),
        "widget_mask": (16,),
        "history_kind": (3,),
        "history_words": (3, 4),
    }


def test_padding_is_empty_and_at_the_end(pool, play):
    prompt = jax.tree.map(np.asarray, play(pool)[2]["prompt"])
    mask = prompt.widget_mask
    assert np.all(np.diff(mask.astype(int), axis=-1) <= 0)
    for leaf in (prompt.widget_words, prompt.widget_box):
        assert not np.any(leaf[~mask])
    assert not np.any(prompt.widget_role[~mask] | prompt.widget_state[~mask])
    assert np.all(prompt.widget_words[mask][:, 0] > 0)


def test_boxes_lie_on_the_screen_and_apart():
    boxes = layout_boxes()
    assert boxes.min() >= 0 and boxes.max() <= 1
    for kind in boxes:
        real = kind[np.any(kind > 0, axis=1)]
        assert np.all(real[:, 0] < real[:, 2]) and np.all(real[:, 1] < real[:, 3])
        for i, one in enumerate(real):
            for other in real[i + 1 :]:
                apart = one[2] <= other[0] or other[2] <= one[0]
                assert apart or one[3] <= other[1] or other[3] <= one[1]


def test_places_depend_on_the_seed_but_menus_do_not(quiet):
    @jax.jit
    def nodes(seed):
        state = sim.reset(quiet, sim.take_task(quiet, 0), seed)
        app, menu = jnp.int32(2), quiet.app_menus[2, 2]
        return read_screen(quiet, dataclasses.replace(state, app=app, menu=menu)).node

    first, other = np.asarray(nodes(1)), np.asarray(nodes(2))
    assert sorted(first) == sorted(other)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first[:7], other[:7])


def test_the_status_counts_changes(quiet, play):
    _, _, records = play(quiet)
    prompt = jax.tree.map(np.asarray, records["prompt"])
    status = prompt.widget_role == role_id("status")
    assert np.all(status.sum(-1) == 1)
    counts = prompt.widget_words[status][:, 2].reshape(status.shape[:2])
    numbers = np.array([word_id(str(n)) for n in range(16)])
    assert np.all(np.isin(counts, numbers))
    assert np.all(counts[:, 0] == numbers[0])


def test_history_keeps_the_latest_actions_first(quiet, play):
    _, _, records = play(quiet)
    tokens = np.asarray(records["tokens"])
    kinds = np.asarray(records["prompt"].history_kind)
    assert np.all(kinds[:, 0] == -1)
    ended = np.asarray(records["ended"])
    for t in range(1, 4):
        running = ~ended[:, t]
        np.testing.assert_array_equal(kinds[running, t, 0], tokens[running, t - 1, 0])
        assert np.all(kinds[running, t, t:] == -1)


def test_mixing_is_even():
    draws = np.asarray(uniform(3, np.arange(100_000)))
    assert draws.min() >= 0 and draws.max() < 1
    np.testing.assert_allclose(np.histogram(draws, 10)[0] / 1e5, 0.1, atol=0.005)
    assert len(np.unique(mix(1, np.arange(20_000)))) > 19_990
