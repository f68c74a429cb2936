"""Episodes on a stand-in's phone: scored as AndroidWorld does, torn down always."""

import contextlib
import dataclasses
import threading

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.androidworld.environment import AndroidWorldEnvironment
from stepjax.envs.androidworld.errors import (
    AndroidWorldError,
    BrokenAnswerError,
    RefusedError,
    SuiteChangedError,
)
from stepjax.envs.androidworld.fleet import AndroidWorldFleet
from stepjax.envs.base import Task
from stepjax.envs.pool import Deadlines, EnvironmentPool, TrajectoryStatus
from tests.envs.androidworld.stand_in import (
    SWITCH,
    PhoneServer,
    format_action,
    serving,
)

ON, OFF, QUESTION, HALF = (
    Task(task_id=index, name=name, instruction="", domain="")
    for index, name in enumerate(
        (
            "SystemBluetoothTurnOn",
            "SystemBluetoothTurnOff",
            "NotesTodoItemCount",
            "TurnOffWifiAndTurnOnBluetooth",
        )
    )
)
TOGGLE = Action(kind=ActionKind.CLICK, x=SWITCH[0] / 36, y=SWITCH[1] / 80)
WAIT, DONE, FAIL = (
    Action(kind=kind) for kind in (ActionKind.WAIT, ActionKind.DONE, ActionKind.FAIL)
)


@pytest.fixture
def fleet(phone, settings, tmp_path):
    made = AndroidWorldFleet(
        [phone.url],
        budget_of=lambda task: 4,
        settings=settings,
        format_action=format_action,
        journals=tmp_path,
    )
    yield made
    made.close()


@pytest.fixture
def env(fleet):
    made = fleet(0)
    yield made
    made.close()


def play(env: AndroidWorldEnvironment, task: Task, *actions: Action, seed=3) -> float:
    env.reset(task, seed)
    for action in actions:
        env.step(action)
    return env.evaluate()


def test_an_episode(env, phone):
    first = env.reset(ON, 7)
    assert first.instruction == "SystemBluetoothTurnOn number 7000."
    assert first.screenshot.shape == (80, 36, 3) and first.widgets is None
    assert phone.left == [ON.name] and phone.home == 1
    same = env.step(WAIT)
    assert same.observation.state_hash == first.state_hash, "a clock is no new state"
    then = env.step(TOGGLE)
    assert not then.terminated and not then.truncated
    assert then.observation.state_hash != first.state_hash
    assert env.step(DONE).terminated
    assert env.evaluate() == 1.0
    assert env.evaluate() == 1.0, "asked again"
    assert phone.left == []
    assert phone.calls[-1] == "/task/tear_down"


def test_scores_are_androidworlds(env, phone):
    assert play(env, ON, DONE) == 0.0
    assert play(env, ON, TOGGLE, DONE) == 1.0
    assert play(env, ON, TOGGLE, FAIL) == 1.0, "infeasible ends it, the phone decides"
    assert play(env, ON, FAIL) == 0.0
    assert play(env, HALF, TOGGLE, DONE) == 0.5
    assert phone.left == []
    statuses = [
        body["goal_status"]
        for _, _, body in phone.requests
        if body and body["action_type"] == "status"
    ]
    assert statuses == ["complete", "complete", "infeasible", "infeasible", "complete"]


def test_an_episode_that_was_cut_is_worth_nothing(env, phone):
    env.reset(ON, 0)
    results = [env.step(TOGGLE), *(env.step(WAIT) for _ in range(3))]
    assert [result.truncated for result in results] == [False] * 3 + [True]
    assert phone.bluetooth
    phone.calls.clear()
    assert env.evaluate() == 0.0
    assert "/task/score" not in phone.calls and phone.left == []


def test_answers(env, phone):
    right = Action(kind=ActionKind.ANSWER, text="3000")
    said = Action(kind=ActionKind.DONE, text="3000")
    assert play(env, QUESTION, right, DONE) == 1.0
    assert play(env, QUESTION, said) == 1.0
    assert play(env, QUESTION, right) == 0.0, "it never said that it was done"
    assert play(env, QUESTION, Action(kind=ActionKind.ANSWER, text="x"), DONE) == 0.0
    assert play(env, QUESTION, DONE) == 0.0
    assert play(env, QUESTION, Action(kind=ActionKind.FAIL, text="3000")) == 0.0


def test_pages_of_miniwob_end_by_themselves(phone, settings, tmp_path):
    settings = dataclasses.replace(settings, family="miniwob")
    fleet = AndroidWorldFleet(
        [phone.url], budget_of=lambda task: 9, settings=settings,
        format_action=format_action, journals=tmp_path,
    )  # fmt: skip
    assert fleet.open() == ("MiniWobClickTest", "MiniWobEnterText")
    env = fleet(0)
    page = Task(task_id=0, name="MiniWobClickTest", instruction="", domain="")
    env.reset(page, 0)
    assert phone.home == 0, "its page is on the screen already"
    assert not env.step(WAIT).terminated
    assert env.step(TOGGLE).terminated
    assert env.evaluate() == 1.0 and phone.left == []
    env.close()
    fleet.close()


def test_what_the_agent_does_wrong_costs_a_step(env, phone):
    env.reset(ON, 0)
    for action in (
        Action(kind=ActionKind.KEY_DOWN, keys=("a",)),  # no form in the language
        Action(kind=ActionKind.OPEN_APP, text="No such app"),  # the server refuses
        Action(kind=ActionKind.CLICK),
    ):
        assert not env.step(action).terminated
    parts = (TOGGLE, Action(kind=ActionKind.OPEN_APP, text="x"), DONE, TOGGLE)
    assert env.step(Action(kind=ActionKind.SEQUENCE, parts=parts)).terminated
    assert env.evaluate() == 1.0


def test_a_phone_that_refuses_everything_is_a_fault(env, phone):
    env.reset(ON, 0)
    phone.fail("/execute_action", 500, 500, 500)
    env.step(WAIT)
    env.step(WAIT)
    with pytest.raises(RefusedError, match="answered 500"):
        env.step(WAIT)
    env.close()
    assert phone.left == []


def test_seeds(env, phone, fleet, settings, tmp_path):
    goals = {env.reset(ON, seed).instruction for seed in (5, 5, 6, 2**32 + 6)}
    assert goals == {f"SystemBluetoothTurnOn number {n}000." for n in (5, 6)}
    env.close()
    fleet.close()
    settings = dataclasses.replace(settings, suite_seed=30)
    other = AndroidWorldFleet(
        [phone.url], budget_of=lambda task: 4, settings=settings,
        format_action=format_action, journals=tmp_path,
    )  # fmt: skip
    assert other(0).reset(ON, 5).instruction.endswith("number 30000.")
    other.close()
    assert phone.left == []


def test_a_set_up_that_fails_once(env, phone):
    phone.fail("/task/initialize", 500)
    assert play(env, ON, TOGGLE, DONE) == 1.0
    phone.fail("/task/initialize", 500, 500)
    with pytest.raises(RefusedError, match="/task/initialize answered 500"):
        env.reset(ON, 0)
    env.close()
    assert phone.left == []


def test_an_answer_lost_after_the_set_up_leaves_nothing(env, phone):
    phone.fail("/task/initialize", "drop after")
    with pytest.raises(BrokenAnswerError):
        env.reset(ON, 0)
    assert phone.left == [ON.name]
    env.close()
    assert phone.left == []


@pytest.mark.parametrize("task", [ON, Task(
    task_id=0, name="CameraTakePhoto", instruction="", domain="")])  # fmt: skip
def test_a_restart_is_never_scored(env, phone, task):
    env.reset(task, 0)
    env.step(TOGGLE)
    phone.restart()
    phone.bluetooth = True
    with pytest.raises(AndroidWorldError):
        env.step(DONE)
        env.evaluate()
    env.close()
    assert phone.left == []


def test_somebody_else_is_noticed(env, phone):
    env.reset(ON, 0)
    phone.make_suite(1, 99, "android_world")
    phone.suite[ON.name][0].initialized = True
    env.step(DONE)
    with pytest.raises(SuiteChangedError, match="restarted, or somebody else"):
        env.evaluate()


def test_another_size_is_a_fault(env, phone):
    env.reset(ON, 0)
    phone.size = (80, 36)
    assert env.step(WAIT).observation.screenshot.shape == (36, 80, 3), "turned"
    phone.size = (40, 80)
    with pytest.raises(AndroidWorldError, match="40 x 80 pixels.*36 x 80"):
        env.step(WAIT)
    env.close()
    assert phone.left == []


def test_tear_down_is_made_up_for(env, phone):
    env.reset(ON, 0)
    env.step(DONE)
    phone.fail("/task/tear_down", "hang up", "hang up", "hang up")
    assert env.evaluate() == 0.0
    assert phone.left == [ON.name]
    env.reset(OFF, 0)
    assert phone.left == [OFF.name]
    assert phone.calls.count("/task/tear_down") == 4


def test_pictures_shrink(phone, settings, tmp_path):
    settings = dataclasses.replace(settings, shrink=4)
    fleet = AndroidWorldFleet(
        [phone.url], budget_of=lambda task: 4, settings=settings,
        format_action=format_action, journals=tmp_path,
    )  # fmt: skip
    env = fleet(0)
    image = env.reset(ON, 0).screenshot
    assert image is not None and image.shape == (20, 9, 3) and image.dtype == np.uint8
    assert env.step(TOGGLE) and phone.bluetooth, "places are shares of the real screen"
    fleet.close()
    assert phone.left == []


def test_it_must_be_reset_first(env):
    for call in (lambda: env.step(DONE), env.evaluate):
        with pytest.raises(RuntimeError, match="call reset first"):
            call()


def test_a_pool_survives_every_fault(fleet, phone):
    """Each fault costs its episode a new start, and no reward is ever wrong."""
    faults = {
        "/task/initialize": ["drop after", 500, 500, "hang up"],
        "/execute_action": ["drop after", "hang up", "short"],
        "/screenshot": ["truncated JSON"] * 4,
        "/task/score": [500, b'{"score": 3}', "short", "short", "short"],
        "/task/goal": ["hang up"] * 3,
        "/reset": [500],
    }
    said = []
    with EnvironmentPool(
        fleet, num_envs=1, max_retries=20, backoff_seconds=0.0, report=said.append,
        max_consecutive_faults=100,
        deadlines=Deadlines(create=60, reset=60, step=60, evaluate=60, close=60),
    ) as pool:  # fmt: skip
        for route, many in faults.items():
            phone.fail(route, *many)
        phone.fail("/suite/task_length", None, None, phone.restart)
        results = pool.run(
            [(ON, 1), (OFF, 2)],
            lambda ready: [(TOGGLE, DONE)[one.step % 2] for one in ready],
            max_steps=5,
        )
    assert [result.reward for result in results] == [1.0, 1.0]
    assert all(result.status is TrajectoryStatus.COMPLETED for result in results)
    assert len(said) >= 6 and not any("\n" in line for line in said)
    assert phone.left == []


def test_a_server_that_dies_mid_episode_is_waited_for(settings, tmp_path):
    """Gone for a while, then another process of it: a fault, no reward, a new start."""
    phone, died = PhoneServer(), threading.Event()
    settings = dataclasses.replace(settings, patience=60.0)
    with contextlib.ExitStack() as life:
        life.enter_context(serving(phone))
        port = int(phone.url.rsplit(":", 1)[1])

        def die_and_return() -> None:
            assert died.wait(60)
            life.pop_all().close()
            died.clear()
            phone.restart()
            phone.bluetooth = True  # what a task left; it must not be scored
            died.wait(0.5)
            life.enter_context(serving(phone, port))

        phone.fail("/execute_action", None, died.set)
        killer = threading.Thread(target=die_and_return, daemon=True)
        killer.start()
        fleet = AndroidWorldFleet(
            [phone.url], budget_of=lambda task: 9, settings=settings,
            format_action=format_action, journals=tmp_path,
        )  # fmt: skip
        said = []

        def act(ready):
            if died.is_set():
                killer.join(60)
            return [(TOGGLE, WAIT, DONE)[one.step % 3] for one in ready]

        with EnvironmentPool(
            fleet, num_envs=1, max_retries=5, backoff_seconds=0.0, report=said.append,
            deadlines=Deadlines(create=90, reset=60, step=60, evaluate=60, close=60),
        ) as pool:  # fmt: skip
            (result,) = pool.run([(ON, 1)], act, max_steps=5)
        killer.join(60)
        assert result.status is TrajectoryStatus.COMPLETED and result.reward == 1.0
        assert said and not any("\n" in line for line in said)
        assert phone.calls.count("/task/score") == 1
        fleet.close()
        assert phone.left == []


def test_a_hanging_call_is_killed_and_its_task_torn_down(fleet, phone):
    with EnvironmentPool(
        fleet, num_envs=1, max_retries=1, backoff_seconds=0.0, report=lambda line: None,
        deadlines=Deadlines(create=60, reset=60, step=1.0, evaluate=60, close=60),
    ) as pool:  # fmt: skip
        phone.fail("/screenshot", None, 1.5, 1.5)
        (result,) = pool.run([(ON, 1)], lambda ready: [TOGGLE], max_steps=2)
    assert result.status in (TrajectoryStatus.ENV_TIMEOUT, TrajectoryStatus.TRUNCATED)
    fleet.close()
    assert phone.left == []
