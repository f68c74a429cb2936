"""Scripted solutions: demonstrators for a warm start, proof that a page is solvable.

An oracle sees what a policy sees, the widgets and the instruction, and answers with
what a pointer policy can say: click a widget, type one word of the instruction into a
widget, scroll. It keeps no memory, so it also goes on from states it did not cause.
"""

import re
from collections.abc import Callable, Sequence

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.base import Observation
from stepjax.envs.words import split_words

__all__ = ["ORACLES", "oracle_action"]

Oracle = Callable[[Observation], Action]

_WAIT = Action(kind=ActionKind.WAIT)


def oracle_action(name: str, observation: Observation) -> Action:
    """What the scripted solution of page `name` does next; WAIT where it is at a loss.

    Raises:
      ValueError: If no oracle is known for the page.
    """
    if name not in ORACLES:
        raise ValueError(f"no oracle for {name!r}; choose from {', '.join(ORACLES)}.")
    return ORACLES[name](observation)


# --- what oracles are made of ---


def _find(
    seen: Observation, label: str | None = None, role: str | None = None, **state: bool
) -> int | None:
    """Index of the first widget with that label, role and state, or None."""
    for index, widget in enumerate(seen.widgets or ()):
        if label is not None and widget.label.lower() != label.lower():
            continue
        if role is not None and widget.role != role:
            continue
        if any(getattr(widget, name) != value for name, value in state.items()):
            continue
        return index
    return None


def _click(index: int | None) -> Action:
    return _WAIT if index is None else Action(kind=ActionKind.CLICK, widget=index)


def _type(seen: Observation, index: int | None, text: str) -> Action:
    if index is None or text not in split_words(seen.instruction):
        return _WAIT
    return Action(kind=ActionKind.TYPE, widget=index, text=text)


def _match(seen: Observation, pattern: str) -> tuple[str, ...]:
    found = re.search(pattern, seen.instruction)
    if found is None:
        return ("",) * re.compile(pattern).groups
    return tuple(group or "" for group in found.groups())


def _exact(seen: Observation, label: str, role: str | None = None) -> int | None:
    """Like `_find`, but the case must match where that tells two apart."""
    for index, widget in enumerate(seen.widgets or ()):
        if widget.label == label and role in (None, widget.role):
            return index
    return _find(seen, label, role)


def _first(*choices: int | None) -> int | None:
    return next((choice for choice in choices if choice is not None), None)


def _labelled(pattern: str, role: str | None = None) -> Oracle:
    """Click the widget that the instruction names."""

    def act(seen: Observation) -> Action:
        return _click(_exact(seen, _match(seen, pattern)[0], role))

    return act


def _fill(
    seen: Observation, entries: Sequence[tuple[int | None, str]], then: int | None
) -> Action:
    """Type what is not there yet, then click `then`."""
    for index, text in entries:
        if index is None:
            return _WAIT
        if (seen.widgets or ())[index].value != text:
            return _type(seen, index, text)
    return _click(then)


def _fields(seen: Observation) -> list[int]:
    widgets = enumerate(seen.widgets or ())
    return [index for index, widget in widgets if widget.role == "text_field"]


def _next_closed(seen: Observation, tabs: list[int]) -> Action:
    """Open the tab after the one that is open, around again."""
    widgets = seen.widgets or ()
    opened = [at for at, index in enumerate(tabs) if widgets[index].on]
    start = opened[-1] + 1 if opened else 0
    return _click(tabs[start % len(tabs)]) if tabs else _WAIT


def _of_role(seen: Observation, role: str) -> list[int]:
    widgets = enumerate(seen.widgets or ())
    return [index for index, widget in widgets if widget.role == role]


# --- pages ---


def _dialog(seen: Observation) -> Action:
    label = _match(seen, r'"(\w+)"')[0]
    return _click(_find(seen, "Close" if label == "x" else label, "button"))


def _widget_kind(seen: Observation) -> Action:
    kind = _match(seen, r'"(\w+)"')[0]
    if kind == "textarea":
        return _click(_find(seen, "textarea", "text_field"))
    if kind == "text":
        places = [index for index in _fields(seen)
                  if (seen.widgets or ())[index].label != "textarea"]  # fmt: skip
        return _click(_first(*places))
    return _click(_find(seen, role={"checkbox": "check_box"}.get(kind, kind)))


def _color(seen: Observation) -> Action:
    return _click(_find(seen, _match(seen, r"the (\w+) colored")[0], "icon"))


def _shape(seen: Observation) -> Action:
    wanted = [w for w in _match(seen, r"on an? (.*)")[0].split() if w != "item"]
    for index, widget in enumerate(seen.widgets or ()):
        if set(wanted) <= set(widget.label.split()):
            return _click(index)
    return _WAIT


def _figure(seen: Observation) -> Action:
    icon = _find(seen, role="icon")
    words = "" if icon is None else (seen.widgets or ())[icon].label.split()
    for word in ("letter", "digit", "circle", "rectangle", "triangle"):
        if word in words:
            answer = "number" if word == "digit" else word
            return _click(_find(seen, answer, "button"))
    return _WAIT


def _sequence(seen: Observation) -> Action:
    done = _find(seen, "ONE", focused=True) is not None
    return _click(_find(seen, "TWO" if done else "ONE"))


def _collapsible(seen: Observation) -> Action:
    closed = _find(seen, role="tab", on=False)
    return _click(_first(closed, _find(seen, "Submit")))


def _tabbed_link(seen: Observation) -> Action:
    link = _exact(seen, _match(seen, r'link "(.*)"')[0], "link")
    if link is not None:
        return _click(link)
    return _next_closed(seen, _of_role(seen, "tab"))


def _tree(seen: Observation) -> Action:
    target = _find(seen, _match(seen, r'named "(.*)"')[0], "list_item")
    if target is not None:
        return _click(target)
    for index, widget in enumerate(seen.widgets or ()):
        if widget.value == "folder" and not widget.on:
            return _click(index)
    return _WAIT


def _phone_book(seen: Observation) -> Action:
    name, field = _match(
        seen, r"Find (.*) in the contact book and click on their (\w+)"
    )
    if _find(seen, name, "text") is None:
        return _click(_find(seen, ">", "link"))
    return _click(_of_role(seen, "link")[("phone", "email", "address").index(field)])


def _icon_menu(seen: Observation) -> Action:
    label, icon = _match(seen, r'(?:labeled "(.*)"|with the (.*) icon)\.')
    if _find(seen, role="menu_item") is None:
        return _click(_find(seen, "Menu", "button"))
    for index, widget in enumerate(seen.widgets or ()):
        if widget.role == "menu_item" and (
            widget.label == label if label else widget.value == icon
        ):
            return _click(index)
    return _click(_find(seen, "Playback", "menu_item"))


def _search_engine(seen: Observation) -> Action:
    text, place = _match(seen, r'enter "(.*)" and .* the (\d)\w+ search')
    field = _first(*_fields(seen))
    results = [i for i in _of_role(seen, "link") if not re.fullmatch(
        r"First|Last|[<>]|\d", (seen.widgets or ())[i].label)]  # fmt: skip
    if not results or field is None or (seen.widgets or ())[field].value != text:
        return _fill(seen, [(field, text)], _find(seen, "Search", "button"))
    page = _find(seen, str((int(place) + 2) // 3), "link")
    if page is not None and not (seen.widgets or ())[page].on:
        return _click(page)
    return _click(results[(int(place) - 1) % 3])


def _check(seen: Observation, wanted: set[str]) -> Action:
    """Make exactly the widgets labelled so be on, then submit."""
    for index, widget in enumerate(seen.widgets or ()):
        if widget.role in ("check_box", "radio", "option"):
            if widget.on != (widget.label in wanted) and (
                widget.role == "check_box" or widget.label in wanted
            ):
                return _click(index)
    return _click(_find(seen, "Submit", "button"))


def _checks(seen: Observation) -> Action:
    names = _match(
        seen, r"Select (.*?)(?: from the (?:scroll )?list)? and click Submit"
    )
    return _check(seen, set(names[0].split(", ")))


def _scroll_list(seen: Observation) -> Action:
    wanted = set(_match(seen, r"Select (.*) from the scroll list")[0].split(", "))
    for index, widget in enumerate(seen.widgets or ()):
        if widget.role == "option" and widget.on != (widget.label in wanted):
            return _click(index)
    return _click(_find(seen, "Submit", "button"))


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
    named = _match(seen, r"similar to (.*) and click")[0].split(", ")
    wanted = {word for group in _SYNONYMS if group & set(named) for word in group}
    return _check(seen, wanted)


def _shades(seen: Observation) -> Action:
    color = _match(seen, r"shades of (\w+)")[0]
    for index in _of_role(seen, "icon"):
        widget = (seen.widgets or ())[index]
        if widget.on != (widget.label == color):
            return _click(index)
    return _click(_find(seen, "Submit", "button"))


def _parity(seen: Observation) -> Action:
    widgets = seen.widgets or ()
    for index, widget in enumerate(widgets):
        if widget.role == "text":
            answer = index - 1 if int(widget.label) % 2 else index + 1
            if 0 <= answer < len(widgets) and not widgets[answer].on:
                return _click(answer)
    return _click(_find(seen, "Submit", "button"))


def _enter_text(seen: Observation) -> Action:
    text = _match(seen, r'Enter "(.*)" into')[0]
    return _fill(
        seen, [(_first(*_fields(seen)), text)], _find(seen, "Submit", "button")
    )


def _enter_password(seen: Observation) -> Action:
    text = _match(seen, r'password "(.*)" into')[0]
    entries = [(index, text) for index in _fields(seen)]
    return _fill(seen, entries, _find(seen, "Submit", "button"))


def _enter_date(seen: Observation) -> Action:
    text = _match(seen, r"Enter (\S+) as the date")[0]
    field = _first(*_fields(seen))
    if field is not None and not (seen.widgets or ())[field].value:
        return _type(seen, field, text)
    return _click(_find(seen, "Submit", "button"))


def _login(seen: Observation) -> Action:
    user, password = _match(seen, r'username "(.*)" and the password "(.*)" into')
    popup = _find(seen, "Cancel", "button")
    if popup is not None:
        return _click(popup)
    entries = [(_find(seen, "Username", "text_field"), user),
               (_find(seen, "Password", "text_field"), password)]  # fmt: skip
    return _fill(
        seen,
        entries,
        _first(_find(seen, "Login", "button"), _find(seen, "OK", "button")),
    )


def _form_two(seen: Observation) -> Action:
    radio, number, field = _match(
        seen, r'Check the (\w+) radio .* number "(.*)" into the (\w+) textbox'
    )
    chosen = _find(seen, radio, "radio")
    if chosen is not None and not (seen.widgets or ())[chosen].on:
        return _click(chosen)
    entries = [(_find(seen, field, "text_field"), number)]
    return _fill(seen, entries, _find(seen, "Submit", "button"))


def _form_three(seen: Observation) -> Action:
    height, answer = _match(seen, r'Choose (.*) from the dropdown, .* labeled "(.*)"')
    item = _find(seen, height, "list_item")
    if item is not None:
        return _click(item)
    if _find(seen, role="list_item") is not None:
        return Action(kind=ActionKind.SCROLL_DOWN)
    if _find(seen, height) is not None:
        return _click(_find(seen, answer, "button"))
    return _click(0)


def _movies(seen: Observation) -> Action:
    genre, name, year = _match(
        seen, r"for (.*) movies directed by (.*) from year (\d+)"
    )
    places = {}
    for index in _fields(seen):
        label = (seen.widgets or ())[index].label
        text = genre if "Genre" in label else name if "Director" in label else year
        places[text] = index
    button = [i for label in ("Submit", "Search", "Go!")
              if (i := _find(seen, label, "button")) is not None]  # fmt: skip
    return _fill(
        seen, [(places.get(t), t) for t in (genre, name, year)], _first(*button)
    )


def _email(seen: Observation) -> Action:
    name = _match(seen, r"the email by (.*?) and ")[0]
    for label in ("send reply", "send forward"):
        if _find(seen, label) is not None:
            return _send(seen, label)
    if _find(seen, "close email") is None:
        return _click(_find(seen, name, "button"))
    for word, label in (("trash", "trash"), ("star", "star"), ("reply to", "Reply"),
                        ("forward", "Forward")):  # fmt: skip
        if word in seen.instruction:
            return _click(_find(seen, label))
    return _WAIT


def _send(seen: Observation, label: str) -> Action:
    fields = _fields(seen)
    if label == "send reply":
        text = _match(seen, r'with the text "(.*)"')[0]
    else:
        text = _match(seen, r"forward that email to (.*)\.")[0]
    return _fill(seen, [(_first(*fields), text)], _find(seen, label))


def _click_first(role: str) -> Oracle:
    def act(seen: Observation) -> Action:
        return _click(_find(seen, role=role))

    return act


ORACLES: dict[str, Oracle] = {
    "click-test": _click_first("button"),
    "click-test-2": _labelled(r"button (\w+)"),
    "click-button": _labelled(r'"(.*)"', "button"),
    "unicode-test": _labelled(r'"(.*)"', "button"),
    "click-dialog": _dialog,
    "click-dialog-2": _dialog,
    "click-tab": _labelled(r"(Tab #\d)", "tab"),
    "click-link": _labelled(r'link "(.*)"', "link"),
    "click-widget": _widget_kind,
    "click-color": _color,
    "click-shape": _shape,
    "identify-shape": _figure,
    "focus-text": _click_first("text_field"),
    "focus-text-2": _labelled(r"the (\w+) input", "text_field"),
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
