"""Environments on fake desktops in a pool of environments, and names of screens."""

import numpy as np
import pytest

from stepjax.envs.desktop.screen_states import ScreenStates
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.pool import Deadlines, EnvironmentPool, TrajectoryStatus
from tests.envs.desktop import fake_desktops as fake
from tests.envs.desktop.fake_desktops import make_task
from tests.envs.desktop.fake_world import DEADLINES, DONE, TYPE, WAIT, WRONG, World


@pytest.fixture
def world():
    """A pool of fakes and what makes environments on it; nothing may be left."""
    with World() as made:
        yield made
    assert not made.desktops.left
    assert not fake.pool_threads()


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
