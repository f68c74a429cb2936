"""Real pages on phones in a real browser, through real touches."""

import time

import numpy as np
import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars import parse_android_world, parse_ui_tars_mobile
from stepjax.envs.mobile import (
    APP,
    MOBILE_ORACLES,
    PAGES,
    PhoneScreen,
    make_mobile_environment,
    make_mobile_task,
    mobile_oracle_action,
    touches,
    ui_elements,
)
from stepjax.envs.vector import SlotError

pytestmark = pytest.mark.browser

SLOTS = 5
ALL = list(MOBILE_ORACLES)
WAIT = Action(kind=ActionKind.WAIT)
HOME = Action(kind=ActionKind.HOME)


def reset(phones, names, seeds):
    slots = list(range(len(names)))
    return phones.reset_many(slots, [make_mobile_task(name) for name in names], seeds)


def one(phones, page, seed=1):
    return reset(phones, [page], [seed])[0]


def act(phones, action):
    return phones.step_many([0], [action])[0]


def click(**aim):
    return Action(kind=ActionKind.CLICK, **aim)


def index_of(seen, **wanted):
    for index, widget in enumerate(seen.widgets):
        if all(getattr(widget, name) == value for name, value in wanted.items()):
            return index
    raise AssertionError(f"no {wanted} in {seen.widgets}")


def script(phones, text, slot=0):
    """Value of an expression in the page that is the phone."""
    params = {"expression": text, "returnByValue": True}
    command = (phones._sessions[slot], "Runtime.evaluate", params)
    (reply,) = phones._tools.gather([command])
    return reply["result"].get("value")


FRAME = (
    "[...document.querySelectorAll('iframe')]"
    ".find((frame) => frame.style.left !== '-999px').contentWindow"
)


def listen(phones, *types):
    """Have the page note the events of some types that the user, not a script, made."""
    script(
        phones,
        f"var noted = []; for (const type of {list(types)}) {FRAME}.addEventListener("
        "type, (event) => noted.push([type, event.isTrusted]), true); 0",
    )


def noted(phones):
    return [tuple(entry) for entry in script(phones, "noted")]


def play(phones, names, seeds, oracle=mobile_oracle_action):
    """Rewards and all observations of the oracles' episodes, one on each phone."""
    trace = [[seen] for seen in reset(phones, names, seeds)]
    running = list(range(len(names)))
    while running:
        actions = [oracle(names[slot], trace[slot][-1]) for slot in running]
        results = phones.step_many(running, actions)
        for slot, result in zip(running, results, strict=True):
            trace[slot].append(result.observation)
        running = [
            slot
            for slot, result in zip(running, results, strict=True)
            if not (result.terminated or result.truncated)
        ]
    return phones.evaluate_many(range(len(names))), trace


@pytest.mark.parametrize("start", range(0, len(ALL), SLOTS))
def test_oracles_solve(phones, start):
    names = ALL[start : start + SLOTS]
    rewards, trace = play(phones, names, [11] * len(names))
    assert dict(zip(names, rewards, strict=True)) == dict.fromkeys(names, 1.0)
    for episode in trace:
        for seen in episode:
            assert seen.instruction
            assert len(seen.widgets) <= 32
            for widget in seen.widgets:
                left, top, right, bottom = widget.box
                assert 0 <= left < right <= 1
                assert 0 <= top < bottom <= 1
                assert not (widget.disabled and widget.focused)


def test_a_tap_oracle_scores_20_of_20(phones):
    """By places, not widgets, and by real touches: 20 seeds of click-button."""

    def tap(name, seen):
        known = mobile_oracle_action(name, seen)
        left, top, right, bottom = seen.widgets[known.widget].box
        return click(x=(left + right) / 2, y=(top + bottom) / 2)

    won = 0
    for first in range(0, 20, SLOTS):
        seeds = list(range(first, first + SLOTS))
        rewards, _ = play(phones, ["click-button"] * SLOTS, seeds, tap)
        won += sum(rewards)
    assert won == 20


def test_a_tap_is_a_touch_and_then_a_click(phones):
    seen = one(phones, "click-test")
    listen(phones, "touchstart", "touchend", "mousedown", "mouseup", "click")
    assert act(phones, click(widget=0)).terminated
    assert noted(phones) == [
        (kind, True)
        for kind in ("touchstart", "touchend", "mousedown", "mouseup", "click")
    ]
    assert seen.instruction == "Click the button."


def test_double_taps_and_long_presses(phones):
    one(phones, "login-user")
    listen(phones, "click", "touchstart", "touchend")
    field = Action(kind=ActionKind.DOUBLE_CLICK, widget=1)
    assert act(phones, field).observation.widgets[1].focused
    kinds = [kind for kind, _ in noted(phones)]
    assert kinds.count("touchstart") == kinds.count("click") == 2
    started = time.monotonic()
    act(phones, Action(kind=ActionKind.LONG_PRESS, widget=1))
    assert time.monotonic() - started >= touches.LONG_PRESS_SECONDS
    assert [kind for kind, _ in noted(phones)[6:8]] == ["touchstart", "touchend"]


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.625, 3.0])
def test_coordinates_at_every_scale(chromium, scale):
    width, height = round(360 * scale), round(780 * scale)
    screen = PhoneScreen(width=width, height=height, scale=scale)
    phone = make_mobile_environment(chromium, 1, screen=screen, max_steps=5)
    try:
        for seed in range(3):
            seen = one(phone, "click-button", seed)
            element = ui_elements(seen.widgets, width=width, height=height)[
                mobile_oracle_action("click-button", seen).widget
            ]
            x, y = map(round, element.bbox_pixels.center)
            data = {"action_type": "click", "x": x, "y": y}
            act(phone, parse_android_world(data, width=width, height=height))
            assert phone.evaluate_many([0]) == [1.0]
        picture = phone.screenshot(0)
        shown = (round(side * scale) for side in screen.css_size[::-1])
        assert picture.shape == (*shown, 3)
        assert picture.dtype == np.uint8
    finally:
        phone.close()


def test_the_launcher_and_its_apps(phones):
    before = one(phones, "login-user")
    field = index_of(before, role="text_field", label="Username")
    typed = act(phones, Action(kind=ActionKind.TYPE, widget=field, text="ann"))
    home = act(phones, HOME).observation
    assert {widget.role for widget in home.widgets} == {"icon"}
    other = act(phones, click(widget=index_of(home, label="Clock"))).observation
    assert [widget.label for widget in other.widgets] == ["Nothing to do here"]
    assert act(phones, Action(kind=ActionKind.BACK)).observation == home
    app = Action(kind=ActionKind.OPEN_APP, text=APP.lower())
    again = act(phones, app).observation
    assert [widget.value for widget in again.widgets][field] == "ann"
    assert typed.observation.instruction == again.instruction
    # The escape key goes back, as on Android; a tap on the icon opens the app too.
    home = act(phones, Action(kind=ActionKind.ESCAPE)).observation
    seen = act(phones, click(widget=index_of(home, label=APP))).observation
    assert seen.widgets[field].value == "ann"
    unknown = act(phones, Action(kind=ActionKind.OPEN_APP, text="Doom")).observation
    assert unknown.widgets[field].value == "ann"


def test_episodes_may_begin_on_the_launcher(chromium):
    phone = make_mobile_environment(chromium, 1, from_launcher=True, max_steps=5)
    try:
        rewards, trace = play(phone, ["click-test"], [3])
        assert rewards == [1.0] and len(trace[0]) == 3
        assert trace[0][0].instruction == "Click the button."
    finally:
        phone.close()


def test_text_is_typed_replaced_and_entered(phones):
    seen = one(phones, "login-user")
    field = index_of(seen, role="text_field", label="Username")
    listen(phones, "input", "keydown")

    def typed(text, **aim):
        after = act(phones, Action(kind=ActionKind.TYPE, text=text, **aim))
        return after.observation.widgets[field].value

    assert typed("żółw 日本", widget=field) == "żółw 日本"
    assert typed("ann", widget=field) == "ann"
    assert typed("abel") == "annabel"
    assert ("input", True) in noted(phones)
    assert typed("x\n") == "annabelx"
    assert noted(phones)[-1] == ("keydown", True)
    assert typed("", widget=field) == ""


def test_a_list_is_a_dialog_that_scrolls(phones):
    seen = one(phones, "choose-list", 4)
    assert not any(widget.role == "option" for widget in seen.widgets)
    menu = index_of(seen, role="menu")
    opened = act(phones, click(widget=menu)).observation
    assert {widget.role for widget in opened.widgets} == {"option"}
    down = act(phones, Action(kind=ActionKind.SCROLL_DOWN)).observation
    if len(opened.widgets) > 14:
        assert down.widgets[0].label != opened.widgets[0].label
    closed = act(phones, Action(kind=ActionKind.BACK)).observation
    assert closed.widgets[menu].role == "menu"


def test_swipes_scroll_a_page(phones):
    one(phones, "scroll-text")
    place = "document.querySelector('textarea').scrollTop"
    long = f"{FRAME}.document.querySelector('textarea').value = 'word '.repeat(500); 0"
    script(phones, long)
    before = script(phones, f"{FRAME}.{place}")
    act(phones, Action(kind=ActionKind.SCROLL_DOWN))
    after = script(phones, f"{FRAME}.{place}")
    assert after > before
    act(phones, Action(kind=ActionKind.SCROLL_UP))
    assert script(phones, f"{FRAME}.{place}") < after


def test_other_languages_drive_a_page(phones):
    seen = one(phones, "click-button", 3)
    target = mobile_oracle_action("click-button", seen).widget
    data = {"action_type": "click", "index": target}
    act(phones, parse_android_world(data, width=720, height=1600))
    assert phones.evaluate_many([0]) == [1.0]
    seen = one(phones, "click-button", 4)
    target = mobile_oracle_action("click-button", seen).widget
    left, top, right, bottom = seen.widgets[target].box
    x, y = round(500 * (left + right)), round(500 * (top + bottom))
    act(phones, parse_ui_tars_mobile(f"Action: click(point='<point>{x} {y}</point>')"))
    assert phones.evaluate_many([0]) == [1.0]


def test_seeds_repeat(phones):
    names = ["click-checkboxes", "login-user-popup", "click-tab-2"]
    first = play(phones, names, [5, 6, 7])[1]
    play(phones, names, [15, 16, 17])
    again = play(phones, names[::-1], [7, 6, 5])[1][::-1]
    assert first == again


def test_every_page_can_be_shown(phones):
    for start in range(0, len(PAGES), SLOTS):
        names = list(PAGES)[start : start + SLOTS]
        for seen in reset(phones, names, [2] * len(names)):
            assert seen.instruction
            assert seen.widgets is not None


@pytest.mark.parametrize("kind", list(ActionKind), ids=lambda kind: kind.name)
def test_any_action_is_survived(phones, kind):
    one(phones, "login-user")
    text = "\"'`<b>${1}\\\u2028 ヘ"
    for aim in ({}, {"widget": 0}, {"widget": 31}, {"x": 2.0, "y": -1.0}):
        parts = (WAIT,) if kind is ActionKind.SEQUENCE else ()
        action = Action(kind=kind, text=text, keys=("tab",), parts=parts, **aim)
        assert act(phones, action).observation.widgets is not None


@pytest.mark.parametrize("kind", [ActionKind.DONE, ActionKind.FAIL])
def test_done_and_fail_end_without_reward(phones, kind):
    one(phones, "click-test")
    result = act(phones, Action(kind=kind))
    assert result.terminated and not result.truncated
    assert phones.evaluate_many([0]) == [0.0]


def test_the_budget_cuts_an_episode(phones):
    one(phones, "click-test")
    results = [act(phones, WAIT) for _ in range(20)]
    assert [result.truncated for result in results] == [False] * 19 + [True]


def test_unknown_page_is_the_slot_s_fault(phones):
    with pytest.raises(SlotError, match="no-such-page") as caught:
        reset(phones, ["click-test", "no-such-page"], [1, 2])
    assert caught.value.slots == (1,)
    assert reset(phones, ["click-test", "click-tab"], [1, 2])[1].widgets
