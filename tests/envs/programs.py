"""Actions and texts to try grammars with, drawn by hypothesis."""

from hypothesis import strategies as st

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.grammars.keys import KEYS

WIDTH, HEIGHT = 1920, 1080
SCREEN = {"width": WIDTH, "height": HEIGHT}
BUTTONS = ["left", "middle", "right"]
CLICKS = "CLICK DOUBLE_CLICK TRIPLE_CLICK RIGHT_CLICK MIDDLE_CLICK".split()
SCROLLS = "SCROLL_DOWN SCROLL_UP SCROLL_LEFT SCROLL_RIGHT".split()


def action(kind, **fields) -> Action:
    return Action(kind=ActionKind[kind], **fields)


ACROSS = st.integers(0, WIDTH).map(lambda pixel: pixel / WIDTH)
DOWN = st.integers(0, HEIGHT).map(lambda pixel: pixel / HEIGHT)
PLACE = st.fixed_dictionaries({"x": ACROSS, "y": DOWN})
NO_PLACE = st.just({})
KEY = st.sampled_from(sorted(KEYS))
HELD = st.lists(KEY, max_size=5).map(tuple)
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t\"'\\<"),
    max_size=40,
)


def placed(kinds, places=PLACE | NO_PLACE, **fields):
    return st.builds(
        lambda kind, place, given: action(kind, **place, **given),
        st.sampled_from(kinds),
        places,
        st.fixed_dictionaries(fields),
    )


def keys_of(kind, keys):
    """PRESS of enter or escape alone is a kind of its own."""
    if kind == "PRESS" and keys in (("enter",), ("escape",)):
        return action(keys[0].upper())
    return action(kind, keys=keys)


def drags(buttons, places=PLACE | NO_PLACE, held=HELD):
    return placed(
        ["DRAG"],
        places,
        to_x=ACROSS,
        to_y=DOWN,
        button=st.sampled_from(buttons),
        keys=held,
    )


PRESSES = st.builds(
    keys_of, st.just("PRESS"), st.lists(KEY, min_size=1, max_size=5).map(tuple)
)
HELD_KEYS = st.builds(
    keys_of, st.sampled_from(["KEY_DOWN", "KEY_UP"]), KEY.map(lambda key: (key,))
)
NOTCHES = st.integers(1, 10_000).map(float)
TYPING = st.builds(action, st.just("TYPE"), text=TEXT)
ENDS = st.sampled_from(["WAIT", "DONE", "FAIL"]).map(action)


def sequences(single):
    """Sequences that are written as they are: nothing in them joins its neighbor."""
    return st.lists(single, min_size=2, max_size=5).filter(_canonical).map(_sequence)


def _sequence(parts):
    return action("SEQUENCE", parts=tuple(parts))


def _canonical(parts):
    kinds = [part.kind.name for part in parts]
    bare = [part.kind.name == "DRAG" and part.x is None for part in parts]
    return not any(
        (before == "MOVE" and drag) or before == "KEY_DOWN"
        for before, drag in zip(kinds, bare[1:], strict=False)
    )


def mutated(texts):
    """Texts with a few characters cut out, doubled or replaced."""
    piece = st.sampled_from(
        ["", "(", ")", "'", '"', "\\", "\n", ";", ",", "=", ":=", "-", "9" * 400, "*"]
        + ["lambda: ", "import os", "nan", "inf", "f'", "\x00", "\ud800", "{", "[", "#"]
        + ["__import__('os')", "eval(", "exec(", "<", "´", "é", "'''", "```", "1e999"]
    )
    places = st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 6), piece), max_size=4
    )

    def change(text, changes):
        for at, length, new in changes:
            text = text[:at] + new + text[at + length :]
        return text

    return st.builds(change, texts, places)


def check_any(result):
    """What holds for whatever a grammar makes of a text."""
    assert isinstance(result, Action)
    assert len(result.parts) <= 100
    for one in (result, *result.parts):
        for share in (one.x, one.y, one.to_x, one.to_y):
            assert share is None or 0.0 <= share <= 1.0
        assert set(one.keys) <= KEYS
        assert len(one.text) <= 4096
        one.text.encode()
        assert one.amount is None or 0 <= one.amount <= 10_000
        assert one.button in BUTTONS
    assert all(part.kind is not ActionKind.SEQUENCE for part in result.parts)
    assert (result.kind is ActionKind.SEQUENCE) == bool(result.parts)
    if result.kind is ActionKind.INVALID:
        assert 0 < len(result.text) <= 120
