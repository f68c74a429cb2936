"""Tasks in the spreadsheet."""

import io
from collections.abc import Sequence

import numpy as np

from stepjax.envs.desktop.tasks.bundled.parts import (
    DONE,
    ENTER,
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
_COLUMNS = "ABCD"
_ROWS = 6


def _workbook(rows: Sequence[Sequence[object]]) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in rows:
        sheet.append(list(row))
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def _opened(rng: np.random.Generator) -> tuple[str, list[dict], list[list]]:
    """Path of a workbook of words and numbers, steps that open it, and its rows."""
    name, *words = draw_words(rng, _ROWS)
    rows: list[list] = [["Item", "Count"]]
    rows += [[word, int(rng.integers(2, 90))] for word in words]
    path = f"{HOME}/Desktop/{name}.xlsx"
    steps = [
        put(path, _workbook(rows)),
        launch("soffice", "--norestore", "--nologo", path),
        window(f"{name}.xlsx"),
    ]
    return path, steps, rows


def _cells(rows: list[list]) -> dict[str, object]:
    return {
        f"{_COLUMNS[column]}{1 + row}": value
        for row, values in enumerate(rows)
        for column, value in enumerate(values)
    }


def _cell(place: str) -> tuple[float, float]:
    """Middle of a cell of the sheet as it is first shown."""
    column, row = _COLUMNS.index(place[0]), int(place[1:])
    return 79 + 77 * column, 196 + 20 * (row - 1)


def _holds(path: str, cells: dict[str, object], **more: object) -> dict:
    result = {"type": "vm_file", "path": path}
    return check("match_cells", result, cells=cells, **more)


def _enter(rng: np.random.Generator) -> Draft:
    path, steps, rows = _opened(rng)
    places = [f"{column}{row}" for column in "CD" for row in range(2, _ROWS + 1)]
    place, other = draw_words(rng, 2, places)
    number = int(rng.integers(100, 1000))
    rest = (type_text(str(number)), ENTER, _SAVE, DONE)
    return Draft(
        instruction=f'Enter "{number}" into cell {place} and save the table.',
        config=steps,
        evaluator=_holds(
            path, _cells(rows) | {place: number, other: None}, only=f"A1:D{_ROWS}"
        ),
        oracle=(at(*_cell(place)), *rest),
        wrong=(at(*_cell(other)), *rest),
    )


def _sum(rng: np.random.Generator) -> Draft:
    path, steps, rows = _opened(rng)
    last = len(rows)
    formula = f"=SUM(B2:B{last})"
    total = sum(row[1] for row in rows[1:])
    place = f"B{last + 1}"
    short = type_text(f"=SUM(B2:B{last - 1})")
    rest = (ENTER, _SAVE, DONE)
    return Draft(
        instruction=f'Put the formula "{formula}" into cell {place} and save.',
        config=steps,
        evaluator=_holds(
            path, _cells(rows) | {place: total}, formulas={place: formula}
        ),
        oracle=(at(*_cell(place)), type_text(formula), *rest),
        wrong=(at(*_cell(place)), short, *rest),
    )


def _clear(rng: np.random.Generator) -> Draft:
    path, steps, rows = _opened(rng)
    row = int(rng.integers(2, _ROWS + 1))
    place, other = f"B{row}", f"A{row}"
    rest = (keys("delete"), _SAVE, DONE)
    return Draft(
        instruction=f"Clear cell {place} and save the table.",
        config=steps,
        evaluator=_holds(path, _cells(rows) | {place: None}),
        oracle=(at(*_cell(place)), *rest),
        wrong=(at(*_cell(other)), *rest),
    )


TASKS = {"calc-enter": _enter, "calc-sum": _sum, "calc-clear": _clear}
"""Makers of variations by task name."""
