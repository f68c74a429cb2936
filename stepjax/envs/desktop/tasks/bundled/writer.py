"""Tasks in the word processor."""

import io
from collections.abc import Sequence

import numpy as np

from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    HOME,
    Draft,
    at,
    check,
    draw_words,
    keys,
    launch,
    put,
    type_text,
    window,
)

__all__ = ["TASKS"]

_SAVE = keys("ctrl s")
_LINE_TOP, _LINE_HEIGHT = 273, 34


def _document(paragraphs: Sequence[str]) -> bytes:
    import docx

    document = docx.Document()
    for text in paragraphs:
        document.add_paragraph(text)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def _opened(rng: np.random.Generator) -> tuple[str, list[dict], list[str]]:
    """Path of a document of short paragraphs, steps that open it, the paragraphs."""
    name, *words = draw_words(rng, 9)
    texts = [" ".join(words[2 * i : 2 * i + 2]) for i in range(4)]
    path = f"{HOME}/Desktop/{name}.docx"
    steps = [
        put(path, _document(texts)),
        launch("soffice", "--norestore", "--nologo", path),
        window(f"{name}.docx"),
    ]
    return path, steps, texts


def _holds(path: str, paragraphs: Sequence[dict]) -> dict:
    result = {"type": "vm_file", "path": path}
    return check("match_paragraphs", result, paragraphs=list(paragraphs))


def _paragraph(number: int) -> tuple[int, int]:
    """Where the paragraph of that number, from 1, begins on the screen."""
    return 330, _LINE_TOP + _LINE_HEIGHT * (number - 1)


def _bold(rng: np.random.Generator) -> Draft:
    path, steps, texts = _opened(rng)
    return Draft(
        instruction="Make the whole text bold and save the document.",
        config=steps,
        evaluator=_holds(path, [{"text": text, "bold": True} for text in texts]),
        oracle=(keys("ctrl a"), keys("ctrl b"), _SAVE, DONE),
        wrong=(keys("ctrl a"), keys("ctrl i"), _SAVE, DONE),
    )


def _center(rng: np.random.Generator) -> Draft:
    path, steps, texts = _opened(rng)
    number = 1 + int(rng.integers(len(texts)))
    wanted = [
        {"text": text, "alignment": "center" if index == number else "left"}
        for index, text in enumerate(texts, 1)
    ]
    rest = (keys("ctrl e"), _SAVE, DONE)
    return Draft(
        instruction=f"Center paragraph {number} with ctrl+e and save the document.",
        config=steps,
        evaluator=_holds(path, wanted),
        oracle=(at(*_paragraph(number)), *rest),
        wrong=(at(*_paragraph(1 + number % len(texts))), *rest),
    )


def _append(rng: np.random.Generator) -> Draft:
    path, steps, texts = _opened(rng)
    (word,) = draw_words(rng, 1)
    wanted = [{"text": text} for text in [*texts[:-1], texts[-1] + word]]
    rest = (type_text(word), _SAVE, DONE)
    return Draft(
        instruction=f'Go to the end of the text, write "{word}" and save.',
        config=steps,
        evaluator=_holds(path, wanted),
        oracle=(keys("ctrl end"), *rest),
        wrong=rest,
    )


TASKS = {"writer-bold": _bold, "writer-center": _center, "writer-append": _append}
"""Makers of variations by task name."""
