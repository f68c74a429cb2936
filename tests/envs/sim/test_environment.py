import jax
import numpy as np
import pytest

from stepjax.envs import sim
from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Widget
from stepjax.envs.sim.environment import action_tokens
from stepjax.rollout.encode import decode_tokens, encode_observation, remember

step, oracle, observe = jax.jit(sim.step), jax.jit(sim.oracle), jax.jit(sim.observe)


@pytest.mark.parametrize("task_id", [0, 60, 200, 330])
def test_the_host_sees_and_does_what_the_device_does(pool, task_id):
    task, seed = sim.sim_task(task_id), 5
    env = sim.SimEnvironment(pool)
    seen, history = env.reset(task, seed), []
    state = sim.reset(pool, sim.take_task(pool, task_id), np.uint32(seed))
    while not sim.ended(state):
        encoded = encode_observation(seen, history, num_widgets=16)
        jax.tree.map(
            np.testing.assert_array_equal, encoded.prompt, observe(pool, state)
        )
        assert seen.state_hash == int(sim.state_hash(pool, state))
        tokens = np.asarray(oracle(pool, state))
        action = decode_tokens(tokens, seen, encoded.raw_words)
        history.append(remember(action, seen))
        state, result = step(pool, state, tokens), env.step(action)
        seen = result.observation
        assert (result.terminated or result.truncated) == bool(sim.ended(state))
    assert env.evaluate() == float(sim.success(pool, state))
    env.close()


def test_actions_may_aim_by_place(quiet):
    env = sim.SimEnvironment(quiet)
    task_id = int(np.argmax(np.asarray(quiet.tasks.start_app) < 0))
    seen = env.reset(sim.sim_task(task_id), 0)
    left, top, right, bottom = seen.widgets[3].box
    click = Action(
        kind=ActionKind.DOUBLE_CLICK, x=(left + right) / 2, y=(top + bottom) / 2
    )
    title = env.step(click).observation.widgets[0]
    assert title.label == seen.widgets[3].label and title.role == "text"


@pytest.mark.parametrize("kind", list(ActionKind))
def test_every_kind_of_action_is_taken(quiet, kind):
    env = sim.SimEnvironment(quiet)
    env.reset(sim.sim_task(1), 0)
    action = Action(kind=kind, widget=99, text="no such word", keys=("esc",))
    ends = kind in (ActionKind.DONE, ActionKind.FAIL)
    assert env.step(action).terminated == ends


def test_kinds_beyond_the_simulator():
    click = Action(kind=ActionKind.CLICK, widget=2)
    same = [
        Action(kind=ActionKind.TRIPLE_CLICK, widget=2),
        Action(kind=ActionKind.SEQUENCE, parts=(click,)),
    ]
    waits = [
        Action(kind=ActionKind.SEQUENCE, parts=(click, click)),
        Action(kind=ActionKind.SEQUENCE),
        Action(kind=ActionKind.CLICK, widget=2, keys=("ctrl",)),
        Action(kind=ActionKind.PRESS, keys=("ctrl", "enter")),
        Action(kind=ActionKind.SCROLL_LEFT),
        Action(kind=ActionKind.KEY_DOWN, keys=("enter",)),
    ]
    words, widgets = np.zeros(1, np.int32), (Widget(role="button", label="x"),) * 4

    def tokens(action):
        return action_tokens(action, widgets, words).tolist()

    assert [tokens(action) for action in same] == [tokens(click)] * 2
    assert {tokens(action)[0] for action in waits} == {int(ActionKind.WAIT)}


def test_misuse_is_explained(pool):
    env = sim.SimEnvironment(pool)
    with pytest.raises(RuntimeError, match="reset"):
        env.evaluate()
    task = sim.sim_task(0)
    wrong = type(task)(**{**vars(task), "task_id": 400})
    with pytest.raises(ValueError, match="task_id is 400"):
        env.reset(wrong, 0)
