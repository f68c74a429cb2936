import threading

import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.desktop.booted import DesktopPhase
from stepjax.envs.desktop.environment import DesktopDiedError
from stepjax.envs.desktop.spares import NoDesktopError
from tests.envs.desktop import fake_desktops as fake
from tests.envs.desktop.fake_desktops import make_task
from tests.envs.desktop.fake_world import DONE, FAIL, TYPE, WAIT, WRONG, World


@pytest.fixture
def world():
    """A pool of fakes and what makes environments on it; nothing may be left."""
    with World() as made:
        yield made
    assert not made.desktops.left
    assert not fake.pool_threads()


@pytest.mark.parametrize(
    ("name", "actions", "reward"),
    [
        ("write", [TYPE, DONE], 1.0),
        ("write", [TYPE], 1.0),
        ("write", [WRONG, DONE], 0.0),
        ("write", [DONE], 0.0),
        ("write", [], 0.0),
        ("write", [TYPE, FAIL], 0.0),
        ("cannot", [FAIL], 1.0),
        ("cannot", [TYPE, FAIL], 1.0),
        ("cannot", [DONE], 0.0),
        ("cannot", [TYPE], 0.0),
        ("cannot", [], 0.0),
    ],
)
def test_how_an_episode_ends_decides_with_the_screen(world, name, actions, reward):
    environment = world.environment()
    first = environment.reset(make_task(name), seed=3)
    assert first.instruction == f"Do {name}."
    assert first.screenshot.shape == (40, 64, 3)
    assert first.widgets is None
    for action in actions:
        result = environment.step(action)
        assert result.terminated == (action.kind in (DONE.kind, FAIL.kind))
        assert not result.truncated
    assert environment.evaluate() == reward
    environment.close()
    environment.close()


def test_done_and_fail_touch_nothing(world):
    environment = world.environment()
    environment.reset(make_task(), 0)
    client = world.of(environment).client
    calls = client.calls
    assert environment.step(DONE).terminated
    assert client.calls == calls
    assert client.done == []


@pytest.mark.parametrize(
    ("parts", "typed", "ended"),
    [
        ((TYPE, DONE), 1, True),
        ((DONE, TYPE), 0, True),
        ((TYPE, WAIT), 2, False),
        ((TYPE, FAIL, TYPE), 1, True),
    ],
)
def test_a_sequence_ends_where_it_says_so(world, parts, typed, ended):
    environment = world.environment()
    environment.reset(make_task(), 0)
    action = Action(kind=ActionKind.SEQUENCE, parts=parts)
    assert environment.step(action).terminated == ended
    assert len(world.of(environment).client.done) == typed
    last = parts[1].kind if ended and typed else parts[0].kind
    assert environment.evaluate() == (last is not ActionKind.FAIL and typed > 0)


def test_an_impossible_action_is_a_step_gone_by(world):
    def plan(action, *, width, height):
        raise ValueError("plan: x is 7.0")

    environment = world.environment()
    environment._plan = plan
    environment.reset(make_task(), 0)
    result = environment.step(Action(kind=ActionKind.CLICK, x=7.0, y=0.0))
    assert not result.terminated
    assert world.of(environment).client.done == []


def test_actions_at_widgets_get_a_place(world):
    planned = []
    environment = world.environment(widgets=True)
    environment._plan = lambda action, **size: planned.append(action) or ()
    environment.reset(make_task(), 0)
    click = Action(kind=ActionKind.CLICK, widget=0)
    lost = Action(kind=ActionKind.CLICK, widget=9)
    environment.step(click)
    environment.step(Action(kind=ActionKind.SEQUENCE, parts=(click, WAIT, lost)))
    assert (planned[0].x, planned[0].y) == (0.75, 0.5)
    assert [part.x for part in planned[1].parts] == [0.75, None, None]


def test_a_reset_brings_another_desktop(world):
    environment = world.environment()
    environment.reset(make_task(), 0)
    first = world.of(environment)
    environment.step(TYPE)
    environment.reset(make_task(), 0)
    assert world.of(environment) is not first
    assert environment.evaluate() == 0.0
    fake.wait_for(lambda: first.sandbox.closed)


def test_phases_are_shown(world):
    seen = []

    def look(client):
        seen.append(world.spares_pool.phases())

    world.desktops.on_client = lambda client: setattr(client, "before_act", look)
    environment = world.environment()
    environment.reset(make_task(), 0)
    environment.step(TYPE)
    environment.evaluate()
    assert DesktopPhase.SETTING_UP in seen[0]
    assert DesktopPhase.ACTING in seen[1]
    assert DesktopPhase.EVALUATING in seen[2]


def test_options_of_looking(world):
    environment = world.environment(image_size=(32, 20), widgets=True)
    first = environment.reset(make_task(), 0)
    assert first.screenshot.shape == (20, 32, 3)
    assert first.widgets[0].label == "OK"


def test_programs_are_at_rest_before_the_first_look_and_the_judgment(
    world, monkeypatch
):
    waits = []

    def rest(client, *, timeout):
        waits.append((timeout, client.calls))

    monkeypatch.setattr(fake.FakeClient, "rest", rest)
    environment = world.environment(quiet_seconds=7.0)
    environment.reset(make_task(), 0)
    environment.evaluate()
    assert waits == [(7.0, 0), (7.0, 1)]


def test_root_tasks_take_the_root_variant(world):
    environment = world.environment()
    environment.reset(make_task("root-thing"), 0)
    assert world.of(environment).needs_root
    environment.reset(make_task("write"), 0)
    assert not world.of(environment).needs_root


def test_calls_in_the_wrong_order(world):
    environment = world.environment()
    with pytest.raises(RuntimeError, match="call reset first"):
        environment.step(TYPE)
    with pytest.raises(RuntimeError, match="call reset first"):
        environment.evaluate()


def test_a_dead_desktop_is_named_as_the_reason(world):
    environment = world.environment()
    environment.reset(make_task(), 0)
    world.desktops.kill(world.of(environment), "the X server\nended")
    with pytest.raises(DesktopDiedError, match="during an action: the X server ended"):
        environment.step(TYPE)
    with pytest.raises(DesktopDiedError, match="during the evaluation"):
        environment.evaluate()
    assert environment.reset(make_task(), 0).instruction
    assert world.spares_pool.counts.died == 1


def test_a_server_that_errs_on_a_live_desktop_keeps_its_error(world):
    def broken(spec, client):
        raise OSError("no such route")

    world.job.on_setup = broken
    environment = world.environment()
    with pytest.raises(OSError, match="no such route"):
        environment.reset(make_task(), 0)
    assert world.job.setups == 1


def test_setup_moves_to_another_desktop_once(world):
    def deadly(spec, client):
        if world.job.setups <= kills:
            client.sandbox.dead = "out of memory"
            client.act(())

    world.job.on_setup, kills = deadly, 1
    environment = world.environment()
    environment.reset(make_task(), 0)
    assert world.job.setups == 2
    world.job.setups, kills = 0, 9
    with pytest.raises(DesktopDiedError, match="during setting up: out of memory"):
        environment.reset(make_task(), 0)
    assert world.job.setups == 2
    environment.close()


def test_reset_when_boots_fail(world):
    def script(number):
        raise OSError("unshare: not permitted")

    world.desktops.script = script
    environment = world.environment()
    with pytest.raises(NoDesktopError, match="unshare: not permitted"):
        environment.reset(make_task(), 0)
    environment.close()


def test_kill_frees_a_call_that_hangs(world):
    environment = world.environment()
    environment.reset(make_task(), 0)
    desktop = world.of(environment)
    desktop.client.hang.set()
    errors = []

    def step():
        try:
            environment.step(TYPE)
        except DesktopDiedError as error:
            errors.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    environment.kill()
    thread.join()
    assert errors
    assert world.spares_pool.counts.killed == 1
    with pytest.raises(RuntimeError, match="closed"):
        environment.reset(make_task(), 0)
