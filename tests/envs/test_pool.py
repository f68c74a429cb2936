import re
import threading
import time

import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.pool import (
    Deadlines,
    EnvironmentPool,
    FaultKind,
    Phase,
    Ready,
    TrajectoryStatus,
)
from stepjax.envs.vector import SlotError
from tests.envs.faulty import (
    ScriptedEnvironment,
    ScriptedVector,
    World,
    make_task,
    nth,
    obey,
)

FAST = Deadlines(create=0.5, reset=0.5, step=0.5, evaluate=0.5, close=0.5)
EPISODES = [(make_task(index % 5), 10 + index) for index in range(12)]
KINDS = {
    "crash": FaultKind.ERROR,
    "exit": FaultKind.ERROR,
    "hang": FaultKind.TIMEOUT,
    "slow": FaultKind.TIMEOUT,
    "garbage": FaultKind.GARBAGE,
}
PHASES = ["reset", "step", "evaluate"]


def act(ready: list[Ready]) -> list[Action]:
    # Every third episode gets one click wrong.
    return [
        Action(kind=ActionKind.CLICK, widget=3)
        if one.episode % 3 == 0 and one.step == 1
        else obey(one.observation)
        for one in ready
    ]


def make_pool(world, **options) -> EnvironmentPool:
    settings = {
        "num_envs": 3,
        "deadlines": FAST,
        "backoff_seconds": 0.001,
        "report": lambda line: None,
    }
    return EnvironmentPool(world, **{**settings, **options})


def run(world, episodes=EPISODES, **options):
    with make_pool(world, **options) as pool:
        results = pool.run(episodes, act, max_steps=6)
    if isinstance(world, World):
        world.release.set()
    wait_for_threads()
    return results, pool


def wait_for_threads():
    """All threads of pools end, the abandoned ones too once nothing holds them."""
    for _ in range(500):
        names = [thread.name for thread in threading.enumerate()]
        if not any(name.startswith("stepjax-") for name in names):
            return
        time.sleep(0.01)
    raise AssertionError(f"threads are left: {names}")


def outcome(results):
    return [(one.status, one.reward, one.num_steps) for one in results]


@pytest.fixture(scope="module")
def expected():
    results, _ = run(World())
    assert {one.reward for one in results} == {0.0, 1.0}
    assert all(one.status is TrajectoryStatus.COMPLETED for one in results)
    return outcome(results)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", KINDS)
def test_a_fault_changes_no_result(expected, fault, phase):
    world = World(nth(phase, 1, fault))
    results, pool = run(world, deadlines=Deadlines(**{phase: 0.3}))
    assert outcome(results) == expected
    assert pool.counts.faults == {(KINDS[fault], Phase(phase)): 1}
    assert pool.counts.replaced == 1 and pool.counts.retried == 1
    assert sum(one.faults for one in results) == 1


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", ["crash", "hang", "garbage"])
def test_a_task_that_always_fails_is_invalid_and_alone(expected, fault, phase):
    world = World(
        lambda index, where, task, call: (
            fault if (task, where) == ("task-3", phase) else None
        )
    )
    results, pool = run(world, max_retries=1, deadlines=FAST)
    status = KINDS[fault].status
    for (task, _), result, normal in zip(EPISODES, results, expected, strict=True):
        if task.name == "task-3":
            assert outcome([result]) == [(status, 0.0, 0)]
            assert result.faults == 2 and "task-3" in result.error
        else:
            assert outcome([result]) == [normal]
    assert pool.counts.episodes[status] == 2


@pytest.mark.parametrize("fault", ["crash", "hang", "slow"])
@pytest.mark.parametrize("phase", ["create", "close"])
def test_faults_outside_episodes(expected, fault, phase):
    crash = nth("step", 2, "crash")  # so that environments are closed and made again

    def script(index, where, task, call):
        if where == phase:
            return fault if call < 1 else None
        return crash(index, where, task, call)

    results, pool = run(World(script))
    assert outcome(results) == expected
    assert pool.counts.faults[KINDS[fault], Phase(phase)] >= 1


def test_faulty_environments_are_closed_once_and_hung_ones_killed():
    scripts = [nth("step", 1, "crash"), nth("step", 4, "hang"), nth("step", 9, "hang")]

    def script(*call):
        return next(filter(None, [script(*call) for script in scripts]), None)

    world = World(script)
    _, pool = run(world)
    assert [one.closed for one in world.made] == [1] * len(world.made)
    killed = sum(one.killed.is_set() for one in world.made)
    assert killed == pool.counts.faults[FaultKind.TIMEOUT, Phase.STEP] > 0


def test_a_hung_thread_that_comes_back_closes_its_environment():
    world = World(nth("reset", 1, "hang"), killable=False)
    results, _ = run(world)  # waits for all threads after the release
    assert all(one.status.valid for one in results)
    assert [one.closed for one in world.made] == [1] * len(world.made)


def test_retries_move_elsewhere():
    def script(index, where, task, call):
        return "crash" if (where, index) == ("step", 0) else None

    results, _ = run(World(script), max_retries=3, max_consecutive_faults=100)
    assert all(one.status.valid for one in results)


def test_circuit_breaker_stops_a_hopeless_run():
    world = World(lambda index, where, task, call: "crash" if where == "step" else None)
    pool = make_pool(world, max_retries=1000, max_consecutive_faults=9)
    with pool, pytest.raises(RuntimeError) as caught:
        pool.run(EPISODES, act, max_steps=6)
    message = str(caught.value)
    assert message.startswith("9 environment faults in a row")
    assert "step of task-" in message and "ConnectionResetError" in message
    assert "\n" not in message
    wait_for_threads()


def test_environments_that_cannot_start_stop_the_run():
    world = World(lambda index, where, task, call: "crash" if where == "create" else "")
    with make_pool(world) as pool, pytest.raises(RuntimeError, match="create"):
        pool.run(EPISODES, act, max_steps=6)
    wait_for_threads()


def test_what_is_missing_is_said_at_once():
    def make(index):
        raise FileNotFoundError("no browser found; install one with ...")

    with make_pool(make) as pool, pytest.raises(FileNotFoundError, match="install"):
        pool.run(EPISODES, act, max_steps=6)
    wait_for_threads()


def test_a_slow_environment_blocks_no_other():
    finished, first = threading.Semaphore(0), threading.Lock()
    others = len(EPISODES) - 1

    class Slow(ScriptedEnvironment):
        """The first to take a step goes on only when all other episodes are done."""

        def step(self, action):
            if first.acquire(blocking=False):
                for _ in range(others):
                    assert finished.acquire(timeout=20)
            return super().step(action)

        def evaluate(self):
            finished.release()
            return super().evaluate()

    world = World()
    results, pool = run(lambda index: Slow(world, index), deadlines=Deadlines())
    assert all(one.status.valid for one in results)
    assert not pool.counts.faults


def test_a_run_that_is_broken_off_leaves_a_usable_pool(expected):
    def fail(ready):
        raise KeyboardInterrupt

    world = World()
    with make_pool(world) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.run(EPISODES, fail, max_steps=6)
        assert outcome(pool.run(EPISODES, act, max_steps=6)) == expected
    assert len(world.made) == 3
    with pytest.raises(RuntimeError, match="closed"):
        pool.run(EPISODES, act, max_steps=6)


def test_last_actions_and_limits_end_episodes():
    kinds = [ActionKind.DONE, ActionKind.FAIL, ActionKind.WAIT, ActionKind.INVALID]

    def act(ready):
        return [Action(kind=kinds[one.episode]) for one in ready]

    world = World()
    episodes = [(make_task(0), 14)] * 4
    with make_pool(world) as pool:
        results = pool.run(episodes, act, max_steps=3)
    done, cut = TrajectoryStatus.COMPLETED, TrajectoryStatus.TRUNCATED
    assert [one.status for one in results] == [done, done, cut, cut]
    assert [one.num_steps for one in results] == [1, 1, 3, 3]
    assert pool.counts.invalid_actions == 3
    steps = sum(count for (_, phase), count in world.calls.items() if phase == "step")
    assert steps == 1 + 1 + 3  # invalid actions never reach an environment


def test_the_heartbeat_names_what_is_waited_for():
    lines = []
    world = World(nth("step", 1, "hang"))
    run(world, heartbeat_seconds=0.02, report=lines.append)
    waits = [line for line in lines if "waiting for" in line]
    assert any(re.search(r"environment \d, step of task-\d", line) for line in waits)
    assert any(line.startswith("environment fault: ") for line in lines)


def make_vectors(world, num_slots=4):
    return lambda index: ScriptedVector(world, index, num_slots)


def run_vectors(world, **options):
    with make_pool(make_vectors(world), num_envs=2, **options) as pool:
        return pool.run(EPISODES, act, max_steps=6), pool


def test_vector_environments_give_the_same_results(expected):
    world = World()
    results, pool = run_vectors(world)
    assert outcome(results) == expected
    # Slots of a vector are stepped together.
    assert any(4 in vector.batches for vector in world.made)  # pyright: ignore
    assert pool.counts.policy_rows == sum(one.num_steps for one in results)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fault", ["crash", "hang", "slow", "garbage"])
def test_a_fault_of_a_vector_restarts_all_its_episodes(expected, fault, phase):
    world = World(nth(phase, 2, fault))
    results, pool = run_vectors(world, deadlines=Deadlines(**{phase: 0.3}))
    world.release.set()
    wait_for_threads()
    assert outcome(results) == expected
    assert pool.counts.replaced == 1
    assert pool.counts.retried >= 1
    if fault == "garbage":  # the slot is known, so nobody else is charged
        assert sum(one.faults for one in results) == 1


def test_a_slot_error_charges_only_the_guilty(expected):
    class Blaming(ScriptedVector):
        def step_many(self, slots, actions):
            for slot in slots:
                if self._slots[slot].task.name == "task-2":
                    raise SlotError([slot], "this page is broken")
            return super().step_many(slots, actions)

    world = World()
    with make_pool(
        lambda index: Blaming(world, index, 4), num_envs=2, max_retries=0
    ) as pool:
        results = pool.run(EPISODES, act, max_steps=6)
    for (task, _), result, normal in zip(EPISODES, results, expected, strict=True):
        if task.name == "task-2":
            assert result.status is TrajectoryStatus.ENV_ERROR
        else:
            assert outcome([result]) == [normal]


def test_pictures_come_with_every_observation():
    seen = []

    def watch(ready):
        seen.extend(one.observation.screenshot for one in ready)
        return act(ready)

    with make_pool(make_vectors(World()), num_envs=1) as pool:
        (result,) = pool.run(EPISODES[:1], watch, max_steps=6, pictures=True)
    assert [image[0, 0, 0] for image in seen] == list(range(result.num_steps))
    assert result.final.screenshot[0, 0, 0] == result.num_steps


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_envs", 0), ("max_retries", -1), ("batch_size", 0)],
)
def test_rejects_bad_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .* got {value}"):
        make_pool(World(), **{name: value})


def test_rejects_bad_deadlines():
    with pytest.raises(ValueError, match="Deadlines.step must be > 0"):
        Deadlines(step=float("nan"))


def test_metrics_count_what_happened():
    _, pool = run(World(nth("step", 0, "crash")))
    metrics = pool.counts.metrics()
    assert metrics["env/faults_error"] == metrics["env/replaced"] == 1
    assert metrics["env/episodes_completed"] == len(EPISODES)
    assert metrics["env/policy_rows"] >= metrics["env/policy_calls"] >= 1
