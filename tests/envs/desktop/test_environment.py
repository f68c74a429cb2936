import functools
import threading

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.desktop import preparing
from stepjax.envs.desktop.booted import DesktopPhase
from stepjax.envs.desktop.environment import DesktopDiedError, DesktopEnvironment
from stepjax.envs.desktop.screen_states import ScreenStates
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.spares import NoDesktopError, SparePool
from stepjax.envs.pool import Deadlines, EnvironmentPool, TrajectoryStatus
from tests.envs.desktop import fake_desktops as fake
from tests.envs.desktop.fake_desktops import FakeDesktops, FakeJob, make_task

TYPE = Action(kind=ActionKind.TYPE, text="right")
WRONG = Action(kind=ActionKind.TYPE, text="left")
WAIT = Action(kind=ActionKind.WAIT)
DONE = Action(kind=ActionKind.DONE)
FAIL = Action(kind=ActionKind.FAIL)
DEADLINES = Deadlines(create=60.0, reset=60.0, step=60.0, evaluate=60.0, close=60.0)


@pytest.fixture
def world():
    """A pool of fakes and what makes environments on it; nothing may be left."""
    with World() as made:
        yield made
    assert not made.desktops.left
    assert not fake.pool_threads()


class World:
    def __init__(self):
        self.desktops = FakeDesktops()
        self.job = FakeJob()
        self.options = {"spares": 1, "max_alive": 4, "backoff_seconds": 0.01}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if "spares_pool" in self.__dict__:
            self.spares_pool.close()

    @functools.cached_property
    def spares_pool(self):
        return SparePool(self.desktops, check_seconds=0.05, **self.options)

    def environment(self, **settings):
        settings = {"settle_ms": 0, "quiet_seconds": 0.0, **settings}
        return DesktopEnvironment(
            self.spares_pool,
            fake.load,
            settings=DesktopSettings(**settings),
            plan=fake.plan,
            setup=self.job.setup,
            evaluate=self.job.evaluate,
        )

    def of(self, environment):
        return environment._desktop


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

    def await_idle(client, *, timeout):
        waits.append((timeout, client.calls))

    monkeypatch.setattr(preparing, "await_idle", await_idle)
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


# Through the pool of environments.


def run(world, act, *, episodes=12, num_envs=3, **options):
    lines = []
    options = {"deadlines": DEADLINES, "backoff_seconds": 0.01, **options}
    with EnvironmentPool(
        lambda index: world.environment(),
        num_envs=num_envs,
        report=lines.append,
        **options,
    ) as pool:
        results = pool.run(
            [(make_task(), seed) for seed in range(episodes)], act, max_steps=3
        )
    return pool, results, lines


def right(ready):
    return [TYPE if one.step == 0 else DONE for one in ready]


def test_a_run_in_good_order(world):
    _, results, lines = run(world, right)
    assert [one.reward for one in results] == [1.0] * 12
    assert not lines
    assert world.desktops.most_alive <= 4


def test_a_death_in_mid_episode_costs_nothing_but_time(world):
    def deadly(spec, client):
        if world.job.setups == 3:
            client.before_act = die_later

    def die_later(client):
        if client.done:
            client.sandbox.dead = "killed by its agent"

    world.job.on_setup = deadly
    pool, results, lines = run(world, right)
    assert [one.reward for one in results] == [1.0] * 12
    assert sum(one.faults for one in results) == 1
    assert "the desktop died" in lines[0]
    assert pool.counts.replaced == 1
    assert world.spares_pool.counts.died == 1


def test_an_agent_that_always_kills_its_desktop_is_invalid_not_a_failure(world):
    def deadly(spec, client):
        client.before_act = die_later

    def die_later(client):
        if {"op": "type", "text": "left"} in client.done:
            client.sandbox.dead = "killed by its agent"

    def act(ready):
        first = [WRONG if one.episode == 1 else TYPE for one in ready]
        return [
            action if one.step == 0 else (WAIT if one.episode == 1 else DONE)
            for one, action in zip(ready, first, strict=True)
        ]

    world.job.on_setup = deadly
    _, results, _ = run(world, act, max_retries=1)
    assert results[1].status is TrajectoryStatus.ENV_ERROR
    assert not results[1].status.valid
    assert all(one.reward == 1.0 for one in results if one is not results[1])


def test_a_hung_desktop_is_killed_and_replaced(world):
    def hang(spec, client):
        if world.job.setups == 2:
            client.hang.set()

    world.job.on_setup = hang
    deadlines = Deadlines(create=60.0, reset=2.0, step=60.0, evaluate=60.0, close=60.0)
    pool, results, lines = run(world, right, deadlines=deadlines)
    assert [one.reward for one in results] == [1.0] * 12
    assert pool.counts.metrics()["env/faults_timeout"] == 1
    assert world.spares_pool.counts.killed == 1
    assert "deadline" in lines[0]


def test_faults_everywhere(world):
    """Boots that fail or dawdle, spares and desktops in use that die: all is told."""
    generator = np.random.default_rng(0)

    def script(number):
        if generator.random() < 0.2:
            raise OSError("no room")

    def deadly(spec, client):
        if generator.random() < 0.2:
            client.sandbox.dead = "memory"

    world.desktops.script = script
    world.job.on_setup = deadly
    _, results, _ = run(world, right, episodes=60, num_envs=4, max_retries=50)
    assert [one.reward for one in results] == [1.0] * 60
    counts = world.spares_pool.counts
    world.spares_pool.close()
    made = len(world.desktops.made)
    assert counts.booted == made
    assert counts.boot_failures == world.desktops.asked - made
    assert counts.died == sum(bool(one.sandbox.dead) for one in world.desktops.made)


# What a screen is called.


def picture(*marks, size=(1280, 800)):
    image = np.full((size[1], size[0], 3), 250, np.uint8)
    for left, top, width, height in marks:
        image[top : top + height, left : left + width] = 0
    return image


def test_equal_states_survive_a_caret_but_not_a_letter():
    states = ScreenStates()
    plain = states.hash_of("a", picture())
    assert 0 < plain < 2**32
    assert states.hash_of("a", picture((401, 201, 1, 18))) == plain
    letter = states.hash_of("a", picture((401, 201, 5, 12)))
    assert letter != plain
    assert states.hash_of("a", picture((401, 201, 5, 12))) == letter
    assert states.hash_of("b", picture()) == plain
    small = picture(size=(100, 30))
    assert states.hash_of("c", small) == states.hash_of("c", small.copy())


def test_states_are_forgotten_in_the_end():
    states = ScreenStates()
    names = {
        states.hash_of(f"task {n % 300}", np.full((4, 4, 3), (n * 37) % 256, np.uint8))
        for n in range(900)
    }
    assert len(names) > 1
    assert len(states._seen) == 256


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": (0, 5)},
        {"settle_ms": -1},
        {"quiet_seconds": -0.1},
        {"take_seconds": 0.0},
    ],
)
def test_bad_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DesktopSettings(**wrong)
