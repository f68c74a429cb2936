"""Tasks in the browser, on pages that lie in the home folder."""

from collections.abc import Sequence

import numpy as np

from stepjax.envs.actions import Action, ActionKind
from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    ENTER,
    HOME,
    Draft,
    ScriptStep,
    at,
    check,
    draw_words,
    launch,
    maximized,
    on,
    put,
    type_text,
)

__all__ = ["TASKS"]

_PAGES = f"{HOME}/pages"
_COLORS = {
    "red": "#d04040", "green": "#40a050", "blue": "#4060d0", "yellow": "#e0c040",
    "purple": "#9040b0", "gray": "#909090",
}  # fmt: skip
_STYLE = (
    "body{font:20px sans-serif;margin:30px}"
    "a.box{display:inline-block;width:300px;height:160px;margin:20px}"
    "input,button{font-size:24px;padding:8px;margin:8px}"
)


def _page(title: str, body: str) -> str:
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><body>{body}"
    )


def _opened(pages: dict[str, str]) -> list[dict]:
    """Setup steps: pages by name, the one called "start" in the browser."""
    steps = [put(f"{_PAGES}/{name}.html", page) for name, page in pages.items()]
    address = f"file://{_PAGES}/start.html"
    return [*steps, launch("google-chrome", address), *maximized("Start page")]


def _shows(title: str) -> dict:
    return check("match_windows", {"type": "vm_windows"}, include=f"{title} - ")


def _color(rng: np.random.Generator) -> Draft:
    colors = draw_words(rng, len(_COLORS), tuple(_COLORS))
    index = int(rng.integers(len(colors)))
    links = "".join(
        f'<a class=box href={color}.html style="background:{_COLORS[color]}"></a>'
        for color in colors
    )
    pages = {color: _page(f"The {color} page", color) for color in colors}

    def box(rank: int) -> ScriptStep:
        # Inline boxes stand a space apart only if there is one between them.
        row, column = divmod(rank, 3)
        return at(200 + 340 * column, 220 + 205 * row)

    return Draft(
        instruction=f"Click on the {colors[index]} box.",
        config=_opened(pages | {"start": _page("Start page", links)}),
        evaluator=_shows(f"The {colors[index]} page"),
        oracle=(box(index), DONE),
        wrong=(box((index + 1) % len(colors)), DONE),
    )


def _form_page(labels: Sequence[str]) -> str:
    fields = "".join(f"<p>{one} <input aria-label={one} id={one}>" for one in labels)
    values = "+' '+".join(f"{one}.value" for one in labels)
    script = f"document.title='Sent '+{values};return false"
    form = f'<form onsubmit="{script}">{fields}<p><button>Send</button></form>'
    return _page("Start page", form)


def _form(rng: np.random.Generator) -> Draft:
    name, town, other = draw_words(rng, 3)
    first = on("text_field", "Name", (300, 160))
    second = on("text_field", "Town", (300, 230))

    def script(text: str) -> tuple:
        return first, type_text(name), second, type_text(text), ENTER, DONE

    return Draft(
        instruction=f'Send the form with the name "{name}" and the town "{town}".',
        config=_opened({"start": _form_page(("Name", "Town"))}),
        evaluator=_shows(f"Sent {name} {town}"),
        oracle=script(town),
        wrong=script(other),
    )


def _scroll(rng: np.random.Generator) -> Draft:
    words = draw_words(rng, 2)
    lines = "".join(f"<p>Line {number}" for number in range(60))
    buttons = "".join(
        f"<button onclick=\"document.title='Chosen: {word}'\">{word}</button>"
        for word in words
    )
    scroll = Action(kind=ActionKind.SCROLL_DOWN, x=0.5, y=0.6, amount=50)
    target = int(rng.integers(2))

    def script(index: int) -> tuple:
        button = on("button", words[index], (80 + 120 * index, 740))
        return scroll, button, DONE

    return Draft(
        instruction=f'Press the button "{words[target]}" at the end of the page.',
        config=_opened({"start": _page("Start page", lines + f"<p>{buttons}")}),
        evaluator=_shows(f"Chosen: {words[target]}"),
        oracle=script(target),
        wrong=script(1 - target),
    )


TASKS = {"browser-color": _color, "browser-form": _form, "browser-scroll": _scroll}
"""Makers of variations by task name."""
