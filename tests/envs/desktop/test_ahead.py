import threading
import time

import numpy as np
import pytest

from stepjax.envs.desktop.ahead import AheadSetup
from stepjax.envs.desktop.booted import DesktopPhase
from stepjax.envs.desktop.fleet import DesktopFleet
from stepjax.envs.desktop.settings import DesktopSettings
from stepjax.envs.desktop.table import file_tasks
from stepjax.envs.pool import EnvironmentPool
from tests.envs.desktop import fake_desktops as fake
from tests.envs.desktop.fake_desktops import FakeDesktops, FakeJob, spec_of, wait_for
from tests.envs.desktop.fake_world import DEADLINES, DONE, TYPE

NAMES = [f"fake/{name}" for name in "abcdef"]
EAGER = DesktopSettings(settle_ms=0, quiet_seconds=0.0)


class Setups(FakeJob):
    """Remembers what was set up, in order, and on which desktops."""

    def __init__(self):
        super().__init__()
        self.order = []
        self.gate = threading.Event()
        self.gate.set()

    def setup(self, spec, client):
        assert self.gate.wait(60)
        super().setup(spec, client)
        with self.lock:
            self.order.append(spec.name)


@pytest.fixture
def make_fleet():
    fleets = []

    def make(job, desktops=None, **options):
        tasks = file_tasks([spec_of(name[5:]) for name in NAMES])
        fleet = DesktopFleet(
            tasks, boot=desktops or FakeDesktops(), setup=job.setup, settings=EAGER,
            evaluate=job.evaluate, plan=fake.plan,
            **{"num_envs": 1, "spares": 2, **options},
        )  # fmt: skip
        fleets.append((fleet, desktops))
        return fleet

    yield make
    for fleet, desktops in fleets:
        fleet.close()
        fleet.close()
        assert not fleet.spares.num_alive
        assert desktops is None or not desktops.left
    assert not fake.pool_threads()


def task(name):
    return fake.make_task(name)


def count(fleet, phase):
    return fleet.spares.phases().get(phase, 0)


def test_expected_tasks_are_ready_when_asked_for(make_fleet):
    job = Setups()
    fleet = make_fleet(job)
    fleet.expect([(name, 7) for name in NAMES[:3]])
    wait_for(lambda: count(fleet, DesktopPhase.PREPARED) == 2)
    assert sorted(job.order) == NAMES[:2]
    job.gate.clear()  # from here on, nothing can be set up
    environment = fleet(0)
    assert environment.reset(task(NAMES[0]), 7).instruction == "Do a."
    assert environment.reset(task(NAMES[1]), 7).instruction == "Do b."
    job.gate.set()
    wait_for(lambda: count(fleet, DesktopPhase.PREPARED) == 1)
    assert environment.reset(task(NAMES[2]), 7).instruction == "Do c."
    assert job.order.count(NAMES[2]) == 1


def test_what_is_not_expected_is_set_up_by_the_reset(make_fleet):
    job = Setups()
    fleet = make_fleet(job)
    fleet.expect([(NAMES[0], 7)])
    wait_for(lambda: count(fleet, DesktopPhase.PREPARED) == 1)
    environment = fleet(0)
    environment.reset(task(NAMES[0]), 8)
    environment.reset(task(NAMES[1]), 7)
    assert job.order == [NAMES[0], NAMES[0], NAMES[1]]
    assert count(fleet, DesktopPhase.PREPARED) == 1


def test_a_reset_waits_for_what_is_being_set_up(make_fleet):
    job = Setups()
    fleet = make_fleet(job)
    job.gate.clear()
    fleet.expect([(NAMES[0], 1)])
    wait_for(lambda: count(fleet, DesktopPhase.SETTING_UP) == 1)
    done = []
    environment = fleet(0)
    thread = threading.Thread(
        target=lambda: done.append(environment.reset(task(NAMES[0]), 1))
    )
    thread.start()
    time.sleep(0.05)
    job.gate.set()
    thread.join()
    assert done
    assert job.order == NAMES[:1]


def test_new_expectations_drop_old_ones(make_fleet):
    job = Setups()
    fleet = make_fleet(job)
    fleet.expect([(name, 0) for name in NAMES[:2]])
    wait_for(lambda: count(fleet, DesktopPhase.PREPARED) == 2)
    fleet.expect([(NAMES[1], 0), (NAMES[2], 0)])
    wait_for(lambda: NAMES[2] in job.order)
    wait_for(lambda: count(fleet, DesktopPhase.PREPARED) == 2)
    assert job.order.count(NAMES[1]) == 1
    fleet.expect([])
    wait_for(lambda: not count(fleet, DesktopPhase.PREPARED))


def test_equal_episodes_get_a_desktop_each(make_fleet):
    job = Setups()
    fleet = make_fleet(job, num_envs=2)
    fleet.expect([(NAMES[0], 0)] * 2)
    wait_for(lambda: count(fleet, DesktopPhase.PREPARED) == 2)
    one, two = fleet(0), fleet(1)
    one.reset(task(NAMES[0]), 0)
    two.reset(task(NAMES[0]), 0)
    assert one._desktop is not two._desktop
    assert job.setups == 2


def test_a_prepared_desktop_that_died_is_not_used(make_fleet):
    job, desktops = Setups(), FakeDesktops()
    fleet = make_fleet(job, desktops)
    fleet.expect([(NAMES[0], 0)])
    wait_for(lambda: count(fleet, DesktopPhase.PREPARED) == 1)
    for desktop in desktops.made:
        if desktop.phase is DesktopPhase.PREPARED:
            desktops.kill(desktop)
    environment = fleet(0)
    assert environment.reset(task(NAMES[0]), 0).instruction == "Do a."
    assert job.setups == 2
    assert fleet.spares.counts.died == 1


def test_what_fails_ahead_is_left_to_the_reset(make_fleet):
    job = Setups()
    tries = []

    def fail(spec, client):
        tries.append(spec.name)
        raise OSError("no such asset")

    job.on_setup = fail
    fleet = make_fleet(job)
    fleet.expect([(NAMES[0], 0), ("no such task", 0)])
    wait_for(lambda: tries)
    with pytest.raises(OSError, match="no such asset"):
        fleet(0).reset(task(NAMES[0]), 0)


def test_close_while_setting_up(make_fleet):
    job, desktops = Setups(), FakeDesktops()
    fleet = make_fleet(job, desktops)
    job.gate.clear()
    fleet.expect([(name, 0) for name in NAMES])
    wait_for(lambda: count(fleet, DesktopPhase.SETTING_UP) == 2)
    closer = threading.Thread(target=fleet.close)
    closer.start()
    wait_for(lambda: not desktops.left)
    job.gate.set()
    closer.join()


def test_setting_up_ahead_can_be_switched_off(make_fleet):
    job = Setups()
    fleet = make_fleet(job, ahead=0)
    fleet.expect([(NAMES[0], 0)])
    assert fleet(0).reset(task(NAMES[0]), 0).instruction == "Do a."
    assert job.setups == 1


def test_bad_numbers():
    with pytest.raises(ValueError, match="ahead must be >= 0, got -1"):
        DesktopFleet(file_tasks([spec_of("a")]), num_envs=1, ahead=-1)
    with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
        AheadSetup(None, None, None, limit=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_with_expectations_and_faults(make_fleet, seed):
    """Every episode ends right, whatever dies; nobody waits for ever."""
    generator = np.random.default_rng(seed)
    lock = threading.Lock()

    def chance(share):
        with lock:
            return generator.random() < share

    def script(number):
        if chance(0.1):
            raise OSError("no room")

    def deadly(spec, client):
        if chance(0.2):
            client.sandbox.dead = "memory"

    job, desktops = Setups(), FakeDesktops(script)
    job.on_setup = deadly
    fleet = make_fleet(job, desktops, num_envs=3, spares=2)
    episodes = [(NAMES[n % 6], n // 2) for n in range(40)]
    fleet.expect(episodes)
    with EnvironmentPool(
        fleet, num_envs=3, deadlines=DEADLINES, max_retries=50, backoff_seconds=0.01,
        report=lambda line: None,
    ) as pool:  # fmt: skip
        results = pool.run(
            [(task(name), n) for name, n in episodes],
            lambda ready: [DONE if one.step else TYPE for one in ready],
            max_steps=3,
        )
    assert [one.reward for one in results] == [1.0] * 40
    assert desktops.most_alive <= 7
