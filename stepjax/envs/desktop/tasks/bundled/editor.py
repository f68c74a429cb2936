"""Tasks in the text editor."""

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
_LINE_LEFT, _LINE_TOP, _LINE_HEIGHT = 338, 206, 18
_NUM_LINES = 6


def _opened(name: str, lines: list[str]) -> tuple[str, list[dict]]:
    """Path of a text file, and the setup steps that open it in the editor."""
    path = f"{HOME}/Desktop/{name}.txt"
    text = "".join(f"{line}\n" for line in lines)
    return path, [put(path, text), launch("mousepad", path), window("Mousepad")]


def _holds(path: str, lines: list[str]) -> dict:
    return check("match_lines", {"type": "vm_file", "path": path}, lines=lines)


def _line(number: int) -> tuple[int, int]:
    """Where the line of that number, from 1, begins."""
    return _LINE_LEFT, _LINE_TOP + _LINE_HEIGHT * (number - 1)


def _write(rng: np.random.Generator) -> Draft:
    name, first, second = draw_words(rng, 3)
    text = f"{first} {second}"
    path, config = _opened(name, [])
    return Draft(
        instruction=f'Write "{text}" into the document, then save it with ctrl+s.',
        config=config,
        evaluator=_holds(path, [text]),
        oracle=(type_text(text), _SAVE, DONE),
        wrong=(type_text(text), DONE),
    )


def _replace_all(rng: np.random.Generator) -> Draft:
    name, word, *old = draw_words(rng, 2 + _NUM_LINES)
    path, config = _opened(name, old)
    return Draft(
        instruction=f'Replace the whole text by "{word}" and save the document.',
        config=config,
        evaluator=_holds(path, [word]),
        oracle=(keys("ctrl a"), type_text(word), _SAVE, DONE),
        wrong=(type_text(word), _SAVE, DONE),
    )


def _replace_word(rng: np.random.Generator) -> Draft:
    name, word, *lines = draw_words(rng, 2 + _NUM_LINES)
    path, config = _opened(name, lines)
    number = 1 + int(rng.integers(_NUM_LINES))
    other = 1 + number % _NUM_LINES
    wanted = [*lines[: number - 1], word, *lines[number:]]
    rest = (type_text(word), _SAVE, DONE)
    return Draft(
        instruction=f'Replace the word on line {number} by "{word}" and save.',
        config=config,
        evaluator=_holds(path, wanted),
        oracle=(double(*_line(number)), *rest),
        wrong=(double(*_line(other)), *rest),
    )


def _append(rng: np.random.Generator) -> Draft:
    name, word, *lines = draw_words(rng, 2 + _NUM_LINES)
    path, config = _opened(name, lines)
    rest = (type_text(word), _SAVE, DONE)
    return Draft(
        instruction=f'Add "{word}" as a last line of the document and save it.',
        config=config,
        evaluator=_holds(path, [*lines, word]),
        oracle=(keys("ctrl end"), *rest),
        wrong=rest,
    )


def _delete_line(rng: np.random.Generator) -> Draft:
    name, *lines = draw_words(rng, 1 + _NUM_LINES)
    path, config = _opened(name, lines)
    number = 1 + int(rng.integers(_NUM_LINES))
    wanted = [line for line in lines if line != lines[number - 1]]
    cut = (keys("home"), keys("shift down"), keys("delete"), _SAVE, DONE)
    return Draft(
        instruction=f"Delete line {number} of the document and save it.",
        config=config,
        evaluator=_holds(path, wanted),
        oracle=(at(*_line(number)), *cut),
        wrong=(at(*_line(1 + number % _NUM_LINES)), *cut),
    )


TASKS = {
    "editor-write": _write,
    "editor-replace-all": _replace_all,
    "editor-replace-word": _replace_word,
    "editor-append": _append,
    "editor-delete-line": _delete_line,
}
"""Makers of variations by task name."""
