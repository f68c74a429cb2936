"""Tasks with slides."""

import io
from collections.abc import Sequence

import numpy as np

from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    HOME,
    Draft,
    at,
    check,
    double,
    draw_words,
    keys,
    launch,
    put,
    type_text,
    window,
)

__all__ = ["TASKS"]

_SAVE = keys("ctrl s")
_TITLE_ONLY = 5  # a layout of the default template
_NUM_SLIDES = 3
_TITLE = (530, 255)


def _presentation(titles: Sequence[str]) -> bytes:
    import pptx

    presentation = pptx.Presentation()
    for title in titles:
        layout = presentation.slide_layouts[_TITLE_ONLY]
        shape = presentation.slides.add_slide(layout).shapes.title
        if shape is not None:
            shape.text_frame.text = title
    file = io.BytesIO()
    presentation.save(file)
    return file.getvalue()


def _opened(rng: np.random.Generator) -> tuple[str, list[dict], list[str]]:
    """Path of a presentation, steps that open it, and the titles of its slides."""
    name, *titles = draw_words(rng, 1 + _NUM_SLIDES)
    path = f"{HOME}/Desktop/{name}.pptx"
    steps = [
        put(path, _presentation(titles)),
        launch("soffice", "--norestore", "--nologo", path),
        window(f"{name}.pptx"),
    ]
    return path, steps, titles


def _holds(path: str, titles: Sequence[str]) -> dict:
    result = {"type": "vm_file", "path": path}
    return check("match_slides", result, slides=[[title] for title in titles])


def _small(number: int) -> tuple[int, int]:
    """Middle of the small picture of the slide of that number, from 1."""
    return 98, 222 + 117 * (number - 1)


def _delete(rng: np.random.Generator) -> Draft:
    path, steps, titles = _opened(rng)
    number = 1 + int(rng.integers(_NUM_SLIDES))
    wanted = [title for title in titles if title != titles[number - 1]]
    rest = (keys("delete"), _SAVE, DONE)
    return Draft(
        instruction=f"Delete slide {number} and save the slides.",
        config=steps,
        evaluator=_holds(path, wanted),
        oracle=(at(*_small(number)), *rest),
        wrong=(at(*_small(1 + number % _NUM_SLIDES)), *rest),
    )


def _title(rng: np.random.Generator) -> Draft:
    path, steps, titles = _opened(rng)
    # One word: the first of several would be given a capital letter.
    word = next(word for word in draw_words(rng, 4) if word not in titles)
    change = (double(*_TITLE), keys("ctrl a"), type_text(word), keys("escape"))
    return Draft(
        instruction=f'Change the title of the first slide to "{word}" and save.',
        config=steps,
        evaluator=_holds(path, [word, *titles[1:]]),
        oracle=(*change, _SAVE, DONE),
        wrong=(*change, DONE),
    )


TASKS = {"impress-delete": _delete, "impress-title": _title}
"""Makers of variations by task name."""
