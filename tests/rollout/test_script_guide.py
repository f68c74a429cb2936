"""Demonstrations from scripts: noisy, sometimes given up, never beyond the policy."""

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation, Widget
from stepjax.envs.pool import Deadlines, Ready
from stepjax.envs.screen_actions import SCREEN_KINDS
from stepjax.rollout import script_guide
from stepjax.rollout.host import HostBackend
from stepjax.rollout.screen_codec import ScreenCodec
from stepjax.rollout.script_guide import ScriptGuides, expand
from tests.envs.painted_desk import PaintedDesk, desk_script, desk_table

CODEC = ScreenCodec(width=32, height=20, num_words=8)
CLICK, TYPE, PRESS, WAIT, DONE, FAIL = (
    SCREEN_KINDS.index(ActionKind[name])
    for name in ("CLICK", "TYPE", "PRESS", "WAIT", "DONE", "FAIL")
)


@pytest.fixture
def sure(monkeypatch):
    """A demonstrator that knows everything and wastes nothing."""
    monkeypatch.setattr(script_guide, "_GIVING_UP", ((0.0, 0.0), (0.0, 0.0)))
    monkeypatch.setattr(script_guide, "_WASTED_SHARE", 0.0)


def make_backend(script=desk_script, make=lambda index: PaintedDesk(), **options):
    return HostBackend(
        "desk",
        make,
        desk_table(),
        lambda *args, **kwargs: None,
        num_envs=2,
        max_steps=8,
        codec=CODEC,
        guides=ScriptGuides(script=script, codec=CODEC),
        **options,
    )


def demonstrate(episodes=40, **options):
    backend = make_backend(**options)
    try:
        prompt, tokens = backend.demonstrations(episodes, seed=1)
        return prompt, tokens, [result.reward for result in backend.results]
    finally:
        backend.close()


def test_a_sure_demonstrator_solves_everything(sure):
    prompt, tokens, rewards = demonstrate()
    assert np.mean(rewards) == 1.0
    assert prompt.screenshot.shape == (len(tokens), 20, 32, 3)
    kinds, counts = np.unique(tokens[:, 0], return_counts=True)
    # Ten episodes of each training task: one or two clicks, a word, keys, an end.
    shares = dict(zip(kinds.tolist(), counts.tolist(), strict=True))
    assert shares == {CLICK: 30, TYPE: 10, PRESS: 10, DONE: 30, FAIL: 10}
    clicks = tokens[tokens[:, 0] == CLICK]
    assert len(np.unique(clicks[:, 2])) > 8  # places vary


def test_the_same_seed_gives_the_same_demonstrations(sure):
    first, again = demonstrate(12), demonstrate(12)
    np.testing.assert_array_equal(first[1], again[1])
    np.testing.assert_array_equal(first[0].screenshot, again[0].screenshot)


def test_wasted_steps_are_carried_out_and_not_imitated(monkeypatch, sure):
    monkeypatch.setattr(script_guide, "_WASTED_SHARE", 0.3)
    backend = make_backend()
    prompt, tokens = backend.demonstrations(40, seed=1)
    steps = [result.num_steps for result in backend.results]
    backend.close()
    assert sum(steps) > len(tokens)
    assert WAIT not in tokens[:, 0] and (tokens[:, 0] == PRESS).sum() <= 10
    # The history says that time was wasted.
    assert (prompt.history_kind == int(ActionKind.WAIT)).any()


def test_some_tasks_are_given_up_and_that_is_imitated(monkeypatch, sure):
    monkeypatch.setattr(script_guide, "_GIVING_UP", ((0.5, 0.5), (0.5, 0.5)))
    _, tokens, rewards = demonstrate(80)
    assert 0.2 < np.mean(rewards) < 0.8
    assert (tokens[:, 0] == DONE).sum() > 60  # also where something was left undone


def test_scripts_that_fail_teach_nothing(sure):
    said = []

    def script(name, seed):
        wrong = Action(kind=ActionKind.CLICK, x=0.001, y=0.999)
        return [wrong] if name == "press-red" else desk_script(name, seed)

    _, tokens, rewards = demonstrate(script=script, report=said.append)
    assert np.mean(rewards) == 0.75
    assert (tokens[:, 0] == CLICK).sum() == 20
    assert any("10 of 40 demonstrations failed" in line for line in said)


def test_what_the_policy_cannot_say_ends_the_episode_and_is_told(sure):
    drag = Action(kind=ActionKind.DRAG, x=0.1, y=0.1, to_x=0.5, to_y=0.5)
    table = desk_table()
    guides = ScriptGuides(script=lambda name, seed: [drag], codec=CODEC)
    backend = make_backend(script=guides.script)
    prompt, tokens = backend.demonstrations(4, seed=1)
    backend.close()
    assert not len(tokens)
    task = backend._task(int(table.train_ids[0]), 0)
    guide = guides([task], [0], seed=0)
    seen = Observation(instruction="x")
    chosen, mask, _ = guide.choose([Ready(0, 0, seen)], [("x",)])
    assert chosen[0, 0] == DONE and not mask.any()
    assert guide.remarks() == ["the policy has no tokens for press-red: drag"]


def test_an_episode_that_starts_over_starts_its_script_over(sure):
    class Shaky(PaintedDesk):
        """Breaks at the second step of its first episode."""

        broken = False

        def step(self, action):
            if self._focused and not Shaky.broken:
                Shaky.broken = True
                raise ConnectionError("gone")
            return super().step(action)

    _, tokens, rewards = demonstrate(
        make=lambda index: Shaky(),
        deadlines=Deadlines(),
        backoff_seconds=0.001,
        report=lambda line: None,
    )
    assert Shaky.broken and np.mean(rewards) == 1.0


def test_sequences_are_taken_apart():
    parts = (
        Action(kind=ActionKind.TYPE, x=0.5, y=0.5, text="cat\n"),
        Action(kind=ActionKind.PRESS, keys=("ctrl", "s")),
    )
    small = expand(Action(kind=ActionKind.SEQUENCE, parts=parts))
    kinds = [action.kind.name for action in small]
    assert kinds == ["CLICK", "TYPE", "ENTER", "PRESS"]
    assert small[0].x == 0.5 and small[0].text == "" and small[1].text == "cat"
    alone = Action(kind=ActionKind.TYPE, text="\n")
    assert expand(alone) == [Action(kind=ActionKind.ENTER)]


def test_clicks_stay_near_the_middle_of_their_widget():
    rng = np.random.default_rng(0)
    widget = Widget(role="button", label="OK", box=(0.2, 0.4, 0.3, 0.5))
    seen = Observation(instruction="", widgets=(widget,))
    click = Action(kind=ActionKind.CLICK, widget=0)
    found = [script_guide._jittered(click, seen, rng) for _ in range(100)]
    places = np.array([(action.x, action.y) for action in found])
    assert (places >= (0.225, 0.425)).all() and (places <= (0.275, 0.475)).all()
    assert places.std(axis=0).min() > 0.01
    assert all(action.widget is None for action in found)
