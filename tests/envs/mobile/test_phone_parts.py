"""What needs no browser: tasks, screens, elements, commands."""

import dataclasses

import numpy as np
import pytest

from stepjax.envs.base import Widget
from stepjax.envs.mobile import (
    MOBILE_ORACLES,
    PAGES,
    SOLVABLE,
    TRAIN_PAGES,
    UNSEEN_PAGES,
    PhoneScreen,
    mobile_oracle_action,
    mobile_task_table,
    step_budget,
    touches,
    ui_elements,
)


def test_the_split_is_the_paper_s_size_and_stays():
    assert (len(PAGES), len(TRAIN_PAGES), len(UNSEEN_PAGES)) == (91, 43, 48)
    assert not set(TRAIN_PAGES) & set(UNSEEN_PAGES)
    assert set(MOBILE_ORACLES) == set(SOLVABLE) >= set(TRAIN_PAGES)
    assert {PAGES[name] for name in TRAIN_PAGES} == set(SOLVABLE.values())
    # A split that changes would make old results wrong.
    held_out = set(SOLVABLE) - set(TRAIN_PAGES)
    assert held_out == {"click-tab-2-hard", "search-engine"}


def test_the_table_names_every_page_once():
    table = mobile_task_table()
    assert len(set(table.names)) == len(table.names) == 91
    both = np.concatenate([table.train_ids, table.unseen_ids])
    np.testing.assert_array_equal(both, np.arange(91))
    few = mobile_task_table(["click-button"])
    assert few.names == ("click-button", *UNSEEN_PAGES)
    both = mobile_task_table(["drag-box", "click-tab", "click-button", "click-tab"])
    assert both.names == ("click-tab", "click-button", "drag-box")
    assert (both.train_ids.tolist(), both.unseen_ids.tolist()) == ([0, 1], [2])
    with pytest.raises(ValueError, match="'click-buton' is no page of the 91; did you"):
        mobile_task_table(["click-buton"])
    for none in (["drag-box"], []):
        with pytest.raises(ValueError, match="name at least one page to train on"):
            mobile_task_table(none)


def test_budgets_are_ten_steps_for_a_unit_of_complexity():
    assert step_budget("click-button") == 30


@pytest.mark.parametrize(
    ("scale", "css"), [(1.0, (1080, 2400)), (2.625, (411, 914)), (3.0, (360, 800))]
)
def test_screens_in_css_pixels(scale, css):
    screen = PhoneScreen(width=1080, height=2400, scale=scale)
    assert screen.css_size == css
    assert screen.css_place(0.0, 0.0) == (0.0, 0.0)
    assert screen.css_place(2.0, -1.0) == (css[0] - 1, 0.0)
    assert screen.css_place(1.0, 1.0) == (css[0] - 1, css[1] - 1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scale": 0.0}, "scale must be in"),
        ({"scale": float("nan")}, "scale must be in"),
        ({"width": 300}, "at least 240 x 320 CSS pixels"),
        ({"height": 0}, "at least 240 x 320 CSS pixels"),
        ({"width": 9000, "height": 9000}, "at most 16000000 pixels"),
    ],
)
def test_unsound_screens_are_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        PhoneScreen(**fields)


def test_elements_have_android_world_s_shape():
    names = [
        "text", "content_description", "class_name", "bbox", "bbox_pixels", "hint_text",
        "is_checked", "is_checkable", "is_clickable", "is_editable", "is_enabled",
        "is_focused", "is_focusable", "is_long_clickable", "is_scrollable",
        "is_selected", "is_visible", "package_name", "resource_name", "tooltip",
        "resource_id",
    ]  # fmt: skip
    box = (0.25, 0.5, 0.75, 0.625)
    widgets = [
        Widget(role="text_field", label="Name", value="ann", box=box, focused=True),
        Widget(role="check_box", label="Spam", box=box, on=True),
        Widget(role="icon", label="Clock", box=box, disabled=True),
        Widget(role="tab", label="Tab #1", box=box, on=True),
    ]
    field, check, icon, tab = ui_elements(widgets, width=1080, height=2400)
    assert [f.name for f in dataclasses.fields(field)] == names
    assert (field.text, field.hint_text, field.is_editable) == ("ann", "Name", True)
    assert field.is_focused and field.class_name == "android.widget.EditText"
    assert field.bbox_pixels.center == (540.0, 1350.0)
    assert (field.bbox.x_min, field.bbox.y_max) == (0.25, 0.625)
    assert check.is_checkable and check.is_checked and not check.is_selected
    assert (icon.text, icon.content_description) == (None, "Clock")
    assert not icon.is_enabled
    assert tab.is_selected and not tab.is_checked


def test_a_swipe_goes_all_the_way():
    commands = touches.swipe(10, 20, 110, 220)
    kinds = [params["type"] for _, params in commands]
    assert kinds[0] == "touchStart" and kinds[-1] == "touchEnd"
    assert set(kinds[1:-1]) == {"touchMove"}
    last = commands[-2][1]["touchPoints"][0]
    assert (last["x"], last["y"]) == (110, 220)
    assert commands[-1][1]["touchPoints"] == []


def test_lines_are_typed_with_enter_between():
    sent = [
        params.get("text") or params["type"] for _, params in touches.typed(["a", "b"])
    ]
    assert sent == ["a", "\r", "keyUp", "b"]
    assert touches.typed([""]) == []


def test_unknown_pages_have_no_oracle():
    with pytest.raises(ValueError, match="no oracle for 'drag-box'"):
        mobile_oracle_action("drag-box", None)  # pyright: ignore
