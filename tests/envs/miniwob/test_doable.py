import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.miniwob.doable import doable, page_request

CLICK = Action(kind=ActionKind.CLICK, x=0.5, y=0.5)
PRESS = ActionKind.PRESS


@pytest.mark.parametrize(
    "action",
    [
        Action(kind=ActionKind.SEQUENCE, parts=(CLICK, CLICK)),
        Action(kind=ActionKind.SEQUENCE),
        Action(kind=ActionKind.CLICK, x=0.5, y=0.5, keys=("ctrl",)),
        Action(kind=PRESS, keys=("ctrl", "a")),
        Action(kind=ActionKind.DRAG, x=0.1, y=0.1, to_x=0.5, to_y=0.5),
        *(
            Action(kind=ActionKind[name], x=0.5, y=0.5)
            for name in (
                "MIDDLE_CLICK SCROLL_LEFT SCROLL_RIGHT MOUSE_DOWN MOUSE_UP KEY_DOWN"
                " KEY_UP LONG_PRESS OPEN_APP BACK HOME ANSWER INVALID"
            ).split()
        ),
    ],
    ids=lambda action: action.kind.name,
)
def test_what_a_page_cannot_do_is_a_wait(action):
    assert doable(action) == Action(kind=ActionKind.WAIT)


@pytest.mark.parametrize(
    "action",
    [CLICK, Action(kind=PRESS, keys=("tab",)), Action(kind=ActionKind.DONE)]
    + [Action(kind=ActionKind.TRIPLE_CLICK, widget=3)],
    ids=lambda action: action.kind.name,
)
def test_the_only_part_stands_for_a_sequence(action):
    assert doable(action) == action
    assert doable(Action(kind=ActionKind.SEQUENCE, parts=(action,))) == action


def test_keys_have_the_names_of_key_events():
    keys = ("tab", "pagedown", "left", "space", "a")
    assert page_request(Action(kind=PRESS, keys=keys))[-1] == [
        "Tab", "PageDown", "ArrowLeft", " ", "a",
    ]  # fmt: skip
