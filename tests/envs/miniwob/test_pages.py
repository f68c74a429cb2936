"""Real pages in a real browser."""

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.miniwob import (
    TRAIN_TASKS,
    UNSEEN_TASKS,
    make_task,
    oracle_action,
)
from stepjax.envs.vector import SlotError
from stepjax.envs.words import ROLES, split_words

pytestmark = pytest.mark.browser

ALL = list(TRAIN_TASKS | UNSEEN_TASKS)
SOME = ["click-checkboxes", "login-user-popup", "click-tab-2", "email-inbox-reply"]


def reset(vector, names, seeds):
    slots = list(range(len(names)))
    return vector.reset_many(slots, [make_task(name) for name in names], seeds)


def play(vector, names, seeds):
    """Rewards and all observations of the oracles' episodes, one in each slot."""
    seen = reset(vector, names, seeds)
    trace = [[one] for one in seen]
    running = list(range(len(names)))
    while running:
        actions = [oracle_action(names[slot], trace[slot][-1]) for slot in running]
        results = vector.step_many(running, actions)
        for slot, result in zip(running, results, strict=True):
            trace[slot].append(result.observation)
        running = [
            slot
            for slot, result in zip(running, results, strict=True)
            if not (result.terminated or result.truncated)
        ]
    return vector.evaluate_many(range(len(names))), trace


@pytest.mark.parametrize("seed", [11, 12])
@pytest.mark.parametrize("start", range(0, len(ALL), 8))
def test_oracles_solve(vector, start, seed):
    names = ALL[start : start + 8]
    rewards, trace = play(vector, names, [seed] * len(names))
    assert dict(zip(names, rewards, strict=True)) == dict.fromkeys(names, 1.0)
    for episode in trace:
        for seen in episode:
            assert 0 < len(split_words(seen.instruction)) <= 32
            assert len(seen.widgets) <= 32
            for widget in seen.widgets:
                assert widget.role in ROLES
                left, top, right, bottom = widget.box
                assert 0 <= left < right <= 1
                assert 0 <= top < bottom <= 1


def test_seeds_repeat(vector):
    """Also on a page that other episodes have been through, and in another slot."""
    first = play(vector, SOME, [5, 6, 7, 8])[1]
    others = play(vector, SOME, [15, 16, 17, 18])[1]
    again = play(vector, SOME[::-1], [8, 7, 6, 5])[1][::-1]
    assert first == again
    for one, other in zip(first, others, strict=True):
        assert one[0].state_hash != other[0].state_hash


def test_wrong_end_scores_nothing(vector):
    seen = reset(vector, ["click-test-2"], [3])[0]
    wrong = next(i for i, one in enumerate(seen.widgets) if one.label == "TWO")
    result = vector.step_many([0], [Action(kind=ActionKind.CLICK, widget=wrong)])[0]
    assert result.terminated
    assert vector.evaluate_many([0]) == [0.0]


@pytest.mark.parametrize("kind", [ActionKind.DONE, ActionKind.FAIL])
def test_done_and_fail_end_without_reward(vector, kind):
    reset(vector, ["click-test"], [3])
    result = vector.step_many([0], [Action(kind=kind)])[0]
    assert result.terminated and not result.truncated
    assert vector.evaluate_many([0]) == [0.0]


def test_time_limit_is_lifted(vector):
    """The page's limit is 10 s and its clock moves 1 s per action: it must not end."""
    reset(vector, ["click-test"], [3])
    wait = Action(kind=ActionKind.WAIT)
    results = [vector.step_many([0], [wait])[0] for _ in range(10)]
    assert not any(result.terminated for result in results)
    assert [result.truncated for result in results] == [False] * 9 + [True]
    button = Action(kind=ActionKind.CLICK, widget=0)
    assert vector.step_many([0], [button])[0].terminated
    assert vector.evaluate_many([0]) == [1.0]


def test_reward_is_not_shown(vector):
    """Neither among the widgets nor in the picture, during and after an episode."""
    seen = reset(vector, ["click-test"], [3])[0]
    assert [widget.label for widget in seen.widgets] == ["Click Me!"]
    result = vector.step_many([0], [Action(kind=ActionKind.CLICK, widget=0)])[0]
    assert [widget.label for widget in result.observation.widgets] == ["Click Me!"]
    picture = vector.screenshot(0)
    assert (picture[120:] == 255).mean() > 0.2  # the dark cover would hide the page
    assert picture[2, 2].tolist() == [255, 255, 0]


def test_screenshot(vector):
    reset(vector, ["click-color"] * 8, range(8))
    pictures = [vector.screenshot(slot) for slot in range(8)]
    for picture in pictures:
        assert picture.shape == (210, 160, 3)
        assert picture.dtype == np.uint8
    assert len({picture.tobytes() for picture in pictures}) == 8


def test_click_at_a_place(vector):
    seen = reset(vector, ["click-test"], [9])[0]
    left, top, right, bottom = seen.widgets[0].box
    place = Action(kind=ActionKind.CLICK, x=(left + right) / 2, y=(top + bottom) / 2)
    assert vector.step_many([0], [place])[0].terminated
    assert vector.evaluate_many([0]) == [1.0]


@pytest.mark.parametrize("kind", ["DOUBLE_CLICK", "TRIPLE_CLICK", "SEQUENCE"])
def test_other_ways_to_click(vector, kind):
    reset(vector, ["click-test"], [9])
    click = Action(kind=ActionKind.CLICK, widget=0)
    several = Action(kind=ActionKind.SEQUENCE, parts=(click, click))
    assert not vector.step_many([0], [several])[0].terminated
    action = Action(kind=ActionKind[kind], widget=0, parts=(click,))
    assert vector.step_many([0], [action])[0].terminated
    assert vector.evaluate_many([0]) == [1.0]


def test_slots_do_not_disturb_each_other(vector):
    """Typing in one page leaves focus and text of another as they are."""
    seen = reset(vector, ["login-user", "login-user"], [1, 2])
    field = next(i for i, w in enumerate(seen[0].widgets) if w.role == "text_field")
    typed = Action(kind=ActionKind.TYPE, widget=field, text="ann")
    first = vector.step_many([0], [typed])[0].observation
    assert first.widgets[field].value == "ann"
    assert first.widgets[field].focused
    wait = Action(kind=ActionKind.WAIT)
    vector.step_many([1], [Action(kind=ActionKind.TYPE, widget=field, text="bob")])
    after = vector.step_many([0, 1], [wait, wait])
    assert after[0].observation.widgets[field] == first.widgets[field]
    assert after[1].observation.widgets[field].value == "bob"


@pytest.mark.parametrize("kind", list(ActionKind), ids=lambda kind: kind.name)
def test_any_action_is_survived(vector, kind):
    reset(vector, ["login-user", "click-collapsible-2"], [1, 2])
    text = "\"'`<b>${1}\\\u2028\0 ヘ"
    for widget in (None, 0, 31):
        action = Action(kind=kind, widget=widget, text=text, keys=("Tab", "a"))
        for result in vector.step_many([0, 1], [action, action]):
            assert result.observation.widgets is not None
    vector.step_many([0], [Action(kind=kind, x=2.0, y=-1.0)])


def test_unknown_page_is_the_slot_s_fault(vector):
    with pytest.raises(SlotError, match="no-such-page") as caught:
        reset(vector, ["click-test", "no-such-page"], [1, 2])
    assert caught.value.slots == (1,)
    assert reset(vector, ["click-test", "click-tab"], [1, 2])[1].widgets


def test_slot_outside_is_refused(vector):
    with pytest.raises(ValueError, match=r"slot 8 is outside \[0, 8\)"):
        vector.evaluate_many([8])
