"""When two actions count as the same."""

import pytest

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.matching import actions_match, token_f1

SCREEN = (1000, 500)


def click(x, y, kind=ActionKind.CLICK):
    return Action(kind=kind, x=x, y=y)


@pytest.mark.parametrize(
    ("x", "y", "same"),
    [
        (0.5, 0.5, True),
        (0.64, 0.5, True),  # 140 pixels across
        (0.641, 0.5, False),
        (0.5, 0.78, True),  # 140 pixels down
        (0.5, 0.79, False),
        (0.6, 0.7, False),  # 100 and 100: 141.4
    ],
)
def test_places_match_within_140_pixels(x, y, same):
    assert actions_match(click(x, y), click(0.5, 0.5), screen=SCREEN) is same


def test_a_box_decides_where_there_is_one():
    box = (0.4, 0.4, 0.6, 0.6)
    there = click(0.41, 0.41)
    assert actions_match(click(0.6, 0.6), there, screen=SCREEN, box=box)
    assert not actions_match(click(0.42, 0.39), there, screen=SCREEN, box=box)


def test_kinds_must_be_equal():
    double = click(0.5, 0.5, ActionKind.DOUBLE_CLICK)
    assert not actions_match(double, click(0.5, 0.5), screen=SCREEN)
    done, fail = (Action(kind=kind) for kind in (ActionKind.DONE, ActionKind.FAIL))
    assert actions_match(done, done, screen=SCREEN)
    assert not actions_match(done, fail, screen=SCREEN)


def test_invalid_matches_nothing_not_even_itself():
    wrong = Action(kind=ActionKind.INVALID, text="why")
    assert not actions_match(wrong, wrong, screen=SCREEN)
    assert not actions_match(wrong, click(0.5, 0.5), screen=SCREEN)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("hello world", True),
        ("Hello there, world", True),
        ("hello", True),  # F1 2/3
        ("goodbye", False),
        ("", False),
    ],
)
def test_texts_match_by_their_words(text, same):
    typed = Action(kind=ActionKind.TYPE, text="hello world")
    other = Action(kind=ActionKind.TYPE, text=text)
    assert actions_match(other, typed, screen=SCREEN) is same


def test_f1_by_hand():
    assert token_f1("a b c", "b c d") == pytest.approx(2 / 3)
    assert token_f1("a a", "a") == pytest.approx(2 / 3)
    assert token_f1("", "") == 1.0
    assert token_f1("x", "") == 0.0


def test_both_ends_of_a_drag_count():
    def drag(to_x):
        kind = ActionKind.DRAG
        return Action(kind=kind, x=0.1, y=0.1, to_x=to_x, to_y=0.1)

    assert actions_match(drag(0.5), drag(0.6), screen=SCREEN)
    assert not actions_match(drag(0.5), drag(0.8), screen=SCREEN)


def test_keys_must_be_equal_and_distances_of_scrolls_do_not_matter():
    def keys(*names):
        return Action(kind=ActionKind.PRESS, keys=names)

    assert actions_match(keys("ctrl", "c"), keys("ctrl", "c"), screen=SCREEN)
    assert not actions_match(keys("ctrl", "c"), keys("ctrl", "v"), screen=SCREEN)
    far = Action(kind=ActionKind.SCROLL_DOWN, x=0.5, y=0.5, amount=9.0)
    somewhere = Action(kind=ActionKind.SCROLL_DOWN)
    assert actions_match(far, somewhere, screen=SCREEN)


def test_sequences_match_part_by_part():
    first, second = click(0.1, 0.1), Action(kind=ActionKind.TYPE, text="x")

    def both(*parts):
        return Action(kind=ActionKind.SEQUENCE, parts=parts)

    assert actions_match(both(first, second), both(first, second), screen=SCREEN)
    assert not actions_match(both(first), both(first, second), screen=SCREEN)
    assert not actions_match(both(second, first), both(first, second), screen=SCREEN)
