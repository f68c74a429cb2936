"""Scripted solutions: demonstrators for a warm start, proof that a page is solvable.

An oracle sees what a policy sees, the widgets and the instruction, and answers with
what a pointer policy can say: click a widget, type one word of the instruction into a
widget, scroll. It keeps no memory, so it also goes on from states it did not cause.
"""

import re

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.miniwob.reading import (
    WAIT,
    Oracle,
    click,
    exact,
    fields,
    fill,
    find,
    first,
    labelled,
    match,
    next_closed,
    of_role,
    type_word,
)  # fmt: skip

__all__ = ["ORACLES", "oracle_action"]


def oracle_action(name: str, observation: Observation) -> Action:
    """What the scripted solution of page `name` does next; WAIT where it is at a loss.

    Raises:
      ValueError: If no oracle is known for the page.
    """
    if name not in ORACLES:
        raise ValueError(f"no oracle for {name!r}; choose from {', '.join(ORACLES)}.")
    return ORACLES[name](observation)


def _dialog(seen: Observation) -> Action:
    label = match(seen, r'"(\w+)"')[0]
    return click(find(seen, "Close" if label == "x" else label, "button"))


def _widget_kind(seen: Observation) -> Action:
    kind = match(seen, r'"(\w+)"')[0]
    if kind == "textarea":
        return click(find(seen, "textarea", "text_field"))
    if kind == "text":
        places = [index for index in fields(seen)
                  if (seen.widgets or ())[index].label != "textarea"]  # fmt: skip
        return click(first(*places))
    return click(find(seen, role={"checkbox": "check_box"}.get(kind, kind)))


def _color(seen: Observation) -> Action:
    return click(find(seen, match(seen, r"the (\w+) colored")[0], "icon"))


def _shape(seen: Observation) -> Action:
    wanted = [w for w in match(seen, r"on an? (.*)")[0].split() if w != "item"]
    for index, widget in enumerate(seen.widgets or ()):
        if set(wanted) <= set(widget.label.split()):
            return click(index)
    return WAIT


def _figure(seen: Observation) -> Action:
    icon = find(seen, role="icon")
    words = "" if icon is None else (seen.widgets or ())[icon].label.split()
    for word in ("letter", "digit", "circle", "rectangle", "triangle"):
        if word in words:
            answer = "number" if word == "digit" else word
            return click(find(seen, answer, "button"))
    return WAIT


def _sequence(seen: Observation) -> Action:
    done = find(seen, "ONE", focused=True) is not None
    return click(find(seen, "TWO" if done else "ONE"))


def _collapsible(seen: Observation) -> Action:
    closed = find(seen, role="tab", on=False)
    return click(first(closed, find(seen, "Submit")))


def _tabbed_link(seen: Observation) -> Action:
    link = exact(seen, match(seen, r'link "(.*)"')[0], "link")
    if link is not None:
        return click(link)
    return next_closed(seen, of_role(seen, "tab"))


def _tree(seen: Observation) -> Action:
    target = find(seen, match(seen, r'named "(.*)"')[0], "list_item")
    if target is not None:
        return click(target)
    for index, widget in enumerate(seen.widgets or ()):
        if widget.value == "folder" and not widget.on:
            return click(index)
    return WAIT


def _phone_book(seen: Observation) -> Action:
    name, field = match(seen, r"Find (.*) in the contact book and click on their (\w+)")
    if find(seen, name, "text") is None:
        return click(find(seen, ">", "link"))
    return click(of_role(seen, "link")[("phone", "email", "address").index(field)])


def _icon_menu(seen: Observation) -> Action:
    label, icon = match(seen, r'(?:labeled "(.*)"|with the (.*) icon)\.')
    if find(seen, role="menu_item") is None:
        return click(find(seen, "Menu", "button"))
    for index, widget in enumerate(seen.widgets or ()):
        if widget.role == "menu_item" and (
            widget.label == label if label else widget.value == icon
        ):
            return click(index)
    return click(find(seen, "Playback", "menu_item"))


def _search_engine(seen: Observation) -> Action:
    text, place = match(seen, r'enter "(.*)" and .* the (\d)\w+ search')
    field = first(*fields(seen))
    results = [i for i in of_role(seen, "link") if not re.fullmatch(
        r"First|Last|[<>]|\d", (seen.widgets or ())[i].label)]  # fmt: skip
    if not results or field is None or (seen.widgets or ())[field].value != text:
        return fill(seen, [(field, text)], find(seen, "Search", "button"))
    page = find(seen, str((int(place) + 2) // 3), "link")
    if page is not None and not (seen.widgets or ())[page].on:
        return click(page)
    return click(results[(int(place) - 1) % 3])


def _check(seen: Observation, wanted: set[str]) -> Action:
    """Make exactly the widgets labelled so be on, then submit."""
    for index, widget in enumerate(seen.widgets or ()):
        if widget.role in ("check_box", "radio", "option"):
            if widget.on != (widget.label in wanted) and (
                widget.role == "check_box" or widget.label in wanted
            ):
                return click(index)
    return click(find(seen, "Submit", "button"))


def _checks(seen: Observation) -> Action:
    names = match(seen, r"Select (.*?)(?: from the (?:scroll )?list)? and click Submit")
    return _check(seen, set(names[0].split(", ")))


def _scroll_list(seen: Observation) -> Action:
    wanted = set(match(seen, r"Select (.*) from the scroll list")[0].split(", "))
    for index, widget in enumerate(seen.widgets or ()):
        if widget.role == "option" and widget.on != (widget.label in wanted):
            return click(index)
    return click(find(seen, "Submit", "button"))


_SYNONYMS = tuple(
    frozenset(line.split())
    for line in """big large huge enormous gigantic
    small tiny little mini petite
    red scarlet crimson vermillion
    happy cheerful joyful gleeful delighted
    sad unhappy sorrowful miserable tragic
    angry mad furious irritated
    evil wicked immoral sinful corrupt depraved
    wrong incorrect mistaken erroneous
    real genuine actual
    strange odd peculiar unusual weird
    stop cease halt end finish
    scared terrified panicked fearful frightened afraid
    quiet calm peaceful serene mild
    old aged archaic
    love like adore favor
    kill murder assassinate
    keep retain preserve sustain maintain
    hide conceal camouflage
    hate despise loathe detest dislike
    funny humorous amusing comical laughable
    fat fleshy plump chubby
    stupid dumb dull unwise
    delicious savory delectable appetizing
    cut slice carve chop
    brave courageous fearless
    begin start initiate launch
    answer reply response
    television televisions TV TVs
    house home houses homes
    fire flame fires flames
    pig pork swine
    rabbit rabbits bunny bunnies
    car cars automobile automobiles vehicle vehicles
    water""".splitlines()
)


def _soft_checks(seen: Observation) -> Action:
    named = match(seen, r"similar to (.*) and click")[0].split(", ")
    wanted = {word for group in _SYNONYMS if group & set(named) for word in group}
    return _check(seen, wanted)


def _shades(seen: Observation) -> Action:
    color = match(seen, r"shades of (\w+)")[0]
    for index in of_role(seen, "icon"):
        widget = (seen.widgets or ())[index]
        if widget.on != (widget.label == color):
            return click(index)
    return click(find(seen, "Submit", "button"))


def _parity(seen: Observation) -> Action:
    widgets = seen.widgets or ()
    for index, widget in enumerate(widgets):
        if widget.role == "text":
            answer = index - 1 if int(widget.label) % 2 else index + 1
            if 0 <= answer < len(widgets) and not widgets[answer].on:
                return click(answer)
    return click(find(seen, "Submit", "button"))


def _enter_text(seen: Observation) -> Action:
    text = match(seen, r'Enter "(.*)" into')[0]
    return fill(seen, [(first(*fields(seen)), text)], find(seen, "Submit", "button"))


def _enter_password(seen: Observation) -> Action:
    text = match(seen, r'password "(.*)" into')[0]
    entries = [(index, text) for index in fields(seen)]
    return fill(seen, entries, find(seen, "Submit", "button"))


def _enter_date(seen: Observation) -> Action:
    text = match(seen, r"Enter (\S+) as the date")[0]
    field = first(*fields(seen))
    if field is not None and not (seen.widgets or ())[field].value:
        return type_word(seen, field, text)
    return click(find(seen, "Submit", "button"))


def _login(seen: Observation) -> Action:
    user, password = match(seen, r'username "(.*)" and the password "(.*)" into')
    popup = find(seen, "Cancel", "button")
    if popup is not None:
        return click(popup)
    entries = [(find(seen, "Username", "text_field"), user),
               (find(seen, "Password", "text_field"), password)]  # fmt: skip
    return fill(
        seen,
        entries,
        first(find(seen, "Login", "button"), find(seen, "OK", "button")),
    )


def _form_two(seen: Observation) -> Action:
    radio, number, field = match(
        seen, r'Check the (\w+) radio .* number "(.*)" into the (\w+) textbox'
    )
    chosen = find(seen, radio, "radio")
    if chosen is not None and not (seen.widgets or ())[chosen].on:
        return click(chosen)
    entries = [(find(seen, field, "text_field"), number)]
    return fill(seen, entries, find(seen, "Submit", "button"))


def _form_three(seen: Observation) -> Action:
    height, answer = match(seen, r'Choose (.*) from the dropdown, .* labeled "(.*)"')
    item = find(seen, height, "list_item")
    if item is not None:
        return click(item)
    if find(seen, role="list_item") is not None:
        return Action(kind=ActionKind.SCROLL_DOWN)
    if find(seen, height) is not None:
        return click(find(seen, answer, "button"))
    return click(0)


def _movies(seen: Observation) -> Action:
    genre, name, year = match(seen, r"for (.*) movies directed by (.*) from year (\d+)")
    places = {}
    for index in fields(seen):
        label = (seen.widgets or ())[index].label
        text = genre if "Genre" in label else name if "Director" in label else year
        places[text] = index
    button = [i for label in ("Submit", "Search", "Go!")
              if (i := find(seen, label, "button")) is not None]  # fmt: skip
    return fill(seen, [(places.get(t), t) for t in (genre, name, year)], first(*button))


def _email(seen: Observation) -> Action:
    name = match(seen, r"the email by (.*?) and ")[0]
    for label in ("send reply", "send forward"):
        if find(seen, label) is not None:
            return _send(seen, label)
    if find(seen, "close email") is None:
        return click(find(seen, name, "button"))
    for word, label in (("trash", "trash"), ("star", "star"), ("reply to", "Reply"),
                        ("forward", "Forward")):  # fmt: skip
        if word in seen.instruction:
            return click(find(seen, label))
    return WAIT


def _send(seen: Observation, label: str) -> Action:
    if label == "send reply":
        text = match(seen, r'with the text "(.*)"')[0]
    else:
        text = match(seen, r"forward that email to (.*)\.")[0]
    return fill(seen, [(first(*fields(seen)), text)], find(seen, label))


def _click_first(role: str) -> Oracle:
    def act(seen: Observation) -> Action:
        return click(find(seen, role=role))

    return act


ORACLES: dict[str, Oracle] = {
    "click-test": _click_first("button"),
    "click-test-2": labelled(r"button (\w+)"),
    "click-button": labelled(r'"(.*)"', "button"),
    "unicode-test": labelled(r'"(.*)"', "button"),
    "click-dialog": _dialog,
    "click-dialog-2": _dialog,
    "click-tab": labelled(r"(Tab #\d)", "tab"),
    "click-link": labelled(r'link "(.*)"', "link"),
    "click-widget": _widget_kind,
    "click-color": _color,
    "click-shape": _shape,
    "identify-shape": _figure,
    "focus-text": _click_first("text_field"),
    "focus-text-2": labelled(r"the (\w+) input", "text_field"),
    "click-button-sequence": _sequence,
    "click-collapsible": _collapsible,
    "click-collapsible-2": _tabbed_link,
    "click-tab-2": _tabbed_link,
    "click-tab-2-hard": _tabbed_link,
    "navigate-tree": _tree,
    "phone-book": _phone_book,
    "click-menu-2": _icon_menu,
    "search-engine": _search_engine,
    "click-checkboxes": _checks,
    "click-checkboxes-transfer": _checks,
    "click-checkboxes-soft": _soft_checks,
    "click-option": _checks,
    "choose-list": _checks,
    "click-scroll-list": _scroll_list,
    "click-shades": _shades,
    "odd-or-even": _parity,
    "enter-text": _enter_text,
    "enter-text-dynamic": _enter_text,
    "enter-password": _enter_password,
    "enter-date": _enter_date,
    "login-user": _login,
    "login-user-popup": _login,
    "form-sequence-2": _form_two,
    "form-sequence-3": _form_three,
    "multi-orderings": _movies,
    "multi-layouts": _movies,
    "email-inbox-noscroll": _email,
    "email-inbox-delete": _email,
    "email-inbox-important": _email,
    "email-inbox-forward": _email,
    "email-inbox-reply": _email,
}
"""Oracle of each page."""
