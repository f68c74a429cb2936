import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepjax.envs import sim
from stepjax.envs.actions import ActionKind
from stepjax.envs.sim.items import ItemKind, NodeGroup
from stepjax.envs.sim.screens import read_screen

step = jax.jit(sim.step)
state_hash = jax.jit(sim.state_hash)
screen_of = jax.jit(read_screen)


def _nodes(pool, state):
    return np.asarray(screen_of(pool, state).node)


@functools.lru_cache(maxsize=1)
def _start():
    return jax.jit(lambda pool, i, seed: sim.reset(pool, sim.take_task(pool, i), seed))


def _click(pool, state, node):
    """The desktop after a click on a node that must be on the screen."""
    nodes = _nodes(pool, state)
    assert node in nodes
    return step(pool, state, np.array([0, np.argmax(nodes == node), 0], np.int32))


def _open(pool, state, item):
    """The desktop with the panel that holds an item in front."""
    return dataclasses.replace(
        state,
        app=pool.item_app[item],
        menu=pool.item_menu[item],
        page=pool.item_page[item],
    )


def _item(pool, kind):
    return int(np.argmax(np.asarray(pool.item_kind) == kind))


@pytest.fixture
def start(quiet):
    return _start()(quiet, 0, 1)


def _key(kind):
    return np.array([kind, 0, 0], np.int32)


@pytest.mark.slow
def test_nothing_and_the_ends_alone_solve_no_task(quiet, table, play):
    for kind in (ActionKind.WAIT, ActionKind.DONE):
        _, success, _ = play(quiet, tokens=_key(kind))
        assert not np.any(success)
    _, success, _ = play(quiet, tokens=_key(ActionKind.FAIL))
    np.testing.assert_array_equal(np.asarray(success) == 1, table.infeasible)


@pytest.mark.slow
def test_success_comes_only_with_the_end(pool, play):
    _, success, records = play(pool)
    assert not np.any(np.asarray(records["success"])[~np.asarray(records["ended"])])
    assert set(np.unique(success)) <= {0.0, 1.0}


def test_episodes_are_functions_of_task_and_seed(pool, play):
    first, again, other = play(pool), play(pool), play(pool, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first[2]["tokens"], other[2]["tokens"])


def test_one_by_one_equals_all_at_once(pool, play):
    states, success, records = play(pool)
    for i in (0, 100, 368):
        state = _start()(pool, i, i)
        for t in range(15):
            state = step(pool, state, records["tokens"][i, t])
        expected = jax.tree.map(operator.itemgetter(i), states)
        jax.tree.map(np.testing.assert_array_equal, state, expected)
        assert sim.success(pool, state) == success[i]


def test_fuzzed_tokens_are_harmless(pool, table, play):
    rng = np.random.default_rng(0)
    for low, high in ((-3, 40), (-(2**31), 2**31 - 1), (0, 7)):
        tokens = rng.integers(low, high, (369, 15, 3), dtype=np.int64).astype(np.int32)
        states, success, records = play(pool, tokens=tokens)
        prompt = records["prompt"]
        assert np.all(np.isfinite(prompt.widget_box))
        assert np.all(prompt.widget_mask.sum(-1) >= 3)
        assert np.all((prompt.history_kind >= -1) & (prompt.history_kind <= 8))
        feasible = ~table.infeasible
        assert np.mean(np.asarray(success)[feasible]) < 0.02
        assert np.all((states.app >= -1) & (states.app < 9))
        assert np.all((states.page >= 0) & (states.page < 2))
        assert np.all(states.outcome > 0) and np.all(states.time <= 15)


def test_nothing_changes_after_the_end(quiet, start):
    over = step(quiet, start, _key(ActionKind.DONE))
    assert sim.ended(over)
    after = step(quiet, over, np.array([0, 3, 0], np.int32))
    jax.tree.map(np.testing.assert_array_equal, over, after)


def test_the_step_limit_ends_an_episode(quiet, start):
    state = start
    for _ in range(14):
        state = step(quiet, state, _key(ActionKind.WAIT))
        assert not sim.ended(state)
    assert sim.ended(step(quiet, state, _key(ActionKind.WAIT)))


def test_traps_cannot_be_undone(quiet):
    trap = _item(quiet, ItemKind.TRAP)
    node = int(quiet.first_node[NodeGroup.ITEM]) + trap
    state = _open(quiet, _start()(quiet, 0, 1), trap)
    state = _click(quiet, _click(quiet, state, node), node)
    assert state.settings[trap] == 1
    restart = dataclasses.replace(state, popup=jnp.bool_(True))
    restart = step(quiet, restart, _key(ActionKind.ENTER))
    assert restart.settings[trap] == 1
    oracle = jax.jit(sim.oracle)
    while not sim.ended(state):
        state = step(quiet, state, oracle(quiet, state))
    assert sim.success(quiet, state) == 0


def test_a_switch_flips_and_flips_back(quiet, start):
    switch = _item(quiet, ItemKind.SWITCH)
    node = int(quiet.first_node[NodeGroup.ITEM]) + switch
    state = _open(quiet, start, switch)
    before = state_hash(quiet, state)
    once = _click(quiet, state, node)
    assert once.settings[switch] == 1 - state.settings[switch]
    assert state_hash(quiet, once) != before
    assert state_hash(quiet, _click(quiet, once, node)) == before


def test_a_choice_needs_ok(quiet, start):
    choice = _item(quiet, ItemKind.CHOICE)
    first = np.asarray(quiet.first_node)
    state = _click(
        quiet, _open(quiet, start, choice), int(first[NodeGroup.ITEM]) + choice
    )
    assert state.dialog == choice
    wanted = (int(quiet.item_default[choice]) + 1) % 4
    state = _click(quiet, state, int(quiet.item_options[choice]) + wanted)
    cancelled = _click(quiet, state, first[NodeGroup.CANCEL])
    assert cancelled.settings[choice] == quiet.item_default[choice]
    assert cancelled.dialog == -1
    confirmed = step(quiet, state, _key(ActionKind.ENTER))
    assert confirmed.settings[choice] == wanted and confirmed.dialog == -1


def test_text_is_copied_word_by_word(quiet, start):
    text = _item(quiet, ItemKind.TEXT)
    first = np.asarray(quiet.first_node)
    state = _click(quiet, _open(quiet, start, text), int(first[NodeGroup.ITEM]) + text)
    field = np.argmax(_nodes(quiet, state) == first[NodeGroup.FIELD])
    typed = step(quiet, state, np.array([ActionKind.TYPE, field, 2], np.int32))
    assert typed.draft == start.task.words[2] > 0
    nothing = step(quiet, typed, np.array([ActionKind.TYPE, field, 31], np.int32))
    assert nothing.draft == typed.draft
    cleared = _click(quiet, typed, first[NodeGroup.FIELD])
    assert cleared.draft == 0
    done = _click(quiet, typed, first[NodeGroup.OK])
    assert done.settings[text] == start.task.words[2]


def test_a_disabled_item_does_nothing(quiet, table):
    disabled = np.asarray(quiet.tasks.disabled_item)
    task_id = int(np.argmax(disabled >= 0))
    assert table.infeasible[task_id]
    state = _start()(quiet, task_id, 0)
    state = _open(quiet, state, disabled[task_id])
    node = int(quiet.first_node[NodeGroup.ITEM]) + disabled[task_id]
    after = _click(quiet, state, node)
    assert state_hash(quiet, after) == state_hash(quiet, state)


def test_keys_answer_popups_and_dialogs(quiet, start):
    popup = dataclasses.replace(start, popup=jnp.bool_(True))
    assert not step(quiet, popup, _key(ActionKind.ESCAPE)).popup
    restarted = step(quiet, popup, _key(ActionKind.ENTER))
    assert not restarted.popup and restarted.app == -1
    dialog = dataclasses.replace(start, dialog=jnp.int32(_item(quiet, ItemKind.TEXT)))
    assert step(quiet, dialog, _key(ActionKind.ESCAPE)).dialog == -1


def test_long_menus_scroll(quiet, start):
    menu = int(np.argmax(np.asarray(quiet.menu_pages) == 2))
    state = dataclasses.replace(
        start, app=quiet.item_app[quiet.menu_items[menu, 0, 0]], menu=jnp.int32(menu)
    )
    down = step(quiet, state, _key(ActionKind.SCROLL_DOWN))
    assert down.page == 1
    assert step(quiet, down, _key(ActionKind.SCROLL_DOWN)).page == 1
    assert step(quiet, down, _key(ActionKind.SCROLL_UP)).page == 0
    assert _click(quiet, state, int(quiet.first_node[NodeGroup.MORE])).page == 1


def test_misclicks_and_popups_come_as_often_as_the_pool_says(pool):
    slip, popup = jnp.float32(0.25), jnp.float32(0.1)
    often = dataclasses.replace(pool, slip_prob=slip, popup_prob=popup)

    def one(seed):
        state = sim.reset(often, sim.take_task(often, 0), seed)
        state = dataclasses.replace(state, app=jnp.int32(-1))
        screen = read_screen(often, state)
        after = sim.step(often, state, jnp.array([0, 2, 0]))
        aimed = screen.node[2] - often.first_node[NodeGroup.APP]
        return after.app != aimed, after.popup

    slipped, popped = jax.jit(jax.vmap(one))(jnp.arange(4000, dtype=jnp.uint32))
    np.testing.assert_allclose(slipped.mean(), 0.25, atol=0.03)
    np.testing.assert_allclose(popped.mean(), 0.1, atol=0.02)


def test_hash_does_not_know_the_time(quiet, start):
    waited = step(quiet, start, _key(ActionKind.WAIT))
    assert state_hash(quiet, waited) == state_hash(quiet, start)


def test_hashes_of_different_desktops_differ(pool, play):
    _, _, records = play(pool)
    for i in range(0, 369, 11):
        hashes, kinds = np.asarray(records["hash"][i]), records["prompt"]
        words = np.asarray(kinds.widget_words[i])
        for t in range(14):
            if hashes[t] == hashes[t + 1]:
                np.testing.assert_array_equal(words[t], words[t + 1])
