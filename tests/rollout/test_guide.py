"""Demonstrations on the host: what is meant is imitated, missteps are not."""

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, StepResult, Task, Widget
from stepjax.rollout import guide
from stepjax.rollout.backend import TaskTable
from stepjax.rollout.encode import decode_tokens, encode_action
from stepjax.rollout.host import HostBackend

WIDGETS = tuple(Widget(role="button", label=f"b{n}") for n in range(4))


class Counter:
    """Clicks on button 2 end the task well, every other click does nothing."""

    def reset(self, task: Task, seed: int) -> Observation:
        self.solved = False
        return Observation(instruction="press b2", widgets=WIDGETS)

    def step(self, action: Action) -> StepResult:
        self.solved = action.kind == ActionKind.CLICK and action.widget == 2
        seen = Observation(instruction="press b2", widgets=WIDGETS)
        return StepResult(observation=seen, terminated=self.solved)

    def evaluate(self) -> float:
        return float(self.solved)

    def close(self) -> None:
        pass


def make_backend(demonstrate=None) -> HostBackend:
    table = TaskTable(
        names=("a", "b"),
        domains=("x", "x"),
        train_ids=np.array([0], np.int32),
        unseen_ids=np.array([1], np.int32),
        infeasible=np.zeros(2, bool),
        instruction=lambda task_id, seed: "",
    )
    return HostBackend(
        "counter",
        lambda index: Counter(),
        table,
        lambda *args, **kwargs: None,
        num_envs=2,
        max_steps=6,
        demonstrate=demonstrate,
    )


def test_wandering_is_acted_out_but_not_imitated(monkeypatch):
    # A demonstrator that is never lost.
    monkeypatch.setattr(guide, "_ERROR_RANGES", ((0.0, 0.0),) * 3)
    asked = []

    def demonstrate(task: Task, seen: Observation) -> Action:
        asked.append(task.name)
        return Action(kind=ActionKind.CLICK, widget=2)

    backend = make_backend(demonstrate)
    try:
        prompt, tokens = backend.demonstrations(40, seed=1)
    finally:
        backend.close()
    assert set(asked) == {"a"}  # held-out tasks are never demonstrated
    assert len(asked) > len(tokens)  # some steps were missteps
    np.testing.assert_array_equal(np.unique(tokens, axis=0), [[0, 2, 0]])
    assert len(prompt.words) == len(tokens)


def test_a_lost_demonstrator_tries_the_first_thing_and_gives_up(monkeypatch):
    monkeypatch.setattr(guide, "_ERROR_RANGES", ((1.0, 1.0),) * 3)
    backend = make_backend(lambda task, seen: Action(kind=ActionKind.CLICK, widget=2))
    try:
        _, tokens = backend.demonstrations(10, seed=1)
    finally:
        backend.close()
    done = [int(ActionKind.DONE), 0, 0]
    np.testing.assert_array_equal(tokens, [[0, 0, 0], done] * 10)


def test_without_a_demonstrator_it_says_so():
    backend = make_backend()
    try:
        with pytest.raises(ValueError, match="counter was made without"):
            backend.demonstrations(1, seed=0)
    finally:
        backend.close()


@pytest.mark.parametrize(
    "action",
    [
        Action(kind=ActionKind.CLICK, widget=3),
        Action(kind=ActionKind.TYPE, widget=1, text="cat"),
        Action(kind=ActionKind.ENTER),
        Action(kind=ActionKind.SCROLL_DOWN),
    ],
)
def test_encoding_an_action_is_undone_by_decoding(action):
    words = ("the", "cat", "sat")
    tokens = encode_action(action, words)
    assert tokens is not None
    seen = Observation(instruction="", widgets=WIDGETS)
    again = decode_tokens(tokens, seen, words)
    assert (again.kind, again.widget, again.text) == (
        action.kind,
        action.widget,
        action.text,
    )


@pytest.mark.parametrize(
    "action",
    [
        Action(kind=ActionKind.DRAG, x=0.1, y=0.1, to_x=0.5, to_y=0.5),
        Action(kind=ActionKind.CLICK, x=0.5, y=0.5),
        Action(kind=ActionKind.TYPE, widget=1, text="not there"),
    ],
)
def test_what_the_policy_cannot_say_has_no_tokens(action):
    assert encode_action(action, ("a", "b")) is None
