"""Bundled tasks: what their makers write, and whether they can be done for real."""

import collections
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.desktop import DesktopFleet, DesktopSettings, doctor
from stepjax.envs.desktop.input_plan import plan
from stepjax.envs.desktop.table import bundled_tasks, make_task
from stepjax.envs.desktop.tasks.bundled import (
    FAST_TASKS,
    PROGRAMS,
    TRAIN_TASKS,
    UNSEEN_TASKS,
    bundled_task,
    oracle_script,
    wrong_script,
)
from stepjax.envs.desktop.tasks.evaluate import evaluate, unknown_parts
from stepjax.envs.words import split_words
from tests.envs.desktop.fake_files import FakeFilesClient

TASKS = TRAIN_TASKS | UNSEEN_TASKS
# Cheap, and from five applications: these run wherever desktops start.
SMALL_SET = {
    "terminal-run", "terminal-pick", "terminal-impossible", "editor-write",
    "editor-replace-word", "files-delete", "files-rename", "files-missing",
    "settings-keyboard", "settings-assistance", "calc-enter",
}  # fmt: skip
DONE = Action(kind=ActionKind.DONE)
BLANK = Observation(instruction="")


def actions(script):
    """A script's actions where nothing is known of the screen."""
    return [step(BLANK) if callable(step) else step for step in script]


def test_there_are_enough_tasks():
    assert len(TASKS) == len(TRAIN_TASKS) + len(UNSEEN_TASKS) >= 24
    assert len(set(TASKS.values())) >= 7
    assert len(FAST_TASKS) >= 12 and len(UNSEEN_TASKS) >= 6
    assert set(TASKS.values()) == set(PROGRAMS)
    assert set(TASKS) > SMALL_SET
    infeasible = [name for name in TASKS if bundled_task(name, 0).infeasible]
    assert len(infeasible) == 3


@pytest.mark.parametrize("name", TASKS)
def test_a_variation_is_sound(name):
    for seed in range(4):
        spec = bundled_task(name, seed)
        assert spec.id == name and spec.domain == TASKS[name]
        assert not unknown_parts(spec) and not spec.needs_root
        words = split_words(spec.instruction)
        assert len(words) <= 32
        for script in (oracle_script(name, seed), wrong_script(name, seed)):
            done = actions(script)
            assert 1 <= len(done) <= 10
            ends = [one.kind in (ActionKind.DONE, ActionKind.FAIL) for one in done]
            assert ends == [False] * (len(done) - 1) + [True]
            for one in done:
                plan(one, width=1280, height=800)
        for one in actions(oracle_script(name, seed)):
            # What has to be typed stands in the instruction.
            assert one.kind != ActionKind.TYPE or one.text in words


@pytest.mark.parametrize("name", TASKS)
def test_seeds_decide_and_nothing_else(name):
    same = [bundled_task(name, 7) for _ in range(2)]
    documents = TASKS[name] in ("calc", "writer", "impress")  # hold the time
    assert documents or same[0].data == same[1].data
    assert same[0].instruction == same[1].instruction
    assert actions(oracle_script(name, 7)) == actions(oracle_script(name, 7))
    seen = collections.Counter(
        str(bundled_task(name, seed).data["evaluator"]) for seed in range(6)
    )
    if not same[0].infeasible and name != "player-play":
        assert len(seen) > 2


@pytest.mark.parametrize("name", TASKS)
def test_an_empty_desktop_is_worth_nothing(name):
    spec = bundled_task(name, 0)
    client = FakeFilesClient(outputs={"find": (1, ""), "xfconf-query": (1, "")})
    assert evaluate(spec, client, ended_by=ActionKind.DONE) == 0.0


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(FAST_TASKS)), seed=st.integers(0, 2**63 - 1))
def test_any_seed_makes_a_task(name, seed):
    spec = bundled_task(name, seed)
    assert spec.instruction
    assert actions(oracle_script(name, seed)) != actions(wrong_script(name, seed))


def test_names_and_seeds_that_are_none():
    with pytest.raises(ValueError, match="no bundled task 'calc'.*calc-enter"):
        bundled_task("calc", 0)
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        bundled_task("calc-enter", -1)


@pytest.fixture(scope="module")
def environment():
    findings = doctor.examine(start=False)
    lacking = [one for one in findings if one.needed and not one.ok]
    if lacking:
        pytest.skip(f"no desktop: {lacking[0].name}: {lacking[0].detail}")
    looks = DesktopSettings(widgets=True, settle_ms=250)
    with DesktopFleet(bundled_tasks(), num_envs=1, settings=looks) as fleet:
        fleet.wait_ready(120.0)
        yield fleet(0)


def episode(environment, name, seed, script):
    """Reward of a script on a fresh desktop."""
    spec = bundled_task(name, seed)
    seen = environment.reset(make_task(spec, name), seed)
    for step in script:
        action = step(seen) if callable(step) else step
        seen = environment.step(action).observation
    return environment.evaluate()


@pytest.mark.desktop
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SMALL_SET else pytest.mark.slow)
        for name in TASKS
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
def test_solved_missed_and_left_alone(environment, name):
    program = PROGRAMS[TASKS[name]]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    for seed in (0, 1):
        rewards = [
            episode(environment, name, seed, script)
            for script in (oracle_script(name, seed), wrong_script(name, seed), [DONE])
        ]
        assert rewards == [1.0, 0.0, 0.0]
